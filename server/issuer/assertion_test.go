package issuer

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
)

// signAssertion signs claims, given as JSON.
func signAssertion(t *testing.T, claims []byte, algorithm jwa.SignatureAlgorithm, key any, kid string) string {
	t.Helper()
	header := jws.NewHeaders()
	if kid != "" {
		_ = header.Set(jws.KeyIDKey, kid)
	}
	token, err := jws.Sign(claims, jws.WithKey(algorithm, key, jws.WithProtectedHeaders(header)))
	if err != nil {
		t.Fatal(err)
	}
	return string(token)
}

// keySet returns public keys as a JSON Web Key Set; each is an ID, a key and additional
// fields.
func keySet(t *testing.T, keys ...[]any) []byte {
	t.Helper()
	set := jwk.NewSet()
	for _, k := range keys {
		key, err := jwk.Import(k[1])
		if err != nil {
			t.Fatal(err)
		}
		if k[0] != "" {
			_ = key.Set("kid", k[0])
		}
		for i := 2; i+1 < len(k); i += 2 {
			_ = key.Set(k[i].(string), k[i+1])
		}
		if err := set.AddKey(key); err != nil {
			t.Fatal(err)
		}
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestVerifyAssertion(t *testing.T) {
	t.Parallel()
	const client, endpoint, zoneIssuer = "app-1", "https://api.example.com/oauth/2/token", "https://api.example.com/v1/zones/z"
	p256 := generate(t, func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
	other := generate(t, func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
	p384 := generate(t, func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) })
	rsaKey := generate(t, func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	shortRSA := generate(t, func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 1024) })
	ed := generate(t, func() (ed25519.PrivateKey, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err })
	keys := keySet(t, []any{"ec", p256.Public()}, []any{"rsa", rsaKey.Public()}, []any{"ed", ed.Public()}, []any{"p384", p384.Public()})
	short := fmt.Appendf(nil, `{"keys":[{"kty":"RSA","kid":"short","e":"AQAB","n":%q}]}`, base64.RawURLEncoding.EncodeToString(shortRSA.N.Bytes()))
	now := time.Now()
	with := func(change map[string]any) []byte {
		all := map[string]any{"iss": client, "sub": client, "aud": endpoint, "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "jti": "j"}
		maps.Copy(all, change)
		maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	es256 := func(change map[string]any) string { return signAssertion(t, with(change), jwa.ES256(), p256, "ec") }
	after := func(d time.Duration) int64 { return now.Add(d).Unix() }
	point, err := p256.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	valid := es256(nil)
	parts := strings.Split(valid, ".")
	for name, tt := range map[string]struct {
		assertion string
		keys      []byte
		reason    string
	}{
		"ES256":                       {valid, keys, ""},
		"RS256":                       {signAssertion(t, with(nil), jwa.RS256(), rsaKey, "rsa"), keys, ""},
		"PS256":                       {signAssertion(t, with(nil), jwa.PS256(), rsaKey, "rsa"), keys, ""},
		"EdDSA":                       {signAssertion(t, with(nil), jwa.EdDSA(), ed, "ed"), keys, ""},
		"without a key ID":            {signAssertion(t, with(nil), jwa.ES256(), p256, ""), keys, ""},
		"for the issuer of the zone":  {es256(map[string]any{"aud": []string{"x", zoneIssuer}}), keys, ""},
		"expires in five minutes":     {es256(map[string]any{"exp": after(5 * time.Minute)}), keys, ""},
		"key for signatures":          {valid, keySet(t, []any{"ec", p256.Public(), "use", "sig", "alg", jwa.ES256()}), ""},
		"second key of the same ID":   {valid, keySet(t, []any{"ec", other.Public()}, []any{"ec", p256.Public()}), ""},
		"no keys":                     {valid, keySet(t), "unknown key"},
		"key for encryption":          {valid, keySet(t, []any{"ec", p256.Public(), "use", "enc"}), "unknown key"},
		"key for another algorithm":   {signAssertion(t, with(nil), jwa.RS256(), rsaKey, "rsa"), keySet(t, []any{"rsa", rsaKey.Public(), "alg", jwa.PS256()}), "unknown key"},
		"unknown key ID":              {signAssertion(t, with(nil), jwa.ES256(), p256, "unknown"), keys, "unknown key"},
		"another key":                 {signAssertion(t, with(nil), jwa.ES256(), other, "ec"), keys, "wrong signature"},
		"another key without an ID":   {signAssertion(t, with(nil), jwa.ES256(), other, ""), keys, "wrong signature"},
		"malformed keys":              {valid, []byte(`{"keys":7}`), "the keys of the client are malformed"},
		"a key that is too short":     {signAssertion(t, with(nil), jwa.RS256(), rsaKey, "short"), short, "the keys of the client are malformed"},
		"ES384":                       {signAssertion(t, with(nil), jwa.ES384(), p384, "p384"), keys, "wrong algorithm"},
		"RS512":                       {signAssertion(t, with(nil), jwa.RS512(), rsaKey, "rsa"), keys, "wrong algorithm"},
		"HS256 with the public key":   {signAssertion(t, with(nil), jwa.HS256(), point, "ec"), keys, "wrong algorithm"},
		"none":                        {reheader(t, valid, map[string]any{"alg": "none"}), keys, "wrong algorithm"},
		"a critical header":           {reheader(t, valid, map[string]any{"alg": "ES256", "kid": "ec", "crit": []string{"x"}}), keys, "unknown critical header"},
		"RS256 header, key is EC":     {reheader(t, valid, map[string]any{"alg": "RS256", "kid": "ec"}), keys, "unknown key"},
		"tampered":                    {parts[0] + "." + base64.RawURLEncoding.EncodeToString(with(map[string]any{"jti": "k"})) + "." + parts[2], keys, "wrong signature"},
		"malformed":                   {"x", keys, "malformed"},
		"oversized":                   {es256(map[string]any{"x": strings.Repeat("x", 4000)}), keys, "malformed"},
		"another issuer":              {es256(map[string]any{"iss": "app-2"}), keys, "wrong client"},
		"another subject":             {es256(map[string]any{"sub": "app-2"}), keys, "wrong client"},
		"another audience":            {es256(map[string]any{"aud": "https://other.example.com/oauth/2/token"}), keys, "wrong audience"},
		"no audience":                 {es256(map[string]any{"aud": nil}), keys, "wrong audience"},
		"expired":                     {es256(map[string]any{"exp": after(-70 * time.Second)}), keys, "expired"},
		"expired within the leeway":   {es256(map[string]any{"exp": after(-50 * time.Second)}), keys, ""},
		"expires too late":            {es256(map[string]any{"exp": after(6*time.Minute + 10*time.Second)}), keys, "expires too late"},
		"no expiry":                   {es256(map[string]any{"exp": nil}), keys, "missing claim"},
		"no ID":                       {es256(map[string]any{"jti": nil}), keys, "missing claim"},
		"ID too long":                 {es256(map[string]any{"jti": strings.Repeat("x", 257)}), keys, "missing claim"},
		"issued in the future":        {es256(map[string]any{"iat": after(70 * time.Second)}), keys, "not yet valid"},
		"not yet valid":               {es256(map[string]any{"nbf": after(70 * time.Second)}), keys, "not yet valid"},
		"without the time of issue":   {es256(map[string]any{"iat": nil}), keys, ""},
		"private key instead of keys": {valid, fmt.Appendf(nil, "%q", "secret"), "the keys of the client are malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := VerifyAssertion(tt.assertion, client, tt.keys, []string{endpoint, zoneIssuer}, now)
			if tt.reason == "" {
				if err != nil || a.ID != "j" || a.ExpiresAt.Before(now) || AssertionClient(tt.assertion) != client {
					t.Errorf("got %+v, %v", a, err)
				}
				return
			}
			if !errors.Is(err, ErrInvalid) || err.Error() != "the token is invalid: "+tt.reason || a.ID != "" {
				t.Errorf("got %+v, %v, want %s", a, err, tt.reason)
			}
		})
	}
}

// generate returns a new key.
func generate[K any](t *testing.T, f func() (K, error)) K {
	t.Helper()
	key, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
