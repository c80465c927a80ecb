package server_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/storetest"
)

const formType = "application/x-www-form-urlencoded"

// tokenForm returns a form that requests a token for a Control key, with changes: pairs of
// name and value, where "" removes a parameter.
func tokenForm(key client.CreatedControlKey, changes ...string) url.Values {
	form := url.Values{
		"grant_type": {"client_credentials"}, "application_id": {key.ID}, "client_secret": {key.ClientSecret},
		"resource": {key.Resource}, "scope": {string(key.AllowedScopes[0])},
	}
	for i := 0; i+1 < len(changes); i += 2 {
		if form.Del(changes[i]); changes[i+1] != "" {
			form.Set(changes[i], changes[i+1])
		}
	}
	return form
}

// requestToken sends a form to the token endpoint. Headers are pairs of name and value.
func requestToken(a *servertest.API, form url.Values, headers ...string) servertest.RawResponse {
	a.TB.Helper()
	return a.Do("POST", "/oauth/2/token", form.Encode(), append([]string{"Content-Type", formType}, headers...)...)
}

// tokenClaims returns the claims of a token, which the public keys of its zone must verify.
func tokenClaims(t *testing.T, a *servertest.API, zone, token string) map[string]any {
	t.Helper()
	raw := a.Do("GET", "/.well-known/jwks.json?zone_id="+zone, "")
	servertest.Expect(t, raw, http.StatusOK, "")
	keys, err := jwk.Parse(raw.Body)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify([]byte(token), jws.WithKeySet(keys, jws.WithRequireKid(true)))
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// exchangeEvents returns the audit events of token requests in a zone, once there are n.
func exchangeEvents(t *testing.T, a *servertest.API, zone string, n int) (events []map[string]any) {
	t.Helper()
	eventually(t, "the audit events are stored", func() bool {
		events = nil
		for _, text := range storetest.Column[string](a.DB, `SELECT jsonb_build_object('decision', decision, 'status', evaluation_status, 'policies', determining_policies::jsonb, 'request_id', request_id, 'metadata', metadata::jsonb)::text
			FROM audit_events WHERE zone_id = $1 AND event_type = 'token_exchange' ORDER BY occurred_at, id`, zone) {
			var event map[string]any
			if err := json.Unmarshal([]byte(text), &event); err != nil {
				t.Fatal(err)
			}
			events = append(events, event)
		}
		return len(events) >= n
	})
	return events
}

func TestIssueToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "PUBLIC_URL=https://api.example.com/caracal")
	zone := a.Zone().ID
	key := newControlKey(t, a, zone, client.ControlScopeControlGrantRead, client.ControlScopeControlAppWrite)
	before := time.Now().Truncate(time.Second)
	raw := requestToken(a, tokenForm(key, "scope", "  control:grant:read control:app:write control:grant:read "), "X-Request-Id", "the-request")
	servertest.Expect(t, raw, http.StatusOK, "")
	got := decode[client.IssuedToken](t, raw)
	want := client.IssuedToken{
		AccessToken: got.AccessToken, TokenType: "Bearer", ExpiresIn: 900, Scope: "control:grant:read control:app:write",
		IssuedTokenType: "urn:ietf:params:oauth:token-type:access_token", TargetResources: []string{controlAudience},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || raw.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %+v, Cache-Control %q", got, raw.Header.Get("Cache-Control"))
	}
	claims := tokenClaims(t, a, zone, got.AccessToken)
	session, _ := claims["sid"].(string)
	iat, _ := claims["iat"].(float64)
	if claims["exp"] != iat+900 || time.Unix(int64(iat), 0).Before(before) || claims["jti"] == "" || session == "" {
		t.Errorf("claims %v", claims)
	}
	for _, name := range []string{"iat", "exp", "jti"} {
		delete(claims, name)
	}
	audience := []any{controlAudience}
	if want := map[string]any{
		"iss": "https://api.example.com/caracal/v1/zones/" + zone, "sub": key.ID, "client_id": key.ID, "aud": audience, "target": audience,
		"zone_id": zone, "scope": want.Scope, "sid": session, "root_sid": session, "use": "resource", "sub_type": "application",
	}; fmt.Sprint(claims) != fmt.Sprint(want) {
		t.Errorf("claims %v\nwant   %v", claims, want)
	}
	row := storetest.Value[string](a.DB, `SELECT concat_ws(' ', zone_id, session_type, subject_id, application_id, status, parent_id IS NULL, extract(epoch FROM expires_at)::bigint) FROM sessions WHERE id = $1`, session)
	if want := fmt.Sprint(zone, " application ", key.ID, " ", key.ID, " active t ", int64(iat)+900); row != want {
		t.Errorf("session %s, want %s", row, want)
	}
	entries := storetest.Column[string](a.DB, "SELECT concat_ws(' ', zone_id, entity_type, entity_id, operation, actor_name, status_code) FROM audit_entries WHERE request_id = 'the-request' AND entity_type = 'sessions'")
	if want := fmt.Sprint(zone, " sessions ", session, " issueToken application ", key.ID, " 200"); !slices.Equal(entries, []string{want}) {
		t.Errorf("audit entries %q, want %q", entries, want)
	}
	event := exchangeEvents(t, a, zone, 1)[0]
	if want := map[string]any{
		"decision": "allow", "status": "complete", "policies": []any{map[string]any{"policy": "control-key"}}, "request_id": "the-request",
		"metadata": map[string]any{
			"application_id": key.ID, "application_name": "key", "application_registration_method": "managed", "resource": controlAudience,
			"requested_scopes": []any{"control:grant:read", "control:app:write"}, "session_id": session,
		},
	}; fmt.Sprint(event) != fmt.Sprint(want) {
		t.Errorf("audit event %v\nwant        %v", event, want)
	}
	if strings.Contains(a.Log.String(), key.ClientSecret) || strings.Contains(a.Log.String(), got.AccessToken) {
		t.Error("the log contains a secret")
	}
}

