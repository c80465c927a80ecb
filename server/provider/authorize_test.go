package provider_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"caracal.run/management/server/provider"
)

// stored returns a stored configuration, which need not satisfy every rule.
func stored(t *testing.T, config string, secrets map[string]string) provider.Config {
	t.Helper()
	plaintext, err := json.Marshal(secrets)
	if err != nil {
		t.Fatal(err)
	}
	c, err := provider.Open(provider.AuthorizationCode, json.RawMessage(config), plaintext)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAuthorizationURL(t *testing.T) {
	t.Parallel()
	const fixed = "client_id=id&code_challenge=C&code_challenge_method=S256&redirect_uri=https%3A%2F%2Fc.example.com%2Fcb&response_type=code"
	for _, tt := range []struct {
		name, endpoint, more string
		secrets              map[string]string
		want                 string
	}{
		{"minimal", "https://a.example.com/authorize", ``, nil, "https://a.example.com/authorize?" + fixed + "&state=S"},
		{"only a host", "https://a.example.com:8443", ``, nil, "https://a.example.com:8443/?" + fixed + "&state=S"},
		{"scopes", "https://a.example.com/", `,"scopes":["a:b","c d"]`, nil, "https://a.example.com/?" + fixed + "&scope=a%3Ab+c+d&state=S"},
		{"no scopes", "https://a.example.com/", `,"scopes":[]`, nil, "https://a.example.com/?" + fixed + "&state=S"},
		{"own query", "https://a.example.com/?b=1&b=2&state=x&scope=y", ``, nil, "https://a.example.com/?b=1&b=2&" + fixed + "&scope=y&state=S"},
		{"parameters", "https://a.example.com/?prompt=x", `,"authorization_params":{"prompt":"consent","access_type":"offline"}`, nil,
			"https://a.example.com/?access_type=offline&" + fixed + "&prompt=consent&state=S"},
		{"a reserved parameter", "https://a.example.com/", `,"authorization_params":{"state":"x","code_challenge":"y"}`, nil, "https://a.example.com/?" + fixed + "&state=S"},
		{"sealed parameters", "https://a.example.com/", ``, map[string]string{"authorization_params.x_key": "1", "authorization_endpoint.token": "2", "token_params.password": "3", "client_secret": "4"},
			"https://a.example.com/?" + fixed + "&state=S&token=2&x_key=1"},
		{"another separator", "https://a.example.com/", `,"scopes":["a","b"],"scope_separator":","`, nil, "https://a.example.com/?" + fixed + "&scope=a%2Cb&state=S"},
		{"a resource", "https://a.example.com/?resource=x", `,"resource":"https://mcp.example.com/mcp"`, nil, "https://a.example.com/?" + fixed + "&resource=https%3A%2F%2Fmcp.example.com%2Fmcp&state=S"},
		{"other names", "https://a.example.com/?user_scope=x", `,"scopes":["a"],"authorization_param_names":{"scope":"user_scope","client_id":"app_id","redirect_uri":"back","response_type":"type"}`, nil,
			"https://a.example.com/?app_id=id&back=https%3A%2F%2Fc.example.com%2Fcb&code_challenge=C&code_challenge_method=S256&state=S&type=code&user_scope=a"},
		{"surrounding space", " https://a.example.com/ ", ``, nil, "https://a.example.com/?" + fixed + "&state=S"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := fmt.Sprintf(`{"authorization_endpoint":%q,"client_id":" id ","redirect_uri":"https://c.example.com/cb"%s}`, tt.endpoint, tt.more)
			got, err := provider.AuthorizationURL(stored(t, config, tt.secrets), provider.AuthorizationRequest{State: "S", CodeChallenge: "C"})
			if err != nil {
				t.Fatal(err)
			}
			if sorted(t, got) != sorted(t, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// sorted returns a URL with its query in the order of the names.
func sorted(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = u.Query().Encode()
	return u.String()
}

// Rows may be from before a rule that they violate.
func TestAuthorizationURLRejectsStoredInvalidConfig(t *testing.T) {
	t.Parallel()
	const rest = `,"client_id":"id","redirect_uri":"https://c.example.com/cb"`
	for _, tt := range []struct {
		config string
		want   provider.ErrorKind
		detail string
	}{
		{`{}`, provider.ConfigInvalid, "The configuration of the provider has no client_id."},
		{`{"authorization_endpoint":"https://a.example.com","client_id":" \t","redirect_uri":"app:cb"}`, provider.ConfigInvalid, "The configuration of the provider has no client_id."},
		{`{"authorization_endpoint":"https://a.example.com","client_id":"id"}`, provider.ConfigInvalid, "The configuration of the provider has no redirect_uri."},
		{`{"authorization_endpoint":" "` + rest + `}`, provider.ConfigInvalid, "The configuration of the provider has no authorization_endpoint."},
		{`{"authorization_endpoint":1` + rest + `}`, provider.ConfigInvalid, "The configuration of the provider is malformed."},
		{`[]`, provider.ConfigInvalid, "The configuration of the provider is malformed."},
		{`{"authorization_endpoint":"http://a.example.com/?token=hush"` + rest + `}`, provider.AuthorizationEndpointInvalid, "The authorization endpoint must be https."},
		{`{"authorization_endpoint":"javascript:hush"` + rest + `}`, provider.AuthorizationEndpointInvalid, "The authorization endpoint is not a valid URL."},
		{`{"authorization_endpoint":"https:///hush"` + rest + `}`, provider.AuthorizationEndpointInvalid, "The authorization endpoint is not a valid URL."},
		{`{"authorization_endpoint":"https://u:hush@a.example.com/"` + rest + `}`, provider.AuthorizationEndpointInvalid, "The authorization endpoint must not contain a user name or password."},
		{`{"authorization_endpoint":"https://a.example.com/?hush=%zz"` + rest + `}`, provider.AuthorizationEndpointInvalid, "The query of the authorization endpoint is malformed."},
	} {
		t.Run(tt.config, func(t *testing.T) {
			t.Parallel()
			_, err := provider.AuthorizationURL(stored(t, tt.config, nil), provider.AuthorizationRequest{State: "S", CodeChallenge: "C"})
			expectError(t, err, tt.want, tt.detail)
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("the error quotes the URL: %v", err)
			}
		})
	}
	for _, kind := range provider.Kinds() {
		if kind == provider.AuthorizationCode {
			continue
		}
		config, err := provider.Open(kind, json.RawMessage(`{}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = provider.AuthorizationURL(config, provider.AuthorizationRequest{State: "S", CodeChallenge: "C"})
		expectError(t, err, provider.ConfigInvalid, "Providers of the kind "+string(kind)+" have no authorization code.")
	}
}

func TestCheckIssuer(t *testing.T) {
	t.Parallel()
	const fields = `{"authorization_endpoint":"https://a.example.com","client_id":"id","redirect_uri":"https://c.example.com/cb"`
	with, without := stored(t, fields+`,"issuer":"https://a.example.com/t"}`, nil), stored(t, fields+`}`, nil)
	for _, tt := range []struct {
		config provider.Config
		iss    string
		ok     bool
	}{
		{with, "https://a.example.com/t", true},
		{with, "", true}, // a server that does not send it
		{with, "https://a.example.com/t/", false},
		{with, "https://A.example.com/t", false},
		{with, "https://evil.example.com/t", false},
		{without, "https://a.example.com/t", true},
		{without, "", true},
	} {
		err := provider.CheckIssuer(tt.config, tt.iss)
		if tt.ok {
			if err != nil {
				t.Errorf("%q: %v", tt.iss, err)
			}
			continue
		}
		expectError(t, err, provider.IssuerMismatch, "The response is not from the configured issuer.")
	}
	expectError(t, provider.CheckIssuer(stored(t, `{}`, nil), ""), provider.ConfigInvalid, "The configuration of the provider has no client_id.")
}

func TestOpenDoesNotQuoteMalformedSecrets(t *testing.T) {
	t.Parallel()
	for _, plaintext := range []string{`hush`, `["hush"]`, `{"client_secret":["hush"]}`, `{"client_secret":"hush"`} {
		_, err := provider.Open(provider.AuthorizationCode, json.RawMessage(`{}`), []byte(plaintext))
		expectError(t, err, provider.ConfigInvalid, "The secrets of the provider are malformed.")
		if strings.Contains(err.Error(), "hush") {
			t.Errorf("the error quotes a secret: %v", err)
		}
	}
}

// expectError fails unless an error has a kind and a detail.
func expectError(t *testing.T, err error, want provider.ErrorKind, detail string) {
	t.Helper()
	var got *provider.ExchangeError
	if !errors.As(err, &got) || !errors.Is(err, want) || got.Detail != detail {
		t.Errorf("got %v\nwant %s: %s", err, want, detail)
	}
}
