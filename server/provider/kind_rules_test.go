package provider_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/server/provider"
)

// An expectation is what happens to values of one field in some states.
type expectation struct {
	states         string   // a regular expression of their names
	key            string   // the field
	valid          string   // JSON of a valid value
	stored         string   // how it is stored; "" is unchanged
	forbidden      string   // the message if a valid value is not allowed in these states
	absent         string   // the message if the field is absent; "" if it may be
	junk           string   // the message for the junk values
	invalid        []string // JSON of more invalid values
	invalidMessage string   // their message; "" is that of junk
	validJunk      []string // junk values that are valid here
}

const (
	keyStates, tokenStates, oauthStates = "^key", "^(bearer|client|code)", "^(client|code)"
	invalidHosts                        = "allowed_token_hosts must be DNS hostnames"
	mustBeNonEmpty                      = " must be a non-empty string"
)

var (
	badHeaders = []string{`"X Key"`, `"X-Kéy"`, `"X:Key"`, `"X\nKey"`}
	badParams  = []string{`"a b"`, `"a&b"`, `"a=b"`, `"é"`}
	badHosts   = []string{`["a..b"]`, `["a.example.com:443"]`, `["-a"]`, `["a-"]`, `["a_b"]`, `["a.example.com."]`, `["*.example.com"]`, `["[::1]"]`, `["b","ké"]`, `["\u212a"]`}
	badURLs    = []string{`"http://id.example.com/"`, `"https://"`, `"https:///token"`, `"https://u@id.example.com/"`, `"https://u:p@id.example.com/"`,
		`"id.example.com"`, `"//id.example.com"`, `"https:id.example.com"`, `"https://id.example.com:99999/"`, `"https://id.example.com:x/"`,
		`"https://id.example.com\\@evil.example/"`, `"https://id.example.com/a b"`, `"https://id.exa\nmple.com/"`, `"https://id.exa\tmple.com/"`,
		`"https://id.example.com/%zz"`, `"https://a<b/"`, `"https://[::1/"`}
	badSchemes = []string{`"1Bearer"`, `"Be arer"`, `"Bearer:"`, `"-b"`, `"Token token=x"`, `"Token  token="`, `"Token token"`, `"Bearer\r\nX"`, `"="`, `"Bearer é"`}

	reservedHeaders = []string{`"Host"`, `" content-length "`, `"Transfer-Encoding"`, `"CONNECTION"`, `"Keep-Alive"`, `"TE"`, `"Trailer"`, `"Upgrade"`, `"Proxy-Connection"`, `"Proxy-Authorization"`, `"Proxy-Authenticate"`}
	badFieldValues  = []string{`" k3y"`, `"k3y "`, `"k3y\n"`, `"k3\r\nHost: x"`, `"\u00a0k3y"`, `"k\u0000"`, `"k\u007f"`, `"k\u0085y"`, `"k\ty"`}
	badEndpoints    = []string{`"https://1.2.3.4.5/"`, `"https://[fe80::1%25eth0]/"`, `"https://id.example.com＜/"`}
)