func TestIssueTokenChecksRequest(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	for _, tt := range []struct {
		name    string
		changes []string
		also    url.Values // added to the form
		want    code.Code
		status  int
	}{
		{"as it is", nil, nil, "", 200},
		{"client_id", []string{"application_id", "", "client_id", key.ID}, nil, "", 200},
		{"both IDs", []string{"client_id", key.ID}, nil, "", 200},
		{"with the zone", []string{"zone_id", zone}, nil, "", 200},
		{"the resource twice", nil, url.Values{"resource": {controlAudience}}, "", 200},
		{"unknown parameter", []string{"unknown", "x"}, nil, "", 200},
		{"parameter without a value", nil, url.Values{"zone_id": {""}, "client_id": {""}}, "", 200},
		{"shortest lifetime", []string{"ttl_seconds", "1"}, nil, "", 200},
		{"longest lifetime", []string{"ttl_seconds", "900"}, nil, "", 200},
		{"grant type is missing", []string{"grant_type", ""}, nil, code.InvalidRequest, 400},
		{"another grant type", []string{"grant_type", "password"}, nil, code.UnsupportedGrantType, 400},
		{"grant type twice", nil, url.Values{"grant_type": {"client_credentials"}}, code.InvalidRequest, 400},
		{"scope is missing", []string{"scope", ""}, nil, code.InvalidRequest, 400},
		{"scope twice", nil, url.Values{"scope": {"control:app:read"}}, code.InvalidRequest, 400},
		{"secret twice", nil, url.Values{"client_secret": {"x"}}, code.InvalidRequest, 400},
		{"unknown parameter twice", nil, url.Values{"unknown": {"x", "y"}}, code.InvalidRequest, 400},
		{"two IDs", []string{"client_id", "other"}, nil, code.InvalidRequest, 400},
		{"resource is missing", []string{"resource", ""}, nil, code.InvalidToken, 400},
		{"lifetime of zero", []string{"ttl_seconds", "0"}, nil, code.InvalidToken, 400},
		{"negative lifetime", []string{"ttl_seconds", "-1"}, nil, code.InvalidToken, 400},
		{"lifetime too long", []string{"ttl_seconds", "901"}, nil, code.InvalidToken, 400},
		{"lifetime is a fraction", []string{"ttl_seconds", "1.5"}, nil, code.InvalidToken, 400},
		{"lifetime with an exponent", []string{"ttl_seconds", "1e2"}, nil, code.InvalidToken, 400},
		{"lifetime out of range", []string{"ttl_seconds", strings.Repeat("9", 30)}, nil, code.InvalidToken, 400},
		{"NUL", []string{"zone_id", "a\x00b"}, nil, code.InvalidToken, 400},
		{"not UTF-8", []string{"zone_id", "\xff"}, nil, code.InvalidToken, 400},
		{"another zone", []string{"zone_id", other}, nil, code.ZoneInvalid, 403},
		{"another zone and a wrong secret", []string{"zone_id", other, "client_secret", "wrong"}, nil, code.AccessDenied, 401},
		{"another resource", []string{"resource", "resource://other"}, nil, code.AccessDenied, 403},
		{"another resource too", nil, url.Values{"resource": {"resource://other"}}, code.AccessDenied, 403},
		{"a scope of another key", []string{"scope", "control:app:read control:app:write"}, nil, code.AccessDenied, 403},
		{"a scope that no key has", []string{"scope", "control:zone:write"}, nil, code.AccessDenied, 403},
		{"a scope of a resource", []string{"scope", "read"}, nil, code.AccessDenied, 403},
		{"a scope of blanks", []string{"scope", "  "}, nil, code.AccessDenied, 403},
		{"a wrong secret", []string{"client_secret", "wrong"}, nil, code.AccessDenied, 401},
		{"an unknown application", []string{"application_id", "unknown"}, nil, code.AccessDenied, 401},
		{"no credentials", []string{"application_id", "", "client_secret", ""}, nil, code.AccessDenied, 401},
		{"no secret", []string{"client_secret", ""}, nil, code.AccessDenied, 401},
		{"no ID", []string{"application_id", ""}, nil, code.AccessDenied, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			form := tokenForm(key, tt.changes...)
			for name, values := range tt.also {
				form[name] = append(form[name], values...)
			}
			raw := requestToken(a, form)
			expectToken(t, raw, tt.want, tt.status)
			if tt.status == 401 && raw.Header.Get("WWW-Authenticate") != `Basic realm="caracal", charset="UTF-8"` {
				t.Errorf("WWW-Authenticate is %q", raw.Header.Values("WWW-Authenticate"))
			}
			if tt.status == 200 && form.Has("ttl_seconds") && fmt.Sprint(decode[client.IssuedToken](t, raw).ExpiresIn) != form.Get("ttl_seconds") {
				t.Errorf("got %s", raw.Body)
			}
		})
	}
}

