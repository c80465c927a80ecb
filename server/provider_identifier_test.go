package server_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCreateProviderGeneratesIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	globalClient := a.ClientFor("", "write")
	create := func(name string) client.Provider {
		t.Helper()
		resp, err := globalClient.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: &name, Kind: "none"})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusCreated, "")
		return *resp.JSON201
	}
	var second string
	for _, tt := range []struct{ name, want string }{
		{"Ünïted  Nations (EU)", "provider://n-ted-nations-eu"},
		{"ünïted NATIONS eu", "provider://n-ted-nations-eu-2"},
		{"n-ted-nations-eu", "provider://n-ted-nations-eu-3"},
		{"provider://Ledger 2", "provider://ledger-2"},
		{"provider://provider://x", "provider://provider-x"},
		{"Provider://y", "provider://provider-y"},
		{"日本", "provider://provider"},
		{"--", "provider://provider-2"},
		{"provider://", "provider://provider-3"},
		{"-a-", "provider://a"},
	} {
		got := create(tt.name)
		if got.Identifier != tt.want || got.Name != tt.name {
			t.Errorf("%q got %q and is called %q, want %q", tt.name, got.Identifier, got.Name, tt.want)
		}
		if tt.want == "provider://n-ted-nations-eu-2" {
			second = got.ID
		}
	}
	servertest.Expect(t, deleteProvider(t, a.Admin, zone, second), http.StatusNoContent, "")
	if got := create("Ünïted Nations EU").Identifier; got != "provider://n-ted-nations-eu-2" {
		t.Errorf("an identifier that is free again is not taken, but %q", got)
	}
}

// TestCreateProviderGeneratesValidIdentifierFromLongName: whatever is generated, its
// owner may say it too.
func TestCreateProviderGeneratesValidIdentifierFromLongName(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, name := range []string{strings.Repeat("x", 1000), strings.Repeat("x", 1000), strings.Repeat("x-", 500), strings.Repeat("x", 455) + strings.Repeat("-y", 20)} {
		created := newProvider(t, a, zone, client.NewProvider{Name: &name, Kind: "none"})
		servertest.Expect(t, updateProvider(t, a.Admin, zone, created.ID, client.ProviderPatch{Name: &created.Name, Identifier: &created.Identifier}), http.StatusOK, "")
	}
}

// TestCreateProviderNumberedIdentifierStaysOutsideReservedNamespace: caracal-sys is free to all,
// caracal-sys-2 is not.
func TestCreateProviderNumberedIdentifierStaysOutsideReservedNamespace(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	globalClient := a.ClientFor("", "write")
	create := func(as *rawclient.ClientWithResponses) *rawclient.CreateProviderResponse {
		t.Helper()
		resp, err := as.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("Caracal Sys"), Kind: "none"})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	servertest.Expect(t, create(globalClient), http.StatusCreated, "")
	servertest.Expect(t, create(globalClient), 0, code.ReservedNamespace)
	if created := create(a.Admin); created.JSON201 == nil || created.JSON201.Identifier != "provider://caracal-sys-2" {
		t.Errorf("Caracal itself got %s", created.Body)
	}
}

func TestCreateProviderConcurrentlyWithOneName(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const many = 20
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			resp, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("Same"), Kind: "none"})
			if err != nil || resp.JSON201 == nil || !provider.ValidIdentifier(resp.JSON201.Identifier) {
				t.Errorf("%v %s", err, resp.Body)
			}
		})
	}
	all.Wait()
	if n := storetest.Value[int](a.DB, "SELECT count(DISTINCT identifier) FROM providers WHERE zone_id = $1 AND name = 'Same'", zone); n != many {
		t.Errorf("%d providers have %d identifiers", many, n)
	}
}

func TestCreateProviderWhenNumberedIdentifiersAreTaken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	a.DB.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind)
		SELECT $1, 'p-' || n, 'Full', CASE n WHEN 1 THEN 'provider://full' ELSE 'provider://full-' || n END, 'none' FROM generate_series(1, 999) AS n`, zone)
	created := newProvider(t, a, zone, client.NewProvider{Name: new("Full"), Kind: "none"})
	if !strings.HasPrefix(created.Identifier, "provider://full-") || len(created.Identifier) != len("provider://full-")+32 || !provider.ValidIdentifier(created.Identifier) {
		t.Errorf("the identifier is %q", created.Identifier)
	}
}
