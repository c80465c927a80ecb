package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
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

// stateKey returns the key in Redis of a state.
func stateKey(state string) string {
	sum := sha256.Sum256([]byte(state))
	return "api:provider_oauth_state:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func TestAuthorizeProviderGrant(t *testing.T) {
	t.Parallel()
	z := newOAuthZone(t)
	resp, err := z.ClientFor(z.zone, "write").AuthorizeProviderGrantWithResponse(t.Context(), z.zone, z.request())
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	started := *resp.JSON200
	to, err := url.Parse(started.AuthorizationURL)
	if err != nil {
		t.Fatal(err)
	}
	q := to.Query()
	challenge := q.Get("code_challenge")
	q.Del("code_challenge")
	want := url.Values{
		"response_type": {"code"}, "client_id": {"basic"}, "redirect_uri": {redirectURI}, "state": {started.State}, "scope": {"openid files:all"}, "code_challenge_method": {"S256"},
	}
	if !strings.HasPrefix(started.AuthorizationURL, z.auth.AuthorizationEndpoint()+"?") || q.Encode() != want.Encode() || len(challenge) != 43 || len(started.State) != 43 {
		t.Errorf("the authorization URL is %s", started.AuthorizationURL)
	}
	key := stateKey(started.State)
	expires := z.Redis.PExpireTime(t.Context(), key).Val()
	if started.ExpiresAt.UnixMilli() != expires.Milliseconds() {
		t.Errorf("the state expires at %v, in Redis at %v", started.ExpiresAt, expires)
	}
	if ttl := z.Redis.TTL(t.Context(), key).Val(); ttl <= 9*time.Minute || ttl > 10*time.Minute {
		t.Errorf("the state is kept for %v", ttl)
	}
	value := z.Redis.Get(t.Context(), key).Val()
	if !strings.HasPrefix(value, `{"zone_id":"`+z.zone+`","data_key":1,"sealed":"`) || strings.Contains(value, "user-1") {
		t.Errorf("Redis has %s", value)
	}
	entries := storetest.Column[string](z.DB, "SELECT entity_type || '/' || entity_id || ' ' || actor_scope || ' ' || (payload::jsonb ->> 'changed_fields') FROM audit_entries WHERE operation = 'authorizeProviderGrant'")
	if !slices.Equal(entries, []string{"providers/" + z.provider + " zone []"}) {
		t.Errorf("the audit entries are %q", entries)
	}
	if another := z.start(t); another.State == started.State || another.AuthorizationURL == started.AuthorizationURL {
		t.Error("the next authorization is the same")
	}
}

