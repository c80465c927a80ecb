package server_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/servertest"
)

// TestWellKnownServices creates a provider for each service of the table in /docs, which
// is rendered from the same examples of the spec, and begins an authorization with it.
func TestWellKnownServices(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	spec := loadSpec(t)
	services := 0
	for name, example := range spec.Paths.Value("/v1/zones/{zoneId}/providers").Post.RequestBody.Value.Content.Get(jsonType).Examples {
		value := example.Value.Value.(map[string]any)
		if !strings.HasPrefix(name, "service_") {
			continue
		}
		services++
		t.Run(name, func(t *testing.T) {
			if example.Value.Summary != value["name"] {
				t.Errorf("the summary is %q, the name %q", example.Value.Summary, value["name"])
			}
			config := value["config_json"].(map[string]any)
			text, err := json.Marshal(config)
			if err != nil {
				t.Fatal(err)
			}
			created := newProvider(t, a, zone, client.NewProvider{Name: new(value["name"].(string)), Kind: client.ProviderKind(value["kind"].(string)), ConfigJSON: client.RawJSON(text)})
			public := maps.Clone(config)
			delete(public, "client_secret")
			want, err := json.Marshal(public)
			if err != nil {
				t.Fatal(err)
			}
			if !equalJSON(t, created.ConfigJSON, want) || !slices.Equal(created.SecretConfigKeys, []string{"client_secret"}) {
				t.Errorf("got %s and the secrets %q, want %s", created.ConfigJSON, created.SecretConfigKeys, want)
			}
			stored, err := provider.Open(provider.AuthorizationCode, created.ConfigJSON, []byte(`{"client_secret":"x"}`))
			if err != nil {
				t.Fatal(err)
			}
			to, err := provider.AuthorizationURL(stored, provider.AuthorizationRequest{State: "S", CodeChallenge: "C"})
			if err != nil || !strings.HasPrefix(to, config["authorization_endpoint"].(string)+"?") || !strings.Contains(to, "state=S") {
				t.Errorf("got %s, %v", to, err)
			}
		})
	}
	if services != 20 {
		t.Errorf("the table has %d services, want 20", services)
	}
}

// TestProviderForServicesThatDiffer checks that the fields that are not in the contract
// are stored and returned as they are sent, that secrets among them are sealed, and that
// an update keeps them.
func TestProviderForServicesThatDiffer(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const public = `"client_auth_method":"private_key_jwt","key_id":"1","resource":"https://mcp.example.com/mcp","issuer":"https://login.example.com",` +
		`"refresh_endpoint":"https://login.example.com/refresh","grant_type":"auth_code","scope_separator":" ","scopes":["a"],"token_request_format":"json",` +
		`"authorization_param_names":{"scope":"user_scope"},"token_param_names":{"client_id":"client_key"}`
	secrets := `{"private_key":"` + pemKey + `","token_headers.X-Api-Key":"hush-header"}`
	created := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "oauth2_authorization_code",
		ConfigJSON: rawConfig(`{` + codePublic + `,` + public + `,"token_headers":{"X-Version":"1","X-Api-Key":"hush-header"},"private_key":"` + pemKey + `"}`)})
	want := `{` + codePublic + `,` + public + `,"token_headers":{"X-Version":"1"}}`
	if !equalJSON(t, created.ConfigJSON, []byte(want)) || !slices.Equal(created.SecretConfigKeys, []string{"private_key", "token_headers.X-Api-Key"}) {
		t.Errorf("got %s and the secrets %q, want %s", created.ConfigJSON, created.SecretConfigKeys, want)
	}
	changed := strings.Replace(want, `"X-Version":"1"`, `"X-Version":"2"`, 1)
	resp := updateProvider(t, a.Admin, zone, created.ID, client.ProviderPatch{ConfigJSON: rawConfig(changed)})
	servertest.Expect(t, resp, http.StatusOK, "")
	if !equalJSON(t, resp.JSON200.ConfigJSON, []byte(changed)) {
		t.Errorf("got %s, want %s", resp.JSON200.ConfigJSON, changed)
	}
	if got := openedSecrets(t, a.DB, zone, created.ID); !equalJSON(t, []byte(got), []byte(secrets)) {
		t.Errorf("the secrets are %s, want %s", got, secrets)
	}
}
