package provider_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"caracal.run/management/server/egress"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/provider/authserver"
	"caracal.run/management/server/secret"
)

const callback = "https://caracal.example.com/callback?zone=1"

// The clients of the tests. Their secrets contain what form encoding changes.
var clients = []authserver.Client{
	{ID: "basic", Secret: "correct horse battery staple", AuthMethod: "client_secret_basic", RedirectURI: callback, SendIssuer: true},
	{ID: "id:with colon+", Secret: "100%/&=:é~*", AuthMethod: "client_secret_basic", RedirectURI: callback},
	{ID: "post", Secret: "100%/&=:é~*", AuthMethod: "client_secret_post", RedirectURI: callback},
	{ID: "none", AuthMethod: "none", RedirectURI: callback},
}

// A rig is an authorization server and an exchanger that reaches it.
type rig struct {
	*authserver.Server
	*provider.Exchanger
}

// newRig starts an authorization server. change changes the options of the egress
// client.
func newRig(t *testing.T, change ...func(*egress.Options)) rig {
	t.Helper()
	return start(t, clients, change...)
}

// newRigFor is like newRig, with one client.
func newRigFor(t *testing.T, client authserver.Client) rig {
	t.Helper()
	return start(t, []authserver.Client{client})
}

func start(t *testing.T, clients []authserver.Client, change ...func(*egress.Options)) rig {
	t.Helper()
	server, err := authserver.Start(authserver.Options{Clients: clients, Responses: authserver.Hostile()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	options := server.Egress()
	options.Timeout = time.Minute // for a busy machine; tests of timeouts set their own
	for _, c := range change {
		c(&options)
	}
	return rig{server, provider.NewExchanger(egress.New(options))}
}

// config returns a configuration of a client. change replaces fields; nil removes one.
func (r rig) config(t *testing.T, client authserver.Client, change map[string]any) provider.Config {
	t.Helper()
	fields := map[string]any{
		"authorization_endpoint": r.AuthorizationEndpoint(), "token_endpoint": r.TokenEndpoint(""),
		"allowed_token_hosts": []string{"auth.example.com"}, "client_id": client.ID, "client_auth_method": client.AuthMethod,
		"redirect_uri": client.RedirectURI, "scopes": []string{"read", "write:all"},
	}
	if client.Secret != "" && client.PublicKey == nil {
		fields["client_secret"] = client.Secret
	}
	for name, value := range change {
		fields[name] = value
		if value == nil {
			delete(fields, name)
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	checked, err := provider.Check(provider.AuthorizationCode, text)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := provider.Open(checked.Kind, checked.Public, checked.Secrets.Plaintext()) // as it is stored
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// authorize has a user allow access, and returns the token request that follows.
func (r rig) authorize(t *testing.T, config provider.Config) provider.TokenRequest {
	t.Helper()
	verifier := rand.Text() + rand.Text()
	to, err := provider.AuthorizationURL(config, provider.AuthorizationRequest{State: "state", CodeChallenge: challengeOf(verifier)})
	if err != nil {
		t.Fatal(err)
	}
	redirect, err := r.Allow(to)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(redirect)
	if err != nil {
		t.Fatal(err)
	}
	if q := u.Query(); q.Get("error") != "" || q.Get("state") != "state" || q.Get("code") == "" {
		t.Fatalf("redirected to %s", redirect)
	}
	return provider.TokenRequest{Code: secret.New(u.Query().Get("code")), CodeVerifier: secret.New(verifier)}
}

func challengeOf(verifier string) string {
	hash := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

// resolver is a function that implements [egress.Resolver].
type resolver func() ([]netip.Addr, error)

func (r resolver) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return r() }
