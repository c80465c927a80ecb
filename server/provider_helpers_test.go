package server_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

// rawConfig returns a configuration that is sent as it is, in the same order.
func rawConfig(text string) client.ProviderConfigInput { return client.RawJSON(text) }

// newProvider creates a provider.
func newProvider(t *testing.T, a *servertest.API, zone string, body client.NewProvider) client.Provider {
	t.Helper()
	resp, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// readProvider is a provider as somebody sees it.
func readProvider(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) client.Provider {
	t.Helper()
	resp, err := as.GetProviderWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

func updateProvider(t *testing.T, as *rawclient.ClientWithResponses, zone, id string, body client.ProviderPatch) *rawclient.UpdateProviderResponse {
	t.Helper()
	resp, err := as.UpdateProviderWithResponse(t.Context(), zone, id, nil, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func deleteProvider(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) servertest.Response {
	t.Helper()
	resp, err := as.DeleteProviderWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// A sample is a configuration of a kind, what all may see of it, and what is
// sealed.
type sample struct {
	kind                   client.ProviderKind
	config, public, sealed string
	keys                   []string
}

const (
	keyConfig    = `{"header_name":"X-Api-Key","api_key":"hush-key"}`
	bearerConfig = `{"bearer_token":"hush-bearer"}`
	clientPublic = `"token_endpoint":"https://login.example.com/token","allowed_token_hosts":["login.example.com"],"client_id":"caracal"`
	codePublic   = clientPublic + `,"authorization_endpoint":"https://login.example.com/authorize","redirect_uri":"app:back"`
	clientConfig = `{` + clientPublic + `,"client_secret":"hush-client"}`
	codeConfig   = `{` + codePublic + `,"client_secret":"hush-code"}`
)

// pemKey is a private key in JSON: the example of RFC 8410, section 10.3, after a
// comment.
const pemKey = `hush-<PEM>&\n-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n`

// samples are one of every kind. Secrets keep their white space, what is public
// does not.
var samples = []sample{
	{"none", `{}`, `{}`, ``, []string{}},
	{"caracal_mandate", `{}`, `{}`, ``, []string{}},
	{"api_key", `{"header_name":" X-Api-Key ","api_key":"hush key"}`, `{"auth_location":"header","header_name":"X-Api-Key"}`, `{"api_key":"hush key"}`, []string{"api_key"}},
	{
		"bearer_token", `{"bearer_token":"hush-bearer","allowed_token_hosts":[" API.example.com"],"forward_caracal_identity":true}`,
		`{"allowed_token_hosts":["api.example.com"],"forward_caracal_identity":true}`, `{"bearer_token":"hush-bearer"}`, []string{"bearer_token"},
	},
	{
		"oauth2_client_credentials", `{` + clientPublic + `,"client_auth_method":"private_key_jwt","private_key":"` + pemKey + `","key_id":"1","token_params":{"tenant":" <acme>&co "}}`,
		`{` + clientPublic + `,"client_auth_method":"private_key_jwt","key_id":"1","token_params":{"tenant":"<acme>&co"}}`, `{"private_key":"` + pemKey + `"}`, []string{"private_key"},
	},
	{
		"oauth2_authorization_code", codeConfig, `{` + codePublic + `,"client_auth_method":"client_secret_basic"}`,
		`{"client_secret":"hush-code"}`, []string{"client_secret"},
	},
}

// secretMarker is in every secret here, and in nothing else.
const secretMarker = "hush"

func equalJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var one, other any
	if err := errors.Join(json.Unmarshal(a, &one), json.Unmarshal(b, &other)); err != nil {
		t.Fatalf("%v: %s %s", err, a, b)
	}
	return reflect.DeepEqual(one, other)
}

// sealedSecrets is what is kept of a provider's secrets; nil is nothing.
func sealedSecrets(db *storetest.DB, zone, id string) []byte {
	return storetest.Value[[]byte](db, "SELECT secret_config FROM providers WHERE zone_id = $1 AND id = $2", zone, id)
}

// openedSecrets is a provider's secrets, opened as the service would; "" is none.
func openedSecrets(t *testing.T, db *storetest.DB, zone, id string) string {
	t.Helper()
	sealed := sealedSecrets(db, zone, id)
	if sealed == nil {
		return ""
	}
	number := storetest.Value[int32](db, "SELECT data_key FROM providers WHERE zone_id = $1 AND id = $2", zone, id)
	return openSealed(t, db, number, seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}, sealed)
}

// openSealed opens a secret with the zone's data key of a number, as the service would.
func openSealed(t *testing.T, db *storetest.DB, number int32, location seal.Location, sealed []byte) string {
	t.Helper()
	keys, err := seal.Load(func() (string, error) { return servertest.KEK, nil })
	if err != nil {
		t.Fatal(err)
	}
	const of = " FROM data_keys WHERE zone_id = $1 AND number = $2"
	key, err := keys.Unwrap(seal.Wrapped{
		Zone: location.Zone, Number: number,
		KEKID: storetest.Value[string](db, "SELECT wrapped_by"+of, location.Zone, number), Bytes: storetest.Value[[]byte](db, "SELECT wrapped"+of, location.Zone, number),
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.Open(location, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// expectMessage wants the contract's message in its member, and as an issue
// where the fault is.
func expectMessage(t *testing.T, resp servertest.Response, message string, path ...string) {
	t.Helper()
	p := problemOf(t, resp)
	if p.Message == nil || *p.Message != message || p.Details == nil || !reflect.DeepEqual(p.Details.Issues, []rawclient.Issue{{Path: path, Message: message}}) {
		t.Errorf("answered %s, want the message %q at %q", resp.GetBody(), message, path)
	}
}
