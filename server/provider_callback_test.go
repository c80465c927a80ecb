package server_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/provider/authserver"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCompleteProviderGrant(t *testing.T) {
	t.Parallel()
	z := newOAuthZone(t)
	for _, c := range authClients {
		t.Run(c.AuthMethod, func(t *testing.T) {
			z := z
			z.provider = z.providerWith(t, c, map[string]any{"issuer": z.auth.URL}) // "none" sends it
			z.resource = z.resourceOf(t, z.provider)
			before := time.Now()
			query := z.allow(t)
			raw := z.callback(query)
			servertest.Expect(t, raw, http.StatusCreated, "")
			g := decode[client.ProviderGrant](t, raw)
			if got := getProviderGrant(t, z.Admin, z.zone, g.ID); string(got.Body) != string(raw.Body) {
				t.Errorf("get returned %s, the callback %s", got.Body, raw.Body)
			}
			if g.UserID != "user-1" || g.ResourceID != z.resource || g.ProviderID != z.provider || !slices.Equal(g.Scopes, []string{"read"}) || g.Status != client.ProviderGrantStatusActive ||
				g.ExpiresAt == nil || g.ExpiresAt.Before(before.Add(time.Hour-time.Second)) || g.ExpiresAt.After(time.Now().Add(time.Hour)) {
				t.Errorf("got %+v", g)
			}
			access, refresh := z.tokens(t, g.ID)
			if !strings.HasPrefix(access, "access-") || !strings.HasPrefix(refresh, "refresh-") {
				t.Errorf("the stored tokens are %q and %q", access, refresh)
			}
			servertest.Expect(t, z.callback(query), 0, code.OAuthStateExpired) // replayed
			// Another authorization replaces the tokens.
			again := z.callback(z.allow(t, func(b *client.NewProviderAuthorization) { b.Scopes = []string{"write"} }))
			servertest.Expect(t, again, http.StatusCreated, "")
			if replaced := decode[client.ProviderGrant](t, again); replaced.ID != g.ID || !slices.Equal(replaced.Scopes, []string{"write"}) {
				t.Errorf("the grant was replaced by %+v", replaced)
			}
			if next, _ := z.tokens(t, g.ID); next == access {
				t.Error("the access token was not replaced")
			}
		})
	}
}

func TestCompleteProviderGrantIsAudited(t *testing.T) {
	t.Parallel()
	z := newOAuthZone(t)
	minted := z.Token(z.zone, "write")
	start := func() string {
		body := `{"user_id":"user-1","resource_id":"` + z.resource + `","provider_id":"` + z.provider + `","scopes":["read"]}`
		raw := z.Do("POST", "/v1/zones/"+z.zone+"/provider-grants/oauth/authorize", body, append(bearer(minted.Token), "Content-Type", jsonType, "X-Request-Id", "it-began")...)
		servertest.Expect(t, raw, http.StatusOK, "")
		back, err := z.auth.Allow(decode[client.ProviderAuthorization](t, raw).AuthorizationURL)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(back, redirectURI+"?")
	}
	servertest.Expect(t, z.callback(start(), "X-Request-Id", "it-ended"), http.StatusCreated, "")
	got := storetest.Column[string](z.DB, `SELECT concat_ws(' | ', request_id, actor_id, actor_scope, action, status_code, payload::jsonb ->> 'rls_zone_guc', payload::jsonb ->> 'authorization_request_id')
		FROM audit_entries WHERE operation = 'completeProviderGrant'`)
	path := "/v1/zones/" + z.zone + "/provider-grants/oauth/callback"
	if want := "it-ended | " + minted.ID + " | zone | GET " + path + " | 201 | " + z.zone + " | it-began"; len(got) != 1 || got[0] != want {
		t.Errorf("the audit entries are %q, want %q", got, want)
	}
	// A failure is recorded for the same actor.
	servertest.Expect(t, z.callback(with(t, start(), "code", "wrong"), "X-Request-Id", "it-failed"), 0, code.ProviderTokenExchangeFailed)
	eventually(t, "the failure is in the audit log", func() bool {
		rows := storetest.Column[string](z.DB, "SELECT concat_ws(' | ', actor_id, status_code, entity_type, entity_id) FROM audit_entries WHERE request_id = 'it-failed'")
		return slices.Equal(rows, []string{minted.ID + " | 502 | providers | " + z.provider})
	})
}

