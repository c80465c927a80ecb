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

// An expectation is what the contract's value rules and messages come to for
// one member in some states.
type expectation struct {
	in      string   // a regular expression of states
	key     string   // the member
	good    string   // JSON that is accepted
	stored  string   // as which; "" is as it came
	refused string   // good is well formed, but refused in these words
	absent  string   // in which words its absence is refused, if it is
	junk    string   // in which words null, a number, blanks and empty collections are refused
	ill     []string // JSON that is malformed in a way of its own
	illText string   // in which words that is refused; "" is those of junk
	spared  []string // junk that is none here
}

const (
	keyStates, tokenStates, oauthStates = "^key", "^(bearer|client|code)", "^(client|code)"
	notHosts                            = "allowed_token_hosts must be DNS hostnames"
	notText                             = " must be a non-empty string"
)

var (
	illHeaders = []string{`"X Key"`, `"X-Kéy"`, `"X:Key"`, `"X\nKey"`}
	illParams  = []string{`"a b"`, `"a&b"`, `"a=b"`, `"é"`}
	illHosts   = []string{`["a..b"]`, `["a.example.com:443"]`, `["-a"]`, `["a-"]`, `["a_b"]`, `["a.example.com."]`, `["*.example.com"]`, `["[::1]"]`, `["b","ké"]`, `["\u212a"]`}
	illURLs    = []string{`"http://id.example.com/"`, `"https://"`, `"https:///token"`, `"https://u@id.example.com/"`, `"https://u:p@id.example.com/"`,
		`"id.example.com"`, `"//id.example.com"`, `"https:id.example.com"`, `"https://id.example.com:99999/"`, `"https://id.example.com:x/"`,
		`"https://id.example.com\\@evil.example/"`, `"https://id.example.com/a b"`, `"https://id.exa\nmple.com/"`, `"https://id.exa\tmple.com/"`,
		`"https://id.example.com/%zz"`, `"https://a<b/"`, `"https://[::1/"`}
	illSchemes = []string{`"1Bearer"`, `"Be arer"`, `"Bearer:"`, `"-b"`}
)

