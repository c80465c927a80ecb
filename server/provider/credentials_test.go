package provider_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"slices"
	"testing"

	"caracal.run/management/server/provider"
)

// A parameter that calls itself a secret is sealed, and the rest of its field is public.
func TestCredentialsInPublicFieldsAreSecret(t *testing.T) {
	t.Parallel()
	basic, code := stateOf(t, "client basic"), stateOf(t, "code open")
	tests := []struct {
		name            string
		state           state
		field, value    string
		public, secrets string // "" is the value, and none
	}{
		{"a password", basic, "token_params", `{"tenant":"acme","password":" hush "}`, `{"tenant":"acme"}`, `{"client_secret":"s3cret","token_params.password":"hush"}`},
		{"nothing but secrets", basic, "token_params", `{"Password":"a","api-key":"b"}`, `{}`, `{"client_secret":"s3cret","token_params.Password":"a","token_params.api-key":"b"}`},
		{"names that only contain one", basic, "token_params", `{"password_policy":"a","tokens":"b","keys":"c"}`, "", ""},
		{"params of the authorization", code, "authorization_params", `{"prompt":"none","session":"a"}`, `{"prompt":"none"}`, `{"authorization_params.session":"a"}`},
		{"a key in a URL", basic, "token_endpoint", `"https://id.example.com/t?key=a%26b"`, `"https://id.example.com/t"`, `{"client_secret":"s3cret","token_endpoint.key":"a&b"}`},
		{"among other parameters", basic, "token_endpoint", `"https://id.example.com/t?p=B2C_1&API%5FKEY=x+y&&q=%zz"`, `"https://id.example.com/t?p=B2C_1&&q=%zz"`, `{"client_secret":"s3cret","token_endpoint.API_KEY":"x y"}`},
		{"a token of the authorization", code, "authorization_endpoint", `"https://id.example.com/a?auth_token=x"`, `"https://id.example.com/a"`, `{"authorization_endpoint.auth_token":"x"}`},
		{"a name without a value", basic, "token_endpoint", `"https://id.example.com/t?token=&key"`, "", ""},
		{"no credentials", basic, "token_endpoint", `"https://id.example.com/t?tenant=a"`, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := provider.Check(tt.state.kind, with(tt.state.config, tt.field, tt.value).json())
			if err != nil {
				t.Fatal(err)
			}
			var public map[string]json.RawMessage
			if err := json.Unmarshal(c.Public, &public); err != nil {
				t.Fatal(err)
			}
			expectJSON(t, public[tt.field], []byte(orElse(tt.public, tt.value)))
			if got := string(c.Secrets.Plaintext()); got != orElse(tt.secrets, `{"client_secret":"s3cret"}`) {
				t.Errorf("the secrets are %s", got)
			}
		})
	}
}

func TestEffectOfAChangeOnCredentialsInPublicFields(t *testing.T) {
	t.Parallel()
	s := stateOf(t, "client basic")
	stored := with(s.config, "client_secret", "", "token_params", `{"tenant":"acme"}`, "token_endpoint", `"https://id.example.com/t?p=1"`)
	all := []string{"client_secret", "token_endpoint.key", "token_params.password"}
	tests := []struct {
		name   string
		config object
		after  []string
	}{
		{"sent back as it was read", stored, all},
		{"another secret supplied", with(stored, "client_secret", `"new"`), all},
		{"another parameter supplied", with(stored, "token_params", `{"secret":"x"}`), append(slices.Clone(all), "token_params.secret")},
		{"the same supplied", with(stored, "token_params", `{"password":"new"}`, "token_endpoint", `"https://id.example.com/t?p=1&key=new"`), all},
		{"no params", with(stored, "token_params", ""), []string{"client_secret", "token_endpoint.key"}},
		{"the same supplied in another spelling", with(stored, "token_params", `{"PassWord":"new"}`), []string{"client_secret", "token_endpoint.key", "token_params.PassWord"}},
		{"another credential of the same URL", with(stored, "token_endpoint", `"https://id.example.com/t?p=1&token=new"`), []string{"client_secret", "token_endpoint.token", "token_params.password"}},
		{"another URL", with(stored, "token_endpoint", `"https://id.example.com/t2?p=1"`), []string{"client_secret", "token_params.password"}},
		{"another method", with(stored, "client_auth_method", `"none"`), []string{"token_endpoint.key", "token_params.password"}},
	}
	public, err := provider.Check(s.kind, with(stored, "client_secret", `"s"`).json())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		changed, err := provider.Change(provider.Stored{Kind: s.kind, Public: public.Public, SecretKeys: all}, nil, tt.config.json())
		if err != nil || !slices.Equal(changed.SecretKeys, tt.after) {
			t.Errorf("%s: got %q (%v), want %q", tt.name, changed.SecretKeys, err, tt.after)
		}
	}
	kind := provider.AuthorizationCode
	other := stateOf(t, "code open")
	changed, err := provider.Change(provider.Stored{Kind: s.kind, Public: public.Public, SecretKeys: all}, &kind, with(other.config, "token_params", `{}`).json())
	if err != nil || len(changed.SecretKeys) > 0 {
		t.Errorf("another kind keeps %q (%v)", changed.SecretKeys, err)
	}
}