func TestCompleteProviderGrantFails(t *testing.T) {
	t.Parallel()
	z := newOAuthZone(t)
	mandate := z.DB.Provider(z.zone)
	rest := "&code=x"
	state := "state=" + strings.Repeat("s", 43)
	fresh := func(t *testing.T) oauthZone { return oauthZoneOf(t, z.API, z.auth, z.zone) }
	set := func(z oauthZone, config string) {
		z.DB.Exec("UPDATE providers SET config_json = config_json || $2::jsonb WHERE id = $1", z.provider, config)
	}
	for _, tt := range []struct {
		name   string
		query  func(t *testing.T, z oauthZone) string
		want   code.Code
		detail string
	}{
		{"no query", func(*testing.T, oauthZone) string { return "" }, code.InvalidOAuthCallback, ""},
		{"no state", func(*testing.T, oauthZone) string { return "code=x" }, code.InvalidOAuthCallback, ""},
		{"state empty", func(*testing.T, oauthZone) string { return "state=" + rest }, code.InvalidOAuthCallback, ""},
		{"state short", func(*testing.T, oauthZone) string { return "state=" + strings.Repeat("s", 31) + rest }, code.InvalidOAuthCallback, ""},
		{"state long", func(*testing.T, oauthZone) string { return "state=" + strings.Repeat("s", 257) + rest }, code.InvalidOAuthCallback, ""},
		{"state repeated", func(*testing.T, oauthZone) string { return state + "&" + state + rest }, code.InvalidOAuthCallback, ""},
		{"state with a NUL", func(*testing.T, oauthZone) string { return state + "%00" + rest }, code.InvalidOAuthCallback, ""},
		{"code empty", func(*testing.T, oauthZone) string { return state + "&code=" }, code.InvalidOAuthCallback, ""},
		{"error empty", func(*testing.T, oauthZone) string { return state + "&error=" }, code.InvalidOAuthCallback, ""},
		{"error description empty", func(*testing.T, oauthZone) string { return state + "&error=x&error_description=" }, code.InvalidOAuthCallback, ""},
		{"malformed query", func(*testing.T, oauthZone) string { return state + rest + "%zz" }, code.InvalidOAuthCallback, ""},
		{"state unknown", func(*testing.T, oauthZone) string { return state + rest }, code.OAuthStateExpired, ""},
		{"state expired", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			z.Redis.PExpire(t.Context(), stateKey(stateOf(t, query)), time.Millisecond)
			time.Sleep(5 * time.Millisecond)
			return query
		}, code.OAuthStateExpired, ""},
		{"stored value malformed", func(t *testing.T, z oauthZone) string {
			z.Redis.Set(t.Context(), stateKey(strings.Repeat("m", 43)), "{", time.Minute)
			return "state=" + strings.Repeat("m", 43) + rest
		}, code.OAuthStateInvalid, ""},
		{"stored value of another state", func(t *testing.T, z oauthZone) string {
			query, other := z.allow(t), z.allow(t)
			z.Redis.Rename(t.Context(), stateKey(stateOf(t, other)), stateKey(stateOf(t, query)))
			return query
		}, code.OAuthStateInvalid, ""},
		{"state of another zone", func(t *testing.T, z oauthZone) string {
			return oauthZoneOf(t, z.API, z.auth, z.Zone().ID).allow(t)
		}, code.OAuthStateMismatch, ""},
		{"token that started it was revoked", func(t *testing.T, z oauthZone) string {
			minted := z.Token(z.zone, "write")
			own := *z.API
			own.Admin = z.ClientWithToken(minted.Token)
			z.API = &own
			query := z.allow(t)
			z.DB.Exec("UPDATE admin_tokens SET revoked_at = now() WHERE id = $1", minted.ID)
			return query
		}, code.OAuthStateInvalid, ""},
		{"denied", func(t *testing.T, z oauthZone) string { return z.decide(t, z.auth.Deny) }, code.ProviderOAuthDenied, "The user denied access."},
		{"denied without description", func(t *testing.T, z oauthZone) string {
			return with(t, z.decide(t, z.auth.Deny), "error_description", "")
		}, code.ProviderOAuthDenied, "access_denied"},
		{"denied with control characters", func(t *testing.T, z oauthZone) string {
			return with(t, z.decide(t, z.auth.Deny), "error_description", "a\r\n\x1b[31m\u202eb"+strings.Repeat("x", 1000))
		}, code.ProviderOAuthDenied, "a   [31m b" + strings.Repeat("x", 490)},
		{"error with a code", func(t *testing.T, z oauthZone) string { return z.allow(t) + "&error=server_error" }, code.ProviderOAuthDenied, "server_error"},
		{"another issuer", func(t *testing.T, z oauthZone) string {
			of := oauthZoneOf(t, z.API, z.auth, z.zone, map[string]any{"issuer": z.auth.URL})
			return of.allow(t) + "&iss=" + url.QueryEscape("https://attacker.example.com")
		}, code.OAuthIssuerMismatch, ""},
		{"denied by another issuer", func(t *testing.T, z oauthZone) string {
			of := oauthZoneOf(t, z.API, z.auth, z.zone, map[string]any{"issuer": z.auth.URL})
			return of.decide(t, z.auth.Deny) + "&iss=" + url.QueryEscape("https://attacker.example.com")
		}, code.OAuthIssuerMismatch, ""},
		{"issuer empty", func(*testing.T, oauthZone) string { return state + rest + "&iss=" }, code.InvalidOAuthCallback, ""},
		{"no code", func(t *testing.T, z oauthZone) string { return with(t, z.allow(t), "code", "") }, code.AuthorizationCodeRequired, ""},
		{"provider archived meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			servertest.Expect(t, deleteResource(t, z.Admin, z.zone, z.resource), http.StatusNoContent, "")
			servertest.Expect(t, deleteProvider(t, z.Admin, z.zone, z.provider), http.StatusNoContent, "")
			return query
		}, code.ProviderNotFound, ""},
		{"provider of another kind meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			servertest.Expect(t, updateProvider(t, z.Admin, z.zone, z.provider, client.ProviderPatch{Kind: new(client.ProviderKindNone), ConfigJSON: rawConfig("{}")}), http.StatusOK, "")
			return query
		}, code.ProviderGrantUnsupported, ""},
		{"resource archived meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			servertest.Expect(t, deleteResource(t, z.Admin, z.zone, z.resource), http.StatusNoContent, "")
			return query
		}, code.ResourceNotFound, ""},
		{"resource with another provider meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			servertest.Expect(t, updateResource(t, z.Admin, z.zone, z.resource, client.ResourcePatch{CredentialProviderID: client.Set(mandate)}), http.StatusOK, "")
			return query
		}, code.ProviderResourceMismatch, ""},
		{"resource without the scope meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			servertest.Expect(t, updateResource(t, z.Admin, z.zone, z.resource, client.ResourcePatch{Scopes: new([]string{"write"}), Operations: &[]client.NewResourceOperation{}}), http.StatusOK, "")
			return query
		}, code.GrantScopesExceedResource, ""},
		{"zone archived meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			z.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", z.zone)
			return query
		}, code.ZoneNotFound, ""},
		{"another token endpoint meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			set(z, `{"token_endpoint":"https://auth.example.com/other"}`)
			return query
		}, code.OAuthProviderChanged, ""},
		{"another client meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			set(z, `{"client_id":"post"}`)
			return query
		}, code.OAuthProviderChanged, ""},
		{"no client ID meanwhile", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			set(z, `{"client_id":""}`)
			return query
		}, code.InvalidProviderConfig, ""},
		{"no client secret", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			z.DB.Exec("UPDATE providers SET secret_config = NULL, data_key = NULL, secret_config_keys = '{}' WHERE id = $1", z.provider)
			return query
		}, code.InvalidProviderConfig, ""},
		{"client secret cannot be decrypted", func(t *testing.T, z oauthZone) string {
			query := z.allow(t)
			z.DB.Exec("UPDATE providers SET secret_config = set_byte(secret_config, 40, 255 - get_byte(secret_config, 40)) WHERE id = $1", z.provider)
			return query
		}, code.InvalidProviderConfig, ""},
		{"token endpoint http", func(t *testing.T, z oauthZone) string {
			set(z, `{"token_endpoint":"http://auth.example.com/token"}`)
			return z.allow(t)
		}, code.ProviderTokenEndpointNotAllowed, "provider token endpoint must be https"},
		{"no allowed hosts", func(t *testing.T, z oauthZone) string {
			set(z, `{"allowed_token_hosts":[]}`)
			return z.allow(t)
		}, code.ProviderTokenEndpointNotAllowed, "provider has no allowed_token_hosts configured"},
		{"host not allowed", func(t *testing.T, z oauthZone) string {
			set(z, `{"allowed_token_hosts":["example.org"]}`)
			return z.allow(t)
		}, code.ProviderTokenEndpointNotAllowed, "provider token endpoint host is not allowlisted"},
		{"code unknown", func(t *testing.T, z oauthZone) string { return with(t, z.allow(t), "code", "wrong") }, code.ProviderTokenExchangeFailed, ""},
		{"redirected", func(t *testing.T, z oauthZone) string { return z.to(t, "status 302") }, code.ProviderTokenExchangeFailed, ""},
		{"created instead of OK", func(t *testing.T, z oauthZone) string { return z.to(t, "status 201") }, code.ProviderTokenExchangeFailed, ""},
		{"response too large", func(t *testing.T, z oauthZone) string { return z.to(t, "huge body") }, code.ProviderTokenExchangeFailed, ""},
		{"error response", func(t *testing.T, z oauthZone) string { return z.to(t, "error invalid_grant") }, code.ProviderTokenExchangeFailed, ""},
		{"response null", func(t *testing.T, z oauthZone) string { return z.to(t, "JSON null") }, code.ProviderTokenResponseInvalid, ""},
		{"response without a token", func(t *testing.T, z oauthZone) string { return z.to(t, "no access token") }, code.ProviderTokenResponseInvalid, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := fresh(t)
			if strings.HasPrefix(tt.name, "zone archived") {
				z = oauthZoneOf(t, z.API, z.auth, z.Zone().ID)
			}
			query := tt.query(t, z)
			raw := z.callback(query)
			servertest.Expect(t, raw, 0, tt.want)
			if detail := problemOf(t, raw).Detail; tt.detail == "" && detail != nil || tt.detail != "" && (detail == nil || *detail != tt.detail) {
				t.Errorf("got %s, want the detail %q", raw.Body, tt.detail)
			}
			if n := storetest.Value[int](z.DB, "SELECT count(*) FROM provider_grants WHERE zone_id = $1 AND provider_id = $2", z.zone, z.provider); n != 0 {
				t.Errorf("there are %d grants", n)
			}
			if tt.want != code.InvalidOAuthCallback { // the state is used up
				servertest.Expect(t, z.callback(query), 0, code.OAuthStateExpired)
			}
		})
	}
}