var expectations = sync.OnceValue(func() []expectation {
	e := []expectation{
		{in: "key in header", key: "auth_location", good: `"header"`, junk: "auth_location must be header or query", ill: []string{`"cookie"`, `" header"`, `"Header"`}},
		{in: "key in query", key: "auth_location", good: `"query"`, absent: "requires header_name", junk: "auth_location must be header or query"},
		{in: "key in header", key: "header_name", good: `" X-Api-Key\u00a0"`, stored: `"X-Api-Key"`, absent: "requires header_name", junk: "requires header_name",
			ill: illHeaders, illText: "header_name must be an HTTP header name"},
		{in: "key in query", key: "header_name", good: `" X-Api-Key "`, stored: `"X-Api-Key"`, junk: "header_name must be an HTTP header name", ill: illHeaders},
		{in: "key in query", key: "query_param_name", good: `" api.key~1 "`, stored: `"api.key~1"`, absent: "requires query_param_name", junk: "requires query_param_name",
			ill: illParams, illText: "query_param_name must be a query parameter name"},
		{in: "key in header", key: "query_param_name", good: `"api-key"`, junk: "query_param_name must be a query parameter name", ill: illParams},
		{in: keyStates, key: "api_key", good: `" k3y "`, absent: "requires api_key", junk: "api_key" + notText},
		{in: "key in query", key: "auth_scheme", good: `"Key"`, refused: "auth_scheme applies only to header auth", junk: "auth_scheme applies only to header auth"},
		{in: "key in header|bearer|client|code", key: "auth_scheme", good: `" Bearer-2 "`, stored: `"Bearer-2"`, junk: "auth_scheme must be an auth scheme token", ill: illSchemes},

		{in: "bearer", key: "bearer_token", good: `" t0ken"`, absent: "requires bearer_token", junk: "bearer_token" + notText},
		{in: "bearer", key: "allowed_token_hosts", good: `[" API.Example.com ","b"]`, stored: `["api.example.com","b"]`, junk: notHosts, ill: illHosts},
		{in: oauthStates, key: "allowed_token_hosts", good: `["ID.example.com\ufeff"]`, stored: `["id.example.com"]`, absent: "requires allowed_token_hosts", junk: "requires allowed_token_hosts",
			ill: illHosts, illText: notHosts},
		{in: oauthStates, key: "allowed_token_hosts", good: `["other.example.com"]`, refused: "token_endpoint must be on a host in allowed_token_hosts"},
		{in: tokenStates, key: "auth_header", good: `" Authorization "`, stored: `"Authorization"`, junk: "auth_header must be an HTTP header name", ill: illHeaders},

		{in: oauthStates, key: "token_endpoint", good: `" https://ID.example.com:8443/t?a=b&c "`, stored: `"https://ID.example.com:8443/t?a=b&c"`,
			absent: "token_endpoint must be an HTTPS URL", junk: "token_endpoint must be an HTTPS URL", ill: illURLs},
		{in: oauthStates, key: "client_id", good: `" billing "`, stored: `"billing"`, absent: "requires client_id", junk: "requires client_id"},
		{in: oauthStates, key: "scopes", good: `["read"," write "]`, junk: "scopes must be a list of strings", ill: []string{`["read",7]`, `["read"," "]`, `"read write"`}},
		{in: oauthStates, key: "token_params", good: `{"tenant":" a "}`, stored: `{"tenant":"a"}`, junk: "token_params must be non-reserved string key/value pairs", spared: []string{"{}"},
			ill: append(params("client_assertion", "client_assertion_type", "client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri", "refresh_token", "scope"), `{"a b":"c"}`, `{"a":7}`, `{"":"a"}`)},
		{in: "^code", key: "authorization_params", good: `{"prompt":" consent "}`, stored: `{"prompt":"consent"}`, junk: "authorization_params must be non-reserved string key/value pairs", spared: []string{"{}"},
			ill: append(params("client_id", "code_challenge", "code_challenge_method", "redirect_uri", "response_type", "scope", "state"), `{"a b":"c"}`, `{"a":7}`)},
		{in: "^client", key: "audience", good: `" https://api "`, stored: `"https://api"`, junk: "audience" + notText},
		{in: "^client", key: "resource", good: `" https://api "`, stored: `"https://api"`, junk: "resource" + notText},
		{in: "client key", key: "key_id", good: `" 2026 "`, stored: `"2026"`, junk: "key_id" + notText},
		{in: "client (basic|post|open)", key: "key_id", good: `"2026"`, refused: "key_id requires private_key_jwt", junk: "key_id" + notText},
		{in: "client (basic|post|open)", key: "private_key", good: `"PEM"`, refused: "private_key requires private_key_jwt", junk: "private_key" + notText},
		{in: "client key", key: "private_key", good: `"\nPEM\n"`, absent: "requires private_key", junk: "private_key" + notText},
		{in: "client key", key: "client_secret", good: `"s3cret"`, refused: "client_secret is not used with private_key_jwt", junk: "client_secret" + notText},
		{in: "open", key: "client_secret", good: `"s3cret"`, junk: "client_secret" + notText},
		{in: "basic|post", key: "client_secret", good: `" s3cret "`, absent: "requires client_secret", junk: "client_secret" + notText},
		{in: "^code", key: "authorization_endpoint", good: `" https://login.example.com/?a=b "`, stored: `"https://login.example.com/?a=b"`,
			absent: "authorization_endpoint must be an HTTPS URL", junk: "authorization_endpoint must be an HTTPS URL", ill: illURLs},
		{in: "^code", key: "redirect_uri", good: `" com.example.app:/back "`, stored: `"com.example.app:/back"`, absent: "redirect_uri must be an absolute URI", junk: "redirect_uri must be an absolute URI",
			ill: []string{`"/back"`, `"back"`, `"http://"`, `"https:///x"`, `"//a.example/b"`, `"1a:b"`, `"a b:c"`, `"app:c b"`}},
		{in: "basic", key: "client_auth_method", good: `"client_secret_basic"`},
		{in: "post", key: "client_auth_method", good: `"client_secret_post"`},
		{in: "client key", key: "client_auth_method", good: `"private_key_jwt"`, absent: "private_key requires private_key_jwt"},
		{in: "open", key: "client_auth_method", good: `"none"`, absent: "requires client_secret"},
		{in: oauthStates, key: "client_auth_method", junk: "!oauth2 provider config client_auth_method is invalid", ill: []string{`"tls_client_auth"`, `"NONE"`, `" none"`}},
		{in: "^code", key: "client_auth_method", good: `"private_key_jwt"`, refused: "client_auth_method is not supported"},
	}
	for _, flag := range []string{"forward_caracal_identity", "allow_runtime_injection"} {
		e = append(e, expectation{in: "^(key|bearer|client|code)", key: flag, good: "true", junk: flag + " must be a boolean", ill: []string{`"true"`, "0"}},
			expectation{in: "^(key|bearer|client|code)", key: flag, good: "false"})
	}
	return e
})

