package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestRevokeProviderGrant(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, archivedZone, system := newGrantZone(t, a), newGrantZone(t, a), a.DB.ArchivedZone(), grantZoneOf(t, a, systemZone(a).ID)
	z.grant(t)
	other.grant(t)
	for _, tt := range []struct {
		name   string
		as     *rawclient.ClientWithResponses
		zone   string
		change func(*client.ProviderGrantRevocation)
		want   code.Code
	}{
		{"user empty", a.Admin, z.zone, func(k *client.ProviderGrantRevocation) { k.UserID = "" }, code.InvalidProviderGrantRevoke},
		{"resource empty", a.Admin, z.zone, func(k *client.ProviderGrantRevocation) { k.ResourceID = "" }, code.InvalidProviderGrantRevoke},
		{"provider empty", a.Admin, z.zone, func(k *client.ProviderGrantRevocation) { k.ProviderID = "" }, code.InvalidProviderGrantRevoke},
		{"another user", a.Admin, z.zone, func(k *client.ProviderGrantRevocation) { k.UserID = "user-2" }, code.ProviderGrantNotFound},
		{"another resource", a.Admin, z.zone, func(k *client.ProviderGrantRevocation) { k.ResourceID = "unknown" }, code.ProviderGrantNotFound},
		{"another provider", a.Admin, z.zone, func(k *client.ProviderGrantRevocation) { k.ProviderID = "unknown" }, code.ProviderGrantNotFound},
		{"of another zone", a.Admin, z.zone, func(k *client.ProviderGrantRevocation) { *k = other.key() }, code.ProviderGrantNotFound},
		{"zone unknown", a.Admin, "unknown", nil, code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, nil, code.ZoneNotFound},
		{"token of another zone", a.ClientFor(other.zone, "write"), z.zone, nil, code.AdminTokenZoneMismatch},
		{"read token", a.ClientFor("", "read"), z.zone, nil, code.AdminTokenReadOnly},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system.zone, nil, code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := z.key()
			if tt.change != nil {
				tt.change(&body)
			}
			servertest.Expect(t, revokeProviderGrant(t, tt.as, tt.zone, body), 0, tt.want)
		})
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM provider_grants WHERE status = 'active' AND access_token IS NOT NULL"); n != 2 {
		t.Errorf("%d grants are active, want 2", n)
	}
}

func TestRevokeProviderGrantErasesTokens(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newGrantZone(t, a)
	token := a.ClientFor(z.zone, "write")
	first := z.grant(t, func(b *client.NewProviderGrant) {
		b.RefreshToken, b.ExpiresAt = new("hush-refresh"), new("2030-01-01T00:00Z")
	})
	resp := revokeProviderGrant(t, token, z.zone, z.key())
	servertest.Expect(t, resp, http.StatusOK, "")
	revoked := *resp.JSON200
	if revoked.ID != first.ID || revoked.Status != client.ProviderGrantStatusRevoked || len(revoked.StoredTokens) != 0 || !revoked.CreatedAt.Equal(first.CreatedAt) ||
		!revoked.UpdatedAt.After(first.UpdatedAt) || resp.HTTPResponse.Header.Get("ETag") != `"2"` {
		t.Errorf("got %+v with ETag %s", revoked, resp.HTTPResponse.Header.Get("ETag"))
	}
	left := storetest.Value[string](a.DB, "SELECT concat_ws(' ', status, access_token::text, refresh_token::text, data_key) FROM provider_grants WHERE zone_id = $1 AND id = $2", z.zone, first.ID)
	if left != "revoked" {
		t.Errorf("the row has %s", left)
	}
	if got := getProviderGrant(t, token, z.zone, first.ID); string(got.Body) != string(resp.Body) {
		t.Errorf("get returned %s, revoke %s", got.Body, resp.Body)
	}
	servertest.Expect(t, revokeProviderGrant(t, token, z.zone, z.key()), 0, code.ProviderGrantNotFound)
	// A revoked grant is not replaced: the next one is another.
	if second := z.grant(t); second.ID == first.ID {
		t.Errorf("the next grant is %+v", second)
	}
}

func TestGetProviderGrant(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newGrantZone(t, a), a.Zone().ID
	id := z.grant(t).ID
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code // "" is 200
	}{
		{"token of the zone", a.ClientFor(z.zone, "read"), z.zone, id, ""},
		{"unknown", a.Admin, z.zone, "unknown", code.ProviderGrantNotFound},
		{"of another zone", a.Admin, other, id, code.ProviderGrantNotFound},
		{"token of another zone", a.ClientFor(other, "read"), z.zone, id, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			servertest.Expect(t, getProviderGrant(t, tt.as, tt.zone, tt.id), http.StatusOK, tt.want)
		})
	}
}

func TestListProviderGrants(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newGrantZone(t, a), newGrantZone(t, a)
	first := z.grant(t)
	servertest.Expect(t, revokeProviderGrant(t, a.Admin, z.zone, z.key()), http.StatusOK, "")
	second := z.grant(t, func(b *client.NewProviderGrant) { b.RefreshToken = new("hush-refresh") })
	other.grant(t)
	resp, err := a.ClientFor(z.zone, "read").ListProviderGrantsWithResponse(t.Context(), z.zone, &rawclient.ListProviderGrantsParams{})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	got := *resp.JSON200
	if len(got) != 2 || got[0].ID != second.ID || got[1].ID != first.ID || got[1].Status != client.ProviderGrantStatusRevoked || len(got[0].StoredTokens) != 2 || len(got[1].StoredTokens) != 0 {
		t.Errorf("got %+v", got)
	}
	if ids, _ := idsAt(t, a, "/v1/zones/unknown/provider-grants", servertest.Bootstrap); len(ids) != 0 {
		t.Errorf("an unknown zone has %v", ids)
	}
}
