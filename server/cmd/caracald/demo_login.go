package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"caracal.run/management/gen/client"
	"caracal.run/management/server"
	"caracal.run/management/server/provider/authserver"
)

// demoLoginHost is the host of the demo authorization server. Browsers resolve names
// below localhost to this machine.
const demoLoginHost = "demo-login.localhost"

// startDemoLogin starts an authorization server with which the authorization of a
// provider grant can be clicked through, and lets the service reach it.
func startDemoLogin(config *server.Config) (*authserver.Server, error) {
	login, err := authserver.Start(authserver.Options{Host: demoLoginHost})
	if err != nil {
		return nil, fmt.Errorf("starting the demo authorization server: %w", err)
	}
	config.Egress = login.Egress()
	return login, nil
}

// seedDemoLogin registers a provider of the demo zone with the authorization server,
// whose address and client secret are different after each start, and creates what is
// missing of the provider, a resource of it and a grant.
func seedDemoLogin(ctx context.Context, out io.Writer, url, token, zone string, login *authserver.Server) error {
	c, err := client.New(url, token)
	if err != nil {
		return err
	}
	registered := authserver.Client{
		ID: "caracal-demo", Secret: rand.Text(), AuthMethod: "client_secret_basic",
		RedirectURI: url + "/v1/zones/" + zone + "/provider-grants/oauth/callback",
	}
	login.Register(registered)
	provider, err := ensureDemoProvider(ctx, c, zone, client.OAuth2AuthorizationCodeProviderConfig{
		AuthorizationEndpoint: login.AuthorizationEndpoint(), TokenEndpoint: login.TokenEndpoint(""), AllowedTokenHosts: []string{demoLoginHost},
		ClientID: registered.ID, ClientSecret: &registered.Secret, RedirectURI: registered.RedirectURI, Scopes: &[]string{"openid", "calendar"},
	})
	if err == nil {
		err = ensureDemoCalendar(ctx, c, zone, provider)
	}
	if err != nil {
		return fmt.Errorf("creating the demo provider: %w", err)
	}
	_, err = fmt.Fprintf(out, "The demo authorization server is at %s. Your browser does not know its certificate: accept it.\n\n", login.URL)
	return err
}

// ensureDemoProvider creates the provider of the authorization server, or updates its
// configuration, and returns its ID.
func ensureDemoProvider(ctx context.Context, c *client.Client, zone string, config client.ProviderConfigInput) (string, error) {
	const identifier = "provider://demo-login"
	found, err := c.ListProviders(ctx, zone, client.ListProvidersParams{Identifier: identifier})
	if err != nil {
		return "", err
	}
	if len(found.Items) > 0 {
		_, err := c.UpdateProvider(ctx, zone, found.Items[0].ID, client.ProviderPatch{ConfigJSON: config})
		return found.Items[0].ID, err
	}
	provider, err := c.CreateProvider(ctx, zone, client.NewProvider{
		Name: new("Demo login"), Identifier: new(identifier), Kind: client.ProviderKindOAuth2AuthorizationCode, ConfigJSON: config,
	})
	return provider.ID, err
}

// ensureDemoCalendar creates a resource of a provider, and a grant for it.
func ensureDemoCalendar(ctx context.Context, c *client.Client, zone, provider string) error {
	const identifier = "resource://calendar"
	found, err := c.ListResources(ctx, zone, client.ListResourcesParams{Identifier: identifier})
	if err != nil || len(found.Items) > 0 {
		return err
	}
	managed, err := c.ListApplications(ctx, zone, client.ListApplicationsParams{RegistrationMethod: client.RegistrationMethodManaged})
	if err != nil {
		return err
	}
	if len(managed.Items) == 0 {
		return errors.New("the demo zone has no managed application")
	}
	resource, err := c.CreateResource(ctx, zone, client.NewResource{
		Name: new("Calendar"), Identifier: new(identifier), Scopes: []string{"calendar:read", "calendar:write"},
		CredentialProviderID: &provider, UpstreamURL: new("https://calendar.example.com"), GatewayApplicationID: &managed.Items[0].ID,
	})
	if err != nil {
		return err
	}
	_, err = c.CreateProviderGrant(ctx, zone, client.NewProviderGrant{
		UserID: "ben", ResourceID: resource.ID, ProviderID: provider, Scopes: []string{"calendar:read"}, AccessToken: rand.Text(),
	})
	return err
}