// to allows access with a provider whose token endpoint sends a response.
func (z oauthZone) to(t *testing.T, response string) string {
	t.Helper()
	return oauthZoneOf(t, z.API, z.auth, z.zone, map[string]any{"token_endpoint": z.auth.TokenEndpoint(response)}).allow(t)
}

// A HEAD request, such as that of a link preview, does not use the state.
func TestHeadOfCallbackUsesNoState(t *testing.T) {
	t.Parallel()
	z := newOAuthZone(t)
	query := z.allow(t)
	for _, q := range []string{query, ""} {
		raw := z.Do("HEAD", "/v1/zones/"+z.zone+"/provider-grants/oauth/callback?"+q, "")
		if raw.StatusCode() != http.StatusMethodNotAllowed || raw.Header.Get("Allow") != "GET" {
			t.Errorf("HEAD got %d with Allow %q", raw.StatusCode(), raw.Header.Get("Allow"))
		}
	}
	servertest.Expect(t, z.callback(query), http.StatusCreated, "")
}

// Of concurrent callbacks with one state, one succeeds, and the code is sent once.
func TestCallbackIsRaced(t *testing.T) {
	t.Parallel()
	z := newOAuthZone(t)
	for range 10 {
		query := z.allow(t)
		var got [4]servertest.RawResponse
		var all []func()
		for i := range got {
			all = append(all, func() { got[i] = z.callback(query) })
		}
		concurrently(all...)
		created := 0
		for _, raw := range got {
			if raw.StatusCode() == http.StatusCreated {
				created++
				continue
			}
			servertest.Expect(t, raw, 0, code.OAuthStateExpired)
		}
		if created != 1 {
			t.Errorf("%d callbacks succeeded, want 1", created)
		}
	}
}