var expectations = sync.OnceValue(func() []expectation {
	e := []expectation{
		{states: "key in header", key: "auth_location", valid: `"header"`, junk: "auth_location must be header or query", invalid: []string{`"cookie"`, `" header"`, `"Header"`}},
		{states: "key in query", key: "auth_location", valid: `"query"`, absent: "requires header_name", junk: "auth_location must be header or query"},
		{states: "key in header", key: "header_name", valid: `" X-Api-Key\u00a0"`, stored: `"X-Api-Key"`, absent: "requires header_name", junk: "requires header_name",
			invalid: badHeaders, invalidMessage: "header_name must be an HTTP header name"},
		{states: "key in query", key: "header_name", valid: `" X-Api-Key "`, stored: `"X-Api-Key"`, junk: "header_name must be an HTTP header name", invalid: badHeaders},
		{states: "key in query", key: "query_param_name", valid: `" api.key~1 "`, stored: `"api.key~1"`, absent: "requires query_param_name", junk: "requires query_param_name",
			invalid: badParams, invalidMessage: "query_param_name must be a query parameter name"},
		{states: "key in header", key: "query_param_name", valid: `"api-key"`, junk: "query_param_name must be a query parameter name", invalid: badParams},
		{states: keyStates, key: "header_name", invalid: reservedHeaders, invalidMessage: "header_name must not be a header that HTTP itself sets, such as Host"},
		{states: tokenStates, key: "auth_header", invalid: reservedHeaders, invalidMessage: "auth_header must not be a header that HTTP itself sets, such as Host"},
		{states: keyStates, key: "api_key", invalid: badFieldValues, invalidMessage: "api_key must not contain control characters or surrounding white space"},
		{states: keyStates, key: "api_key", valid: `"k3y é :,;"`, absent: "requires api_key", junk: "api_key" + mustBeNonEmpty},
		{states: "key in query", key: "auth_scheme", valid: `"Key"`, forbidden: "auth_scheme applies only to header auth", junk: "auth_scheme applies only to header auth"},
		{states: "key in header|bearer|client|code", key: "auth_scheme", valid: `" Bearer-2 "`, stored: `"Bearer-2"`, junk: "auth_scheme must be an auth scheme token", invalid: badSchemes},
		{states: "key in header|bearer|client|code", key: "auth_scheme", valid: `"Token token="`},
		{states: "key in header|bearer|client|code", key: "auth_scheme", valid: `"key="`},

		{states: "bearer", key: "bearer_token", invalid: badFieldValues, invalidMessage: "bearer_token must not contain control characters or surrounding white space"},
		{states: "bearer", key: "bearer_token", valid: `"t0ken"`, absent: "requires bearer_token", junk: "bearer_token" + mustBeNonEmpty},
		{states: "bearer", key: "allowed_token_hosts", valid: `[" API.Example.com ","b"]`, stored: `["api.example.com","b"]`, junk: invalidHosts, invalid: badHosts},
		{states: oauthStates, key: "allowed_token_hosts", valid: `["ID.example.com\ufeff"]`, stored: `["id.example.com"]`, absent: "requires allowed_token_hosts", junk: "requires allowed_token_hosts",
			invalid: badHosts, invalidMessage: invalidHosts},
		{states: oauthStates, key: "allowed_token_hosts", valid: `["other.example.com"]`, forbidden: "token_endpoint must be on a host in allowed_token_hosts"},
		{states: tokenStates, key: "auth_header", valid: `" Authorization "`, stored: `"Authorization"`, junk: "auth_header must be an HTTP header name", invalid: badHeaders},

		{states: oauthStates, key: "token_endpoint", valid: `" https://ID.example.com:8443/t?a=b&c "`, stored: `"https://ID.example.com:8443/t?a=b&c"`,
			absent: "token_endpoint must be an HTTPS URL", junk: "token_endpoint must be an HTTPS URL", invalid: badURLs},
		{states: oauthStates, key: "token_endpoint", invalid: badEndpoints, invalidMessage: "token_endpoint must be an HTTPS URL"},
		{states: oauthStates, key: "token_endpoint", invalid: []string{`"https://id.example.com/t#"`, `"https://id.example.com/t?a=b#c"`}, invalidMessage: "token_endpoint must not contain a fragment"},
		{states: oauthStates, key: "token_endpoint", invalid: []string{`"https://id.example.com/t?key=1&key=2"`}, invalidMessage: "token_endpoint must not repeat a credential"},
		{states: "^code", key: "authorization_endpoint", invalid: badEndpoints, invalidMessage: "authorization_endpoint must be an HTTPS URL"},
		{states: "^code", key: "authorization_endpoint", invalid: []string{`"https://id.example.com/a?token=1&%74oken=2"`}, invalidMessage: "authorization_endpoint must not repeat a credential"},
		{states: "^code", key: "authorization_endpoint", invalid: []string{`"https://id.example.com/a#"`, `"https://id.example.com/a?token=b#c"`}, invalidMessage: "authorization_endpoint must not contain a fragment"},
		{states: "^code", key: "redirect_uri", invalid: []string{`"https://app.example.com/back#fragment"`, `"app:cb#"`}, invalidMessage: "redirect_uri must not contain a fragment"},
		{states: "^code", key: "redirect_uri", invalid: []string{`"http://app.example.com/back"`, `"http://10.0.0.1/"`, `"javascript:alert(1)"`, `"JavaScript:x"`, `"data:text/html,x"`, `"file:///etc"`, `"https://u:p@app.example.com/"`, `"app://u@x"`},
			invalidMessage: "redirect_uri must be https, http on a loopback address, or of a custom scheme"},
		{states: oauthStates, key: "client_id", valid: `" billing "`, stored: `"billing"`, absent: "requires client_id", junk: "requires client_id"},
		{states: oauthStates, key: "scopes", valid: `["read"," write "]`, junk: "scopes must be a list of strings", invalid: []string{`["read",7]`, `["read"," "]`, `"read write"`}},
		{states: oauthStates, key: "token_params", valid: `{"tenant":" a "}`, stored: `{"tenant":"a"}`, junk: "token_params must be non-reserved string key/value pairs", validJunk: []string{"{}"},
			invalid: append(params("client_assertion", "client_assertion_type", "client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri", "refresh_token", "scope"), `{"a b":"c"}`, `{"a":7}`, `{"":"a"}`)},
		{states: "^code", key: "authorization_params", valid: `{"prompt":" consent "}`, stored: `{"prompt":"consent"}`, junk: "authorization_params must be non-reserved string key/value pairs", validJunk: []string{"{}"},
			invalid: append(params("client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state"), `{"a b":"c"}`, `{"a":7}`)},
		{states: "^client", key: "audience", valid: `" https://api "`, stored: `"https://api"`, junk: "audience" + mustBeNonEmpty},
		{states: "^client", key: "resource", valid: `" https://api "`, stored: `"https://api"`, junk: "resource" + mustBeNonEmpty},
		{states: "(client|code) key", key: "key_id", valid: `" 2026 "`, stored: `"2026"`, junk: "key_id" + mustBeNonEmpty},
		{states: "(client|code) (basic|post|open)", key: "key_id", valid: `"2026"`, forbidden: "key_id requires private_key_jwt", junk: "key_id" + mustBeNonEmpty},
		{states: "(client|code) (basic|post|open)", key: "private_key", valid: `"PEM"`, forbidden: "private_key requires private_key_jwt", junk: "private_key" + mustBeNonEmpty},
		{states: "(client|code) key", key: "private_key", invalid: []string{`"PEM"`, `"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5\n-----END PRIVATE KEY-----\n"`},
			invalidMessage: "private_key must be an unencrypted PEM key: RSA of at least 2048 bits, elliptic curve or Ed25519"},
		{states: "(client|code) key", key: "private_key", valid: pemKey, absent: "requires private_key", junk: "private_key" + mustBeNonEmpty},
		{states: "(client|code) key", key: "client_secret", valid: `"s3cret"`, forbidden: "client_secret is not used with private_key_jwt", junk: "client_secret" + mustBeNonEmpty},
		{states: "open", key: "client_secret", valid: `"s3cret"`, junk: "client_secret" + mustBeNonEmpty},
		{states: "basic|post", key: "client_secret", valid: `" s3cret "`, absent: "requires client_secret", junk: "client_secret" + mustBeNonEmpty},
		{states: "^code", key: "authorization_endpoint", valid: `" https://login.example.com/?a=b "`, stored: `"https://login.example.com/?a=b"`,
			absent: "authorization_endpoint must be an HTTPS URL", junk: "authorization_endpoint must be an HTTPS URL", invalid: badURLs},
		{states: "^code", key: "redirect_uri", valid: `" com.example.app:/back "`, stored: `"com.example.app:/back"`, absent: "redirect_uri must be an absolute URI", junk: "redirect_uri must be an absolute URI",
			invalid: []string{`"http://127.1.1.1.1/"`, `"/back"`, `"back"`, `"http://"`, `"https:///x"`, `"//a.example/b"`, `"1a:b"`, `"a b:c"`, `"app:c b"`}},
		{states: "basic", key: "client_auth_method", valid: `"client_secret_basic"`},
		{states: "post", key: "client_auth_method", valid: `"client_secret_post"`},
		{states: "(client|code) key", key: "client_auth_method", valid: `"private_key_jwt"`, absent: "private_key requires private_key_jwt"},
		{states: "open", key: "client_auth_method", valid: `"none"`, absent: "requires client_secret"},
		{states: oauthStates, key: "client_auth_method", junk: "!oauth2 provider config client_auth_method is invalid", invalid: []string{`"tls_client_auth"`, `"NONE"`, `" none"`}},
	}
	for _, flag := range []string{"forward_caracal_identity", "allow_runtime_injection"} {
		e = append(e, expectation{states: "^(key|bearer|client|code)", key: flag, valid: "true", junk: flag + " must be a boolean", invalid: []string{`"true"`, "0"}},
			expectation{states: "^(key|bearer|client|code)", key: flag, valid: "false"})
	}
	return append(e, addedExpectations()...)
})

