package provider_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/egress"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/provider/authserver"
	"caracal.run/management/server/secret"
)

func TestExchangeWithEachClientAuthentication(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, client := range clients {
		t.Run(client.ID, func(t *testing.T) {
			t.Parallel()
			config := r.config(t, client, map[string]any{"token_params": map[string]string{"audience": "a b", "password": "sealed"}})
			request := r.authorize(t, config)
			got, err := r.Exchange(t.Context(), config, request)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(got.AccessToken.Reveal(), "access-") || !strings.HasPrefix(got.RefreshToken.Reveal(), "refresh-") || got.ExpiresIn == nil || *got.ExpiresIn != time.Hour {
				t.Errorf("got %q, %q, %v", got.AccessToken.Reveal(), got.RefreshToken.Reveal(), got.ExpiresIn)
			}
			for _, printed := range []string{fmt.Sprintf("%v %+v %#v %s", got, got, got, got), fmt.Sprintf("%v %+v %#v %s", request, request, request, request)} {
				if strings.Contains(printed, got.AccessToken.Reveal()) || strings.Contains(printed, got.RefreshToken.Reveal()) || strings.Contains(printed, request.Code.Reveal()) || strings.Contains(printed, request.CodeVerifier.Reveal()) {
					t.Errorf("a secret is printed: %s", printed)
				}
			}
			_, err = r.Exchange(t.Context(), config, request)
			expectError(t, err, provider.ExchangeFailed, "The token endpoint returned status 400 and the error invalid_grant: the code is unknown, used or expired.")
		})
	}
}

// Each exchange returns the tokens of its own response: a server that rotates refresh
// tokens never gets an earlier one stored.
func TestExchangeReturnsTheRotatedRefreshToken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	config := r.config(t, clients[0], nil)
	seen := map[string]bool{}
	for range 3 {
		got, err := r.Exchange(t.Context(), config, r.authorize(t, config))
		if err != nil {
			t.Fatal(err)
		}
		if seen[got.RefreshToken.Reveal()] {
			t.Errorf("got the refresh token %s again", got.RefreshToken.Reveal())
		}
		seen[got.RefreshToken.Reveal()] = true
	}
}

// The server rejects what a real one rejects; without this, the other tests would
// prove little.
func TestExchangeOfAnInvalidRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := secret.New("another-verifier-of-more-than-43-characters--")
	for _, tt := range []struct {
		name   string
		client authserver.Client
		change map[string]any // of the configuration, after authorization
		with   func(*provider.TokenRequest)
		detail string
	}{
		{"wrong secret", clients[0], map[string]any{"client_secret": "wrong"}, nil, "status 401 and the error invalid_client: client authentication failed"},
		{"another method", clients[0], map[string]any{"client_auth_method": "client_secret_post"}, nil, "status 401 and the error invalid_client: client authentication failed"},
		{"method none", clients[2], map[string]any{"client_auth_method": "none", "client_secret": nil}, nil, "status 401 and the error invalid_client: client authentication failed"},
		{"another client's code", clients[0], map[string]any{"client_id": "none", "client_auth_method": "none", "client_secret": nil}, nil, "status 400 and the error invalid_grant: the code is unknown, used or expired"},
		{"another redirect URI", clients[0], map[string]any{"redirect_uri": "https://caracal.example.com/other"}, nil, "status 400 and the error invalid_grant: redirect_uri differs from the one of the authorization request"},
		{"another verifier", clients[0], nil, func(q *provider.TokenRequest) { q.CodeVerifier = other }, "status 400 and the error invalid_grant: code_verifier does not match the challenge"},
		{"another code", clients[0], nil, func(q *provider.TokenRequest) { q.Code = secret.New("guess") }, "status 400 and the error invalid_grant: the code is unknown, used or expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			request := r.authorize(t, r.config(t, tt.client, nil))
			if tt.with != nil {
				tt.with(&request)
			}
			_, err := r.Exchange(t.Context(), r.config(t, tt.client, tt.change), request)
			expectError(t, err, provider.ExchangeFailed, "The token endpoint returned "+tt.detail+".")
		})
	}
}

func TestExchangeRejectsStoredInvalidConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *egress.Options) {
		o.Resolver = resolver(func() ([]netip.Addr, error) {
			t.Error("a name was resolved")
			return nil, errors.New("no lookup is allowed")
		})
	})
	const rest = `"authorization_endpoint":"https://a.example.com","redirect_uri":"https://c.example.com/cb","client_id":"id","client_auth_method":`
	const hosts = `,"allowed_token_hosts":["a.example.com"],"token_endpoint":`
	client := map[string]string{"client_secret": "hush"}
	for _, tt := range []struct {
		config  string
		secrets map[string]string
		want    provider.ErrorKind
		detail  string
	}{
		{`{}`, client, provider.ConfigInvalid, "The configuration of the provider has no client_id."},
		{`{` + rest + `"client_secret_basic"` + hosts + `"https://a.example.com"}`, nil, provider.ConfigInvalid, "The provider has no stored client_secret."},
		{`{` + rest + `"client_secret_post"` + hosts + `"https://a.example.com"}`, map[string]string{"client_secret": ""}, provider.ConfigInvalid, "The provider has no stored client_secret."},
		{`{` + rest + `"tls_client_auth"` + hosts + `"https://a.example.com"}`, client, provider.ConfigInvalid, "The configuration of the provider has an unknown client_auth_method."},
		{`{` + rest + `"none"` + hosts + `"http://a.example.com"}`, nil, provider.TokenEndpointNotAllowed, "provider token endpoint must be https"},
		{`{` + rest + `"none"` + hosts + `"https://u:hush@a.example.com"}`, nil, provider.TokenEndpointNotAllowed, "provider token endpoint must be https"},
		{`{` + rest + `"none"` + hosts + `"https://a b/?hush"}`, nil, provider.TokenEndpointNotAllowed, "provider token endpoint must be a valid URL"},
		{`{` + rest + `"none"` + hosts + `" "}`, nil, provider.TokenEndpointNotAllowed, "provider token endpoint must be a valid URL"},
		{`{` + rest + `"none","token_endpoint":"https://a.example.com"}`, nil, provider.TokenEndpointNotAllowed, "provider has no allowed_token_hosts configured"},
		{`{` + rest + `"none"` + hosts + `"https://b.example.com"}`, nil, provider.TokenEndpointNotAllowed, "provider token endpoint host is not allowlisted"},
		{`{` + rest + `"none","allowed_token_hosts":["93.184.215.14"],"token_endpoint":"https://93.184.215.14/"}`, nil, provider.TokenEndpointNotAllowed, "The host of the URL must be a DNS name, not an IP address."},
		{`{` + rest + `"none","allowed_token_hosts":["[::1]","::1"],"token_endpoint":"https://[::1]/"}`, nil, provider.TokenEndpointNotAllowed, "The host of the URL must be a DNS name, not an IP address."},
	} {
		t.Run(tt.config, func(t *testing.T) {
			t.Parallel()
			_, err := r.Exchange(t.Context(), stored(t, tt.config, tt.secrets), provider.TokenRequest{Code: secret.New("hush"), CodeVerifier: secret.New("hush")})
			expectError(t, err, tt.want, tt.detail)
			if strings.Contains(err.Error(), "hush") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
}

func TestExchangeOverAnUntrustedNetwork(t *testing.T) {
	t.Parallel()
	addresses := func(list ...string) func(*egress.Options) {
		return func(o *egress.Options) {
			o.Resolver = resolver(func() (found []netip.Addr, err error) {
				for _, text := range list {
					found = append(found, netip.MustParseAddr(text))
				}
				return found, nil
			})
		}
	}
	const public, notResolved = "93.184.215.14", "The host does not resolve to a public address."
	const invalidTLS = "The TLS handshake with the host failed, or its certificate is invalid."
	for _, tt := range []struct {
		name   string
		change func(*egress.Options)
		host   string // of the token endpoint
		detail string
	}{
		{"untrusted certificate", func(o *egress.Options) { o.RootCAs = x509.NewCertPool() }, "auth.example.com", invalidTLS},
		{"certificate of another name", addresses(public), "other.example.com", invalidTLS},
		{"private address", addresses("10.0.0.1"), "auth.example.com", notResolved},
		{"loopback address", addresses("127.0.0.1"), "auth.example.com", notResolved},
		{"metadata address", addresses("169.254.169.254"), "auth.example.com", notResolved},
		{"IPv4-mapped private address", addresses("::ffff:10.0.0.1"), "auth.example.com", notResolved},
		{"NAT64 private address", addresses("64:ff9b::a00:1"), "auth.example.com", notResolved},
		{"private address behind a public one", addresses(public, "192.168.0.1"), "auth.example.com", notResolved},
		{"no address", addresses(), "auth.example.com", notResolved},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, tt.change)
			config := r.config(t, clients[0], map[string]any{
				"token_endpoint": strings.Replace(r.TokenEndpoint(""), "auth.example.com", tt.host, 1), "allowed_token_hosts": []string{tt.host},
			})
			request := r.authorize(t, config)
			_, err := r.Exchange(t.Context(), config, request)
			expectError(t, err, provider.ExchangeFailed, tt.detail)
			for _, text := range []string{request.Code.Reveal(), request.CodeVerifier.Reveal(), clients[0].Secret} {
				if strings.Contains(err.Error(), text) {
					t.Errorf("the error quotes a secret: %v", err)
				}
			}
		})
	}
	t.Run("canceled", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		config := r.config(t, clients[0], nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.Exchange(ctx, config, r.authorize(t, config))
		expectError(t, err, provider.ExchangeFailed, "The request was canceled.")
	})
}