// The error of a request without several parameters names all of them: most OAuth clients
// show the description only.
func TestIssueTokenNamesMissingParameters(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	key := newControlKey(t, a, a.Zone().ID, client.ControlScopeControlAppRead)
	for _, tt := range []struct {
		name    string
		changes []string
		missing []string
	}{
		{"scope", []string{"scope", ""}, []string{"scope"}},
		{"scope and resource", []string{"scope", "", "resource", ""}, []string{"resource", "scope"}},
		{"all", []string{"grant_type", "", "scope", "", "resource", ""}, []string{"grant_type", "resource", "scope"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := requestToken(a, tokenForm(key, tt.changes...))
			expectToken(t, raw, code.InvalidRequest, 400)
			got := decode[rawclient.Problem](t, raw)
			var named []string
			for _, issue := range got.Details.Issues {
				named = append(named, issue.Path...)
			}
			if want := "Required parameters are missing: " + strings.Join(tt.missing, ", ") + "."; got.ErrorDescription != want || !slices.Equal(named, tt.missing) {
				t.Errorf("got %s", raw.Body)
			}
		})
	}
}

// expectToken fails the test unless a response has a status and an error code.
func expectToken(t *testing.T, raw servertest.RawResponse, want code.Code, status int) {
	t.Helper()
	got := decode[rawclient.Problem](t, raw)
	if raw.StatusCode() != status || got.Error != string(want) || status != 200 && (got.ErrorDescription == "" || got.RequestID == "") {
		t.Fatalf("got %d %s, want %d %s", raw.StatusCode(), raw.Body, status, want)
	}
	if raw.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control is %q", raw.Header.Get("Cache-Control"))
	}
}

