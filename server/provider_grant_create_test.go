package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCreateProviderGrant(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newGrantZone(t, a)
	other, archivedZone, system := newGrantZone(t, a), a.DB.ArchivedZone(), grantZoneOf(t, a, systemZone(a).ID)
	mandate := a.DB.Provider(z.zone)
	ofMandate := z.resourceOf(t, mandate)
	second := grantZoneOf(t, a, z.zone)
	archived := grantZoneOf(t, a, z.zone)
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, archived.resource), http.StatusNoContent, "")
	servertest.Expect(t, deleteProvider(t, a.Admin, z.zone, archived.provider), http.StatusNoContent, "")
	control := resourcesOf(a, z.zone).control(t).ID
	set := func(provider, resource string) func(*client.NewProviderGrant) {
		return func(b *client.NewProviderGrant) { b.ProviderID, b.ResourceID = provider, resource }
	}
	scopes := func(s ...string) func(*client.NewProviderGrant) {
		return func(b *client.NewProviderGrant) { b.Scopes = s }
	}
	for i, tt := range []struct {
		name   string
		as     *rawclient.ClientWithResponses
		zone   string
		change func(*client.NewProviderGrant)
		want   code.Code // "" is 201
	}{
		{"complete", a.Admin, z.zone, func(b *client.NewProviderGrant) {
			b.RefreshToken, b.ExpiresAt = new("hush-refresh"), new("2030-01-01T00:00:00Z")
		}, ""},
		{"token of the zone", a.ClientFor(z.zone, "write"), z.zone, nil, ""},
		{"scopes repeated", a.Admin, z.zone, scopes("write", "read", "write"), ""},
		{"user with white space", a.Admin, z.zone, func(b *client.NewProviderGrant) { b.UserID = " ÿ\t" + strings.Repeat("𝕌", 497) }, ""},
		{"token of 100 KB", a.Admin, z.zone, func(b *client.NewProviderGrant) { b.AccessToken = strings.Repeat("x", 100_000) }, ""},
		{"user too long", a.Admin, z.zone, func(b *client.NewProviderGrant) { b.UserID = strings.Repeat("x", 501) }, code.InvalidProviderGrant},
		{"user empty", a.Admin, z.zone, func(b *client.NewProviderGrant) { b.UserID = "" }, code.InvalidProviderGrant},
		{"provider empty", a.Admin, z.zone, set("", z.resource), code.InvalidProviderGrant},
		{"resource empty", a.Admin, z.zone, set(z.provider, ""), code.InvalidProviderGrant},
		{"access token empty", a.Admin, z.zone, func(b *client.NewProviderGrant) { b.AccessToken = "" }, code.InvalidProviderGrant},
		{"refresh token empty", a.Admin, z.zone, func(b *client.NewProviderGrant) { b.RefreshToken = new("") }, code.InvalidProviderGrant},
		{"no scope", a.Admin, z.zone, scopes(), code.InvalidProviderGrant},
		{"65 scopes", a.Admin, z.zone, scopes(slices.Repeat([]string{"read"}, 65)...), code.InvalidProviderGrant},
		{"scope in uppercase", a.Admin, z.zone, scopes("Read"), code.InvalidProviderGrant},
		{"scope too long", a.Admin, z.zone, scopes(strings.Repeat("x", 201)), code.InvalidProviderGrant},
		{"scope that the resource lacks", a.Admin, z.zone, scopes("read", "erase"), code.GrantScopesExceedResource},
		{"provider unknown", a.Admin, z.zone, set("unknown", z.resource), code.ProviderNotFound},
		{"provider of another zone", a.Admin, z.zone, set(other.provider, z.resource), code.ProviderNotFound},
		{"provider archived", a.Admin, z.zone, set(archived.provider, z.resource), code.ProviderNotFound},
		{"provider unknown and resource unknown", a.Admin, z.zone, set("unknown", "unknown"), code.ProviderNotFound},
		{"provider of another kind", a.Admin, z.zone, set(mandate, ofMandate), code.ProviderGrantUnsupported},
		{"provider of another kind and resource unknown", a.Admin, z.zone, set(mandate, "unknown"), code.ProviderGrantUnsupported},
		{"resource unknown", a.Admin, z.zone, set(z.provider, "unknown"), code.ResourceNotFound},
		{"resource of another zone", a.Admin, z.zone, set(z.provider, other.resource), code.ResourceNotFound},
		{"resource archived", a.Admin, z.zone, set(z.provider, archived.resource), code.ResourceNotFound},
		{"resource with another provider", a.Admin, z.zone, set(z.provider, second.resource), code.ProviderResourceMismatch},
		{"control resource", a.Admin, z.zone, set(z.provider, control), code.ProviderResourceMismatch},
		{"control resource, token of the zone", a.ClientFor(z.zone, "write"), z.zone, set(z.provider, control), code.ResourceNotFound},
		{"zone unknown", a.Admin, "unknown", nil, code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, nil, code.ZoneNotFound},
		{"token of another zone", a.ClientFor(other.zone, "write"), z.zone, nil, code.AdminTokenZoneMismatch},
		{"read token", a.ClientFor("", "read"), z.zone, nil, code.AdminTokenReadOnly},
		{"system zone", a.Admin, system.zone, set(system.provider, system.resource), ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system.zone, set(system.provider, system.resource), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := z.body(func(b *client.NewProviderGrant) { b.UserID = fmt.Sprint("user-", i) })
			if tt.change != nil {
				tt.change(&body)
			}
			resp := createProviderGrant(t, tt.as, tt.zone, body)
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want == code.ProviderGrantUnsupported {
				if detail := problemOf(t, resp).Detail; detail == nil || *detail != "only oauth2_authorization_code providers use delegated provider grants" {
					t.Errorf("the detail is %v", detail)
				}
			}
			if tt.want != "" {
				return
			}
			g := *resp.JSON201
			if g.ZoneID != tt.zone || g.UserID != body.UserID || g.ResourceID != body.ResourceID || g.ProviderID != body.ProviderID ||
				!slices.Equal(g.Scopes, body.Scopes) || g.Status != client.ProviderGrantStatusActive || g.RefreshedAt != nil || !g.CreatedAt.Equal(g.UpdatedAt) {
				t.Errorf("got %+v", g)
			}
			access, refresh := grantZone{API: a, zone: tt.zone}.tokens(t, g.ID)
			if access != body.AccessToken || body.RefreshToken != nil && refresh != *body.RefreshToken || body.RefreshToken == nil && refresh != "" {
				t.Errorf("the stored tokens are %q and %q", access, refresh)
			}
			stored := []client.StoredToken{client.StoredTokenAccessToken}
			if refresh != "" {
				stored = append(stored, client.StoredTokenRefreshToken)
			}
			if !slices.Equal(g.StoredTokens, stored) {
				t.Errorf("the response lists the stored tokens %v, want %v", g.StoredTokens, stored)
			}
			if got := getProviderGrant(t, tt.as, tt.zone, g.ID); string(got.Body) != string(resp.Body) || got.HTTPResponse.Header.Get("ETag") != `"1"` {
				t.Errorf("get returned %s, create %s", got.Body, resp.Body)
			}
		})
	}
}

