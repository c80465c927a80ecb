package server_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCreateProviderConcurrentlyCreatesOneDataKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM data_keys"); n != 0 {
		t.Fatalf("there are %d data keys before the first secret", n)
	}
	zoneClient := a.ClientFor(zone, "write")
	const many = 6
	ids := make([]string, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			resp, err := zoneClient.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)})
			if err != nil || resp.JSON201 == nil {
				t.Errorf("%v %s", err, resp.Body)
				return
			}
			ids[i] = resp.JSON201.ID
		})
	}
	all.Wait()
	for _, id := range ids {
		if opened := openedSecrets(t, a.DB, zone, id); opened != `{"api_key":"hush-key"}` {
			t.Errorf("sealed is %q", opened)
		}
	}
	keys := storetest.Value[int](a.DB, "SELECT count(*) FROM data_keys WHERE zone_id = $1", zone)
	entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'data-keys'", zone)
	if keys != 1 || entries != 1 {
		t.Errorf("%d data keys and %d entries about them", keys, entries)
	}
}

// TestCreateProviderWithoutSecretCreatesNoDataKey, and none for what can be refused
// without a look into the database.
func TestCreateProviderWithoutSecretCreatesNoDataKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	globalClient := a.ClientFor("", "write")
	for want, body := range map[code.Code]client.NewProvider{
		code.InvalidProvider:           {Kind: "api_key", ConfigJSON: rawConfig(keyConfig)},
		code.InvalidProviderConfig:     {Name: new("x"), Kind: "api_key", ConfigJSON: rawConfig(`{"api_key":"hush"}`)},
		code.InvalidProviderIdentifier: {Identifier: new("x"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)},
	} {
		resp, err := globalClient.CreateProviderWithResponse(t.Context(), zone, body)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, 0, want)
	}
	id := a.DB.Provider(zone)
	servertest.Expect(t, updateProvider(t, globalClient, zone, id, client.ProviderPatch{ConfigJSON: rawConfig(`{}`)}), http.StatusOK, "")
	servertest.Expect(t, updateProvider(t, globalClient, zone, id, client.ProviderPatch{ConfigJSON: rawConfig(`{"a":1}`)}), 0, code.InvalidProviderConfig)
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM data_keys"); n != 0 {
		t.Errorf("there are %d data keys", n)
	}
}

// TestCreateProviderWithUnusableDataKeyIsInternalError: the caller learns nothing of it (PR-6).
func TestCreateProviderWithUnusableDataKeyIsInternalError(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	created := newProvider(t, a, zone, client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)})
	a.DB.Exec("UPDATE data_keys SET wrapped = 'nonsense' WHERE zone_id = $1", zone)
	resp, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("x"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)})
	if err != nil {
		t.Fatal(err)
	}
	changed := updateProvider(t, a.Admin, zone, created.ID, client.ProviderPatch{ConfigJSON: rawConfig(keyConfig)})
	for _, resp := range []servertest.Response{resp, changed} {
		servertest.Expect(t, resp, 0, code.InternalError)
		if p := problemOf(t, resp); p.Message != nil || p.Details != nil || strings.Contains(p.ErrorDescription, "key") {
			t.Errorf("got %s", resp.GetBody())
		}
	}
	// What seals nothing needs no key.
	servertest.Expect(t, updateProvider(t, a.Admin, zone, created.ID, client.ProviderPatch{Name: new("x")}), http.StatusOK, "")
	servertest.Expect(t, updateProvider(t, a.Admin, zone, created.ID, client.ProviderPatch{ConfigJSON: rawConfig(`{"header_name":"X"}`)}), http.StatusOK, "")
	servertest.Expect(t, updateProvider(t, a.Admin, zone, created.ID, client.ProviderPatch{Kind: new(client.ProviderKind("none")), ConfigJSON: rawConfig(`{}`)}), http.StatusOK, "")
}
