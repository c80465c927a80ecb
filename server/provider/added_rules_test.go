package provider_test

import (
	"slices"
	"testing"

	"caracal.run/management/server/provider"
)

// addedExpectations are those of the fields of addedMatrix.
func addedExpectations() []expectation {
	const (
		code           = "^code"
		badHeaders     = "token_headers must be string name/value pairs, without headers that HTTP or the request itself sets"
		badNames       = " must map standard parameter names to other names"
		badSeparator   = "scope_separator must consist of one to three spaces or the characters , ; + |"
		badRefresh     = "refresh_endpoint must be an HTTPS URL"
		badResource    = "resource must be an absolute URI"
		badIssuer      = "issuer must be an HTTPS URL without a query or fragment"
		onID           = `"https://id.example.com/`
		authorizeNames = "authorization_param_names"
		tokenNames     = "token_param_names"
	)
	return []expectation{
		{states: code, key: "grant_type", valid: `" urn:example:code "`, stored: `"urn:example:code"`, junk: "grant_type" + mustBeNonEmpty},
		{states: code, key: "scope_separator", valid: `","`, junk: badSeparator, invalid: []string{`"    "`, `"a"`, `"\n"`, `"%20"`, `"/"`}},
		{states: code, key: "scope_separator", valid: `" "`},
		{states: code, key: "scope_separator", valid: `", "`},
		{states: code, key: "token_request_format", valid: `"form"`, junk: "token_request_format must be form, json or query", invalid: []string{`"JSON"`, `" json"`, `"xml"`}},
		{states: code, key: "token_request_format", valid: `"json"`},
		{states: code, key: "token_request_format", valid: `"query"`},
		{
			states: code, key: "token_headers", valid: `{"Notion-Version":" 2022-06-28 ","Accept":"application/vnd.example+json"}`, stored: `{"Notion-Version":"2022-06-28","Accept":"application/vnd.example+json"}`,
			junk: badHeaders, validJunk: []string{"{}"},
			invalid: []string{`{"":"x"}`, `{"a b":"x"}`, `{"A":7}`, `{"A":"x\r\nHost: y"}`, `{"A":"x","a":"y"}`, `{"host":"x"}`, `{"Content-Length":"1"}`, `{"Content-Type":"x"}`, `{"AUTHORIZATION":"x"}`, `{"Cookie":"x"}`, `{"É":"x"}`},
		},
		{
			states: code, key: authorizeNames, valid: `{"client_id":" client_key ","scope":"user_scope"}`, stored: `{"client_id":"client_key","scope":"user_scope"}`,
			junk: authorizeNames + badNames, validJunk: []string{"{}"},
			invalid: []string{`{"state":"s"}`, `{"code_challenge":"c"}`, `{"client_id":"state"}`, `{"scope":"resource"}`, `{"client_id":"client_id"}`, `{"client_id":"x","scope":"x"}`, `{"scope":"a b"}`, `{"scope":7}`, `{"client_secret":"x"}`},
		},
		{
			states: code, key: tokenNames, valid: `{"client_id":"client_key","client_secret":"key","code":"auth_code","grant_type":"type","redirect_uri":"uri"}`,
			junk: tokenNames + badNames, validJunk: []string{"{}"},
			invalid: []string{`{"code_verifier":"v"}`, `{"client_assertion":"c"}`, `{"client_id":"code"}`, `{"code":"resource"}`, `{"client_id":"x","code":"x"}`, `{"code":"a&b"}`, `{"code":null}`},
		},
		{states: code, key: "refresh_endpoint", valid: `" https://ID.example.com:8443/refresh?a=b "`, stored: `"https://ID.example.com:8443/refresh?a=b"`, junk: badRefresh, invalid: append(badURLs, badEndpoints...)},
		{states: code, key: "refresh_endpoint", invalid: []string{`"https://other.example.com/"`}, invalidMessage: "refresh_endpoint must be on a host in allowed_token_hosts"},
		{states: code, key: "refresh_endpoint", invalid: []string{onID + `t#"`}, invalidMessage: "refresh_endpoint must not contain a fragment"},
		{states: code, key: "refresh_endpoint", invalid: []string{onID + `t?key=1&key=2"`}, invalidMessage: "refresh_endpoint must not repeat a credential"},
		{states: code, key: "resource", valid: `" https://mcp.example.com/mcp "`, stored: `"https://mcp.example.com/mcp"`, junk: badResource, invalid: []string{`"/mcp"`, `"mcp"`, `"https://"`}},
		{states: code, key: "resource", valid: `"urn:example:resource"`},
		{states: code, key: "resource", invalid: []string{`"https://mcp.example.com/#x"`}, invalidMessage: "resource must not contain a fragment"},
		{states: code, key: "issuer", valid: `" https://id.example.com/tenant "`, stored: `"https://id.example.com/tenant"`, junk: badIssuer, invalid: append([]string{onID + `?"`, onID + `?a=b"`, onID + `#"`}, badURLs...)},
	}
}

// A header that calls itself a secret is sealed like a parameter that does.
func TestCredentialsInHeadersAreSecret(t *testing.T) {
	t.Parallel()
	s := stateOf(t, "code open")
	c, err := provider.Check(s.kind, with(s.config, "token_headers", `{"X-Api-Key":" hush ","X-Version":"1"}`, "refresh_endpoint", `"https://id.example.com/refresh?token=hush"`).json())
	if err != nil {
		t.Fatal(err)
	}
	expectJSON(t, c.Public, with(s.config, "token_headers", `{"X-Version":"1"}`, "refresh_endpoint", `"https://id.example.com/refresh"`).json())
	if got, want := string(c.Secrets.Plaintext()), `{"refresh_endpoint.token":"hush","token_headers.X-Api-Key":"hush"}`; got != want {
		t.Errorf("the secrets are %s, want %s", got, want)
	}
}

// Tokens are also refreshed with the secrets, so that they are removed if the refresh
// endpoint moves to another host, unless they are already sent there.
func TestChangeOfTheRefreshHostRemovesSecrets(t *testing.T) {
	t.Parallel()
	const here, there, third = `"https://id.example.com/r"`, `"https://other.example.com/r"`, `"https://third.example.com/r"`
	s := stateOf(t, "code basic")
	config := with(s.config, "client_secret", "", "allowed_token_hosts", `["id.example.com","other.example.com","third.example.com"]`, "token_headers", `{}`)
	sealed := []string{"client_secret", "token_headers.X-Api-Key"}
	for _, tt := range []struct {
		name, before, after string
		kept                bool
	}{
		{"the same", there, there, true},
		{"added on the host of the token endpoint", "", here, true},
		{"added on another host", "", there, false},
		{"moved to another host", there, third, false},
		{"moved to the host of the token endpoint", there, here, true},
		{"removed", there, "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			stored := provider.Stored{Kind: s.kind, Public: with(config, "refresh_endpoint", tt.before).json(), SecretKeys: sealed}
			after := with(config, "refresh_endpoint", tt.after, "scopes", `["new"]`)
			changed, err := provider.Change(stored, nil, after.json())
			want := sealed
			if !tt.kept {
				if got := errorMessage(t, err); got != message(s.kind, "requires client_secret") {
					t.Errorf("got %q", got)
				}
				want = []string{"client_secret"}
				changed, err = provider.Change(stored, nil, with(after, "client_secret", `"new"`).json())
			}
			if err != nil || !slices.Equal(changed.SecretKeys, want) {
				t.Errorf("got %q (%v), want %q", changed.SecretKeys, err, want)
			}
		})
	}
}