func params(names ...string) (objects []string) {
	for _, name := range names {
		objects = append(objects, `{"fine":"x","`+name+`":"x"}`)
	}
	return objects
}

var junk = []string{"null", "7", "1e999", `""`, `" \t\u00a0\ufeff\u2028"`, "[]", "{}", `[""]`, `[[]]`, `{"a":" "}`}

// A trial is one configuration and what the contract says of it.
type trial struct {
	name   string
	state  state
	config object
	text   string // of the refusal; "" is accepted
	public object // what is stored then
	absent string // the key that is left out, if one is
}

// trials hold every state against every key of the contract and one that it
// does not know: allowed, missing, malformed, and another kind's.
func trials(t testing.TB) (all []trial) {
	fromNullable := promised()
	keys := map[string]bool{"nonsense": true}
	for _, members := range fromNullable {
		for key := range members {
			keys[key] = true
		}
	}
	for _, s := range states {
		add := func(what, key, value, text string, public object) {
			all = append(all, trial{name: s.name + "/" + key + "/" + what, state: s, config: with(s.config, key, value), text: text, public: public})
			if value == "" {
				all[len(all)-1].absent = key
			}
		}
		add("nothing", "anything", "", "", s.config.without(s.kind))
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if _, allowed := fromNullable[s.kind][key]; !allowed {
				for _, value := range append([]string{`"x"`}, junk...) {
					add(value, key, value, "has unsupported keys: "+key, nil)
				}
				continue
			}
			absence, malformed := "", false
			for _, e := range expectations() {
				if e.key != key {
					continue
				}
				if in, err := regexp.MatchString(e.in, s.name); err != nil || !in {
					continue
				}
				if e.good != "" {
					add(e.good, key, e.good, e.refused, with(s.config, key, orElse(e.stored, e.good)).without(s.kind))
				}
				absence += e.absent
				for _, value := range junk {
					if e.junk != "" && !slices.Contains(e.spared, value) {
						add(value, key, value, e.junk, nil)
						malformed = true
					}
				}
				for _, value := range e.ill {
					add(value, key, value, orElse(e.illText, e.junk), nil)
				}
			}
			if !malformed {
				t.Errorf("nothing is expected of %s in %s", key, s.name)
			}
			add("absent", key, "", absence, withDefaults(s.kind, with(s.config, key, "")).without(s.kind))
		}
	}
	return all
}

// withDefaults writes what the contract says is written.
func withDefaults(kind provider.Kind, o object) object {
	for key, value := range map[string]string{"auth_location": `"header"`, "client_auth_method": `"client_secret_basic"`} {
		_, has := promised()[kind][key]
		if has && !slices.ContainsFunc(o, func(m struct{ key, value string }) bool { return m.key == key }) {
			o = with(o, key, value)
		}
	}
	return o
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// message is the whole refusal; a text with ! is one already.
func message(kind provider.Kind, text string) string {
	if whole, ok := strings.CutPrefix(text, "!"); ok || text == "" {
		return whole
	}
	return string(kind) + " provider config " + text
}

// deniedRequest is an error's message; an error of another type fails the test.
func deniedRequest(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var refused *provider.Error
	if !errors.As(err, &refused) {
		t.Fatalf("an error of another type: %v", err)
	}
	return refused.Message
}

func TestEveryKindAgainstEveryKey(t *testing.T) {
	t.Parallel()
	all := trials(t)
	t.Logf("%d cases, each as a new provider, a changed one and one of a new kind", len(all))
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := message(tt.state.kind, tt.text)

			created, err := provider.Check(tt.state.kind, tt.config.json())
			if got := deniedRequest(t, err); got != want {
				t.Errorf("create: %s: %q, want %q", tt.config.json(), got, want)
			} else if got == "" {
				same(t, created.Public, tt.public.json())
			}
			other := provider.None
			if tt.state.kind == other {
				other = provider.CaracalMandate
			}
			moved, err := provider.Change(provider.Stored{Kind: other}, &tt.state.kind, tt.config.json())
			if got := deniedRequest(t, err); got != want || !reflect.DeepEqual(moved.Config, created) {
				t.Errorf("another kind: %s: %q %v, want %q %v", tt.config.json(), got, moved.Config, want, created)
			}

			sealed := provider.Stored{Kind: tt.state.kind}
			if tt.state.secret != "" {
				sealed.SecretKeys = []string{tt.state.secret}
			}
			if tt.absent != "" && tt.absent == tt.state.secret {
				want = "" // it is sealed
			}
			changed, err := provider.Change(sealed, nil, tt.config.json())
			if got := deniedRequest(t, err); got != want {
				t.Errorf("change: %s: %q, want %q", tt.config.json(), got, want)
			} else if got == "" {
				same(t, changed.Public, tt.public.json())
			}
		})
	}
}

