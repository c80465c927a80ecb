package server_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/controlkey"
	"caracal.run/management/store/storetest"
)

// newControlKey creates a Control key with scopes.
func newControlKey(t *testing.T, a *servertest.API, zone string, scopes ...client.ControlScope) client.CreatedControlKey {
	t.Helper()
	resp, err := a.Admin.CreateControlKeyWithResponse(t.Context(), zone, client.NewControlKey{Name: "key", AllowedScopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

func TestCreateControlKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system := a.Zone().ID, systemZone(a).ID
	future := time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC)
	past := time.Now().Add(-time.Second)
	scopes := []client.ControlScope{client.ControlScopeControlGrantRead, client.ControlScopeControlAppWrite}
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		body client.NewControlKey
		want code.Code
	}{
		{"with limits", a.ClientFor("", "write"), zone, client.NewControlKey{Name: "Onboarding", AllowedScopes: scopes, MaxTTLSeconds: new(int64(60)), ExpiresAt: &future}, ""},
		{"without limits", a.Admin, zone, client.NewControlKey{Name: "Onboarding", AllowedScopes: scopes}, ""},
		{"zone token", a.ClientFor(zone, "write"), zone, client.NewControlKey{Name: "x", AllowedScopes: scopes}, code.AdminTokenZoneMismatch},
		{"read-only token", a.ClientFor("", "read"), zone, client.NewControlKey{Name: "x", AllowedScopes: scopes}, code.AdminTokenReadOnly},
		{"unknown zone", a.Admin, "nowhere", client.NewControlKey{Name: "x", AllowedScopes: scopes}, code.ZoneNotFound},
		{"reserved zone", a.ClientFor("", "write"), system, client.NewControlKey{Name: "x", AllowedScopes: scopes}, code.SystemZoneReadOnly},
		{"reserved name", a.ClientFor("", "write"), zone, client.NewControlKey{Name: "caracal.sys/x", AllowedScopes: scopes}, code.ReservedNamespace},
		{"no scope", a.Admin, zone, client.NewControlKey{Name: "x", AllowedScopes: []client.ControlScope{}}, code.InvalidControlKey},
		{"unknown scope", a.Admin, zone, client.NewControlKey{Name: "x", AllowedScopes: []client.ControlScope{"control:zone:write"}}, code.InvalidControlKey},
		{"a scope twice", a.Admin, zone, client.NewControlKey{Name: "x", AllowedScopes: slices.Concat(scopes, scopes)}, code.InvalidControlKey},
		{"lifetime too long", a.Admin, zone, client.NewControlKey{Name: "x", AllowedScopes: scopes, MaxTTLSeconds: new(int64(901))}, code.InvalidControlKey},
		{"keys that are none", a.Admin, zone, client.NewControlKey{Name: "x", AllowedScopes: scopes, Jwks: json.RawMessage(`{"keys":[]}`)}, code.InvalidControlKey},
		{"too many bytes of keys", a.Admin, zone, client.NewControlKey{Name: "x", AllowedScopes: scopes, Jwks: json.RawMessage(`{"keys":[],"x":"` + strings.Repeat("x", 17000) + `"}`)}, code.InvalidControlKey},
		{"in the past", a.Admin, zone, client.NewControlKey{Name: "x", AllowedScopes: scopes, ExpiresAt: &past}, code.InvalidControlKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.CreateControlKeyWithResponse(t.Context(), tt.zone, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			created := *resp.JSON201
			want := client.ControlKey{
				ID: created.ID, ZoneID: zone, Name: "Onboarding", Resource: controlAudience,
				AllowedScopes: []client.ControlScope{client.ControlScopeControlAppWrite, client.ControlScopeControlGrantRead},
				MaxTTLSeconds: 900, ExpiresAt: tt.body.ExpiresAt, CreatedAt: created.CreatedAt,
				Restrictions: []client.ControlKeyRestriction{"zone-bound", "application-only", "no-subject-token", "no-delegation"},
			}
			if tt.body.MaxTTLSeconds != nil {
				want.MaxTTLSeconds = *tt.body.MaxTTLSeconds
			}
			got, err := a.Admin.GetControlKeyWithResponse(t.Context(), zone, created.ID)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, got, http.StatusOK, "")
			if !reflect.DeepEqual(*got.JSON200, want) || got.HTTPResponse.Header.Get("ETag") != resp.HTTPResponse.Header.Get("ETag") {
				t.Errorf("got %+v, want %+v", *got.JSON200, want)
			}
			app := readApplication(t, a.Admin, zone, created.ID)
			if _, isKey, err := controlkey.Parse(*app.Traits); !isKey || err != nil || app.RegistrationMethod != "managed" {
				t.Errorf("its application is %+v: %v", app, err)
			}
		})
	}
}

// What controlkey accepts is what the spec lists.
func TestControlScopesAreThoseOfTheSpec(t *testing.T) {
	t.Parallel()
	operations := servertest.Operations()
	at := slices.IndexFunc(operations, func(op servertest.Operation) bool { return op.OperationID == "createControlKey" })
	var all []string
	for _, value := range bodyFields(operations[at])["allowed_scopes"].Value.Items.Value.Enum {
		all = append(all, value.(string))
	}
	if !slices.Equal(all, controlkey.Scopes()) {
		t.Errorf("got %v", all)
	}
}

func TestCreateControlKeyEnsuresControlResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	control := func() client.Resource {
		t.Helper()
		resp, err := a.Admin.ListResourcesWithResponse(t.Context(), zone, &rawclient.ListResourcesParams{Identifier: new(controlAudience)})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		if len(*resp.JSON200) != 1 {
			t.Fatalf("got %s", resp.Body)
		}
		return (*resp.JSON200)[0]
	}
	entries := func() int {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1 AND operation = 'createControlKey' AND entity_type IN ('resources', 'providers')", zone)
	}
	newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	if r := control(); r.Name != "Control API" || !slices.Equal(r.Scopes, controlkey.Scopes()) || r.UpstreamURL != nil || r.CredentialProviderID != "provider-none-"+zone {
		t.Errorf("got %+v", r)
	}
	if entries() != 2 {
		t.Errorf("%d entries of the resource and its provider", entries())
	}
	newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	if entries() != 2 {
		t.Error("the resource was changed, although it is as it should be")
	}
	resp, err := a.Admin.UpdateResourceWithResponse(t.Context(), zone, control().ID, nil, client.ResourcePatch{Scopes: &[]string{"control:app:read"}})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	if r := control(); !slices.Equal(r.Scopes, controlkey.Scopes()) || entries() != 3 {
		t.Errorf("got %+v and %d entries", r, entries())
	}
}

func TestCreateControlKeyResourceQuota(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_MAX_RESOURCES_PER_ZONE=1")
	z := newResourceZone(a)
	servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body()), http.StatusCreated, "")
	resp, err := a.Admin.CreateControlKeyWithResponse(t.Context(), z.zone, client.NewControlKey{Name: "key", AllowedScopes: []client.ControlScope{client.ControlScopeControlAppRead}})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.ResourceQuotaExceeded)
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM applications WHERE control_key"); n != 0 {
		t.Errorf("%d keys, although it failed", n)
	}
}

func TestListControlKeys(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	newApplication(t, a, zone, "control:agent")
	first := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	second := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	list := func(as *rawclient.ClientWithResponses, zone string, want code.Code) []client.ControlKey {
		t.Helper()
		resp, err := as.ListControlKeysWithResponse(t.Context(), zone, nil)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, want)
		if want != "" {
			return nil
		}
		return *resp.JSON200
	}
	if keys := list(a.ClientFor("", "read"), zone, ""); len(keys) != 2 || keys[0].ID != second.ID || keys[1].ID != first.ID {
		t.Errorf("got %+v", keys)
	}
	list(a.ClientFor(zone, "read"), zone, code.AdminTokenZoneMismatch)
	if keys := list(a.Admin, "unknown", ""); len(keys) != 0 {
		t.Errorf("got %+v", keys)
	}
}

func TestDeleteControlKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, otherZone := a.Zone().ID, a.Zone().ID
	app, privileged := newApplication(t, a, zone).ID, newApplication(t, a, zone, "control:agent").ID
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	a.DB.Exec("UPDATE resources SET gateway_application_id = $2 WHERE id = $1", a.DB.Resource(zone), key.ID)
	system := systemZone(a).ID
	ofSystemZone := newControlKey(t, a, system, client.ControlScopeControlAppRead).ID
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		ifMatch  *string
		want     code.Code
	}{
		{"zone token", a.ClientFor(zone, "write"), zone, key.ID, nil, code.AdminTokenZoneMismatch},
		{"another zone", a.Admin, otherZone, key.ID, nil, code.ControlKeyNotFound},
		{"unknown zone", a.Admin, "nowhere", key.ID, nil, code.ZoneNotFound},
		{"unknown", a.Admin, zone, "unknown", nil, code.ControlKeyNotFound},
		{"another application", a.Admin, zone, app, nil, code.ControlKeyNotFound},
		{"a privileged application", a.Admin, zone, privileged, nil, code.ControlKeyNotFound},
		{"another application, with a version", a.Admin, zone, app, new(`"77"`), code.ControlKeyNotFound},
		{"another version", a.Admin, zone, key.ID, new(`"77"`), code.VersionConflict},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, ofSystemZone, nil, code.SystemZoneReadOnly},
		{"the key", a.ClientFor("", "write"), zone, key.ID, nil, ""},
		{"the key again", a.Admin, zone, key.ID, nil, code.ControlKeyNotFound},
	} {
		resp, err := tt.as.DeleteControlKeyWithResponse(t.Context(), tt.zone, tt.id, &rawclient.DeleteControlKeyParams{IfMatch: tt.ifMatch})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusNoContent, tt.want)
	}
	got, err := a.Admin.GetControlKeyWithResponse(t.Context(), zone, key.ID)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, got, 0, code.ControlKeyNotFound)
	got, err = a.Admin.GetControlKeyWithResponse(t.Context(), zone, app)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, got, 0, code.ControlKeyNotFound)
}

// A token of the zone can neither change a Control key nor get its secret.
func TestUpdateApplicationCannotTakeOverControlKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	as := a.ClientFor(zone, "write")
	for name, patch := range map[string]client.ApplicationPatch{
		"secret": {ClientSecret: new("a-secret-of-my-own")}, "more scopes": {Traits: &[]string{"control:invoke", "control:scope:control:app:write"}}, "name": {Name: new("x")},
	} {
		resp, err := as.UpdateApplicationWithResponse(t.Context(), zone, key.ID, nil, patch)
		if err != nil {
			t.Fatal(err)
		}
		if servertest.Expect(t, resp, 0, code.TraitForbidden); t.Failed() {
			t.Fatal(name)
		}
	}
}

// A registered application cannot become a Control key.
func TestUpdateApplicationRegisteredIsNoControlKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := openZone(a)
	resp, err := a.Admin.UpdateApplicationWithResponse(t.Context(), zone, register(t, a.Admin, zone).JSON201.ID, nil, client.ApplicationPatch{Traits: &[]string{"control:invoke"}})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.TraitInvalid)
}
