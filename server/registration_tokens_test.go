package server_test

import (
	"net/http"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// newRegistrationToken creates a registration token.
func newRegistrationToken(t *testing.T, a *servertest.API, zone string, body client.NewRegistrationToken) client.CreatedRegistrationToken {
	t.Helper()
	resp, err := a.Admin.CreateRegistrationTokenWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

func TestCreateRegistrationToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system := a.Zone().ID, systemZone(a).ID
	at := func(when time.Time) *string { return new(when.UTC().Format(time.RFC3339)) }
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		body client.NewRegistrationToken
		want code.Code // "" is 201
	}{
		{"unlimited", a.ClientFor(zone, "write"), zone, client.NewRegistrationToken{Name: "x"}, ""},
		{"limited", a.Admin, zone, client.NewRegistrationToken{Name: "x", MaxUses: new(3), ExpiresAt: at(time.Now().Add(time.Hour))}, ""},
		{"no uses", a.Admin, zone, client.NewRegistrationToken{Name: "x", MaxUses: new(0)}, code.InvalidRegistrationTokenRequest},
		{"name of one space", a.Admin, zone, client.NewRegistrationToken{Name: " "}, code.InvalidRegistrationTokenRequest},
		{"expired", a.Admin, zone, client.NewRegistrationToken{Name: "x", ExpiresAt: at(time.Now().Add(-time.Second))}, code.InvalidRegistrationTokenRequest},
		{"a day that does not exist", a.Admin, zone, client.NewRegistrationToken{Name: "x", ExpiresAt: new("2099-02-30T00:00:00Z")}, code.InvalidRegistrationTokenRequest},
		{"read token", a.ClientFor(zone, "read"), zone, client.NewRegistrationToken{Name: "x"}, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(system, "write"), zone, client.NewRegistrationToken{Name: "x"}, code.AdminTokenZoneMismatch},
		{"unknown zone", a.Admin, "unknown", client.NewRegistrationToken{Name: "x"}, code.ZoneNotFound},
		{"reserved zone", a.ClientFor("", "write"), system, client.NewRegistrationToken{Name: "x"}, code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.CreateRegistrationTokenWithResponse(t.Context(), tt.zone, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want == "" && (resp.JSON201.Name != tt.body.Name || resp.JSON201.Uses != 0 || (resp.JSON201.MaxUses == nil) != (tt.body.MaxUses == nil) || (resp.JSON201.ExpiresAt == nil) != (tt.body.ExpiresAt == nil)) {
				t.Errorf("got %s", resp.Body)
			}
		})
	}
}

func TestRegistrationTokens(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := openZone(a), a.Zone().ID
	first := newRegistrationToken(t, a, zone, client.NewRegistrationToken{Name: "first", MaxUses: new(5)})
	second := newRegistrationToken(t, a, zone, client.NewRegistrationToken{Name: "second"})
	newRegistrationToken(t, a, other, client.NewRegistrationToken{Name: "other"})
	servertest.Expect(t, withToken(a, "POST", "/v1/zones/"+zone+"/register", first.Token, serviceClient), http.StatusCreated, "")
	list, err := a.ClientFor(zone, "write").ListRegistrationTokensWithResponse(t.Context(), zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, list, http.StatusOK, "")
	if all := *list.JSON200; len(all) != 2 || all[0].ID != second.ID || all[1].ID != first.ID || all[1].Uses != 1 || *all[1].MaxUses != 5 {
		t.Errorf("got %s", list.Body)
	}
	remove := func(as *rawclient.ClientWithResponses, zone, id string) *rawclient.DeleteRegistrationTokenResponse {
		resp, err := as.DeleteRegistrationTokenWithResponse(t.Context(), zone, id)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	servertest.Expect(t, remove(a.Admin, other, first.ID), 0, code.RegistrationTokenNotFound)
	servertest.Expect(t, remove(a.Admin, "unknown", first.ID), 0, code.ZoneNotFound)
	servertest.Expect(t, remove(a.ClientFor(zone, "read"), zone, first.ID), 0, code.AdminTokenReadOnly)
	servertest.Expect(t, remove(a.ClientFor("", "write"), systemZone(a).ID, first.ID), 0, code.SystemZoneReadOnly)
	servertest.Expect(t, remove(a.ClientFor(zone, "write"), zone, first.ID), http.StatusNoContent, "")
	servertest.Expect(t, remove(a.Admin, zone, first.ID), 0, code.RegistrationTokenNotFound)
	servertest.Expect(t, withToken(a, "POST", "/v1/zones/"+zone+"/register", first.Token, serviceClient), 0, code.InvalidRegistrationToken)
	entries := storetest.Column[string](a.DB, "SELECT concat_ws(' ', operation, payload::jsonb -> 'changed_fields', payload::jsonb ->> 'change') FROM audit_entries WHERE entity_type = 'registration-tokens' AND entity_id = $1 AND status_code < 300 ORDER BY id", first.ID)
	if want := []string{`createRegistrationToken ["expires_at", "max_uses", "name"] created`, `deleteRegistrationToken [] deleted`}; len(entries) != 2 || entries[0] != want[0] || entries[1] != want[1] {
		t.Errorf("got %q", entries)
	}
}

// An administrator can let everyone register.
func TestUpdateZoneOpenRegistration(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := openZone(a)
	path := "/v1/zones/" + zone + "/register"
	for _, open := range []bool{true, false} {
		resp, err := a.ClientFor(zone, "write").UpdateZoneWithResponse(t.Context(), zone, nil, client.ZonePatch{OpenRegistration: &open})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		want := code.InvalidRegistrationToken
		if open {
			want = ""
		}
		if resp.JSON200.OpenRegistration != open {
			t.Errorf("got %s", resp.Body)
		}
		servertest.Expect(t, withToken(a, "POST", path, "", serviceClient), http.StatusCreated, want)
	}
}
