package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
)

// A secretConfig is a provider's configuration with secrets in it.
type secretConfig struct{ kind, config string }

func (w *watched) secretConfigs() []secretConfig {
	const oauth = `"token_endpoint":"https://id.example.com/token","client_id":"me","allowed_token_hosts":["id.example.com"]`
	const people = oauth + `,"authorization_endpoint":"https://id.example.com/a","redirect_uri":"https://app.example.com/b"`
	pem := func() string {
		return `"` + w.secret() + `\n\u003c&\"\n-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n"`
	}
	s := func() string { return `"` + w.secret() + `"` }
	return []secretConfig{
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `}`},
		{"api_key", `{"auth_location":"query","query_param_name":"key","api_key":` + s() + `}`},
		{"bearer_token", `{"bearer_token":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_secret":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"private_key_jwt","key_id":"1","private_key":` + pem() + `}`},
		{"oauth2_authorization_code", `{` + people + `,"client_secret":` + s() + `}`},
		{"oauth2_client_credentials", `{"token_endpoint":"https://id.example.com/token?p=1&Key=` + w.secret() + `","client_id":"me","allowed_token_hosts":["id.example.com"],"client_secret":` + s() + `,"token_params":{"tenant":"a","password":` + s() + `,"Api-Key":` + s() + `}}`},
		{"oauth2_authorization_code", `{` + strings.Replace(people, "com/a", "com/a?token="+w.secret()+"#x", 1) + `,"client_auth_method":"none","authorization_params":{"session":` + s() + `}}`},
		// Rejected: because of another field, the location of the secret, or the secret itself.
		{"api_key", `{"header_name":7,"api_key":` + s() + `}`},
		{"api_key", `{"header_name":"not a header","api_key":` + s() + `}`},
		{"api_key", `{"api_key":` + s() + `}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"unknown_field":` + s() + `}`},
		{"api_key", `{"header_name":"X-Key","api_key":[` + s() + `]}`},
		{"api_key", `{"header_name":"X-Key","api_key":{"text":` + s() + `}}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"api_key":7}`},
		{"api_key", `{"header_name":"X-Key","bearer_token":` + s() + `}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"auth_scheme":"` + `b@d"}`},
		{"api_key", `{"header_name":"X-Key","api_key":` + s() + `,"allow_runtime_injection":"yes"}`},
		{"none", `{"api_key":` + s() + `,"client_secret":` + s() + `,"private_key":` + pem() + `,"bearer_token":` + s() + `}`},
		{"caracal_mandate", `{"bearer_token":` + s() + `}`},
		{"bearer_token", `{"bearer_token":` + s() + `,"allowed_token_hosts":["1.2.3.4:80"]}`},
		{"oauth2_client_credentials", `{"client_secret":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_secret":` + s() + `,"private_key":` + pem() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"private_key_jwt","client_secret":` + s() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"none","private_key":` + pem() + `}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_secret":` + s() + `,"token_params":{"client_secret":` + s() + `}}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"none","token_params":{"password":` + s() + `,"code":"x"}}`},
		{"oauth2_client_credentials", `{` + strings.Replace(oauth, "com/token", "com/token?key="+w.secret()+"&key="+w.secret(), 1) + `,"client_auth_method":"none"}`},
		{"oauth2_client_credentials", `{` + strings.Replace(oauth, "id.example.com/token", "u:"+w.secret()+"@id.example.com/token", 1) + `,"client_auth_method":"none"}`},
		{"api_key", `{"header_name":"X-Key","api_key":"` + w.secret() + `\n"}`},
		{"api_key", `{"header_name":"X-Key","api_key":"` + w.secret() + `\ud800"}`},
		{"bearer_token", `{"bearer_token":" ` + w.secret() + `"}`},
		{"oauth2_client_credentials", `{` + oauth + `,"client_auth_method":"private_key_jwt","private_key":` + s() + `}`},
		{"oauth2_authorization_code", `{` + people + `,"client_auth_method":"private_key_jwt","private_key":` + pem() + `}`},
		{"oauth2_authorization_code", `{` + people + `,"client_secret":` + s() + `,"authorization_params":{"state":"x"}}`},
		{"unknown_field", `{"api_key":` + s() + `}`},
		{"api_key", s()},
		{"api_key", `[` + s() + `]`},
	}
}

