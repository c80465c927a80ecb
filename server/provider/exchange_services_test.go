package provider_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/url"
	"strings"
	"testing"

	"caracal.run/management/server/provider"
	"caracal.run/management/server/provider/authserver"
)

// TestExchangeWithServicesThatDiffer checks that each field that is for services that
// differ from the standards is used: the server accepts no other request.
func TestExchangeWithServicesThatDiffer(t *testing.T) {
	t.Parallel()
	names := map[string]string{"client_id": "client_key", "client_secret": "key", "code": "auth_code", "grant_type": "type", "redirect_uri": "back"}
	for _, tt := range []struct {
		name   string
		client authserver.Client // a client_secret_post client, unless it has a method
		config map[string]any
	}{
		{"a JSON request", authserver.Client{Format: "json"}, map[string]any{"token_request_format": "json"}},
		{"a JSON request with Basic credentials", authserver.Client{Format: "json", AuthMethod: "client_secret_basic"}, map[string]any{"token_request_format": "json"}},
		{"a query", authserver.Client{Format: "query"}, map[string]any{"token_request_format": "query"}},
		{"a query with Basic credentials", authserver.Client{Format: "query", AuthMethod: "client_secret_basic"}, map[string]any{"token_request_format": "query"}},
		{"a form that is asked for", authserver.Client{}, map[string]any{"token_request_format": "form"}},
		{"headers", authserver.Client{Headers: map[string]string{"Notion-Version": "2022-06-28", "X-Api-Key": "sealed", "Accept": "application/json; v=2"}},
			map[string]any{"token_headers": map[string]string{"notion-version": "2022-06-28", "X-Api-Key": "sealed", "Accept": "application/json; v=2"}}},
		{"other names", authserver.Client{TokenNames: names, AuthorizationNames: map[string]string{"client_id": "app_id", "scope": "user_scope"}},
			map[string]any{"token_param_names": names, "authorization_param_names": map[string]string{"client_id": "app_id", "scope": "user_scope"}}},
		{"other names in JSON", authserver.Client{TokenNames: names, Format: "json"}, map[string]any{"token_param_names": names, "token_request_format": "json"}},
		{"another grant type", authserver.Client{GrantType: "auth_code"}, map[string]any{"grant_type": "auth_code"}},
		{"a resource", authserver.Client{Resource: "https://mcp.example.com/mcp"}, map[string]any{"resource": "https://mcp.example.com/mcp"}},
		{"an issuer", authserver.Client{SendIssuer: true}, map[string]any{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := tt.client
			client.ID, client.Secret, client.RedirectURI = "service", "s3cret&=+ é", callback
			if client.AuthMethod == "" {
				client.AuthMethod = "client_secret_post"
			}
			r := newRigFor(t, client)
			change := maps.Clone(tt.config)
			change["issuer"] = r.URL
			config := r.config(t, client, change)
			request := r.authorize(t, config)
			if got, err := r.Exchange(t.Context(), config, request); err != nil || got.AccessToken.IsZero() {
				t.Errorf("got %v, %v", got, err)
			}
			if len(tt.config) == 0 || tt.name == "a form that is asked for" {
				return
			}
			standard := r.config(t, client, nil)
			if tt.client.AuthorizationNames == nil && tt.client.Resource == "" { // or there is no consent
				request = r.authorize(t, standard)
			}
			if _, err := r.Exchange(t.Context(), standard, request); err == nil {
				t.Error("the server also accepts a standard request")
			}
		})
	}
}

func TestExchangeWithPrivateKeyJWT(t *testing.T) {
	t.Parallel()
	curve := func(c elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	const bits = 2048
	rsaKey, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RS256": rsaKey, "ES256": curve(elliptic.P256()), "ES384": curve(elliptic.P384()), "ES512": curve(elliptic.P521()), "EdDSA": edwards} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := authserver.Client{ID: "id with space", AuthMethod: "private_key_jwt", PublicKey: key.Public(), KeyID: "2026-07", RedirectURI: callback}
			r := newRigFor(t, client)
			config := r.config(t, client, map[string]any{"private_key": pemOf(t, key), "key_id": "2026-07"})
			for range 2 { // each assertion is used once
				if got, err := r.Exchange(t.Context(), config, r.authorize(t, config)); err != nil || got.AccessToken.IsZero() {
					t.Errorf("got %v, %v", got, err)
				}
			}
			const denied = "The token endpoint returned status 401 and the error invalid_client: client authentication failed."
			other := r.config(t, client, map[string]any{"private_key": pemOf(t, edwardsKey(t)), "key_id": "2026-07"})
			_, err := r.Exchange(t.Context(), other, r.authorize(t, other))
			expectError(t, err, provider.ExchangeFailed, denied)
			other = r.config(t, client, map[string]any{"private_key": pemOf(t, key)})
			_, err = r.Exchange(t.Context(), other, r.authorize(t, other))
			expectError(t, err, provider.ExchangeFailed, denied)
		})
	}
	t.Run("a key that cannot sign", func(t *testing.T) {
		t.Parallel()
		const fields = `{"authorization_endpoint":"https://a.example.com","redirect_uri":"https://c.example.com/cb","client_id":"id","client_auth_method":"private_key_jwt","allowed_token_hosts":["a.example.com"],"token_endpoint":"https://a.example.com"}`
		for _, text := range []string{pemOf(t, curve(elliptic.P224())), "no PEM"} {
			_, err := newRig(t).Exchange(t.Context(), stored(t, fields, map[string]string{"private_key": text}), provider.TokenRequest{})
			expectError(t, err, provider.ConfigInvalid, "The stored private_key of the provider cannot sign client assertions.")
			if strings.Contains(err.Error(), text) {
				t.Errorf("the error quotes the key: %v", err)
			}
		}
		_, err := newRig(t).Exchange(t.Context(), stored(t, fields, nil), provider.TokenRequest{})
		expectError(t, err, provider.ConfigInvalid, "The provider has no stored private_key.")
	})
}

func edwardsKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemOf(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// The redirect of a server that sends iss passes the check, and that of another does not.
func TestIssuerOfARealResponse(t *testing.T) {
	t.Parallel()
	r, other := newRig(t), newRig(t)
	config := r.config(t, clients[0], map[string]any{"issuer": r.URL})
	to, err := provider.AuthorizationURL(config, provider.AuthorizationRequest{State: "S", CodeChallenge: challengeOf("verifier")})
	if err != nil {
		t.Fatal(err)
	}
	for server, ok := range map[*authserver.Server]bool{r.Server: true, other.Server: false} {
		_, query, _ := strings.Cut(to, "?")
		redirect, err := server.Allow(server.AuthorizationEndpoint() + "?" + query)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(redirect)
		if err != nil {
			t.Fatal(err)
		}
		if err := provider.CheckIssuer(config, u.Query().Get("iss")); (err == nil) != ok {
			t.Errorf("%s: %v", redirect, err)
		}
	}
}
