package server_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// Of concurrent grants with the same key, each succeeds and there is one row, whose
// tokens belong together and can be opened. Each is audited as one change of the
// scopes that the previous one set.
func TestCreateProviderGrantConcurrently(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newGrantZone(t, a)
	const parallel, rounds = 6, 5
	for round := range rounds {
		user := fmt.Sprint("user-", round)
		var all []func()
		var mu sync.Mutex
		ids := map[string]bool{}
		for n := range parallel {
			all = append(all, func() {
				body := z.body(func(b *client.NewProviderGrant) {
					b.UserID, b.AccessToken, b.RefreshToken = user, fmt.Sprint("access ", n), new(fmt.Sprint("refresh ", n))
					b.Scopes = [][]string{{"read"}, {"write"}}[n%2]
				})
				resp, err := a.Admin.CreateProviderGrantWithResponse(t.Context(), z.zone, body)
				if err != nil || resp.JSON201 == nil {
					t.Errorf("got %v %s", err, resp.Body)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				ids[resp.JSON201.ID] = true
			})
		}
		concurrently(all...)
		if len(ids) != 1 {
			t.Fatalf("the grants are %v, want one", ids)
		}
		for id := range ids {
			access, refresh := z.tokens(t, id)
			var n, m int
			if _, err := fmt.Sscanf(access+" "+refresh, "access %d refresh %d", &n, &m); err != nil || n != m {
				t.Errorf("the tokens are %q and %q", access, refresh)
			}
			if version := storetest.Value[int](a.DB, "SELECT version FROM provider_grants WHERE id = $1", id); version != parallel {
				t.Errorf("the version is %d, want %d", version, parallel)
			}
			// The last audited scopes are those of the row, and each entry begins where another ended.
			changes := storetest.Value[int](a.DB, `SELECT count(*) FROM audit_entries WHERE entity_id = $1 AND payload::jsonb #> '{changes,scopes,from}' = payload::jsonb #> '{changes,scopes,to}'`, id)
			if changes != 0 {
				t.Errorf("%d entries have a change of the scopes to what they were", changes)
			}
		}
	}
}

// A grant is created before or after a change of what it references, never meanwhile.
func TestCreateProviderGrantWhileReferencesChange(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range []struct {
		name   string
		change func(z grantZone) servertest.RawResponse
		want   code.Code // of the grant, if the change is first
		// The number of active grants that may remain if the grant is first.
		remains int
	}{
		{"the provider gets another kind", func(z grantZone) servertest.RawResponse {
			return z.send("PATCH", "/providers/"+z.provider, `{"kind":"none","config_json":{}}`)
		}, code.ProviderGrantUnsupported, 0},
		{"the resource loses the scope", func(z grantZone) servertest.RawResponse {
			return z.send("PATCH", "/resources/"+z.resource, `{"scopes":["write"],"operations":[]}`)
		}, code.GrantScopesExceedResource, 1},
		{"the resource is archived", func(z grantZone) servertest.RawResponse {
			return z.send("DELETE", "/resources/"+z.resource, "")
		}, code.ResourceNotFound, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 15 {
				z := grantZoneOf(t, a, zone)
				var granted, changed servertest.RawResponse
				concurrently(
					func() {
						granted = z.send("POST", "/provider-grants", `{"user_id":"u","resource_id":"`+z.resource+`","provider_id":"`+z.provider+`","scopes":["read"],"access_token":"x"}`)
					},
					func() { changed = tt.change(z) },
				)
				if changed.StatusCode() >= 300 {
					t.Fatalf("the change got %d %s", changed.StatusCode(), changed.Body)
				}
				active := storetest.Value[int](a.DB, "SELECT count(*) FROM provider_grants WHERE zone_id = $1 AND provider_id = $2 AND status = 'active'", zone, z.provider)
				switch granted.StatusCode() {
				case http.StatusCreated:
					if active != tt.remains {
						t.Errorf("the grant was first, and %d are active", active)
					}
				default:
					servertest.Expect(t, granted, 0, tt.want)
					if active != 0 {
						t.Errorf("the change was first, and %d grants are active", active)
					}
				}
			}
		})
	}
}

// Grants are created and revoked at the same time: every request gets its status, and
// a revoked grant keeps no token.
func TestCreateAndRevokeProviderGrantConcurrently(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newGrantZone(t, a)
	key := `{"user_id":"u","resource_id":"` + z.resource + `","provider_id":"` + z.provider + `"`
	var all []func()
	for range 3 {
		all = append(all, func() {
			for range 10 {
				if raw := z.send("POST", "/provider-grants", key+`,"scopes":["read"],"access_token":"x"}`); raw.StatusCode() != http.StatusCreated {
					t.Errorf("create got %d %s", raw.StatusCode(), raw.Body)
				}
			}
		}, func() {
			for range 10 {
				if raw := z.send("POST", "/provider-grants/revoke", key+"}"); raw.StatusCode() != http.StatusOK && raw.StatusCode() != http.StatusNotFound {
					t.Errorf("revoke got %d %s", raw.StatusCode(), raw.Body)
				}
			}
		})
	}
	concurrently(all...)
	revoked := storetest.Value[int](a.DB, "SELECT count(*) FROM provider_grants WHERE status = 'revoked'")
	recorded := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE operation = 'revokeProviderGrant' AND status_code = 200")
	if revoked != recorded {
		t.Errorf("%d grants are revoked and %d revocations are audited", revoked, recorded)
	}
}

// send sends a request below the zone with the bootstrap token.
func (z grantZone) send(method, path, body string) servertest.RawResponse {
	headers := bearer(servertest.Bootstrap)
	if body != "" {
		headers = append(headers, "Content-Type", jsonType)
	}
	return z.Do(method, "/v1/zones/"+z.zone+path, body, headers...)
}