// hides reports whether an operation accepts or generates a secret.
func hides(op servertest.Operation) bool {
	return slices.Contains([]string{"createAdminToken", "createApplication", "registerApplication", "updateApplication", "createProvider", "createProviderGrant"}, op.OperationID)
}

// secretFields are the fields of request bodies that requestsTo puts secrets into.
var secretFields = []string{"access_token", "api_key", "bearer_token", "client_secret", "private_key", "refresh_token"}

// A request is one way to call an operation.
type request struct {
	query, body string
	headers     []string
}

// requestsTo returns the requests that are sent to an operation.
func (w *watched) requestsTo(op servertest.Operation) (all []request) {
	known := strings.NewReplacer("0198c0de-0000-7000-8000-00000000000a", w.zone.ID, "0198c0de-0000-7000-8000-00000000000b", w.ids["applications"],
		"0198c0de-0000-7000-8000-00000000000c", w.ids["providers"], "0198c0de-0000-7000-8000-00000000000d", w.ids["resources"],
		"0198c0de-0000-7000-8000-000000000030", w.ids["provider-grants/providers"], "0198c0de-0000-7000-8000-000000000031", w.ids["provider-grants/resources"],
		"0198c0de-0000-7000-8000-000000000010", w.ids["policies/versions"], "0198c0de-0000-7000-8000-000000000022", w.ids["policy-sets/versions"], "https://invoices.example.com", "https://"+strings.ToLower(op.OperationID)+".example.com")
	with := append(bearer(w.admin), "Content-Type", jsonType)
	as := func(authorization string) []string {
		return []string{"Authorization", authorization, "Content-Type", jsonType}
	}
	valid := "" // a valid body
	if takesBody(op) {
		for _, text := range examples(w.t, op) {
			valid = known.Replace(text)
			for _, example := range []string{"example-api-key", "example-rotated-api-key", "example-client-secret", "example-application-secret", "example-access-token", "example-refresh-token"} {
				valid = strings.ReplaceAll(valid, example, w.secret())
			}
			all = append(all, request{body: valid, headers: with})
		}
		secret := w.secret()
		for _, invalid := range []string{
			secret, `{"client_secret":"` + secret, `{"client_secret":"` + secret + `"}}`, `{"client_secret":"` + secret + `",}`, `["` + secret + `"]`, `"` + secret + `"`, `{"client_secret":"` + secret + "\xff\"}",
			strings.TrimSuffix(valid, "}") + `,"client_secret":7,"unknown_field":"` + secret + `"}`,
			strings.TrimSuffix(valid, "}") + `,"password":{"is":["` + secret + `"]}}`,
			strings.TrimSuffix(valid, "}") + `,"client_secret":"a\u0000` + secret + `"}`,
			`{"client_secret":"` + stem[:10] + `"}`, `{"client_secret":["` + secret + `"]}`, `{"client_secret":{"is":"` + secret + `"}}`, `{"client_secret":"` + strings.Repeat(secret, 60) + `"}`,
			`{"client_secret":"` + secret + `","name":7}`, `{"client_secret":"` + secret + `","name":""}`,
			`{"client_secret":"` + strings.Repeat(secret, 4000) + `"}`,
		} {
			all = append(all, request{body: invalid, headers: with})
		}
		all = append(all,
			request{body: "client_secret=" + w.secret(), headers: append(bearer(w.admin), "Content-Type", "application/x-www-form-urlencoded")},
			request{body: valid, headers: append(bearer(w.admin), "Content-Type", "application/json; charset="+w.secret())},
			request{body: valid, headers: append(with, "Content-Encoding", w.secret())})
	} else {
		with = bearer(w.admin)
		all = append(all, request{headers: with})
	}
	if collectionOf(op) == "providers" || strings.HasSuffix(op.Path, "/providers") {
		for _, c := range w.secretConfigs() {
			switch op.Method {
			case http.MethodPost:
				if takesBody(op) {
					all = append(all, request{body: `{"name":"Secretive","kind":"` + c.kind + `","config_json":` + c.config + `}`, headers: with})
				}
			case http.MethodPatch:
				all = append(all, request{body: `{"config_json":` + c.config + `}`, headers: with}, request{body: `{"kind":"` + c.kind + `","config_json":` + c.config + `}`, headers: with})
			}
		}
	}
	if strings.HasSuffix(op.Path, "/resources") || collectionOf(op) == "resources" {
		for _, upstream := range []string{"https://u:" + w.secret() + "@x.example.com/", "https://x.example.com/?token=" + w.secret(), "https:" + w.secret() + "@x"} {
			if takesBody(op) {
				all = append(all, request{body: strings.TrimSuffix(valid, "}") + `,"upstream_url":"` + upstream + `"}`, headers: with}, request{body: `{"upstream_url":"` + upstream + `"}`, headers: with})
			}
		}
	}
	if strings.HasSuffix(op.Path, "/provider-grants") && takesBody(op) {
		for _, invalid := range []string{`"scopes":["unknown"]`, `"scopes":["` + "A" + `"]`, `"expires_at":"2026-02-30T00:00:00Z"`, `"user_id":""`, `"provider_id":"unknown"`, `"resource_id":"unknown"`, `"access_token":["` + w.secret() + `"]`, `"refresh_token":{"is":"` + w.secret() + `"}`} {
			all = append(all, request{body: strings.TrimSuffix(valid, "}") + "," + invalid + "}", headers: with})
		}
	}
	if op.OperationID == "completeProviderGrant" {
		for _, query := range []string{"?state=" + w.secret(), "?state=" + strings.Repeat(w.secret(), 2) + "&code=" + w.secret(), "?state=" + strings.Repeat(w.secret(), 20), "?state=" + strings.Repeat(w.secret(), 2) + "&code=%zz" + w.secret()} {
			all = append(all, request{query: query}, request{query: query, headers: []string{"Accept", "text/html"}})
		}
	}
	if w.brief {
		return append(all, request{"?token=" + w.secret(), valid, with}, request{"", valid, as("Bearer " + w.secret())})
	}
	return append(all,
		request{"?token=" + w.secret() + "&client_secret=" + w.secret(), valid, with},
		request{"?limit=" + w.secret(), valid, with},
		request{"?cursor=" + w.secret(), valid, with},
		request{"?cursor=%zz" + w.secret(), valid, with},
		request{"?limit=1&access_token=" + w.secret(), valid, with},
		request{"", valid, as("Bearer " + w.secret())},
		request{"", valid, as("bearer " + w.admin)},
		request{"", valid, as("Basic " + w.secret())},
		request{"", valid, as("Bearer " + strings.Repeat(w.secret(), 300))},
		request{"", valid, append(bearer(w.admin), "Authorization", "Bearer "+w.secret())},
		request{"", valid, append(slices.Clone(with), "Cookie", "session="+w.secret(), "X-Api-Key", w.secret(), "traceparent", w.secret(), "tracestate", "a="+w.secret(), "baggage", "secret="+w.secret(),
			"X-Request-Id", "invalid id: "+w.secret(), "X-Forwarded-For", w.secret(), "Accept", w.secret(), "User-Agent", w.secret(), "Referer", "https://x.example.com/?token="+w.secret())},
		request{"", valid, append(slices.Clone(with), "Accept", "application/problem+json", "If-Match", `"`+w.secret()+`"`)},
		request{"", valid, append(slices.Clone(with), "If-Match", w.secret())})
}