// A request that is not a form of the token endpoint is rejected, and no secret is accepted
// in the URL, where it would get into logs.
func TestIssueTokenTakesFormInBodyOnly(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_BODY_LIMIT_BYTES=1048576")
	key := newControlKey(t, a, a.Zone().ID, client.ControlScopeControlAppRead)
	form := tokenForm(key)
	object, err := json.Marshal(map[string]any{"grant_type": "client_credentials"})
	if err != nil {
		t.Fatal(err)
	}
	without := tokenForm(key, "client_secret", "")
	for _, tt := range []struct {
		name, path, kind, body string
		want                   code.Code
		status                 int
	}{
		{"with a charset", "", formType + "; charset=utf-8", form.Encode(), "", 200},
		{"unknown query parameter", "?trace=1", formType, form.Encode(), "", 200},
		{"JSON", "", jsonType, string(object), code.UnsupportedMediaType, 415},
		{"multipart", "", "multipart/form-data; boundary=x", form.Encode(), code.UnsupportedMediaType, 415},
		{"no media type", "", "", form.Encode(), code.UnsupportedMediaType, 415},
		{"empty", "", formType, "", code.InvalidRequest, 400},
		{"malformed encoding", "", formType, form.Encode() + "&x=%zz", code.InvalidToken, 400},
		{"a semicolon", "", formType, form.Encode() + ";x=y", code.InvalidToken, 400},
		{"too large", "", formType, form.Encode() + "&x=" + strings.Repeat("x", 64<<10), code.PayloadTooLarge, 413},
		{"secret in the URL", "?client_secret=" + key.ClientSecret, formType, without.Encode(), code.InvalidRequest, 400},
		{"secret in the URL, too", "?client_secret=" + key.ClientSecret, formType, form.Encode(), code.InvalidRequest, 400},
		{"everything in the URL", "?" + form.Encode(), formType, "", code.InvalidRequest, 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var headers []string
			if tt.kind != "" {
				headers = []string{"Content-Type", tt.kind}
			}
			expectToken(t, a.Do("POST", "/oauth/2/token"+tt.path, tt.body, headers...), tt.want, tt.status)
		})
	}
	raw := a.Do("POST", "/oauth/2/token", "", "Content-Type", "")
	if raw.StatusCode() != http.StatusBadRequest {
		t.Errorf("without a body, got %d %s", raw.StatusCode(), raw.Body)
	}
	servertest.Expect(t, a.Do("GET", "/oauth/2/token", ""), 0, code.MethodNotAllowed)
	if strings.Contains(a.Log.String(), key.ClientSecret) {
		t.Error("the log contains a secret")
	}
}