func TestCreateProviderGrantExpiry(t *testing.T) {
	t.Parallel()
	z := newGrantZone(t, servertest.New(t))
	for _, tt := range []struct{ expiry, want string }{ // "" is rejected
		{"2026-07-01T12:00:00Z", "2026-07-01T12:00:00.000Z"},
		{"2026-07-01T12:00Z", "2026-07-01T12:00:00.000Z"},
		{"2026-07-01T12:00:59.9999999999999Z", "2026-07-01T12:00:59.999Z"},
		{"1970-01-01T00:00:00.1Z", "1970-01-01T00:00:00.100Z"},
		{"0000-01-01T00:00Z", "0000-01-01T00:00:00.000Z"},
		{"9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"},
		{"2028-02-29T00:00Z", "2028-02-29T00:00:00.000Z"},
		{"2026-02-29T00:00Z", ""},
		{"2026-13-01T00:00Z", ""},
		{"2026-07-01T24:00Z", ""},
		{"2026-07-01T23:59:60Z", ""},
		{"2026-07-01T12:00:00+00:00", ""},
		{"2026-07-01T12:00:00z", ""},
		{"2026-07-01t12:00:00Z", ""},
		{"2026-07-01", ""},
		{"2026-07-01T12Z", ""},
		{"2026-07-01T12:00:00", ""},
		{"2026-07-01T12:00:00.Z", ""},
		{" 2026-07-01T12:00:00Z", ""},
		{"", ""},
	} {
		t.Run(tt.expiry, func(t *testing.T) {
			body := z.body(func(b *client.NewProviderGrant) { b.UserID, b.ExpiresAt = "at "+tt.expiry, &tt.expiry })
			resp := createProviderGrant(t, z.Admin, z.zone, body)
			if tt.want == "" {
				servertest.Expect(t, resp, 0, code.InvalidProviderGrant)
				return
			}
			servertest.Expect(t, resp, http.StatusCreated, "")
			if !strings.Contains(string(resp.Body), `"expires_at":"`+tt.want+`"`) {
				t.Errorf("got %s, want %s", resp.Body, tt.want)
			}
		})
	}
}