func params(names ...string) (objects []string) {
	for _, name := range names {
		objects = append(objects, `{"fine":"x","`+name+`":"x"}`)
	}
	return objects
}

var junk = []string{"null", "7", "1e999", `""`, `" \t\u00a0\ufeff\u2028"`, "[]", "{}", `[""]`, `[[]]`, `{"a":" "}`}

// A configCase is one configuration and what is expected of it.
type configCase struct {
	name   string
	state  state
	config object
	text   string // of the error; "" if the configuration is valid
	public object // what is stored if it is
	absent string // the key that is absent, if one is
}

// configCases combines every state with every key of any kind, and one that is
// unknown: valid, absent, invalid, and of another kind.
func configCases(t testing.TB) (all []configCase) {
	fields := contractFields()
	keys := map[string]bool{"nonsense": true}
	for _, ofKind := range fields {
		for key := range ofKind {
			keys[key] = true
		}
	}
	for _, s := range states {
		add := func(what, key, value, text string, public object) {
			all = append(all, configCase{name: s.name + "/" + key + "/" + what, state: s, config: with(s.config, key, value), text: text, public: public})
			if value == "" {
				all[len(all)-1].absent = key
			}
		}
		add("unchanged", "anything", "", "", s.config.withoutSecrets(s.kind))
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if _, allowed := fields[s.kind][key]; !allowed {
				for _, value := range append([]string{`"x"`}, junk...) {
					add(value, key, value, "has unsupported keys: "+key, nil)
				}
				continue
			}
			absent, hasJunk := "", false
			for _, e := range expectations() {
				if e.key != key {
					continue
				}
				if matches, err := regexp.MatchString(e.states, s.name); err != nil || !matches {
					continue
				}
				if e.valid != "" {
					add(e.valid, key, e.valid, e.forbidden, with(s.config, key, orElse(e.stored, e.valid)).withoutSecrets(s.kind))
				}
				absent += e.absent
				for _, value := range junk {
					if e.junk != "" && !slices.Contains(e.validJunk, value) {
						add(value, key, value, e.junk, nil)
						hasJunk = true
					}
				}
				for _, value := range e.invalid {
					add(value, key, value, orElse(e.invalidMessage, e.junk), nil)
				}
			}
			if !hasJunk {
				t.Errorf("there is no expectation for %s in %s", key, s.name)
			}
			add("absent", key, "", absent, withDefaults(s.kind, with(s.config, key, "")).withoutSecrets(s.kind))
		}
	}
	return all
}