// A secret that is stored for one host is never sent to another: who may change the
// endpoint need not know the secret.
func TestChangeOfAHostRemovesItsSecrets(t *testing.T) {
	t.Parallel()
	const hosts = `["id.example.com","other.example.com"]`
	basic, key, open, code := stateOf(t, "client basic"), stateOf(t, "client key"), stateOf(t, "client open"), stateOf(t, "code open")
	params := []string{"token_endpoint.key", "token_params.password"}
	both := []string{"authorization_params.session", "token_params.password"}
	tests := []struct {
		name        string
		state       state
		sealed      []string
		field, url  string
		secret      string // JSON that is supplied; "" is none
		tokenParams string
		after       []string
		text        string
	}{
		{"secret missing", basic, []string{"client_secret"}, "token_endpoint", "https://other.example.com/token", "", `{}`, nil, "requires client_secret"},
		{"secret supplied", basic, append(params, "client_secret"), "token_endpoint", "https://other.example.com/token", `"new"`, `{}`, []string{"client_secret"}, ""},
		{"secret and parameter supplied", basic, append(params, "client_secret"), "token_endpoint", "https://other.example.com/token", `"new"`, `{"password":"new"}`, []string{"client_secret", "token_params.password"}, ""},
		{"another path and port", basic, []string{"client_secret", "token_params.password"}, "token_endpoint", "https://ID.example.com:8443/t2", "", `{}`, []string{"client_secret", "token_params.password"}, ""},
		{"a private key is not sent", key, append(params, "private_key"), "token_endpoint", "https://other.example.com/token", "", `{}`, []string{"private_key"}, ""},
		{"no secret", open, params, "token_endpoint", "https://other.example.com/token", "", `{}`, nil, ""},
		{"the token endpoint", code, both, "token_endpoint", "https://other.example.com/token", "", `{}`, []string{"authorization_params.session"}, ""},
		{"the authorization endpoint", code, both, "authorization_endpoint", "https://other.example.com/authorize", "", `{}`, []string{"token_params.password"}, ""},
		{"the path of the authorization endpoint", code, both, "authorization_endpoint", "https://id.example.com/a2", "", `{}`, both, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			config := with(tt.state.config, "token_params", `{}`, "allowed_token_hosts", hosts)
			if tt.state.kind == provider.AuthorizationCode {
				config = with(config, "authorization_params", `{}`)
			}
			if tt.state.secret != "" {
				config = with(config, tt.state.secret, "")
			}
			stored := provider.Stored{Kind: tt.state.kind, Public: config.json(), SecretKeys: slices.Sorted(slices.Values(tt.sealed))}
			config = with(config, tt.field, `"`+tt.url+`"`, "token_params", tt.tokenParams)
			if tt.secret != "" {
				config = with(config, tt.state.secret, tt.secret)
			}
			changed, err := provider.Change(stored, nil, config.json())
			if text := errorMessage(t, err); text != message(tt.state.kind, tt.text) || !slices.Equal(changed.SecretKeys, tt.after) {
				t.Errorf("got %q (%q), want %q (%q)", changed.SecretKeys, text, tt.after, tt.text)
			}
		})
	}
}

func TestHasSecrets(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]bool{
		`{"api_key":"x"}`: true, `{"private_key":7}`: true, `{"token_params":{"password":"x"}}`: true, `{"token_endpoint":"https://x?key=y"}`: true, `{"authorization_endpoint":"https://x?a=b&token=y#z"}`: true,
		`{"authorization_params":{"session":"x"}}`: true, `{}`: false, `{"token_params":{"tenant":"x"}}`: false, `{"token_endpoint":"https://x"}`: false, `{"token_params":"x","token_endpoint":{"key":"x"}}`: false, `[]`: false, ``: false, `{"Api_Key":"x"}`: false,
	} {
		if provider.HasSecrets(json.RawMessage(config)) != want {
			t.Errorf("%s: %t", config, !want)
		}
	}
}

func TestPrivateKeys(t *testing.T) {
	t.Parallel()
	const minBits = 2048
	rsaKey, err := rsa.GenerateKey(rand.Reader, minBits)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, minBits/2)
	if err != nil {
		t.Fatal(err)
	}
	curveKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key crypto.Signer) []byte {
		bytes, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	sec1, err := x509.MarshalECPrivateKey(curveKey)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(curveKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	block := func(label string, bytes []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: bytes}))
	}
	parameters := block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7})
	s := stateOf(t, "client key")
	for _, tt := range []struct {
		name, pem string
		ok        bool
	}{
		{"RSA", block("PRIVATE KEY", pkcs8(rsaKey)), true},
		{"RSA in PKCS #1", block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), true},
		{"an elliptic curve", block("PRIVATE KEY", pkcs8(curveKey)), true},
		{"an elliptic curve after its parameters", parameters + block("EC PRIVATE KEY", sec1), true},
		{"Ed25519, blanks around it", "\n\n" + block("PRIVATE KEY", pkcs8(edwards)) + "\n", true},
		{"a short RSA key", block("PRIVATE KEY", pkcs8(small)), false},
		{"a public key", block("PUBLIC KEY", spki), false},
		{"an encrypted key", block("ENCRYPTED PRIVATE KEY", pkcs8(edwards)), false},
		{"another label", block("EC PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), false},
		{"parameters only", parameters, false},
		{"truncated", block("PRIVATE KEY", pkcs8(edwards)[:40]), false},
		{"no PEM", "secret", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text, err := json.Marshal(tt.pem)
			if err != nil {
				t.Fatal(err)
			}
			c, err := provider.Check(s.kind, with(s.config, "private_key", string(text)).json())
			if (err == nil) != tt.ok || tt.ok && c.Secrets["private_key"].Reveal() != tt.pem {
				t.Errorf("%v", err)
			}
		})
	}
}