// What changes while the code is exchanged is noticed before the tokens are stored.
func TestCallbackNoticesChangesDuringExchange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sql string
		want      code.Code
	}{
		{"provider changed", `UPDATE providers SET config_json = config_json || '{"client_id":"other"}'`, code.OAuthProviderChanged},
		{"provider of another kind", "UPDATE providers SET kind = 'none', config_json = '{}', secret_config = NULL, data_key = NULL, secret_config_keys = '{}'", code.ProviderGrantUnsupported},
		{"resource archived", "UPDATE resources SET archived_at = now()", code.ResourceNotFound},
		{"tokens cannot be stored", "ALTER TABLE provider_grants RENAME access_token TO gone", code.ProviderGrantNotStored},
		{"audit entry cannot be stored", "REVOKE INSERT ON audit_entries FROM caracal_service", code.ProviderGrantNotStored},
		{"data key cannot be decrypted", `UPDATE data_keys SET wrapped = '\x00'`, code.ProviderGrantNotStored},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var db *storetest.DB
			auth := startAuth(t, map[string]authserver.Respond{"meanwhile": func(w http.ResponseWriter, _ *http.Request, issued authserver.Tokens) {
				db.Exec(tt.sql)
				_, _ = fmt.Fprintf(w, `{"access_token":%q}`, issued.Access)
			}})
			a := servertest.WithEgress(t, auth.Egress())
			db = a.DB
			z := oauthZoneOf(t, a, auth, a.Zone().ID, map[string]any{"token_endpoint": auth.TokenEndpoint("meanwhile")})
			raw := z.callback(z.allow(t))
			servertest.Expect(t, raw, 0, tt.want)
			if n := storetest.Value[int](a.DB, "SELECT count(*) FROM provider_grants"); n != 0 {
				t.Errorf("there are %d grants", n)
			}
		})
	}
}