// Only Control keys that are active and have not expired get tokens, and none lives longer
// than its key allows.
func TestIssueTokenChecksKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const traits = "UPDATE applications SET traits = $2 WHERE id = $1"
	invoke, read := "control:invoke", "control:scope:control:app:read"
	at := func(d time.Duration) string {
		return "control:expires:" + time.Now().Add(d).UTC().Format("2006-01-02T15:04:05.000Z")
	}
	for _, tt := range []struct {
		name, sql string
		args      []any
		want      code.Code
		status    int
		lifetime  [2]int64
	}{
		{"key", traits, []any{[]string{invoke, read}}, "", 200, [2]int64{900, 900}},
		{"maximum lifetime", traits, []any{[]string{invoke, read, "control:max-ttl:60"}}, "", 200, [2]int64{60, 60}},
		{"expires soon", traits, []any{[]string{invoke, read, at(800 * time.Second)}}, "", 200, [2]int64{1, 800}},
		{"expires later", traits, []any{[]string{invoke, read, at(time.Hour)}}, "", 200, [2]int64{900, 900}},
		{"expired", traits, []any{[]string{invoke, read, at(-time.Second)}}, code.AccessDenied, 403, [2]int64{}},
		{"no key", traits, []any{[]string{read}}, code.AccessDenied, 403, [2]int64{}},
		{"no traits", traits, []any{[]string{}}, code.AccessDenied, 403, [2]int64{}},
		{"malformed expiry", traits, []any{[]string{invoke, read, "control:expires:never"}}, code.AccessDenied, 403, [2]int64{}},
		{"malformed lifetime", traits, []any{[]string{invoke, read, "control:max-ttl:3600"}}, code.AccessDenied, 403, [2]int64{}},
		{"no scopes", traits, []any{[]string{invoke}}, code.AccessDenied, 403, [2]int64{}},
		{"archived", "UPDATE applications SET archived_at = now() WHERE id = $1", nil, code.AccessDenied, 401, [2]int64{}},
		{"expired registration", "UPDATE applications SET registration_method = 'dcr', expires_at = now() - interval '1 second' WHERE id = $1", nil, code.AccessDenied, 401, [2]int64{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
			a.DB.Exec(tt.sql, append([]any{key.ID}, tt.args...)...)
			raw := requestToken(a, tokenForm(key))
			expectToken(t, raw, tt.want, tt.status)
			if tt.status != 200 {
				return
			}
			got := decode[client.IssuedToken](t, raw)
			claims := tokenClaims(t, a, zone, got.AccessToken)
			if got.ExpiresIn < tt.lifetime[0] || got.ExpiresIn > tt.lifetime[1] || claims["exp"].(float64)-claims["iat"].(float64) != float64(got.ExpiresIn) {
				t.Errorf("lives for %d seconds, want %v; claims %v", got.ExpiresIn, tt.lifetime, claims)
			}
		})
	}
	archived := a.Zone().ID
	key := newControlKey(t, a, archived, client.ControlScopeControlAppRead)
	a.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archived)
	expectToken(t, requestToken(a, tokenForm(key)), code.AccessDenied, 401)
	reserved := systemZone(a).ID
	expectToken(t, requestToken(a, tokenForm(newControlKey(t, a, reserved, client.ControlScopeControlAppRead))), "", 200)
}

// Denied requests of known applications are recorded with the reason, and others are not.
func TestDeniedTokenRequestsAreRecorded(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	var want []string
	for _, tt := range []struct{ name, value, status, reason string }{
		{"resource", "other", "resource_not_found", "The resource must be the control resource."},
		{"scope", "control:app:write", "scope_mismatch", "The Control key does not have all requested scopes."},
		{"zone_id", "other", "exchange_denied", "zone_invalid"},
		{"client_secret", "wrong", "exchange_denied", "The credentials of the application are missing or invalid."},
		{"application_id", "unknown", "", ""},
		{"grant_type", "password", "", ""},
	} {
		raw := requestToken(a, tokenForm(key, tt.name, tt.value))
		if raw.StatusCode() == http.StatusOK {
			t.Fatalf("%s: got a token", tt.name)
		}
		if tt.status != "" {
			want = append(want, "deny "+tt.status+" [] "+tt.reason)
		}
	}
	expectToken(t, requestToken(a, tokenForm(key)), "", 200)
	want = append(want, "allow complete [map[policy:control-key]] <nil>")
	var got []string
	for _, e := range exchangeEvents(t, a, zone, len(want)) {
		got = append(got, fmt.Sprint(e["decision"], " ", e["status"], " ", e["policies"], " ", e["metadata"].(map[string]any)["reason"]))
	}
	if !slices.Equal(got, want) {
		t.Errorf("events %q\nwant   %q", got, want)
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM sessions"); n != 1 {
		t.Errorf("%d sessions, want 1", n)
	}
}

