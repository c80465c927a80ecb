package provider_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/egress"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/provider/authserver"
)

// What is discovered is a valid configuration once it has the client's own fields.
func TestDiscoveredConfigurationIsComplete(t *testing.T) {
	t.Parallel()
	client := authserver.Client{ID: "discovered", Secret: "s3cret", AuthMethod: "client_secret_post", RedirectURI: callback, SendIssuer: true}
	server, err := authserver.Start(authserver.Options{Clients: []authserver.Client{client}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	out := server.Egress()
	out.Timeout = time.Minute
	discovered, err := provider.Discover(t.Context(), egress.New(out), server.Resource())
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(`{"allowed_token_hosts":["auth.example.com"],"authorization_endpoint":"URL/authorize","client_auth_method":"client_secret_post",`+
		`"issuer":"URL","resource":"URL/mcp","scopes":["read","write"],"token_endpoint":"URL/token"}`, "URL", server.URL)
	if string(discovered) != want {
		t.Errorf("got  %s\nwant %s", discovered, want)
	}
	var fields map[string]any
	if err := json.Unmarshal(discovered, &fields); err != nil {
		t.Fatal(err)
	}
	fields["client_id"], fields["client_secret"], fields["redirect_uri"] = client.ID, client.Secret, client.RedirectURI
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.Check(provider.AuthorizationCode, text); err != nil {
		t.Error(err)
	}
}

func TestDiscoveryOfInvalidMetadata(t *testing.T) {
	t.Parallel()
	const (
		resourceAt, resourceRoot = "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"
		serverAt, openIDAt       = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
		resource                 = `{"resource":"URL/mcp","authorization_servers":["URL"]}`
		endpoints                = `"authorization_endpoint":"URL/authorize","token_endpoint":"URL/token","code_challenge_methods_supported":["S256"]`
		noMetadata               = "The server has no metadata."
		notObject                = "The metadata is not a JSON object without repeated fields."
		noServer                 = "The metadata of the resource names no authorization server."
		badIssuer                = "The issuer in the metadata of the resource is not an https URL."
		invalid                  = "The metadata is invalid: oauth2_authorization_code provider config "
	)
	for _, tt := range []struct {
		name      string
		documents map[string]string
		detail    string // "" if a configuration is found
	}{
		{"one document for all paths", map[string]string{resourceAt: "", resourceRoot: resource}, ""},
		{"OpenID Connect metadata", map[string]string{serverAt: "", openIDAt: `{"issuer":"URL",` + endpoints + `}`}, ""},
		{"nothing but what is required", map[string]string{serverAt: `{"issuer":"URL",` + endpoints + `}`}, ""},
		{"no metadata of the resource", map[string]string{resourceAt: ""}, noMetadata},
		{"no metadata of the server", map[string]string{serverAt: ""}, noMetadata},
		{"no JSON", map[string]string{resourceAt: "<html>"}, notObject},
		{"a list", map[string]string{serverAt: "[]"}, notObject},
		{"a repeated field", map[string]string{serverAt: `{"issuer":"URL","issuer":"URL",` + endpoints + `}`}, notObject},
		{"another resource", map[string]string{resourceAt: `{"resource":"URL/other","authorization_servers":["URL"]}`}, "The metadata is of another resource."},
		{"no server", map[string]string{resourceAt: `{"resource":"URL/mcp"}`}, noServer},
		{"a server that is no list", map[string]string{resourceAt: `{"resource":"URL/mcp","authorization_servers":"URL"}`}, noServer},
		{"a server without TLS", map[string]string{resourceAt: `{"resource":"URL/mcp","authorization_servers":["http://auth.example.com"]}`}, badIssuer},
		{"a server with a query", map[string]string{resourceAt: `{"resource":"URL/mcp","authorization_servers":["URL?x"]}`}, badIssuer},
		{"a server that is an address", map[string]string{resourceAt: `{"resource":"URL/mcp","authorization_servers":["https://127.0.0.1"]}`}, "The host of the URL must be a DNS name, not an IP address."},
		{"another server's metadata", map[string]string{serverAt: `{"issuer":"https://evil.example.com",` + endpoints + `}`}, "The metadata is of another authorization server."},
		{"no PKCE", map[string]string{serverAt: `{"issuer":"URL","authorization_endpoint":"URL/authorize","token_endpoint":"URL/token"}`}, "The authorization server does not support PKCE with S256."},
		{"no known authentication", map[string]string{serverAt: `{"issuer":"URL","token_endpoint_auth_methods_supported":["tls_client_auth"],` + endpoints + `}`}, "The authorization server supports no known client authentication."},
		{"no endpoint", map[string]string{serverAt: `{"issuer":"URL","authorization_endpoint":"URL/authorize","code_challenge_methods_supported":["S256"]}`}, invalid + "token_endpoint must be an HTTPS URL."},
		{"a script", map[string]string{serverAt: `{"issuer":"URL","authorization_endpoint":"javascript:alert(1)","token_endpoint":"URL/token","code_challenge_methods_supported":["S256"]}`}, invalid + "authorization_endpoint must be an HTTPS URL."},
		{"a malformed endpoint", map[string]string{serverAt: `{"issuer":"URL","authorization_endpoint":"URL","token_endpoint":"https://%zz","code_challenge_methods_supported":["S256"]}`}, "The token endpoint in the metadata is malformed."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server, err := authserver.Start(authserver.Options{Documents: tt.documents})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			out := server.Egress()
			out.Timeout = time.Minute
			got, err := provider.Discover(t.Context(), egress.New(out), server.Resource())
			expectDiscovery(t, got, err, tt.detail)
		})
	}
}

func TestDiscoveryRequestsPublicHTTPSOnly(t *testing.T) {
	t.Parallel()
	private := egress.New(egress.Options{Resolver: resolver(func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil })})
	const notHTTPS = "The resource must be an https URL without a user name, password or fragment."
	for resource, detail := range map[string]string{
		"http://mcp.example.com/": notHTTPS, "https://u:p@mcp.example.com/": notHTTPS, "https://mcp.example.com/#x": notHTTPS, "mcp": notHTTPS, "": notHTTPS, "https://": notHTTPS, "file:///etc/passwd": notHTTPS,
		"https://mcp.example.com/mcp": "The host does not resolve to a public address.",
		"https://169.254.169.254/":    "The host of the URL must be a DNS name, not an IP address.",
		"https://[::1]/":              "The host of the URL must be a DNS name, not an IP address.",
	} {
		got, err := provider.Discover(t.Context(), private, resource)
		expectDiscovery(t, got, err, detail)
	}
}

// expectDiscovery fails unless a discovery has a detail, or a configuration if that is "".
func expectDiscovery(t *testing.T, got json.RawMessage, err error, detail string) {
	t.Helper()
	var failure *provider.DiscoveryError
	switch {
	case detail == "":
		if err != nil || !json.Valid(got) {
			t.Errorf("got %s, %v", got, err)
		}
	case !errors.As(err, &failure) || failure.Detail != detail || got != nil:
		t.Errorf("got %s, %v, want %q", got, err, detail)
	}
}
