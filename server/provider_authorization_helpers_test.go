package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/provider/authserver"
	"caracal.run/management/server/servertest"
)

const redirectURI = "https://caracal.example.com/callback"

// authClients are the clients of the authorization server, one for each method of
// client authentication.
var authClients = []authserver.Client{
	{ID: "basic", Secret: "hush 100%/&=:é", AuthMethod: "client_secret_basic", RedirectURI: redirectURI},
	{ID: "post", Secret: "hush 100%/&=:é", AuthMethod: "client_secret_post", RedirectURI: redirectURI},
	{ID: "none", AuthMethod: "none", RedirectURI: redirectURI, SendIssuer: true},
}

// An oauthZone is a zone whose provider is a client of a real authorization server.
type oauthZone struct {
	grantZone
	auth *authserver.Server
}

// startAuth starts an authorization server, whose token endpoints at /token/<name> send
// the responses.
func startAuth(t *testing.T, responses map[string]authserver.Respond) *authserver.Server {
	t.Helper()
	auth, err := authserver.Start(authserver.Options{Clients: authClients, Responses: responses})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = auth.Close() })
	return auth
}

func newOAuthZone(t *testing.T, settings ...string) oauthZone {
	t.Helper()
	auth := startAuth(t, authserver.Hostile())
	a := servertest.WithEgress(t, auth.Egress(), settings...)
	return oauthZoneOf(t, a, auth, a.Zone().ID)
}

func oauthZoneOf(t *testing.T, a *servertest.API, auth *authserver.Server, zone string, change ...map[string]any) oauthZone {
	t.Helper()
	z := oauthZone{grantZone{API: a, zone: zone}, auth}
	config := map[string]any{}
	for _, c := range change {
		for name, value := range c {
			config[name] = value
		}
	}
	z.provider = z.providerWith(t, authClients[0], config)
	z.resource = z.resourceOf(t, z.provider)
	return z
}

// providerWith creates a provider that is a client of the authorization server. change
// changes fields of its configuration.
func (z oauthZone) providerWith(t *testing.T, c authserver.Client, change map[string]any) string {
	t.Helper()
	return newProvider(t, z.API, z.zone, client.NewProvider{
		Name: new("Login"), Kind: client.ProviderKindOAuth2AuthorizationCode, ConfigJSON: rawConfig(z.configOf(t, c, change)),
	}).ID
}

func (z oauthZone) configOf(t *testing.T, c authserver.Client, change map[string]any) string {
	t.Helper()
	config := map[string]any{
		"authorization_endpoint": z.auth.AuthorizationEndpoint(), "token_endpoint": z.auth.TokenEndpoint(""), "allowed_token_hosts": []string{"auth.example.com"},
		"client_id": c.ID, "client_auth_method": c.AuthMethod, "redirect_uri": redirectURI, "scopes": []string{"openid", "files:all"},
	}
	if c.Secret != "" {
		config["client_secret"] = c.Secret
	}
	for name, value := range change {
		config[name] = value
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// request returns a valid request to authorize a grant of user-1.
func (z grantZone) request(change ...func(*client.NewProviderAuthorization)) client.NewProviderAuthorization {
	b := client.NewProviderAuthorization{UserID: "user-1", ResourceID: z.resource, ProviderID: z.provider, Scopes: []string{"read"}}
	for _, f := range change {
		f(&b)
	}
	return b
}

// start starts an authorization.
func (z grantZone) start(t *testing.T, change ...func(*client.NewProviderAuthorization)) client.ProviderAuthorization {
	t.Helper()
	resp, err := z.Admin.AuthorizeProviderGrantWithResponse(t.Context(), z.zone, z.request(change...))
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

// allow starts an authorization, has the user allow access, and returns the query with
// which the authorization server sends the browser back.
func (z oauthZone) allow(t *testing.T, change ...func(*client.NewProviderAuthorization)) string {
	t.Helper()
	return z.decide(t, z.auth.Allow, change...)
}

func (z oauthZone) decide(t *testing.T, decision func(string) (string, error), change ...func(*client.NewProviderAuthorization)) string {
	t.Helper()
	back, err := decision(z.start(t, change...).AuthorizationURL)
	if err != nil {
		t.Fatal(err)
	}
	to, query, _ := strings.Cut(back, "?")
	if to != redirectURI {
		t.Fatalf("the browser was sent to %s", back)
	}
	return query
}

// callback opens the callback of the zone as a browser does, without a token.
func (z grantZone) callback(query string, headers ...string) servertest.RawResponse {
	return z.Do("GET", "/v1/zones/"+z.zone+"/provider-grants/oauth/callback?"+query, "", headers...)
}

// with returns a query with another value of a parameter; "" removes it.
func with(t *testing.T, query, name, value string) string {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	values.Set(name, value)
	if value == "" {
		values.Del(name)
	}
	return values.Encode()
}