// examples returns the operation's request examples.
func examples(t *testing.T, op servertest.Operation) (all []string) {
	t.Helper()
	declared := op.RequestBody.Value.Content.Get(jsonType).Examples
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		text, err := json.Marshal(declared[name].Value.Value)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

// deletesLast returns all operations: those that delete an object after those that
// need it, and those below a zone before the zone.
func deletesLast() []servertest.Operation {
	all := slices.Clone(servertest.Operations())
	slices.SortStableFunc(all, func(a, b servertest.Operation) int {
		order := func(o servertest.Operation) int {
			if o.Method != http.MethodDelete {
				return 0
			}
			return 100 - strings.Count(o.Path, "/")
		}
		return order(a) - order(b)
	})
	return all
}

func (w *watched) everyOperation(only func(servertest.Operation) bool) {
	w.t.Helper()
	for _, op := range deletesLast() {
		if !only(op) {
			continue
		}
		path := pathTo(op, w.zone.ID, w.ids)
		if lacks(w.ids, op) {
			w.t.Fatalf("populate must create one of %s", collectionOf(op))
		}
		for _, r := range w.requestsTo(op) {
			raw := w.send(op.Method, path+r.query, r.body, r.headers...)
			w.met[fmt.Sprintf("%s %d", op.OperationID, raw.Response.StatusCode)] = true
		}
	}
}