// withDefaults adds the defaults that are stored.
func withDefaults(kind provider.Kind, o object) object {
	for key, value := range map[string]string{"auth_location": `"header"`, "client_auth_method": `"client_secret_basic"`} {
		_, has := contractFields()[kind][key]
		if has && !slices.ContainsFunc(o, func(f struct{ key, value string }) bool { return f.key == key }) {
			o = with(o, key, value)
		}
	}
	return o
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// message returns the whole error message. A text that begins with ! is one already.
func message(kind provider.Kind, text string) string {
	if whole, ok := strings.CutPrefix(text, "!"); ok || text == "" {
		return whole
	}
	return string(kind) + " provider config " + text
}

// errorMessage returns the message of a [provider.Error], or "". An error of another
// type fails the test.
func errorMessage(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var violation *provider.Error
	if !errors.As(err, &violation) {
		t.Fatalf("got %v, want a *provider.Error", err)
	}
	return violation.Message
}

func TestEveryKeyOfEveryKind(t *testing.T) {
	t.Parallel()
	all := configCases(t)
	t.Logf("%d configurations, each of a new provider, in a change, and in a change of the kind", len(all))
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := message(tt.state.kind, tt.text)

			created, err := provider.Check(tt.state.kind, tt.config.json())
			if got := errorMessage(t, err); got != want {
				t.Errorf("create: %s: %q, want %q", tt.config.json(), got, want)
			} else if got == "" {
				expectJSON(t, created.Public, tt.public.json())
			}
			other := provider.None
			if tt.state.kind == other {
				other = provider.CaracalMandate
			}
			otherKind, err := provider.Change(provider.Stored{Kind: other}, &tt.state.kind, tt.config.json())
			if got := errorMessage(t, err); got != want || !reflect.DeepEqual(otherKind.Config, created) {
				t.Errorf("change of the kind: %s: %q %v, want %q %v", tt.config.json(), got, otherKind.Config, want, created)
			}

			sealed := provider.Stored{Kind: tt.state.kind, Public: tokenEndpoint}
			if tt.state.secret != "" {
				sealed.SecretKeys = []string{tt.state.secret}
			}
			if tt.absent != "" && tt.absent == tt.state.secret {
				want = "" // it is sealed
			}
			changed, err := provider.Change(sealed, nil, tt.config.json())
			if got := errorMessage(t, err); got != want {
				t.Errorf("change: %s: %q, want %q", tt.config.json(), got, want)
			} else if got == "" {
				expectJSON(t, changed.Public, tt.public.json())
			}
		})
	}
}