// An active grant is replaced: it keeps its identity, and none of its tokens.
func TestCreateProviderGrantReplacesActiveGrant(t *testing.T) {
	t.Parallel()
	z := newGrantZone(t, servertest.New(t))
	first := z.grant(t, func(b *client.NewProviderGrant) {
		b.RefreshToken, b.ExpiresAt = new("hush-refresh"), new("2030-01-01T00:00Z")
	})
	z.DB.Exec("UPDATE provider_grants SET refreshed_at = now(), created_at = created_at - interval '1 hour', updated_at = updated_at - interval '1 hour' WHERE id = $1", first.ID)
	refreshed := *getProviderGrant(t, z.Admin, z.zone, first.ID).JSON200
	if refreshed.RefreshedAt == nil {
		t.Fatalf("got %+v", refreshed)
	}
	second := z.grant(t, func(b *client.NewProviderGrant) { b.Scopes, b.AccessToken = []string{"write"}, "hush-2" })
	if second.ID != first.ID || !second.CreatedAt.Equal(refreshed.CreatedAt) || !slices.Equal(second.Scopes, []string{"write"}) || second.ExpiresAt != nil || second.RefreshedAt != nil ||
		second.UpdatedAt.Before(refreshed.UpdatedAt.Add(time.Minute)) || len(second.StoredTokens) != 1 {
		t.Errorf("the grant\n%+v\nwas replaced by\n%+v", refreshed, second)
	}
	if access, refresh := z.tokens(t, first.ID); access != "hush-2" || refresh != "" {
		t.Errorf("the stored tokens are %q and %q", access, refresh)
	}
	if got := getProviderGrant(t, z.Admin, z.zone, first.ID); got.HTTPResponse.Header.Get("ETag") != `"2"` {
		t.Errorf("the ETag is %s", got.HTTPResponse.Header.Get("ETag"))
	}
	if n := storetest.Value[int64](z.DB, "SELECT refresh_token_version FROM provider_grants WHERE id = $1", first.ID); n != 1 {
		t.Errorf("refresh_token_version is %d, want 1", n)
	}
	// Another user, and the same one for another resource, has a grant of its own.
	other := z.grant(t, func(b *client.NewProviderGrant) { b.UserID = "user-2" })
	elsewhere := z.grant(t, func(b *client.NewProviderGrant) { b.ResourceID = z.resourceOf(t, z.provider) })
	if other.ID == first.ID || elsewhere.ID == first.ID {
		t.Error("another key has the same grant")
	}
}

func TestProviderGrantIsAudited(t *testing.T) {
	t.Parallel()
	z := newGrantZone(t, servertest.New(t))
	first := z.grant(t, func(b *client.NewProviderGrant) {
		b.RefreshToken, b.ExpiresAt = new("hush-refresh"), new("2030-01-01T00:00Z")
	})
	z.grant(t, func(b *client.NewProviderGrant) { b.Scopes = []string{"read", "write"} })
	z.grant(t, func(b *client.NewProviderGrant) { b.Scopes = []string{"read", "write"} })
	servertest.Expect(t, revokeProviderGrant(t, z.Admin, z.zone, z.key()), http.StatusOK, "")
	const scope = `{"rls_mode":"control_plane_wildcard","rls_zone_guc":"*",`
	want := []string{
		"createProviderGrant | " + scope + `"changed_fields":["expires_at","provider_id","resource_id","scopes","status","user_id"],"changes":{"expires_at":{"from":null,"to":"2030-01-01T00:00:00Z"},` +
			`"provider_id":{"from":null,"to":"` + z.provider + `"},"resource_id":{"from":null,"to":"` + z.resource + `"},"scopes":{"from":null,"to":["read"]},"status":{"from":null,"to":"active"},"user_id":{"from":null,"to":"user-1"}},"change":"created"}`,
		"createProviderGrant | " + scope + `"changed_fields":["expires_at","scopes"],"changes":{"expires_at":{"from":"2030-01-01T00:00:00Z","to":null},"scopes":{"from":["read"],"to":["read","write"]}},"secret_rotated":true,"change":"updated"}`,
		"createProviderGrant | " + scope + `"changed_fields":[],"secret_rotated":true,"change":"updated"}`,
		"revokeProviderGrant | " + scope + `"changed_fields":["status"],"changes":{"status":{"from":"active","to":"revoked"}},"change":"updated"}`,
	}
	got := storetest.Column[string](z.DB, "SELECT concat_ws(' | ', operation, payload) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'provider-grants' AND entity_id = $2 ORDER BY id", z.zone, first.ID)
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// An invalid request leaves nothing, not even a data key.
func TestCreateProviderGrantWithoutEffect(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	r := newResourceZone(a)
	z := grantZone{a, r.zone, r.provider, r.resource(t).ID}
	before := everythingOf(a.DB, z.zone)
	servertest.Expect(t, createProviderGrant(t, a.Admin, z.zone, z.body()), 0, code.ProviderGrantUnsupported)
	eventually(t, "the denied request is in the audit log", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE operation = 'createProviderGrant'") == 1
	})
	a.DB.Exec("ALTER TABLE audit_entries DISABLE TRIGGER ALL")
	a.DB.Exec("DELETE FROM audit_entries WHERE operation = 'createProviderGrant'")
	if after := everythingOf(a.DB, z.zone); after != before {
		t.Errorf("the zone was\n%s\nand became\n%s", before, after)
	}
}