// same compares JSON, and wants the first compact.
func same(t *testing.T, got json.RawMessage, want []byte) {
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

// A fault is one number of the contract's sequence, in one state.
type fault struct {
	number, key, value, text string
}

// faults are in the contract's order.
func faults(s state) []fault {
	always := func(f ...fault) []fault {
		first := []fault{{"1", "nonsense", "1", "has unsupported keys: nonsense"}}
		if s.secret != "" {
			first = append(first, fault{"2", s.secret, `" "`, s.secret + notText})
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
			fault{"PR-1", "query_param_name", `"a b"`, "query_param_name must be a query parameter name"})
	case "key in query":
		return append(always(
			fault{"3", "auth_location", `"cookie"`, "auth_location must be header or query"},
			fault{"4q", "query_param_name", `" "`, "requires query_param_name"},
			fault{"5q", "query_param_name", `"a b"`, "query_param_name must be a query parameter name"},
			fault{"6q", "auth_scheme", "null", "auth_scheme applies only to header auth"},
			fault{"7", "api_key", "", "requires api_key"}),
			fault{"PR-1", "header_name", `"a b"`, "header_name must be an HTTP header name"})
	case "bearer":
		return always(
			fault{"3", "bearer_token", "", "requires bearer_token"},
			fault{"4", "allowed_token_hosts", `["a:1"]`, notHosts},
			fault{"5", "auth_header", `"a b"`, "auth_header must be an HTTP header name"}, scheme)
	case "none", "mandate":
		return always()[:1]
	}
	list := []fault{
		{"3", "token_endpoint", "", "token_endpoint must be an HTTPS URL"},
		{"4", "client_id", `" "`, "requires client_id"},
		{"5", "allowed_token_hosts", "[]", "requires allowed_token_hosts"},
		{"PR-1", "allowed_token_hosts", `["a:1"]`, notHosts},
		{"PR-1", "token_endpoint", `"https://evil.example.com"`, "token_endpoint must be on a host in allowed_token_hosts"},
		{"6", "scopes", "null", "scopes must be a list of strings"},
		{"7", "token_params", `{"code":"x"}`, "token_params must be non-reserved string key/value pairs"},
		{"8", "auth_header", `"a b"`, "auth_header must be an HTTP header name"},
	}
	if s.kind == provider.ClientCredentials {
		list = append(list, fault{"9", "audience", "null", "audience" + notText}, fault{"9", "resource", "7", "resource" + notText}, fault{"9", "key_id", `""`, "key_id" + notText})
	}
	list = append(list, fault{"10", "client_auth_method", `"tls"`, "!oauth2 provider config client_auth_method is invalid"})
	if s.kind == provider.AuthorizationCode {
		list = append(list,
			fault{"11", "client_auth_method", `"private_key_jwt"`, "client_auth_method is not supported"},
			fault{"12", "authorization_endpoint", `"http://id.example.com"`, "authorization_endpoint must be an HTTPS URL"},
			fault{"13", "redirect_uri", `"/back"`, "redirect_uri must be an absolute URI"},
			fault{"14", "authorization_params", `{"state":"x"}`, "authorization_params must be non-reserved string key/value pairs"})
	}
	switch s.name {
	case "client key":
		list = append(list,
			fault{"15a", "client_secret", `"s3cret"`, "client_secret is not used with private_key_jwt"},
			fault{"15b", "private_key", "", "requires private_key"})
	case "client basic", "client post", "client open":
		list = append(list,
			fault{"15c", "private_key", `"PEM"`, "private_key requires private_key_jwt"},
			fault{"15d", "key_id", `"2026"`, "key_id requires private_key_jwt"})
	}
	if s.secret == "client_secret" {
		list = append(list, fault{"15e", "client_secret", "", "requires client_secret"})
	}
	return always(append(list, scheme)...)
}

func TestTheFirstFaultOfTheSequenceWins(t *testing.T) {
	t.Parallel()
	pairs := 0
	for _, s := range states {
		list := faults(s)
		for i, first := range list {
			for _, second := range list[i:] { // the first with itself is the fault alone
				if first.key == second.key && first != second {
					continue
				}
				pairs++
				// The body has them the other way round: its order decides nothing here.
				config := with(with(s.config, second.key, second.value), first.key, first.value)
				slices.Reverse(config)
				_, err := provider.Check(s.kind, config.json())
				if got, want := deniedRequest(t, err), message(s.kind, first.text); got != want {
					t.Errorf("%s, faults %s and %s: %q, want %q", s.name, first.number, second.number, got, want)
				}
				var refused *provider.Error
				if errors.As(err, &refused) && refused.Key != first.key {
					t.Errorf("%s, fault %s: %q is to blame, want %q", s.name, first.number, refused.Key, first.key)
				}
			}
		}
	}
	t.Logf("%d faults and pairs of them", pairs)
}

// TestNoNumberOfTheSequenceIsForgotten holds the faults above against the
// contract's own table: each of its lines has one, in its words.
func TestNoNumberOfTheSequenceIsForgotten(t *testing.T) {
	t.Parallel()
	met := map[string]bool{}
	for _, s := range states {
		for _, f := range faults(s) {
			text := strings.TrimPrefix(f.text, "!")
			if f.number == "1" {
				text = "has unsupported keys: a, b"
			}
			met[string(s.kind)+" "+f.number+" "+text] = true
		}
	}
	of := ""
	numbers := slices.Collect(maps.Keys(met))
	for _, ruleRow := range cells(contractSequence) {
		if of = orElse(ruleRow[0], of); of == "all" || strings.HasPrefix(of, "all but") {
			of = ".*"
		}
		text := regexp.MustCompile("§(.*)§").FindStringSubmatch(ruleRow[3])[1]
		pattern := "^" + strings.NewReplacer("oauth2_*", "oauth2_.*", "…", "oauth2").Replace(of) + " " + ruleRow[1] + " " +
			strings.ReplaceAll(regexp.QuoteMeta(text), "<key>", "[a-z_]+") + "$"
		if !slices.ContainsFunc(numbers, regexp.MustCompile(pattern).MatchString) {
			t.Errorf("no fault is %s", pattern)
		}
	}
}

func TestUnknownKeysAndBlankSecretsAreToldInTheBodysOrder(t *testing.T) {
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
		var refused *provider.Error
		if !errors.As(err, &refused) || *refused != (provider.Error{Key: tt.key, Message: tt.message}) {
			t.Errorf("%s: %v, want %q", tt.config, err, tt.message)
		}
	}
}

func TestWhatIsNoConfigurationIsTheCallersFault(t *testing.T) {
	t.Parallel()
	var refused *provider.Error
	for _, config := range []string{"", "null", "[]", "7", `"x"`, "{", `{"a"}`, `{"a":1}x`, `{}{}`, `{"a":01}`, "{\"a\":\"\x01\"}"} {
		if _, err := provider.Check(provider.APIKey, []byte(config)); err == nil || errors.As(err, &refused) {
			t.Errorf("%q: %v", config, err)
		}
	}
	for _, kind := range []provider.Kind{"", "API_KEY", "basic"} {
		if _, err := provider.Check(kind, []byte("{}")); err == nil || errors.As(err, &refused) {
			t.Errorf("kind %q: %v", kind, err)
		}
	}
	c, err := provider.Check(provider.BearerToken, []byte(`{"bearer_token":"one","bearer_token":"two"}`))
	if err != nil || c.Secrets["bearer_token"].Reveal() != "two" {
		t.Errorf("of a member that comes twice, the last counts: %v %v", c, err)
	}
}
