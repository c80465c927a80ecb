package server_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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

// console returns the token that the Console derives from the bootstrap token:
// the HMAC-SHA256 of a label, keyed by the bootstrap token.
func console(label string) string {
	mac := hmac.New(sha256.New, []byte(servertest.Bootstrap))
	mac.Write([]byte(label))
	return "cat_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestCreateAdminToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	archivedZone := a.DB.ArchivedZone()
	global := client.NewAdminToken{Name: "x", Scope: client.AdminTokenScopeGlobal}
	ofZone := func(id string) client.NewAdminToken {
		return client.NewAdminToken{Name: "x", Scope: client.AdminTokenScopeZone, ZoneID: &id}
	}
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		body client.NewAdminToken
		want code.Code
	}{
		{"global", a.Admin, global, ""},
		{"for a zone", a.Admin, ofZone(zone.ID), ""},
		{"read only", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", Capability: new(client.AdminTokenCapabilityRead)}, ""},
		{"for an hour", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", ExpiresIn: new(int64(3600))}, ""},
		{"by a created token", a.ClientFor("", "write"), global, ""},
		{"no name", a.Admin, client.NewAdminToken{Scope: "global"}, code.InvalidAdminTokenRequest},
		{"name too long", a.Admin, client.NewAdminToken{Name: strings.Repeat("x", 121), Scope: "global"}, code.InvalidAdminTokenRequest},
		{"no such scope", a.Admin, client.NewAdminToken{Name: "x", Scope: "galaxy"}, code.InvalidAdminTokenRequest},
		{"already expired", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", ExpiresIn: new(int64(0))}, code.InvalidAdminTokenRequest},
		{"zone empty", a.Admin, ofZone(""), code.InvalidAdminTokenRequest},
		{"zone missing", a.Admin, client.NewAdminToken{Name: "x", Scope: "zone"}, code.ZoneIDRequired},
		{"global with a zone", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", ZoneID: &zone.ID}, code.ZoneIDNotAllowedForGlobal},
		{"zone unknown", a.Admin, ofZone("nowhere"), code.ZoneNotFound},
		{"the ID of no zone", a.Admin, ofZone("-"), code.ZoneNotFound},
		{"zone archived", a.Admin, ofZone(archivedZone), code.ZoneNotFound},
		{"by the Console", a.ClientWithToken(console("caracal:console:write:v1")), global, code.AdminTokenManagementForbiddenForDerivedToken},
		{"by the Console, reading", a.ClientWithToken(console("caracal:console:read-only:v1")), global, code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.CreateAdminTokenWithResponse(t.Context(), tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			issued := resp.JSON201
			if !strings.HasPrefix(issued.CreatedBy, "admin:") || (issued.ExpiresAt != nil) != (tt.body.ExpiresIn != nil) {
				t.Errorf("created %+v", issued)
			}
			id := zone.ID
			probe, err := a.ClientWithToken(issued.Token).GetZoneWithResponse(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, probe, http.StatusOK, "")
		})
	}
}

func TestCreateAdminTokenDerivesConsoleTokens(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for label, want := range map[string]code.Code{
		"caracal:console:write:v1":     "",
		"caracal:console:read-only:v1": code.AdminTokenReadOnly,
	} {
		resp, err := a.ClientWithToken(console(label)).CreateZoneWithResponse(t.Context(), client.NewZone{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusCreated, want)
	}
}

func TestCreateAdminTokenExpires(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	issued := a.Token("", "read")
	caller := a.ClientWithToken(issued.Token)
	read := func() servertest.Response {
		resp, err := caller.ListZonesWithResponse(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	a.DB.Exec("UPDATE admin_tokens SET expires_at = now() - interval '1 second' WHERE id = $1", issued.ID)
	servertest.Expect(t, read(), 0, code.InvalidAdminToken)
	a.DB.Exec("UPDATE admin_tokens SET expires_at = now() + interval '500 milliseconds' WHERE id = $1", issued.ID)
	servertest.Expect(t, read(), http.StatusOK, "")
	eventually(t, "the cached token expires too", func() bool { return read().StatusCode() == http.StatusUnauthorized })
}

func TestBootstrapTokenReplacement(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	url := storetest.RedisURL(t)
	status := func(token string) int {
		t.Helper()
		return a.Do("GET", "/v1/zones", "", bearer(token)...).StatusCode()
	}
	if got := status(servertest.Bootstrap); got != http.StatusOK {
		t.Fatalf("the first token got %d", got)
	}
	servertest.NewReplica(t, a.DB, url, "CARACAL_ADMIN_TOKEN=the-second")
	// The first replica is notified, although it had cached the token.
	eventually(t, "the first is revoked", func() bool { return status(servertest.Bootstrap) == http.StatusUnauthorized })
	if got := status("the-second"); got != http.StatusOK {
		t.Errorf("the second token got %d", got)
	}
	// After the setting is changed back, the first token works again.
	servertest.NewReplica(t, a.DB, url)
	eventually(t, "the second is revoked", func() bool { return status("the-second") == http.StatusUnauthorized })
	if got := status(servertest.Bootstrap); got != http.StatusOK {
		t.Errorf("the first token got %d again", got)
	}
	if live := storetest.Value[int](a.DB, "SELECT count(*) FROM admin_tokens WHERE revoked_at IS NULL"); live != 3 {
		t.Errorf("%d tokens are active, want the bootstrap token and the Console's two", live)
	}
}

func TestListAdminTokensLastUsed(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	issued := a.Token("", "read")
	for range 3 {
		a.Do("GET", "/v1/zones", "", bearer(issued.Token)...)
	}
	used := func() *time.Time {
		return storetest.Value[*time.Time](a.DB, "SELECT last_used_at FROM admin_tokens WHERE id = $1", issued.ID)
	}
	eventually(t, "last_used_at is recorded", func() bool { return used() != nil })
	first := used()
	a.Do("GET", "/v1/zones", "", bearer(issued.Token)...)
	if err := a.Service.Stop(); err != nil { // records what is still pending
		t.Fatal(err)
	}
	if !used().Equal(*first) {
		t.Errorf("it was recorded at %v and again at %v, within the debounce interval", first, used())
	}
}

func TestCreateAdminTokenStoresOnlyTheHash(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	issued := a.Token("", "write")
	servertest.Expect(t, a.Do("GET", "/v1/zones", "", bearer(issued.Token)...), http.StatusOK, "")
	for _, table := range []string{"admin_tokens", "audit_entries"} {
		for _, text := range []string{issued.Token, servertest.Bootstrap, console("caracal:console:write:v1")} {
			if n := storetest.Value[int](a.DB, "SELECT count(*) FROM "+table+" AS t WHERE to_jsonb(t)::text LIKE '%' || $1 || '%'", text); n > 0 {
				t.Errorf("a token's text is in %s", table)
			}
			if strings.Contains(a.Log.String(), text) {
				t.Error("a token's text is in the log")
			}
		}
	}
}

func listTokens(t *testing.T, as *rawclient.ClientWithResponses) map[string]client.AdminToken {
	t.Helper()
	resp, err := as.ListAdminTokensWithResponse(t.Context(), &rawclient.ListAdminTokensParams{Limit: new(500)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	all := map[string]client.AdminToken{}
	for _, one := range *resp.JSON200 {
		all[one.ID] = one
	}
	return all
}

func deleteToken(t *testing.T, as *rawclient.ClientWithResponses, id string) servertest.Response {
	t.Helper()
	resp, err := as.DeleteAdminTokenWithResponse(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// seeded returns the ID of the active token that the start of the service created.
func seeded(a *servertest.API, createdBy string) string {
	a.TB.Helper()
	return storetest.Value[string](a.DB, "SELECT id FROM admin_tokens WHERE created_by = $1 AND revoked_at IS NULL", createdBy)
}

func TestListAdminTokens(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		want code.Code
	}{
		{"bootstrap", a.Admin, ""},
		{"global read", a.ClientFor("", "read"), ""},
		{"zone token", a.ClientFor(zone, "write"), code.AdminTokenZoneMismatch},
		{"the Console", a.ClientWithToken(console("caracal:console:write:v1")), code.AdminTokenManagementForbiddenForDerivedToken},
		{"the Console, reading", a.ClientWithToken(console("caracal:console:read-only:v1")), code.AdminTokenManagementForbiddenForDerivedToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListAdminTokensWithResponse(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
		})
	}
}

func TestListAdminTokensIncludesEveryTokenWithoutItsText(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	global, ofZone, revoked := a.Token("", "read"), a.Token(zone, "write"), a.Token(zone, "read")
	servertest.Expect(t, deleteToken(t, a.Admin, revoked.ID), http.StatusNoContent, "")
	by := "admin:" + seeded(a, "env-bootstrap")
	all := listTokens(t, a.Admin)
	if len(all) != 6 {
		t.Errorf("%d tokens are listed, want the 3 seeded and 3 created", len(all))
	}
	for _, tt := range []struct {
		id, name, createdBy string
		scope               client.AdminTokenScope
		capability          client.AdminTokenCapability
		zone                string
		revoked             bool
	}{
		{seeded(a, "env-bootstrap"), "bootstrap", "env-bootstrap", "global", "write", "", false},
		{seeded(a, "env-derived"), "console-read-only", "env-derived", "global", "read", "", false},
		{seeded(a, "env-derived-write"), "console-write", "env-derived-write", "global", "write", "", false},
		{global.ID, "test", by, "global", "read", "", false},
		{ofZone.ID, "test", by, "zone", "write", zone, false},
		{revoked.ID, "test", by, "zone", "read", zone, true},
	} {
		got := all[tt.id]
		if got.Name != tt.name || got.CreatedBy != tt.createdBy || got.Scope != tt.scope || got.Capability != tt.capability ||
			(got.ZoneID != nil) != (tt.zone != "") || got.ZoneID != nil && *got.ZoneID != tt.zone || (got.RevokedAt != nil) != tt.revoked || got.ExpiresAt != nil {
			t.Errorf("listed %+v, want %+v", got, tt)
		}
	}
	raw := a.Do("GET", "/v1/admin-tokens", "", bearer(servertest.Bootstrap)...)
	for _, text := range []string{servertest.Bootstrap, global.Token, ofZone.Token, revoked.Token, console("caracal:console:write:v1")} {
		digest := sha256.Sum256([]byte(text))
		for _, secret := range []string{text, hex.EncodeToString(digest[:]), base64.StdEncoding.EncodeToString(digest[:])} {
			if strings.Contains(string(raw.Body), secret) {
				t.Errorf("%q is in the list", secret)
			}
		}
	}
}

func TestListAdminTokensPagesWithEqualTimestamps(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	const many = 44 // and the three seeded
	a.DB.Exec(`INSERT INTO admin_tokens (zone_id, id, name, capability, created_by, token_sha256, created_at) SELECT '-', 't-' || n, 'x', 'read', 'admin:x', sha256(n::text::bytea),
		timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $1) AS n`, many)
	seen := map[string]int{}
	pages := eachPage(t, a, "/v1/admin-tokens?limit=10", func(one client.AdminToken) { seen[one.ID]++ })
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s was listed %d times", id, times)
		}
	}
	if pages != 5 || len(seen) != many+3 {
		t.Errorf("%d tokens on %d pages", len(seen), pages)
	}
}

func TestDeleteAdminToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		id   string // "": a new token
		want code.Code
	}{
		{"bootstrap", a.Admin, "", ""},
		{"created", a.ClientFor("", "write"), "", ""},
		{"of a zone", a.Admin, a.Token(zone, "read").ID, ""},
		{"of the Console", a.Admin, seeded(a, "env-derived"), ""},
		{"unknown", a.Admin, "unknown", code.AdminTokenNotFound},
		{"by a read token", a.ClientFor("", "read"), "", code.AdminTokenReadOnly},
		{"by a zone token", a.ClientFor(zone, "write"), "", code.AdminTokenZoneMismatch},
		{"by the Console", a.ClientWithToken(console("caracal:console:write:v1")), "", code.AdminTokenManagementForbiddenForDerivedToken},
		{"by the Console, unknown", a.ClientWithToken(console("caracal:console:write:v1")), "unknown", code.AdminTokenManagementForbiddenForDerivedToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = a.Token("", "read").ID
			}
			servertest.Expect(t, deleteToken(t, tt.as, tt.id), http.StatusNoContent, tt.want)
			if one, listed := listTokens(t, a.Admin)[tt.id]; listed != (tt.id != "unknown") || (one.RevokedAt != nil) != (tt.want == "") {
				t.Errorf("listed %v: %+v", listed, one)
			}
			if tt.want == "" {
				servertest.Expect(t, deleteToken(t, tt.as, tt.id), 0, code.AdminTokenNotFound)
			}
		})
	}
}

func TestDeleteAdminTokenTakesEffectImmediately(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	late := 0
	for range 40 { // each may be cached or not
		issued := a.Token("", "write")
		as := a.ClientWithToken(issued.Token)
		servertest.Expect(t, deleteToken(t, as, issued.ID), http.StatusNoContent, "")
		if deleteToken(t, as, "unknown").StatusCode() != http.StatusUnauthorized {
			late++
		}
	}
	if late > 0 {
		t.Errorf("of 40 tokens, %d still worked after they were revoked", late)
	}
}

func TestDeleteAdminTokenKeepsTokensItMinted(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	parent := a.Token("", "write")
	issued, err := a.ClientWithToken(parent.Token).CreateAdminTokenWithResponse(t.Context(), client.NewAdminToken{Name: "child", Scope: "global"})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, issued, http.StatusCreated, "")
	if issued.JSON201.CreatedBy != "admin:"+parent.ID {
		t.Errorf("it was created by %s", issued.JSON201.CreatedBy)
	}
	servertest.Expect(t, deleteToken(t, a.Admin, parent.ID), http.StatusNoContent, "")
	if one := listTokens(t, a.ClientWithToken(issued.JSON201.Token))[parent.ID]; one.RevokedAt == nil {
		t.Errorf("listed %+v", one)
	}
}

func TestDeleteAdminTokenTakesEffectInEveryReplica(t *testing.T) {
	t.Parallel()
	db, redisURL := storetest.New(t), storetest.RedisURL(t)
	one, two := servertest.NewReplica(t, db, redisURL), servertest.NewReplica(t, db, redisURL)
	revoked, kept := one.Token("", "read"), one.Token("", "read")
	status := func(token string) int { return two.Do("GET", "/v1/zones", "", bearer(token)...).StatusCode() }
	for _, token := range []string{revoked.Token, revoked.Token, kept.Token} { // the second replica caches them
		if got := status(token); got != http.StatusOK {
			t.Fatalf("got %d", got)
		}
	}
	servertest.Expect(t, deleteToken(t, one.Admin, revoked.ID), http.StatusNoContent, "")
	eventually(t, "the other replica denies it too", func() bool { return status(revoked.Token) == http.StatusUnauthorized })
	if got := status(kept.Token); got != http.StatusOK {
		t.Errorf("the other token got %d", got)
	}
}

func TestDeleteAdminTokenRestoresBootstrapTokenAtRestart(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	first := seeded(a, "env-bootstrap")
	servertest.Expect(t, deleteToken(t, a.Admin, first), http.StatusNoContent, "")
	servertest.Expect(t, a.Do("GET", "/v1/zones", "", bearer(servertest.Bootstrap)...), 0, code.InvalidAdminToken)
	again := servertest.NewReplica(t, a.DB, storetest.RedisURL(t))
	all := listTokens(t, again.Admin)
	if second := seeded(a, "env-bootstrap"); second == first || all[first].RevokedAt == nil || all[second].RevokedAt != nil {
		t.Errorf("the first is %+v, the second %+v", all[first], all[second])
	}
}

func TestDeleteAdminTokenIsAudited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	issued := a.Token(a.Zone().ID, "read")
	servertest.Expect(t, deleteToken(t, a.Admin, issued.ID), http.StatusNoContent, "")
	got := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', zone_id, action, status_code, payload) FROM audit_entries WHERE entity_type = 'admin-tokens' AND entity_id = $1 ORDER BY id", issued.ID)
	want := []string{
		*issued.ZoneID + ` | POST /v1/admin-tokens | 201 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["can_approve","capability","expires_at","name","zone_id"],"changes":{"can_approve":{"from":null,"to":false},"capability":{"from":null,"to":"read"},"expires_at":{"from":null,"to":null},"name":{"from":null,"to":"test"},"zone_id":{"from":null,"to":"` + *issued.ZoneID + `"}},"change":"created"}`,
		*issued.ZoneID + " | DELETE /v1/admin-tokens/" + issued.ID + ` | 204 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":[],"change":"deleted"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