// expectJSON fails unless got is compact and equal to want as JSON.
func expectJSON(t *testing.T, got json.RawMessage, want []byte) {
	t.Helper()
	var a, b any
	var compact bytes.Buffer
	if err := errors.Join(json.Unmarshal(got, &a), json.Unmarshal(want, &b), json.Compact(&compact, got)); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) || compact.String() != string(got) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A fault is a change of a field that violates one check of contractSequence.
type fault struct {
	number, key, value, text string
}

// faults returns the faults that are possible in a state, in the order of the checks.
func faults(s state) []fault {
	always := func(f ...fault) []fault {
		first := []fault{{"1", "nonsense", "1", "has unsupported keys: nonsense"}}
		if s.secret != "" {
			first = append(first, fault{"2", s.secret, `" "`, s.secret + mustBeNonEmpty})
		}
		return append(append(first, f...),
			fault{"17", "forward_caracal_identity", "1", "forward_caracal_identity must be a boolean"},
			fault{"18", "allow_runtime_injection", "null", "allow_runtime_injection must be a boolean"})
	}
	scheme := fault{"16", "auth_scheme", `"1"`, "auth_scheme must be an auth scheme token"}
	switch s.name {
	case "key in header":
		return append(always(
			fault{"3", "auth_location", "null", "auth_location must be header or query"},
			fault{"4h", "header_name", "", "requires header_name"},
			fault{"5h", "header_name", `"a b"`, "header_name must be an HTTP header name"},
			fault{"7", "api_key", "", "requires api_key"}, scheme),
			fault{"19", "query_param_name", `"a b"`, "query_param_name must be a query parameter name"})
	case "key in query":
		return append(always(
			fault{"3", "auth_location", `"cookie"`, "auth_location must be header or query"},
			fault{"4q", "query_param_name", `" "`, "requires query_param_name"},
			fault{"5q", "query_param_name", `"a b"`, "query_param_name must be a query parameter name"},
			fault{"6q", "auth_scheme", "null", "auth_scheme applies only to header auth"},
			fault{"7", "api_key", "", "requires api_key"}),
			fault{"19", "header_name", `"a b"`, "header_name must be an HTTP header name"})
	case "bearer":
		return always(
			fault{"3", "bearer_token", "", "requires bearer_token"},
			fault{"4", "allowed_token_hosts", `["a:1"]`, invalidHosts},
			fault{"5", "auth_header", `"a b"`, "auth_header must be an HTTP header name"}, scheme)
	case "none", "mandate":
		return always()[:1]
	}
	list := []fault{
		{"3", "token_endpoint", "", "token_endpoint must be an HTTPS URL"},
		{"4", "client_id", `" "`, "requires client_id"},
		{"5", "allowed_token_hosts", "[]", "requires allowed_token_hosts"},
		{"5b", "allowed_token_hosts", `["a:1"]`, invalidHosts},
		{"5c", "token_endpoint", `"https://evil.example.com"`, "token_endpoint must be on a host in allowed_token_hosts"},
		{"6", "scopes", "null", "scopes must be a list of strings"},
		{"7", "token_params", `{"code":"x"}`, "token_params must be non-reserved string key/value pairs"},
		{"8", "auth_header", `"a b"`, "auth_header must be an HTTP header name"},
	}
	if s.kind == provider.ClientCredentials {
		list = append(list, fault{"9", "audience", "null", "audience" + mustBeNonEmpty}, fault{"9", "resource", "7", "resource" + mustBeNonEmpty})
	}
	list = append(list, fault{"9", "key_id", `""`, "key_id" + mustBeNonEmpty})
	list = append(list, fault{"10", "client_auth_method", `"tls"`, "!oauth2 provider config client_auth_method is invalid"})
	if s.kind == provider.AuthorizationCode {
		list = append(list,
			fault{"12", "authorization_endpoint", `"http://id.example.com"`, "authorization_endpoint must be an HTTPS URL"},
			fault{"13", "redirect_uri", `"/back"`, "redirect_uri must be an absolute URI"},
			fault{"14", "authorization_params", `{"state":"x"}`, "authorization_params must be non-reserved string key/value pairs"})
	}
	switch s.name {
	case "client key", "code key":
		list = append(list,
			fault{"15a", "client_secret", `"s3cret"`, "client_secret is not used with private_key_jwt"},
			fault{"15b", "private_key", "", "requires private_key"})
	case "client basic", "client post", "client open", "code basic", "code post", "code open":
		list = append(list,
			fault{"15c", "private_key", `"PEM"`, "private_key requires private_key_jwt"},
			fault{"15d", "key_id", `"2026"`, "key_id requires private_key_jwt"})
	}
	if s.secret == "client_secret" {
		list = append(list, fault{"15e", "client_secret", "", "requires client_secret"})
	}
	return always(append(list, scheme)...)
}

