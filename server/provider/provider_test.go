package provider_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/provider"
	"caracal.run/management/server/secret"
)

func TestValidConfigurationsAreNormalized(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind         provider.Kind
		config, want string
	}{
		{provider.None, ` { } `, `{}`},
		{provider.APIKey, `{"api_key":"k","header_name":" X-Key "}`, `{"auth_location":"header","header_name":"X-Key"}`},
		{provider.ClientCredentials,
			`{"client_secret":"s","token_endpoint":" https://ID.example.com:8443/t?a=<b>&c=%26 ","client_id":" me ","allowed_token_hosts":[" ID.Example.COM","10.0.0.1"],
			  "token_params":{"b":" 2 ","a":"1"},"scopes":[" read "],"forward_caracal_identity":false}`,
			`{"allowed_token_hosts":["id.example.com","10.0.0.1"],"client_auth_method":"client_secret_basic","client_id":"me","forward_caracal_identity":false,` +
				`"scopes":[" read "],"token_endpoint":"https://ID.example.com:8443/t?a=<b>&c=%26","token_params":{"a":"1","b":"2"}}`},
		{provider.AuthorizationCode,
			`{"client_auth_method":"none","token_endpoint":"https://id.example.com","client_id":"me","allowed_token_hosts":["id.example.com"],
			  "authorization_endpoint":"\ufeffhttps://münchen.example/a","redirect_uri":"app:cb","authorization_params":{}}`,
			`{"allowed_token_hosts":["id.example.com"],"authorization_endpoint":"https://münchen.example/a","authorization_params":{},` +
				`"client_auth_method":"none","client_id":"me","redirect_uri":"app:cb","token_endpoint":"https://id.example.com"}`},
	}
	for _, tt := range tests {
		if c, err := provider.Check(tt.kind, []byte(tt.config)); err != nil || string(c.Public) != tt.want || c.Kind != tt.kind {
			t.Errorf("%s\n got %s (%v)\nwant %s", tt.config, c.Public, err, tt.want)
		}
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	s := stateOf(t, "code open")
	tests := []struct {
		key, text string
		ok        bool
	}{
		{"authorization_endpoint", "HTTPS://id.example.com", true},
		{"authorization_endpoint", "https://id.example.com:", true},
		{"authorization_endpoint", "https://id.example.com:65535/x", true},
		{"authorization_endpoint", "https://[2001:db8::1]/x", true},
		{"authorization_endpoint", "https://id.example.com:65536/x", false},
		{"authorization_endpoint", "https://[fe80::1%25eth0]/x", false},
		{"authorization_endpoint", "https://@id.example.com/x", false},
		{"authorization_endpoint", "https://id.exam\u00adple.com\u0000", false},
		{"authorization_endpoint", "https://id.example.com/\u2028", true}, // trimmed
		{"authorization_endpoint", "https://id.example.com/\u2028x", false},
		{"redirect_uri", "http://localhost:8080/back", true},
		{"redirect_uri", "https://app.example.com/back?x=y", true},
		{"redirect_uri", "http://127.9.9.9/back", true},
		{"redirect_uri", "http://[::1]:8080/back", true},
		{"redirect_uri", "http://localhost.example.com/back", false},
		{"redirect_uri", "urn:ietf:wg:oauth:2.0:oob", true},
		{"redirect_uri", "myapp://callback", true},
		{"redirect_uri", "myapp:", true},
		{"redirect_uri", "http:callback", false},
		{"redirect_uri", ":callback", false},
		{"redirect_uri", "?x", false},
	}
	for _, tt := range tests {
		text, err := json.Marshal(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := provider.Check(s.kind, with(s.config, tt.key, string(text)).json()); (err == nil) != tt.ok {
			t.Errorf("%s %q: %v", tt.key, tt.text, err)
		}
	}
}

func TestHostNamesHaveAtMost253Characters(t *testing.T) {
	t.Parallel()
	for length, ok := range map[int]bool{1: true, 2: true, 253: true, 254: false} {
		config := `{"bearer_token":"t","allowed_token_hosts":["` + strings.Repeat("a", length) + `"]}`
		if _, err := provider.Check(provider.BearerToken, []byte(config)); (err == nil) != ok {
			t.Errorf("%d characters: %v", length, err)
		}
	}
}

// A change keeps, replaces or removes sealed secrets, or requires new ones.
func TestEffectOfAChangeOnSecrets(t *testing.T) {
	t.Parallel()
	const basic, post, key, open = "client basic", "client post", "client key", "client open"
	tests := []struct {
		name     string
		kind     provider.Kind // stored
		sealed   []string
		newKind  provider.Kind // in the change; "" is absent
		state    string        // of the configuration in the change; "" is absent
		supplied string        // JSON of the state's secret; "" is absent
		after    []string
		text     string
	}{
		{"new configuration, secret kept", provider.APIKey, []string{"api_key"}, "", "key in header", "", []string{"api_key"}, ""},
		{"another location, secret kept", provider.APIKey, []string{"api_key"}, "", "key in query", "", []string{"api_key"}, ""},
		{"secret replaced", provider.APIKey, []string{"api_key"}, "", "key in header", `"new"`, []string{"api_key"}, ""},
		{"same kind, secret kept", provider.APIKey, []string{"api_key"}, provider.APIKey, "key in header", "", []string{"api_key"}, ""},
		{"same kind only", provider.APIKey, []string{"api_key"}, provider.APIKey, "", "", []string{"api_key"}, ""},
		{"no change", provider.APIKey, []string{"api_key"}, "", "", "", []string{"api_key"}, ""},
		{"a missing secret is required of oauth kinds only", provider.APIKey, nil, "", "key in header", "", nil, ""},
		{"no secrets at all", provider.None, nil, "", "none", "", nil, ""},

		{"another kind, secret supplied", provider.APIKey, []string{"api_key"}, provider.BearerToken, "bearer", `"t"`, []string{"bearer_token"}, ""},
		{"another kind, secret missing", provider.APIKey, []string{"api_key"}, provider.BearerToken, "bearer", "", nil, "requires bearer_token"},
		{"another kind does not reuse a secret of the same name", provider.AuthorizationCode, []string{"client_secret"}, provider.ClientCredentials, basic, "", nil, "requires client_secret"},
		{"a kind without secrets", provider.APIKey, []string{"api_key"}, provider.None, "none", "", nil, ""},
		{"another kind that needs no secret", provider.APIKey, []string{"api_key"}, provider.ClientCredentials, open, "", nil, ""},

		{"basic to post keeps the secret", provider.ClientCredentials, []string{"client_secret"}, "", post, "", []string{"client_secret"}, ""},
		{"basic to none drops the secret", provider.ClientCredentials, []string{"client_secret"}, "", open, "", nil, ""},
		{"basic to none of an authorization code drops the secret", provider.AuthorizationCode, []string{"client_secret"}, "", "code open", "", nil, ""},
		{"basic to key without one", provider.ClientCredentials, []string{"client_secret"}, "", key, "", nil, "requires private_key"},
		{"basic to key", provider.ClientCredentials, []string{"client_secret"}, "", key, pemKey, []string{"private_key"}, ""},
		{"key stays sealed", provider.ClientCredentials, []string{"private_key"}, "", key, "", []string{"private_key"}, ""},
		{"key to basic without a secret", provider.ClientCredentials, []string{"private_key"}, "", basic, "", nil, "requires client_secret"},
		{"none to basic without a secret", provider.ClientCredentials, nil, "", basic, "", nil, "requires client_secret"},
		{"none to post with a secret", provider.AuthorizationCode, nil, "", "code post", `"s"`, []string{"client_secret"}, ""},
		{"none stays none", provider.ClientCredentials, nil, "", open, "", nil, ""},
		{"two sealed, one in use", provider.ClientCredentials, []string{"private_key", "client_secret"}, "", basic, "", []string{"client_secret"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var config json.RawMessage
			kind := tt.kind
			var newKind *provider.Kind
			if tt.newKind != "" {
				kind, newKind = tt.newKind, &tt.newKind
			}
			if tt.state != "" {
				s := stateOf(t, tt.state)
				if config = s.config.json(); s.secret != "" {
					config = with(s.config, s.secret, tt.supplied).json()
				}
			}
			got, err := provider.Change(provider.Stored{Kind: tt.kind, Public: tokenEndpoint, SecretKeys: tt.sealed}, newKind, config)
			if text := errorMessage(t, err); text != message(kind, tt.text) {
				t.Fatalf("%q, want %q", text, tt.text)
			}
			if tt.text != "" {
				return
			}
			if !slices.Equal(got.SecretKeys, tt.after) || got.Kind != kind || (got.Public == nil) != (config == nil) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestChangeOfKindRequiresAConfiguration(t *testing.T) {
	t.Parallel()
	kind := provider.None
	if _, err := provider.Change(provider.Stored{Kind: provider.APIKey}, &kind, nil); !errors.Is(err, provider.ErrConfigRequired) {
		t.Error(err)
	}
}

// A client_secret is kept although client_auth_method none does not use it.
func TestUnusedClientSecretIsSealed(t *testing.T) {
	t.Parallel()
	s := stateOf(t, "client open")
	config := with(s.config, "client_secret", `" for later "`).json()
	c, err := provider.Check(s.kind, config)
	if err != nil || string(c.Secrets.Plaintext()) != `{"client_secret":" for later "}` || strings.Contains(string(c.Public), "later") {
		t.Errorf("%s (%v)", c.Public, err)
	}
	changed, err := provider.Change(provider.Stored{Kind: s.kind, Public: tokenEndpoint}, nil, config)
	if err != nil || len(changed.Secrets) != 1 || !slices.Equal(changed.SecretKeys, []string{"client_secret"}) {
		t.Errorf("%+v (%v)", changed, err)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	s := stateOf(t, "client basic")
	const plain = `se"cret&sauce`
	c, err := provider.Check(s.kind, with(s.config, "client_secret", `"se\"cret&sauce"`).json())
	if err != nil {
		t.Fatal(err)
	}
	clientSecret := c.Secrets["client_secret"]
	if clientSecret.Reveal() != plain || string(c.Secrets.Plaintext()) != `{"client_secret":"se\"cret&sauce"}` {
		t.Error("the secret is not revealed unchanged")
	}
	changed, err := provider.Change(provider.Stored{Kind: s.kind, Public: tokenEndpoint}, nil, with(s.config, "client_secret", `"se\"cret&sauce"`).json())
	if err != nil {
		t.Fatal(err)
	}
	type hidden struct{ inside any }
	type deep struct{ c provider.Changed } // fmt calls no methods of unexported fields
	var out bytes.Buffer
	for _, value := range []any{clientSecret, &clientSecret, c.Secrets, c, &c, changed, []any{c}, hidden{c}, deep{changed}, &deep{changed}, map[string]any{"c": &c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%o", "% x", "%e", "%c", "%U", "%p", "%9.3s"} {
			_, _ = fmt.Fprintf(&out, verb+"\n", value)
		}
		_, _ = fmt.Fprintln(&out, value)
		encoded, err := json.Marshal(value)
		if err != nil {
			t.Error(err)
		}
		_, _ = out.Write(encoded)
		for _, handler := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(handler).Info("a value", "value", value, slog.Group("in", "value", value))
		}
	}
	for _, part := range []string{"cret", "sauce", fmt.Sprintf("%x", "sauce"), fmt.Sprintf("%X", "sauce"), fmt.Sprintf("% x", "sauce"), fmt.Sprint([]byte("sauce"))} {
		// The names of fields and types may be printed.
		if printed := strings.NewReplacer("client_secret", "", "Secret", "", "secret.String", "").Replace(out.String()); strings.Contains(printed, part) {
			t.Errorf("%q is printed", part)
		}
	}
	if !strings.Contains(out.String(), "[set]") || fmt.Sprint(secret.String{}) != "" {
		t.Error("a secret does not print as [set], or an empty one does")
	}
}

func TestEndpointOf(t *testing.T) {
	t.Parallel()
	for _, kind := range []provider.Kind{provider.None, provider.CaracalMandate, provider.APIKey, provider.BearerToken} {
		if _, err := provider.EndpointOf(kind, []byte(`{"token_endpoint":"https://a","allowed_token_hosts":["a"]}`)); !errors.Is(err, provider.ErrNoEndpoint) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	tests := []struct {
		config, url string
		hosts       []string
		text        string
	}{
		{`{"token_endpoint":"https://id.example.com/t","allowed_token_hosts":["id.example.com","b"],"client_id":"me"}`, "https://id.example.com/t", []string{"id.example.com", "b"}, ""},
		{`{"token_endpoint":" https://ID.example.com/t ","allowed_token_hosts":[" Id.Example.Com "]}`, "https://ID.example.com/t", []string{"id.example.com"}, ""},
		{`{"token_endpoint":"https://evil.example.com/t","allowed_token_hosts":["id.example.com"]}`, "", nil, "token_endpoint must be on a host in allowed_token_hosts"},
		{`{"token_endpoint":"http://id.example.com/t","allowed_token_hosts":["id.example.com"]}`, "", nil, "token_endpoint must be an HTTPS URL"},
		{`{"allowed_token_hosts":["id.example.com"]}`, "", nil, "token_endpoint must be an HTTPS URL"},
		{`{"token_endpoint":"https://id.example.com/t"}`, "", nil, "requires allowed_token_hosts"},
		{`{"token_endpoint":"https://id.example.com/t","allowed_token_hosts":["*"]}`, "", nil, invalidHosts},
	}
	for _, kind := range []provider.Kind{provider.ClientCredentials, provider.AuthorizationCode} {
		for _, tt := range tests {
			e, err := provider.EndpointOf(kind, []byte(tt.config))
			if got := errorMessage(t, err); got != message(kind, tt.text) || !reflect.DeepEqual(e, provider.Endpoint{URL: tt.url, Hosts: tt.hosts}) {
				t.Errorf("%s: %v %q", tt.config, e, got)
			}
		}
	}
}

func TestValidIdentifier(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"provider://a": true, "provider://a-1-b": true, "provider://007": true, "provider://caracal-sys-x": true,
		"": false, "provider://": false, "provider://-a": false, "provider://a-": false, "provider://a--b": false, "provider://A": false,
		"provider://a_b": false, "provider://a\n": false, " provider://a": false, "Provider://a": false, "a": false, "provider://a/b": false, "provider://é": false,
	} {
		if provider.ValidIdentifier(text) != ok {
			t.Errorf("%q: %t", text, !ok)
		}
	}
}

// FuzzCheck searches for configurations that cause a panic, that are invalid or
// change when they are sent back, or whose public part contains a secret.
func FuzzCheck(f *testing.F) {
	for _, tt := range configCases(f) {
		if tt.text != "" {
			continue // the valid ones contain every key
		}
		f.Add(string(tt.state.kind), tt.config.json())
	}
	f.Fuzz(func(t *testing.T, kind string, config []byte) {
		c, err := provider.Check(provider.Kind(kind), config)
		if err != nil {
			if c.Public != nil || c.Secrets != nil {
				t.Error("an invalid configuration has a result")
			}
			return
		}
		if !json.Valid(c.Public) {
			t.Fatalf("invalid JSON: %s", c.Public)
		}

		var whole map[string]any
		if err := json.Unmarshal(c.Public, &whole); err != nil {
			t.Fatal(err)
		}
		const mark = "7h15-15-53cr37"
		for name := range c.Secrets {
			if _, public := whole[name]; public {
				t.Errorf("%s is public", name)
			}
			field, param, inField := strings.Cut(name, ".")
			switch v := whole[field].(type) {
			case map[string]any:
				v[param] = mark
			case string: // a URL
				base, fragment, _ := strings.Cut(v, "#")
				separator := "?"
				if strings.Contains(base, "?") {
					separator = "&"
				}
				whole[field] = strings.TrimSuffix(base+separator+url.QueryEscape(param)+"="+mark+"#"+fragment, "#")
			default:
				if inField {
					t.Errorf("%s is in no field", name)
				}
				whole[name] = mark
			}
		}
		if _, ok := c.Secrets["private_key"]; ok {
			whole["private_key"] = c.Secrets["private_key"].Reveal()
		}
		again, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		second, err := provider.Check(provider.Kind(kind), again)
		if err != nil || string(second.Public) != string(c.Public) || !slices.Equal(second.Secrets.Names(), c.Secrets.Names()) {
			t.Errorf("%s\nbecame %s\nthen   %s (%v)", config, c.Public, second.Public, err)
		}
		if strings.Contains(fmt.Sprintf("%+v %#v %s", second, second, second.Public), mark) && !bytes.Contains(config, []byte(mark)) {
			t.Error("a secret is public")
		}

		kept, err := provider.Change(provider.Stored{Kind: provider.Kind(kind), Public: c.Public, SecretKeys: c.Secrets.Names()}, nil, c.Public)
		if err != nil || kept.Public != nil || len(kept.Secrets) > 0 || !slices.Equal(kept.SecretKeys, c.Secrets.Names()) {
			t.Errorf("%s is not unchanged: %+v (%v)", c.Public, kept, err)
		}
		if _, err := provider.EndpointOf(provider.Kind(kind), c.Public); err != nil && !errors.Is(err, provider.ErrNoEndpoint) {
			t.Errorf("%s: %v", c.Public, err)
		}
	})
}

// A list page contains hundreds of configurations, and a message is read by people:
// both have a maximum size.
func TestConfigurationAndMessageHaveAMaximumSize(t *testing.T) {
	t.Parallel()
	const maxSize = 64 << 10
	const begin, end = `{"header_name":"X","api_key":"`, `"}`
	largest := begin + strings.Repeat("k", maxSize-len(begin)-len(end)) + end
	if _, err := provider.Check(provider.APIKey, json.RawMessage(largest)); err != nil {
		t.Errorf("%d bytes: %v", len(largest), err)
	}
	_, err := provider.Check(provider.APIKey, json.RawMessage(largest+" "))
	if err == nil || err.Error() != "api_key provider config must be at most 65536 bytes" {
		t.Errorf("one byte more: %v", err)
	}
	keys := `{"` + strings.Repeat("é", 100) + `":1`
	for n := range 20 {
		keys += fmt.Sprintf(`,"x%d":1`, n)
	}
	_, err = provider.Check(provider.None, json.RawMessage(keys+"}"))
	want := "none provider config has unsupported keys: " + strings.Repeat("é", 32) + ", x0, x1, x2, x3, x4, x5, x6, x7, x8 and 11 more"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
