package server_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// console is the token that the Console derives from the bootstrap token
// (contract: conventions.md §9.2).
func console(label string) string {
	mac := hmac.New(sha256.New, []byte(servertest.Bootstrap))
	mac.Write([]byte(label))
	return "cat_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestCreateAdminToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	gone := a.DB.ArchivedZone()
	global := client.NewAdminToken{Name: "x", Scope: client.AdminTokenScopeGlobal}
	ofZone := func(id string) client.NewAdminToken {
		return client.NewAdminToken{Name: "x", Scope: client.AdminTokenScopeZone, ZoneID: &id}
	}
	for _, tt := range []struct {
		name string
		as   *client.ClientWithResponses
		body client.NewAdminToken
		want code.Code
	}{
		{"global", a.Admin, global, ""},
		{"for a zone", a.Admin, ofZone(zone.ID), ""},
		{"read only", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", Capability: new(client.AdminTokenCapabilityRead)}, ""},
		{"for an hour", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", ExpiresIn: new(int64(3600))}, ""},
		{"by a minted token", a.As("", "write"), global, ""},
		{"no name", a.Admin, client.NewAdminToken{Scope: "global"}, code.InvalidAdminTokenRequest},
		{"name too long", a.Admin, client.NewAdminToken{Name: strings.Repeat("x", 121), Scope: "global"}, code.InvalidAdminTokenRequest},
		{"no such scope", a.Admin, client.NewAdminToken{Name: "x", Scope: "galaxy"}, code.InvalidAdminTokenRequest},
		{"expired when made", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", ExpiresIn: new(int64(0))}, code.InvalidAdminTokenRequest},
		{"zone empty", a.Admin, ofZone(""), code.InvalidAdminTokenRequest},
		{"zone missing", a.Admin, client.NewAdminToken{Name: "x", Scope: "zone"}, code.ZoneIDRequired},
		{"global with a zone", a.Admin, client.NewAdminToken{Name: "x", Scope: "global", ZoneID: &zone.ID}, code.ZoneIDNotAllowedForGlobal},
		{"zone unknown", a.Admin, ofZone("nowhere"), code.ZoneNotFound},
		{"zone that is no zone", a.Admin, ofZone("-"), code.ZoneNotFound},
		{"zone archived", a.Admin, ofZone(gone), code.ZoneNotFound},
		{"by the Console", a.With(console("caracal:console:write:v1")), global, code.AdminTokenManagementForbiddenForDerivedToken},
		{"by the Console, reading", a.With(console("caracal:console:read-only:v1")), global, code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.as.CreateAdminTokenWithResponse(t.Context(), tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			minted := resp.JSON201
			if !strings.HasPrefix(minted.CreatedBy, "admin:") || (minted.ExpiresAt != nil) != (tt.body.ExpiresIn != nil) {
				t.Errorf("minted %+v", minted)
			}
			id := zone.ID
			probe, err := a.With(minted.Token).GetZoneWithResponse(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, probe, http.StatusOK, "")
		})
	}
}

func TestTheConsolesTokensWork(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for label, want := range map[string]code.Code{
		"caracal:console:write:v1":     "",
		"caracal:console:read-only:v1": code.AdminTokenReadOnly,
	} {
		resp, err := a.With(console(label)).CreateZoneWithResponse(t.Context(), client.NewZone{Name: "x"})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusCreated, want)
	}
}

func TestAnExpiredTokenIsNoToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	minted := a.Token("", "read")
	caller := a.With(minted.Token)
	read := func() servertest.Answer {
		resp, err := caller.ListZonesWithResponse(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	a.DB.Exec("UPDATE admin_tokens SET expires_at = now() - interval '1 second' WHERE id = $1", minted.ID)
	servertest.Expect(t, read(), 0, code.InvalidAdminToken)
	a.DB.Exec("UPDATE admin_tokens SET expires_at = now() + interval '500 milliseconds' WHERE id = $1", minted.ID)
	servertest.Expect(t, read(), http.StatusOK, "")
	eventually(t, "the remembered token expires too", func() bool { return read().StatusCode() == http.StatusUnauthorized })
}

func TestANewBootstrapTokenReplacesTheOld(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	url := storetest.RedisURL(t)
	status := func(token string) int {
		t.Helper()
		return a.Do("GET", "/v1/zones", "", bearer(token)...).StatusCode()
	}
	if got := status(servertest.Bootstrap); got != http.StatusOK {
		t.Fatalf("the first answered %d", got)
	}
	servertest.Beside(t, a.DB, url, "CARACAL_ADMIN_TOKEN=the-second")
	// The first replica hears of it, though it had remembered the token.
	eventually(t, "the first is revoked", func() bool { return status(servertest.Bootstrap) == http.StatusUnauthorized })
	if got := status("the-second"); got != http.StatusOK {
		t.Errorf("the second answered %d", got)
	}
	// Configured again, the first works again: nobody is locked out by a change of mind.
	servertest.Beside(t, a.DB, url)
	eventually(t, "the second is revoked", func() bool { return status("the-second") == http.StatusUnauthorized })
	if got := status(servertest.Bootstrap); got != http.StatusOK {
		t.Errorf("the first answered %d again", got)
	}
	if live := storetest.Value[int](a.DB, "SELECT count(*) FROM admin_tokens WHERE revoked_at IS NULL"); live != 3 {
		t.Errorf("%d tokens are live, want the bootstrap token and the Console's two", live)
	}
}

func TestTheUseOfATokenIsNoted(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	minted := a.Token("", "read")
	for range 3 {
		a.Do("GET", "/v1/zones", "", bearer(minted.Token)...)
	}
	used := func() *time.Time {
		return storetest.Value[*time.Time](a.DB, "SELECT last_used_at FROM admin_tokens WHERE id = $1", minted.ID)
	}
	eventually(t, "the use is noted", func() bool { return used() != nil })
	first := used()
	a.Do("GET", "/v1/zones", "", bearer(minted.Token)...)
	if err := a.Running.Stop(); err != nil { // notes what is left
		t.Fatal(err)
	}
	if !used().Equal(*first) {
		t.Errorf("it was noted at %v and again at %v, within the debounce", first, used())
	}
}

func TestNoTextOfATokenIsKept(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	minted := a.Token("", "write")
	servertest.Expect(t, a.Do("GET", "/v1/zones", "", bearer(minted.Token)...), http.StatusOK, "")
	for _, table := range []string{"admin_tokens", "audit_entries"} {
		for _, text := range []string{minted.Token, servertest.Bootstrap, console("caracal:console:write:v1")} {
			if n := storetest.Value[int](a.DB, "SELECT count(*) FROM "+table+" AS t WHERE to_jsonb(t)::text LIKE '%' || $1 || '%'", text); n > 0 {
				t.Errorf("a token's text is in %s", table)
			}
			if strings.Contains(a.Log.String(), text) {
				t.Error("a token's text is in the log")
			}
		}
	}
}