func TestFirstViolationInOrderIsReported(t *testing.T) {
	t.Parallel()
	pairs := 0
	for _, s := range states {
		list := faults(s)
		for i, first := range list {
			for _, second := range list[i:] { // with itself, it is the only fault
				if first.key == second.key && first != second {
					continue
				}
				pairs++
				// The order of the fields does not matter, so it is reversed here.
				config := with(with(s.config, second.key, second.value), first.key, first.value)
				slices.Reverse(config)
				_, err := provider.Check(s.kind, config.json())
				if got, want := errorMessage(t, err), message(s.kind, first.text); got != want {
					t.Errorf("%s, faults %s and %s: %q, want %q", s.name, first.number, second.number, got, want)
				}
				var violation *provider.Error
				if errors.As(err, &violation) && violation.Key != first.key {
					t.Errorf("%s, fault %s: the key is %q, want %q", s.name, first.number, violation.Key, first.key)
				}
			}
		}
	}
	t.Logf("%d faults and pairs of them", pairs)
}

// TestEveryCheckHasAFault compares the faults above with contractSequence: each of
// its checks has one, with the same message.
func TestEveryCheckHasAFault(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{}
	for _, s := range states {
		for _, f := range faults(s) {
			text := strings.TrimPrefix(f.text, "!")
			if f.number == "1" {
				text = "has unsupported keys: a, b"
			}
			covered[string(s.kind)+" "+f.number+" "+text] = true
		}
	}
	of := ""
	numbers := slices.Collect(maps.Keys(covered))
	for _, row := range cells(contractSequence) {
		if of = orElse(row[0], of); of == "all" || strings.HasPrefix(of, "all but") {
			of = ".*"
		}
		text := regexp.MustCompile("§(.*)§").FindStringSubmatch(row[3])[1]
		pattern := "^" + strings.NewReplacer("oauth2_*", "oauth2_.*", "…", "oauth2").Replace(of) + " " + row[1] + " " +
			strings.ReplaceAll(regexp.QuoteMeta(text), "<key>", "[a-z_]+") + "$"
		if !slices.ContainsFunc(numbers, regexp.MustCompile(pattern).MatchString) {
			t.Errorf("no fault matches %s", pattern)
		}
	}
}