// Revoking a key revokes the sessions of its tokens.
func TestRevokedKeyGetsNoTokens(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	expectToken(t, requestToken(a, tokenForm(key)), "", 200)
	resp, err := a.Admin.DeleteControlKeyWithResponse(t.Context(), zone, key.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusNoContent, "")
	expectToken(t, requestToken(a, tokenForm(key)), code.AccessDenied, 401)
	if got := storetest.Column[string](a.DB, "SELECT status FROM sessions"); !slices.Equal(got, []string{"revoked"}) {
		t.Errorf("sessions %q", got)
	}
}

// While Redis is away, tokens are issued, and their events are published afterwards.
func TestTokensAreIssuedWithoutRedis(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t)
	const rules = "on nopass ~* &* +@all"
	url := setUser(t, r, "service", append(strings.Fields(rules), ">"+redisPassword))
	a := servertest.NewReplica(t, storetest.New(t), url)
	zone := a.Zone().ID
	key := newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	setUser(t, r, "service", []string{"-xadd"})
	for range 3 {
		expectToken(t, requestToken(a, tokenForm(key)), "", 200)
	}
	if n := r.Admin.XLen(t.Context(), ingest.Stream).Val(); n != 0 {
		t.Fatalf("%d events were published", n)
	}
	setUser(t, r, "service", []string{"+xadd"})
	exchangeEvents(t, a, zone, 3)
	if !containsLine(string(a.Do("GET", "/metrics", "").Body), "caracal_api_audit_events_dropped_total 0") {
		t.Error("events were dropped")
	}
}

// Failed authentications are limited, per client address and per application.
func TestFailedClientAuthenticationsAreLimited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "ADMIN_AUTH_FAIL_LIMIT_PER_MIN=3", "TRUST_PROXY=true")
	zone := a.Zone().ID
	from := func(ip string, form url.Values) int {
		t.Helper()
		return requestToken(a, form, "X-Forwarded-For", ip).StatusCode()
	}
	limited := func(attempt func(n int) int) bool {
		for n := range 10 { // a minute may end in between
			if attempt(n) == http.StatusTooManyRequests {
				return true
			}
		}
		return false
	}
	one, two := newControlKey(t, a, zone, client.ControlScopeControlAppRead), newControlKey(t, a, zone, client.ControlScopeControlAppRead)
	if !limited(func(int) int { return from("192.0.2.1", tokenForm(one, "application_id", "unknown")) }) {
		t.Error("an address was not limited")
	}
	if got := from("192.0.2.2", tokenForm(two)); got != http.StatusOK {
		t.Errorf("another address got %d", got)
	}
	denied := 0 // and not limited
	if !limited(func(n int) int {
		status := from(fmt.Sprint("192.0.2.", 10+n), tokenForm(one, "client_secret", "a guess"))
		if status == http.StatusUnauthorized {
			denied++
		}
		return status
	}) {
		t.Error("guesses for one application from many addresses were not limited")
	}
	if got := from("192.0.2.3", tokenForm(two)); got != http.StatusOK {
		t.Errorf("another application got %d", got)
	}
	if got := from("192.0.2.3", tokenForm(one)); got != http.StatusOK {
		t.Errorf("the application with its secret got %d: guesses must not lock it out", got)
	}
	const issued = 3
	if events := exchangeEvents(t, a, zone, denied+issued); len(events) != denied+issued {
		t.Errorf("%d audit events, want %d of issued tokens and %d of denied requests, and none of limited ones", len(events), issued, denied)
	}
}

// basicAuth returns the header with which an application authenticates.
func basicAuth(id, secret string) []string {
	return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))}
}
