package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func getToken(t *testing.T, as *rawclient.ClientWithResponses, id string) *rawclient.GetAdminTokenResponse {
	t.Helper()
	resp, err := as.GetAdminTokenWithResponse(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func updateToken(t *testing.T, as *rawclient.ClientWithResponses, id string, body client.AdminTokenPatch) *rawclient.UpdateAdminTokenResponse {
	t.Helper()
	resp, err := as.UpdateAdminTokenWithResponse(t.Context(), id, nil, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// expiring creates a global token that expires in an hour.
func expiring(t *testing.T, a *servertest.API, capability string) client.MintedAdminToken {
	t.Helper()
	resp, err := a.Admin.CreateAdminTokenWithResponse(t.Context(), client.NewAdminToken{
		Name: "expiring", Scope: client.AdminTokenScopeGlobal, Capability: new(client.AdminTokenCapability(capability)), ExpiresIn: new(int64(3600)),
	})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// Every token can read itself, whatever else it cannot do.
func TestGetOwnAdminToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	ofZone, global := a.Token(zone, "read"), a.Token("", "write", servertest.CanApprove)
	for name, tt := range map[string]struct{ token, id string }{
		"of a zone": {ofZone.Token, ofZone.ID},
		"global":    {global.Token, global.ID},
		"bootstrap": {servertest.Bootstrap, seeded(a, "env-bootstrap")},
		"derived":   {console("caracal:console:read-only:v1"), seeded(a, "env-derived")},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := a.ClientWithToken(tt.token).GetOwnAdminTokenWithResponse(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			if got, listed := *resp.JSON200, listTokens(t, a.Admin)[tt.id]; fmt.Sprint(withoutPointers(got)) != fmt.Sprint(withoutPointers(listed)) {
				t.Errorf("got %+v, listed %+v", got, listed)
			}
		})
	}
}

func TestGetAdminToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	issued, revoked := a.Token(zone, "read"), a.Token("", "write")
	servertest.Expect(t, deleteToken(t, a.Admin, revoked.ID), http.StatusNoContent, "")
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		id   string
		want code.Code
	}{
		{"of a zone", a.Admin, issued.ID, ""},
		{"by a read token", a.ClientFor("", "read"), issued.ID, ""},
		{"revoked", a.Admin, revoked.ID, ""},
		{"bootstrap", a.Admin, seeded(a, "env-bootstrap"), ""},
		{"unknown", a.Admin, "unknown", code.AdminTokenNotFound},
		{"by a zone token", a.ClientFor(zone, "write"), issued.ID, code.AdminTokenZoneMismatch},
		{"by the Console", a.ClientWithToken(console("caracal:console:read-only:v1")), issued.ID, code.AdminTokenManagementForbiddenForDerivedToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := getToken(t, tt.as, tt.id)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want != "" {
				return
			}
			listed := listTokens(t, a.Admin)[tt.id]
			got := *resp.JSON200
			got.LastUsedAt, listed.LastUsedAt = nil, nil
			if fmt.Sprintf("%+v", withoutPointers(got)) != fmt.Sprintf("%+v", withoutPointers(listed)) || resp.HTTPResponse.Header.Get("ETag") == "" {
				t.Errorf("got %s, listed %+v", resp.Body, listed)
			}
		})
	}
}

// withoutPointers describes a token by its values.
func withoutPointers(token client.AdminToken) []any {
	all := []any{token.ID, token.Name, token.Scope, token.Capability, token.CanApprove, token.CreatedBy, token.CreatedAt}
	for _, p := range []*time.Time{token.ExpiresAt, token.RevokedAt} {
		if p != nil {
			all = append(all, *p)
		}
	}
	if token.ZoneID != nil {
		all = append(all, *token.ZoneID)
	}
	return all
}

func TestUpdateAdminToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	hour := time.Now().Add(time.Hour).Truncate(time.Millisecond)
	named := client.AdminTokenPatch{Name: new(" Deploy EU ")}
	until := func(at time.Time) client.AdminTokenPatch { return client.AdminTokenPatch{ExpiresAt: client.Set(at)} }
	never := client.AdminTokenPatch{ExpiresAt: client.Null[time.Time]()}
	const years = 24 * 365 * time.Hour
	revoked := a.Token("", "read").ID
	servertest.Expect(t, deleteToken(t, a.Admin, revoked), http.StatusNoContent, "")
	writer, zoneToken := a.ClientFor("", "write"), a.Token(zone, "write")
	own, ownNever := expiring(t, a, "write"), a.Token("", "write")
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		id   string // "": a new token that expires in an hour
		body client.AdminTokenPatch
		want code.Code
	}{
		{"name", a.Admin, "", named, ""},
		{"name of a zone's token", writer, zoneToken.ID, named, ""},
		{"later expiry", writer, "", until(hour.Add(years)), ""},
		{"earlier expiry", a.Admin, "", until(hour.Add(-30 * time.Minute)), ""},
		{"no expiry", writer, "", never, ""},
		{"name and expiry", a.Admin, "", client.AdminTokenPatch{Name: new("x"), ExpiresAt: client.Set(hour.Add(years))}, ""},
		{"the latest expiry", a.Admin, "", until(time.Now().Add(10*years - time.Minute)), ""},
		{"too late", a.Admin, "", until(time.Now().Add(10*years + time.Minute)), code.InvalidAdminTokenRequest},
		{"in the past", a.Admin, "", until(time.Now().Add(-time.Minute)), code.InvalidAdminTokenRequest},
		{"name blank", a.Admin, "", client.AdminTokenPatch{Name: new(" ")}, code.InvalidAdminTokenRequest},
		{"name too long", a.Admin, "", client.AdminTokenPatch{Name: new(strings.Repeat("é", 121))}, code.InvalidAdminTokenRequest},
		{"no fields", a.Admin, "", client.AdminTokenPatch{}, code.NoFields},
		{"its own name", a.ClientWithToken(own.Token), own.ID, named, ""},
		{"its own later expiry", a.ClientWithToken(own.Token), own.ID, until(hour.Add(2 * time.Hour)), code.AdminTokenSelfExtension},
		{"its own expiry removed", a.ClientWithToken(own.Token), own.ID, never, code.AdminTokenSelfExtension},
		{"its own first expiry", a.ClientWithToken(ownNever.Token), ownNever.ID, until(hour), ""},
		{"bootstrap", a.Admin, seeded(a, "env-bootstrap"), named, code.AdminTokenProtected},
		{"bootstrap, an expiry", writer, seeded(a, "env-bootstrap"), until(hour), code.AdminTokenProtected},
		{"of the Console", a.Admin, seeded(a, "env-derived-write"), never, ""}, // it has none: nothing changes
		{"of the Console, an expiry", a.Admin, seeded(a, "env-derived-write"), until(hour), code.AdminTokenProtected},
		{"revoked", a.Admin, revoked, named, code.AdminTokenNotFound},
		{"unknown", a.Admin, "unknown", named, code.AdminTokenNotFound},
		{"by a read token", a.ClientFor("", "read"), "", named, code.AdminTokenReadOnly},
		{"by a zone token", a.ClientWithToken(zoneToken.Token), zoneToken.ID, never, code.AdminTokenZoneMismatch},
		{"by the Console", a.ClientWithToken(console("caracal:console:write:v1")), "", named, code.AdminTokenManagementForbiddenForDerivedToken},
	} {
		t.Run(tt.name, func(t *testing.T) { // in order: some concern the same token
			if tt.id == "" {
				tt.id = expiring(t, a, "read").ID
			}
			before := getToken(t, a.Admin, tt.id)
			resp := updateToken(t, tt.as, tt.id, tt.body)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			after := getToken(t, a.Admin, tt.id)
			if tt.want != "" {
				if is, was := after.HTTPResponse.Header.Get("ETag"), before.HTTPResponse.Header.Get("ETag"); is != was {
					t.Errorf("the ETag went from %s to %s", was, is)
				}
				return
			}
			want := *before.JSON200
			if tt.body.Name != nil {
				want.Name = strings.TrimSpace(*tt.body.Name)
			}
			if at, ok := tt.body.ExpiresAt.Get(); ok {
				want.ExpiresAt = new(at.UTC().Truncate(time.Millisecond))
			} else if tt.body.ExpiresAt.IsNull() {
				want.ExpiresAt = nil
			}
			for _, got := range []client.AdminToken{*resp.JSON200, *after.JSON200} {
				if fmt.Sprint(withoutPointers(got)) != fmt.Sprint(withoutPointers(want)) {
					t.Errorf("got %v, want %v", withoutPointers(got), withoutPointers(want))
				}
			}
		})
	}
	for _, sent := range []string{`"yesterday"`, `"2030-02-30T00:00:00Z"`, `"2030-01-01"`, `5`, `""`} {
		raw := a.Do("PATCH", "/v1/admin-tokens/"+own.ID, `{"expires_at":`+sent+`}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, 0, code.InvalidAdminTokenRequest)
	}
	for _, field := range []string{`"capability":"write"`, `"scope":"zone"`, `"zone_id":"` + zone + `"`, `"created_by":"env-bootstrap"`, `"token":"x"`} {
		raw := a.Do("PATCH", "/v1/admin-tokens/"+expiring(t, a, "read").ID, `{"name":"x",`+field+`}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, 0, code.InvalidAdminTokenRequest)
	}
}

func TestUpdateAdminTokenIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	id := a.Token("", "read").ID
	path := "/v1/admin-tokens/" + id
	_, first := asRead(t, a, path)
	a.DB.Exec("UPDATE admin_tokens SET last_used_at = now() WHERE id = $1", id)
	raw := patch(t, a, path, map[string]any{"name": "second", "last_used_at": nil}, "If-Match", first) // its use is not a modification
	servertest.Expect(t, raw, http.StatusOK, "")
	second := raw.Header.Get("ETag")
	servertest.Expect(t, patch(t, a, path, map[string]any{"name": "third"}, "If-Match", first), 0, code.VersionConflict)
	remove := func(tag string) servertest.Response {
		return a.Do("DELETE", path, "", append(bearer(servertest.Bootstrap), "If-Match", tag)...)
	}
	servertest.Expect(t, remove(first), 0, code.VersionConflict)
	servertest.Expect(t, remove(second), http.StatusNoContent, "")
	if _, third := asRead(t, a, path); third == second {
		t.Errorf("the revoked token has the ETag %s too", third)
	}
	entries := storetest.Column[string](a.DB, "SELECT payload::jsonb->>'changes' FROM audit_entries WHERE entity_id = $1 AND method = 'PATCH' AND status_code = 200", id)
	if len(entries) != 1 || !equalJSON(t, []byte(entries[0]), []byte(`{"name":{"from":"test","to":"second"}}`)) {
		t.Errorf("the audit entries are %q", entries)
	}
}

func TestExpiredAdminTokenIsToldSo(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	issued := expiring(t, a, "read")
	as := a.ClientWithToken(issued.Token)
	description := func() string {
		t.Helper()
		resp := getToken(t, as, issued.ID)
		servertest.Expect(t, resp, 0, code.InvalidAdminToken)
		return problemOf(t, resp).ErrorDescription
	}
	a.DB.Exec("UPDATE admin_tokens SET expires_at = '2026-01-02 03:04:05.678Z' WHERE id = $1", issued.ID)
	if got := description(); got != "The admin token expired at 2026-01-02T03:04:05Z." {
		t.Errorf("got %q", got)
	}
	problem := a.Do("GET", "/v1/zones", "", append(bearer(issued.Token), "Accept", "application/problem+json")...)
	if body := decode[map[string]any](t, problem); body["title"] != code.Table[code.InvalidAdminToken].Sentence || body["error_description"] == body["title"] {
		t.Errorf("got %v", body)
	}
	// A later expiry makes it valid again.
	servertest.Expect(t, updateToken(t, a.Admin, issued.ID, client.AdminTokenPatch{ExpiresAt: client.Set(time.Now().Add(time.Minute))}), http.StatusOK, "")
	servertest.Expect(t, getToken(t, as, issued.ID), http.StatusOK, "")
	a.DB.Exec("UPDATE admin_tokens SET expires_at = now(), revoked_at = now() WHERE id = $1", issued.ID)
	servertest.Expect(t, deleteToken(t, a.Admin, a.Token("", "read").ID), http.StatusNoContent, "") // empties the cache of verified tokens
	if got := description(); got != code.Table[code.InvalidAdminToken].Sentence {
		t.Errorf("of a revoked token: got %q", got)
	}
}

// A new expiry takes effect immediately, also in other replicas, which cache tokens.
func TestUpdateAdminTokenTakesEffectImmediately(t *testing.T) {
	t.Parallel()
	one := servertest.New(t)
	two := servertest.NewReplica(t, one.DB, storetest.RedisURL(t))
	issued := one.Token("", "read")
	as := two.ClientWithToken(issued.Token)
	for range 5 { // so that it is cached
		servertest.Expect(t, getToken(t, as, issued.ID), http.StatusOK, "")
	}
	soon := time.Now().Add(300 * time.Millisecond)
	servertest.Expect(t, updateToken(t, one.Admin, issued.ID, client.AdminTokenPatch{ExpiresAt: client.Set(soon)}), http.StatusOK, "")
	eventually(t, "the other replica denies it", func() bool { return getToken(t, as, issued.ID).StatusCode() == http.StatusUnauthorized })
	if late := time.Since(soon); late > 5*time.Second {
		t.Errorf("the other replica accepted it %v too long", late)
	}
}

// An update that changes nothing leaves the verified tokens in the cache.
func TestUpdateAdminTokenWithoutChangesKeepsTheCache(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	issued := a.Token("", "read")
	misses := func() string {
		for line := range strings.Lines(string(a.Do("GET", "/metrics", "").Body)) {
			if strings.HasPrefix(line, "caracal_api_token_cache_misses_total ") {
				return line
			}
		}
		t.Fatal("the metric is missing")
		return ""
	}
	eventually(t, "a request after an update finds its token in the cache", func() bool { // revocation checks may be late
		servertest.Expect(t, updateToken(t, a.Admin, issued.ID, client.AdminTokenPatch{Name: &issued.Name}), http.StatusOK, "")
		before := misses()
		servertest.Expect(t, getToken(t, a.Admin, issued.ID), http.StatusOK, "")
		return misses() == before
	})
}