func TestUnknownKeysAndBlankSecretsAreReportedInTheOrderOfTheBody(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind         provider.Kind
		config       string
		key, message string
	}{
		{provider.None, `{"b":1,"a":2}`, "", "none provider config has unsupported keys: b, a"},
		{provider.CaracalMandate, `{"z":null}`, "z", "caracal_mandate provider config has unsupported keys: z"},
		{provider.ClientCredentials, `{"z":1,"client_secret":"","api_key":"x","private_key":""}`, "", "oauth2_client_credentials provider config has unsupported keys: z, api_key"},
		{provider.ClientCredentials, `{"private_key":"","client_secret":7}`, "private_key", "oauth2_client_credentials provider config private_key must be a non-empty string"},
		{provider.ClientCredentials, `{"client_secret":7,"private_key":""}`, "client_secret", "oauth2_client_credentials provider config client_secret must be a non-empty string"},
		{provider.APIKey, `{}`, "header_name", "api_key provider config requires header_name"},
		{provider.APIKey, `{"API_KEY":"x"}`, "API_KEY", "api_key provider config has unsupported keys: API_KEY"},
	}
	for _, tt := range tests {
		_, err := provider.Check(tt.kind, []byte(tt.config))
		var violation *provider.Error
		if !errors.As(err, &violation) || *violation != (provider.Error{Key: tt.key, Message: tt.message}) {
			t.Errorf("%s: %v, want %q", tt.config, err, tt.message)
		}
	}
}

func TestMalformedConfigurationIsNoProviderError(t *testing.T) {
	t.Parallel()
	var violation *provider.Error
	for _, config := range []string{"", "null", "[]", "7", `"x"`, "{", `{"a"}`, `{"a":1}x`, `{}{}`, `{"a":01}`, "{\"a\":\"\x01\"}"} {
		if _, err := provider.Check(provider.APIKey, []byte(config)); err == nil || errors.As(err, &violation) {
			t.Errorf("%q: %v", config, err)
		}
	}
	for _, kind := range []provider.Kind{"", "API_KEY", "basic"} {
		if _, err := provider.Check(kind, []byte("{}")); err == nil || errors.As(err, &violation) {
			t.Errorf("kind %q: %v", kind, err)
		}
	}
	c, err := provider.Check(provider.BearerToken, []byte(`{"bearer_token":"one","bearer_token":"two"}`))
	if err != nil || c.Secrets["bearer_token"].Reveal() != "two" {
		t.Errorf("of a duplicate field, the last must count: %v %v", c, err)
	}
}