// A code can be sent once, so the tokens are stored even if the browser disconnects, as
// when the user reloads the page, while the code is exchanged.
func TestCallbackOutlivesBrowser(t *testing.T) {
	t.Parallel()
	ctx, disconnect := context.WithCancel(t.Context())
	auth := startAuth(t, map[string]authserver.Respond{"meanwhile": func(w http.ResponseWriter, r *http.Request, issued authserver.Tokens) {
		disconnect()
		select {
		case <-r.Context().Done(): // the service gave up
		case <-time.After(time.Second):
		}
		_, _ = fmt.Fprintf(w, `{"access_token":%q}`, issued.Access)
	}})
	a := servertest.WithEgress(t, auth.Egress())
	z := oauthZoneOf(t, a, auth, a.Zone().ID, map[string]any{"token_endpoint": auth.TokenEndpoint("meanwhile")})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, z.URL+"/v1/zones/"+z.zone+"/provider-grants/oauth/callback?"+z.allow(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(request); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, %v", response, err)
	}
	eventually(t, "the tokens are stored", func() bool {
		return storetest.Value[int](z.DB, "SELECT count(*) FROM provider_grants") == 1
	})
}

// The callback is public, so its rate is limited by address.
func TestCallbackIsRateLimited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_V1_RATE_LIMIT_PER_MIN=3")
	limited := 0
	for range 8 { // in at most two minutes, of which each allows three
		raw := grantZone{API: a, zone: "zone"}.callback("state=" + strings.Repeat("s", 43) + "&code=x")
		if raw.StatusCode() == http.StatusTooManyRequests {
			servertest.Expect(t, raw, 0, code.RateLimited)
			limited++
		}
	}
	if limited == 0 {
		t.Error("no request was limited")
	}
}

// stateOf returns the state in a query.
func stateOf(t *testing.T, query string) string {
	t.Helper()
	_, rest, _ := strings.Cut("&"+query, "&state=")
	state, _, _ := strings.Cut(rest, "&")
	return state
}