func TestAuthorizeProviderGrantFails(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newGrantZone(t, a)
	other, archivedZone, system := newGrantZone(t, a), a.DB.ArchivedZone(), grantZoneOf(t, a, systemZone(a).ID)
	mandate := a.DB.Provider(z.zone)
	// changed returns a provider whose stored configuration is older than the rules.
	changed := func(config string) grantZone {
		of := grantZoneOf(t, a, z.zone)
		a.DB.Exec("UPDATE providers SET config_json = config_json || $2::jsonb WHERE id = $1", of.provider, config)
		return of
	}
	sealedElsewhere := grantZoneOf(t, a, z.zone)
	a.DB.Exec("UPDATE providers SET secret_config = (SELECT secret_config FROM providers WHERE id = $2) WHERE id = $1", sealedElsewhere.provider, z.provider)
	of := func(z grantZone) func(*client.NewProviderAuthorization) {
		return func(b *client.NewProviderAuthorization) { b.ProviderID, b.ResourceID = z.provider, z.resource }
	}
	for _, tt := range []struct {
		name   string
		as     *rawclient.ClientWithResponses
		zone   string
		change func(*client.NewProviderAuthorization)
		want   code.Code
		detail string
	}{
		{"user empty", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.UserID = "" }, code.InvalidProviderOAuthAuthorize, ""},
		{"no scopes", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.Scopes = []string{} }, code.InvalidProviderOAuthAuthorize, ""},
		{"scope with a space", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.Scopes = []string{"a b"} }, code.InvalidProviderOAuthAuthorize, ""},
		{"scope that the resource lacks", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.Scopes = []string{"erase"} }, code.GrantScopesExceedResource, ""},
		{"provider unknown", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.ProviderID = "unknown" }, code.ProviderNotFound, ""},
		{"provider of another zone", a.Admin, z.zone, of(other), code.ProviderNotFound, ""},
		{"provider of another kind", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.ProviderID = mandate }, code.ProviderGrantUnsupported, "only oauth2_authorization_code providers use browser authorization"},
		{"resource unknown", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.ResourceID = "unknown" }, code.ResourceNotFound, ""},
		{"resource with another provider", a.Admin, z.zone, func(b *client.NewProviderAuthorization) { b.ResourceID = changed("{}").resource }, code.ProviderResourceMismatch, ""},
		{"zone unknown", a.Admin, "unknown", nil, code.ZoneNotFound, ""},
		{"zone archived", a.Admin, archivedZone, nil, code.ZoneNotFound, ""},
		{"token of another zone", a.ClientFor(other.zone, "write"), z.zone, nil, code.AdminTokenZoneMismatch, ""},
		{"read token", a.ClientFor("", "read"), z.zone, nil, code.AdminTokenReadOnly, ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system.zone, of(system), code.SystemZoneReadOnly, ""},
		{"no client ID", a.Admin, z.zone, of(changed(`{"client_id":" "}`)), code.InvalidProviderConfig, ""},
		{"no redirect URI", a.Admin, z.zone, of(changed(`{"redirect_uri":""}`)), code.InvalidProviderConfig, ""},
		{"no authorization endpoint", a.Admin, z.zone, of(changed(`{"authorization_endpoint":null}`)), code.InvalidProviderConfig, ""},
		{"authorization endpoint http", a.Admin, z.zone, of(changed(`{"authorization_endpoint":"http://login.example.com"}`)), code.ProviderAuthorizationEndpointInvalid, "The authorization endpoint must be https."},
		{"authorization endpoint with a user", a.Admin, z.zone, of(changed(`{"authorization_endpoint":"https://u:p@login.example.com"}`)), code.ProviderAuthorizationEndpointInvalid, "The authorization endpoint must not contain a user name or password."},
		{"secrets cannot be decrypted", a.Admin, z.zone, of(sealedElsewhere), code.InvalidProviderConfig, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := z.request()
			if tt.change != nil {
				tt.change(&body)
			}
			resp, err := tt.as.AuthorizeProviderGrantWithResponse(t.Context(), tt.zone, body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, 0, tt.want)
			if detail := problemOf(t, resp).Detail; tt.detail != "" && (detail == nil || *detail != tt.detail) {
				t.Errorf("got %s, want the detail %q", resp.Body, tt.detail)
			}
		})
	}
}

// Without Redis, the request fails in a way that lets a client retry.
func TestAuthorizeProviderGrantWithoutRedis(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "REDIS_URL=redis://127.0.0.1:1")
	z := newGrantZone(t, a)
	started := z.send("POST", "/provider-grants/oauth/authorize", `{"user_id":"u","resource_id":"`+z.resource+`","provider_id":"`+z.provider+`","scopes":["read"]}`)
	servertest.Expect(t, started, 0, code.OAuthStateUnavailable)
	page := z.callback("state="+strings.Repeat("x", 43)+"&code=x", "Accept", "text/html")
	for _, raw := range []servertest.RawResponse{started, page, z.callback("state=" + strings.Repeat("x", 43) + "&code=x")} {
		if raw.StatusCode() != http.StatusServiceUnavailable || raw.Header.Get("Retry-After") == "" {
			t.Errorf("got %d with Retry-After %q: %s", raw.StatusCode(), raw.Header.Get("Retry-After"), raw.Body)
		}
	}
}
