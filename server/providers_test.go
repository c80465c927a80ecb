package server_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/egress"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

// configOf is a configuration as it is written: the order of its members too.
func configOf(text string) *client.ProviderConfigInput {
	var c client.ProviderConfigInput
	_ = c.UnmarshalJSON([]byte(text)) // takes anything
	return &c
}

// addProvider creates a provider.
func addProvider(t *testing.T, a *servertest.API, zone string, body client.NewProvider) client.Provider {
	t.Helper()
	resp, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// seeProvider is a provider as somebody sees it.
func seeProvider(t *testing.T, as *client.ClientWithResponses, zone, id string) client.Provider {
	t.Helper()
	resp, err := as.GetProviderWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

func changeProvider(t *testing.T, as *client.ClientWithResponses, zone, id string, body client.ProviderPatch) *client.UpdateProviderResponse {
	t.Helper()
	resp, err := as.UpdateProviderWithResponse(t.Context(), zone, id, nil, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func removeProvider(t *testing.T, as *client.ClientWithResponses, zone, id string) servertest.Response {
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

// samples are one of every kind. Secrets keep their white space, what is public
// does not.
var samples = []sample{
	{"none", `{}`, `{}`, ``, []string{}},
	{"caracal_mandate", `{}`, `{}`, ``, []string{}},
	{"api_key", `{"header_name":" X-Api-Key ","api_key":" hush-key "}`, `{"auth_location":"header","header_name":"X-Api-Key"}`, `{"api_key":" hush-key "}`, []string{"api_key"}},
	{
		"bearer_token", `{"bearer_token":"hush-bearer","allowed_token_hosts":[" API.example.com"],"forward_caracal_identity":true}`,
		`{"allowed_token_hosts":["api.example.com"],"forward_caracal_identity":true}`, `{"bearer_token":"hush-bearer"}`, []string{"bearer_token"},
	},
	{
		"oauth2_client_credentials", `{` + clientPublic + `,"client_auth_method":"private_key_jwt","private_key":"hush-<PEM>&\n","key_id":"1","token_params":{"tenant":" <acme>&co "}}`,
		`{` + clientPublic + `,"client_auth_method":"private_key_jwt","key_id":"1","token_params":{"tenant":"<acme>&co"}}`, `{"private_key":"hush-<PEM>&\n"}`, []string{"private_key"},
	},
	{
		"oauth2_authorization_code", codeConfig, `{` + codePublic + `,"client_auth_method":"client_secret_basic"}`,
		`{"client_secret":"hush-code"}`, []string{"client_secret"},
	},
}

// secretive is in every secret here, and in nothing else.
const secretive = "hush"

func equalJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var one, other any
	if err := errors.Join(json.Unmarshal(a, &one), json.Unmarshal(b, &other)); err != nil {
		t.Fatalf("%v: %s %s", err, a, b)
	}
	return reflect.DeepEqual(one, other)
}

// sealedOf is what is kept of a provider's secrets; nil is nothing.
func sealedOf(db *storetest.DB, zone, id string) []byte {
	return storetest.Value[[]byte](db, "SELECT secret_config FROM providers WHERE zone_id = $1 AND id = $2", zone, id)
}

// openedOf is a provider's secrets, opened as the service would; "" is none.
func openedOf(t *testing.T, db *storetest.DB, zone, id string) string {
	t.Helper()
	sealed := sealedOf(db, zone, id)
	if sealed == nil {
		return ""
	}
	keys, err := seal.Load(func() (string, error) { return servertest.KEK, nil })
	if err != nil {
		t.Fatal(err)
	}
	const of = " FROM data_keys AS k JOIN providers AS p ON p.zone_id = k.zone_id AND p.data_key = k.number WHERE p.zone_id = $1 AND p.id = $2"
	key, err := keys.Unwrap(seal.Wrapped{
		Zone: zone, Number: storetest.Value[int32](db, "SELECT k.number"+of, zone, id),
		KEKID: storetest.Value[string](db, "SELECT k.wrapped_by"+of, zone, id), Bytes: storetest.Value[[]byte](db, "SELECT k.wrapped"+of, zone, id),
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := key.Open(seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// expectMessage wants the contract's message in its member, and as an issue
// where the fault is.
func expectMessage(t *testing.T, answer servertest.Response, message string, path ...string) {
	t.Helper()
	p := problemOf(t, answer)
	if p.Message == nil || *p.Message != message || p.Details == nil || !reflect.DeepEqual(p.Details.Issues, []client.Issue{{Path: path, Message: message}}) {
		t.Errorf("answered %s, want the message %q at %q", answer.GetBody(), message, path)
	}
}

func TestCreateProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, gone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	addProvider(t, a, zone, client.NewProvider{Identifier: new("provider://taken"), Kind: "none"})
	addProvider(t, a, other, client.NewProvider{Identifier: new("provider://taken-elsewhere"), Kind: "none"})
	of := func(name, identifier string) client.NewProvider {
		body := client.NewProvider{Kind: "none"}
		if name != "" {
			body.Name = &name
		}
		if identifier != "" {
			body.Identifier = &identifier
		}
		return body
	}
	key := func(config string) client.NewProvider {
		return client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: configOf(config)}
	}
	for _, tt := range []struct {
		name       string
		as         *client.ClientWithResponses
		zone       string
		body       client.NewProvider
		want       code.Code // "" is 201
		called     string    // its name then
		identifier string    // then; "" is not said
	}{
		{"name only", a.Admin, zone, of("First", ""), "", "First", "provider://first"},
		{"identifier only", a.Admin, zone, of("", "provider://second"), "", "provider://second", "provider://second"},
		{"both", a.Admin, zone, of("3rd", "provider://third-1-2"), "", "3rd", "provider://third-1-2"},
		{"both to be trimmed", a.Admin, zone, of("\u00a0 Fourth\t", "\ufeffprovider://fourth\n"), "", "Fourth", "provider://fourth"},
		{"blank name", a.Admin, zone, of(" \u00a0\ufeff\u2028", "provider://fifth"), "", "provider://fifth", "provider://fifth"},
		{"blank identifier", a.Admin, zone, of("Sixth", "\t "), "", "Sixth", "provider://sixth"},
		{"neither", a.Admin, zone, of("", ""), code.InvalidProvider, "", ""},
		{"both blank", a.Admin, zone, of(" ", "\ufeff"), code.InvalidProvider, "", ""},
		{"the longest name", a.Admin, zone, of(strings.Repeat("😀", 1000), ""), "", strings.Repeat("😀", 1000), ""},
		{"name too long", a.Admin, zone, of(strings.Repeat("é", 1001), ""), code.InvalidProvider, "", ""},
		{"name of another", a.Admin, zone, of("Taken", "provider://untaken"), "", "Taken", "provider://untaken"},
		{"the longest identifier", a.Admin, zone, of("Longest", "provider://"+strings.Repeat("x", 489)), "", "Longest", ""},
		{"identifier too long", a.Admin, zone, of("x", "provider://"+strings.Repeat("x", 490)), code.InvalidProvider, "", ""},
		{"identifier taken", a.Admin, zone, of("x", "provider://taken"), code.ProviderIdentifierConflict, "", ""},
		{"identifier taken in another zone", a.Admin, zone, of("x", "provider://taken-elsewhere"), "", "x", "provider://taken-elsewhere"},
		{"identifier without its prefix", a.Admin, zone, of("x", "ledger"), code.InvalidProviderIdentifier, "", ""},
		{"identifier that is its prefix", a.Admin, zone, of("x", "provider://"), code.InvalidProviderIdentifier, "", ""},
		{"identifier of another scheme", a.Admin, zone, of("x", "https://ledger"), code.InvalidProviderIdentifier, "", ""},
		{"identifier with a capital", a.Admin, zone, of("x", "provider://Ledger"), code.InvalidProviderIdentifier, "", ""},
		{"identifier with a capital scheme", a.Admin, zone, of("x", "Provider://ledger"), code.InvalidProviderIdentifier, "", ""},
		{"identifier with two hyphens", a.Admin, zone, of("x", "provider://a--b"), code.InvalidProviderIdentifier, "", ""},
		{"identifier that ends in a hyphen", a.Admin, zone, of("x", "provider://a-"), code.InvalidProviderIdentifier, "", ""},
		{"identifier that begins with a hyphen", a.Admin, zone, of("x", "provider://-a"), code.InvalidProviderIdentifier, "", ""},
		{"identifier with a line feed", a.Admin, zone, of("x", "provider://a\nb"), code.InvalidProviderIdentifier, "", ""},
		{"identifier of other letters", a.Admin, zone, of("x", "provider://é"), code.InvalidProviderIdentifier, "", ""},
		{"reserved identifier", a.Admin, zone, of("", "provider://caracal-sys-x"), "", "provider://caracal-sys-x", "provider://caracal-sys-x"},
		{"reserved identifier, not bootstrap", a.ClientFor("", "write"), zone, of("", " provider://caracal-sys-y"), code.ReservedNamespace, "", ""},
		{"reserved identifier, zone token", a.ClientFor(zone, "write"), zone, of("x", "provider://caracal-sys-y"), code.ReservedNamespace, "", ""},
		{"name that leads into the reserved namespace", a.Admin, zone, of("Caracal.SYS z", ""), "", "Caracal.SYS z", "provider://caracal-sys-z"},
		{"name that leads into the reserved namespace, not bootstrap", a.ClientFor("", "write"), zone, of("caracal sys x", ""), code.ReservedNamespace, "", ""},
		{"reserved name that is none of an identifier", a.ClientFor("", "write"), zone, of("caracal.sys/x", "provider://mine"), "", "caracal.sys/x", "provider://mine"},
		{"almost reserved", a.ClientFor("", "write"), zone, of("x", "provider://caracal-sysx"), "", "x", "provider://caracal-sysx"},
		{"kind unsaid", a.Admin, zone, client.NewProvider{Name: new("x")}, code.InvalidProvider, "", ""},
		{"kind unheard of", a.Admin, zone, client.NewProvider{Name: new("x"), Kind: "API_KEY"}, code.InvalidProvider, "", ""},
		{"key", a.Admin, zone, key(keyConfig), "", "Ledger", "provider://ledger"},
		{"without the configuration that it needs", a.Admin, zone, client.NewProvider{Name: new("x"), Kind: "api_key"}, code.InvalidProviderConfig, "", ""},
		{"without its secret", a.Admin, zone, key(`{"header_name":"X"}`), code.InvalidProviderConfig, "", ""},
		{"zone token", a.ClientFor(zone, "write"), zone, of("By a zone token", ""), "", "By a zone token", "provider://by-a-zone-token"},
		{"zone token of another zone", a.ClientFor(other, "write"), zone, of("x", ""), code.AdminTokenZoneMismatch, "", ""},
		{"read token", a.ClientFor("", "read"), zone, of("x", ""), code.AdminTokenReadOnly, "", ""},
		{"zone unknown", a.Admin, "nowhere", of("x", ""), code.ZoneNotFound, "", ""},
		{"zone unknown, with a secret", a.Admin, "nowhere", key(keyConfig), code.ZoneNotFound, "", ""},
		{"zone archived", a.Admin, gone, of("x", ""), code.ZoneNotFound, "", ""},
		{"zone archived, with a secret", a.Admin, gone, key(keyConfig), code.ZoneNotFound, "", ""},
		{"Caracal's own zone", a.Admin, system, of("x", ""), "", "x", "provider://x"},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system, of("x", ""), code.SystemZoneReadOnly, "", ""},
		{"Caracal's own zone, with a secret, by its own token", a.ClientFor(system, "write"), system, key(keyConfig), code.SystemZoneReadOnly, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.as.CreateProviderWithResponse(t.Context(), tt.zone, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			switch tt.want {
			case code.InvalidProviderIdentifier:
				expectMessage(t, resp, "provider identifier must start with provider:// and use lowercase letters, numbers, or hyphens", "identifier")
			case code.ReservedNamespace:
				if detail := problemOf(t, resp).Detail; detail == nil || *detail != "the 'caracal.sys' namespace is reserved for Caracal internal systems" {
					t.Errorf("answered %s", resp.Body)
				}
			case "":
				made := *resp.JSON201
				if made.ZoneID != tt.zone || made.Name != tt.called || made.Kind != tt.body.Kind || tt.identifier != "" && made.Identifier != tt.identifier || !made.CreatedAt.Equal(made.UpdatedAt) {
					t.Errorf("answered %s, want %q as %s", resp.Body, tt.called, tt.identifier)
				}
				read, err := tt.as.GetProviderWithResponse(t.Context(), tt.zone, made.ID)
				if err != nil {
					t.Fatal(err)
				}
				if tag := resp.HTTPResponse.Header.Get("ETag"); !bytes.Equal(read.Body, resp.Body) || tag == "" || read.HTTPResponse.Header.Get("ETag") != tag {
					t.Errorf("answered %s, then read %s", resp.Body, read.Body)
				}
			}
		})
	}
}

// Clients send back what they have read, with a change, and members that the
// service has never known: the contract ignores them.
func TestWhatWasReadCanBeSentBack(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	made := addProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "api_key", ConfigJSON: configOf(keyConfig)})
	headers := append(bearer(servertest.Bootstrap), "Content-Type", jsonType)
	for _, item := range []string{"/v1/zones/" + zone + "/providers/" + made.ID, "/v1/zones/" + zone + "/resources/" + a.DB.Resource(zone)} {
		whole := decode[map[string]any](t, a.Do("GET", item, "", headers...))
		whole["name"], whole["owner_type"], whole["prefix"], whole["CONFIG_JSON"] = "Renamed", "team", "/x", map[string]any{"api_key": "hush"}
		body, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		raw := a.Do("PATCH", item, string(body), headers...)
		servertest.Expect(t, raw, http.StatusOK, "")
		for _, unknown := range []string{"owner_type", "prefix", "CONFIG_JSON"} {
			delete(whole, unknown)
		}
		answer := decode[map[string]any](t, raw)
		whole["updated_at"] = answer["updated_at"]
		if !reflect.DeepEqual(answer, whole) {
			t.Errorf("it was to be %v and is %v", whole, answer)
		}
	}
	if opened := openedOf(t, a.DB, zone, made.ID); opened != `{"api_key":"hush-key"}` {
		t.Errorf("its secret is %s", opened)
	}
}

func TestAProvidersBodyIsHeldAgainstItsSchema(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := addProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "none"}).ID
	headers := append(bearer(servertest.Bootstrap), "Content-Type", jsonType)
	for _, body := range []string{
		`{"name":"x","kind":"none","config_json":null}`,
		`{"name":"x","kind":"none","config_json":[]}`,
		`{"name":"x","kind":"none","config_json":"{}"}`,
		`{"name":"x","kind":"none","config_json":1}`,
		`{"name":"x","kind":"none","config_json":{"a":"\u0000"}}`,
		`{"name":null,"kind":"none"}`,
		`{"name":"x","identifier":null,"kind":"none"}`,
		`{"name":1,"kind":"none"}`,
		`{"name":"x","kind":null}`,
		`{"name":"x","kind":["none"]}`,
	} {
		servertest.Expect(t, a.Do("POST", "/v1/zones/"+zone+"/providers", body, headers...), 0, code.InvalidProvider)
		servertest.Expect(t, a.Do("PATCH", "/v1/zones/"+zone+"/providers/"+id, body, headers...), 0, code.InvalidProvider)
	}
	// Of a member that comes twice the last counts, for all who read the body.
	twice := a.Do("POST", "/v1/zones/"+zone+"/providers", `{"name":"x","kind":"none","config_json":{"a":1},"config\u005fjson":{}}`, headers...)
	servertest.Expect(t, twice, http.StatusCreated, "")
}

func TestTheFirstFaultOfAProvidersConfigurationIsTold(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range []struct {
		name         string
		kind         client.ProviderKind
		config, want string
		path         []string
	}{
		{"unknown keys in the body's order", "api_key", `{"z":1,"header_name":"","a":2}`, "api_key provider config has unsupported keys: z, a", nil},
		{"one unknown key", "none", `{"z":{}}`, "none provider config has unsupported keys: z", []string{"z"}},
		{"another kind's key", "caracal_mandate", `{"api_key":"hush"}`, "caracal_mandate provider config has unsupported keys: api_key", []string{"api_key"}},
		{"blank secret", "bearer_token", `{"bearer_token":" "}`, "bearer_token provider config bearer_token must be a non-empty string", []string{"bearer_token"}},
		{"nothing of what it needs", "api_key", `{}`, "api_key provider config requires header_name", []string{"header_name"}},
		{"key without its place", "api_key", `{"auth_location":"query","api_key":"hush"}`, "api_key provider config requires query_param_name", []string{"query_param_name"}},
		{"plain http", "oauth2_client_credentials", strings.Replace(clientConfig, "https:", "http:", 1), "oauth2_client_credentials provider config token_endpoint must be an HTTPS URL", []string{"token_endpoint"}},
		{"endpoint elsewhere", "oauth2_client_credentials", strings.Replace(clientConfig, "https://login", "https://evil", 1), "oauth2_client_credentials provider config token_endpoint must be on a host in allowed_token_hosts", []string{"token_endpoint"}},
		{"method unheard of", "oauth2_authorization_code", strings.Replace(codeConfig, `{`, `{"client_auth_method":"tls",`, 1), "oauth2 provider config client_auth_method is invalid", []string{"client_auth_method"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := append([]string{"config_json"}, tt.path...)
			created, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("x"), Kind: tt.kind, ConfigJSON: configOf(tt.config)})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, created, 0, code.InvalidProviderConfig)
			expectMessage(t, created, tt.want, path...)
			other := client.ProviderKind("none")
			if tt.kind == other {
				other = "caracal_mandate"
			}
			id := addProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: other}).ID
			changed := changeProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: &tt.kind, ConfigJSON: configOf(tt.config)})
			servertest.Expect(t, changed, 0, code.InvalidProviderConfig)
			expectMessage(t, changed, tt.want, path...)
			if seeProvider(t, a.Admin, zone, id).Kind != other {
				t.Error("it has changed its kind all the same")
			}
		})
	}
}

func TestEveryKindOfProviderIsKeptAndItsSecretsAreSealed(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range samples {
		t.Run(string(tt.kind), func(t *testing.T) {
			t.Parallel()
			created, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new(string(tt.kind)), Kind: tt.kind, ConfigJSON: configOf(tt.config)})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, created, http.StatusCreated, "")
			made := *created.JSON201
			if !slices.Equal(made.SecretConfigKeys, tt.keys) || made.SecretConfigKeys == nil || !equalJSON(t, made.ConfigJSON, []byte(tt.public)) {
				t.Errorf("answered %s, want %s and the keys %q", created.Body, tt.public, tt.keys)
			}
			if opened := openedOf(t, a.DB, zone, made.ID); opened != tt.sealed {
				t.Errorf("sealed is %s, want %s", opened, tt.sealed)
			}
			if bytes.Contains(sealedOf(a.DB, zone, made.ID), []byte(secretive)) {
				t.Error("it is kept as it came")
			}
			answers := map[string]servertest.Response{"create": created}
			if answers["get"], err = a.Admin.GetProviderWithResponse(t.Context(), zone, made.ID); err != nil {
				t.Fatal(err)
			}
			if answers["list"], err = a.Admin.ListProvidersWithResponse(t.Context(), zone, nil); err != nil {
				t.Fatal(err)
			}
			answers["patch"] = changeProvider(t, a.Admin, zone, made.ID, client.ProviderPatch{ConfigJSON: configOf(tt.config)})
			for operation, answer := range answers {
				if answer.StatusCode() >= 300 || bytes.Contains(answer.GetBody(), []byte(secretive)) {
					t.Errorf("%s answers %d %s", operation, answer.StatusCode(), answer.GetBody())
				}
			}
		})
	}
	t.Cleanup(func() { // when all kinds are done
		if strings.Contains(a.Log.String(), secretive) {
			t.Error("the log has a secret")
		}
		if all := everythingOf(a.DB, zone); strings.Contains(all, secretive) {
			t.Errorf("the database has a secret in the plain:\n%s", all)
		}
	})
}

func TestAGeneratedProviderIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	anybody := a.ClientFor("", "write")
	create := func(name string) client.Provider {
		t.Helper()
		resp, err := anybody.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: &name, Kind: "none"})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusCreated, "")
		return *resp.JSON201
	}
	var second string
	for _, tt := range []struct{ name, want string }{
		{"Ünïted  Nations (EU)", "provider://n-ted-nations-eu"},
		{"ünïted NATIONS eu", "provider://n-ted-nations-eu-2"},
		{"n-ted-nations-eu", "provider://n-ted-nations-eu-3"},
		{"provider://Ledger 2", "provider://ledger-2"},
		{"provider://provider://x", "provider://provider-x"},
		{"Provider://y", "provider://provider-y"},
		{"日本", "provider://provider"},
		{"--", "provider://provider-2"},
		{"provider://", "provider://provider-3"},
		{"-a-", "provider://a"},
	} {
		got := create(tt.name)
		if got.Identifier != tt.want || got.Name != tt.name {
			t.Errorf("%q got %q and is called %q, want %q", tt.name, got.Identifier, got.Name, tt.want)
		}
		if tt.want == "provider://n-ted-nations-eu-2" {
			second = got.ID
		}
	}
	servertest.Expect(t, removeProvider(t, a.Admin, zone, second), http.StatusNoContent, "")
	if got := create("Ünïted Nations EU").Identifier; got != "provider://n-ted-nations-eu-2" {
		t.Errorf("an identifier that is free again is not taken, but %q", got)
	}
}

// TestALongNameGetsAnIdentifierThatCanBeSentBack: whatever is generated, its
// owner may say it too.
func TestALongNameGetsAnIdentifierThatCanBeSentBack(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, name := range []string{strings.Repeat("x", 1000), strings.Repeat("x", 1000), strings.Repeat("x-", 500), strings.Repeat("x", 455) + strings.Repeat("-y", 20)} {
		made := addProvider(t, a, zone, client.NewProvider{Name: &name, Kind: "none"})
		servertest.Expect(t, changeProvider(t, a.Admin, zone, made.ID, client.ProviderPatch{Name: &made.Name, Identifier: &made.Identifier}), http.StatusOK, "")
	}
}

// TestANumberDoesNotLeadIntoTheReservedNamespace: caracal-sys is free to all,
// caracal-sys-2 is not.
func TestANumberDoesNotLeadIntoTheReservedNamespace(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	anybody := a.ClientFor("", "write")
	create := func(as *client.ClientWithResponses) *client.CreateProviderResponse {
		t.Helper()
		resp, err := as.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("Caracal Sys"), Kind: "none"})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	servertest.Expect(t, create(anybody), http.StatusCreated, "")
	servertest.Expect(t, create(anybody), 0, code.ReservedNamespace)
	if made := create(a.Admin); made.JSON201 == nil || made.JSON201.Identifier != "provider://caracal-sys-2" {
		t.Errorf("Caracal itself got %s", made.Body)
	}
}

func TestManyProvidersOfOneNameAtOnceAllGetAnIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const many = 20
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			resp, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("Same"), Kind: "none"})
			if err != nil || resp.JSON201 == nil || !provider.ValidIdentifier(resp.JSON201.Identifier) {
				t.Errorf("%v %s", err, resp.Body)
			}
		})
	}
	all.Wait()
	if n := storetest.Value[int](a.DB, "SELECT count(DISTINCT identifier) FROM providers WHERE zone_id = $1 AND name = 'Same'", zone); n != many {
		t.Errorf("%d providers have %d identifiers", many, n)
	}
}

func TestWhenAllNumberedIdentifiersAreTakenOneIsStillFound(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	a.DB.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind)
		SELECT $1, 'p-' || n, 'Full', CASE n WHEN 1 THEN 'provider://full' ELSE 'provider://full-' || n END, 'none' FROM generate_series(1, 999) AS n`, zone)
	made := addProvider(t, a, zone, client.NewProvider{Name: new("Full"), Kind: "none"})
	if !strings.HasPrefix(made.Identifier, "provider://full-") || len(made.Identifier) != len("provider://full-")+32 || !provider.ValidIdentifier(made.Identifier) {
		t.Errorf("the identifier is %q", made.Identifier)
	}
}

func TestAZoneGetsOneDataKeyHoweverManySealAtOnce(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM data_keys"); n != 0 {
		t.Fatalf("there are %d data keys before the first secret", n)
	}
	zoned := a.ClientFor(zone, "write")
	const many = 6
	ids := make([]string, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			resp, err := zoned.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: configOf(keyConfig)})
			if err != nil || resp.JSON201 == nil {
				t.Errorf("%v %s", err, resp.Body)
				return
			}
			ids[i] = resp.JSON201.ID
		})
	}
	all.Wait()
	for _, id := range ids {
		if opened := openedOf(t, a.DB, zone, id); opened != `{"api_key":"hush-key"}` {
			t.Errorf("sealed is %q", opened)
		}
	}
	keys := storetest.Value[int](a.DB, "SELECT count(*) FROM data_keys WHERE zone_id = $1", zone)
	entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'data-keys'", zone)
	if keys != 1 || entries != 1 {
		t.Errorf("%d data keys and %d entries about them", keys, entries)
	}
}

// TestAZoneGetsNoDataKeyBeforeItHasASecret, and none for what can be refused
// without a look into the database.
func TestAZoneGetsNoDataKeyBeforeItHasASecret(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	anybody := a.ClientFor("", "write")
	for want, body := range map[code.Code]client.NewProvider{
		code.InvalidProvider:           {Kind: "api_key", ConfigJSON: configOf(keyConfig)},
		code.InvalidProviderConfig:     {Name: new("x"), Kind: "api_key", ConfigJSON: configOf(`{"api_key":"hush"}`)},
		code.InvalidProviderIdentifier: {Identifier: new("x"), Kind: "api_key", ConfigJSON: configOf(keyConfig)},
	} {
		resp, err := anybody.CreateProviderWithResponse(t.Context(), zone, body)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, 0, want)
	}
	id := a.DB.Provider(zone)
	servertest.Expect(t, changeProvider(t, anybody, zone, id, client.ProviderPatch{ConfigJSON: configOf(`{}`)}), http.StatusOK, "")
	servertest.Expect(t, changeProvider(t, anybody, zone, id, client.ProviderPatch{ConfigJSON: configOf(`{"a":1}`)}), 0, code.InvalidProviderConfig)
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM data_keys"); n != 0 {
		t.Errorf("there are %d data keys", n)
	}
}

// TestAKeyThatDoesNotOpenIsOurFault: the caller learns nothing of it (PR-6).
func TestAKeyThatDoesNotOpenIsOurFault(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	made := addProvider(t, a, zone, client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: configOf(keyConfig)})
	a.DB.Exec("UPDATE data_keys SET wrapped = 'nonsense' WHERE zone_id = $1", zone)
	created, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("x"), Kind: "api_key", ConfigJSON: configOf(keyConfig)})
	if err != nil {
		t.Fatal(err)
	}
	changed := changeProvider(t, a.Admin, zone, made.ID, client.ProviderPatch{ConfigJSON: configOf(keyConfig)})
	for _, answer := range []servertest.Response{created, changed} {
		servertest.Expect(t, answer, 0, code.InternalError)
		if p := problemOf(t, answer); p.Message != nil || p.Details != nil || strings.Contains(p.ErrorDescription, "key") {
			t.Errorf("answered %s", answer.GetBody())
		}
	}
	// What seals nothing needs no key.
	servertest.Expect(t, changeProvider(t, a.Admin, zone, made.ID, client.ProviderPatch{Name: new("x")}), http.StatusOK, "")
	servertest.Expect(t, changeProvider(t, a.Admin, zone, made.ID, client.ProviderPatch{ConfigJSON: configOf(`{"header_name":"X"}`)}), http.StatusOK, "")
	servertest.Expect(t, changeProvider(t, a.Admin, zone, made.ID, client.ProviderPatch{Kind: new(client.ProviderKind("none")), ConfigJSON: configOf(`{}`)}), http.StatusOK, "")
}

func TestGetProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	live, gone, elsewhere := a.DB.Provider(zone), a.DB.Provider(zone), a.DB.Provider(other)
	servertest.Expect(t, removeProvider(t, a.Admin, zone, gone), http.StatusNoContent, "")
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string
		want     code.Code
	}{
		{"global read", a.ClientFor("", "read"), zone, live, ""},
		{"zone read", a.ClientFor(zone, "read"), zone, live, ""},
		{"archived", a.Admin, zone, gone, code.ProviderNotFound},
		{"unknown", a.Admin, zone, "nobody", code.ProviderNotFound},
		{"of another zone", a.Admin, zone, elsewhere, code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ProviderNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.as.GetProviderWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("asked for %s, got %s", tt.id, resp.Body)
			}
		})
	}
}

// TestAListShowsAProviderAsItselfDoes because a list is written by hand.
func TestAListShowsAProviderAsItselfDoes(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	var want []string // newest first
	for i, s := range samples {
		name := fmt.Sprintf("%d \"\\</script>&\u2028 é😀\x7f\n", i)
		want = slices.Insert(want, 0, addProvider(t, a, zone, client.NewProvider{Name: &name, Kind: s.kind, ConfigJSON: configOf(s.config)}).ID)
	}
	gone := a.DB.Provider(zone)
	servertest.Expect(t, removeProvider(t, a.Admin, zone, gone), http.StatusNoContent, "")
	a.DB.Provider(a.Zone().ID)
	for _, tt := range []struct {
		name string
		as   *client.ClientWithResponses
		zone string
		want []string // ids; none is [] and not null
	}{
		{"global read", a.ClientFor("", "read"), zone, want},
		{"zone read", a.ClientFor(zone, "read"), zone, want},
		{"of a zone that has none", a.Admin, a.Zone().ID, nil},
		{"of a zone that there is not", a.Admin, "nowhere", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			listed, err := tt.as.ListProvidersWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, listed, http.StatusOK, "")
			var got []string
			for i, one := range decode[[]json.RawMessage](t, servertest.RawResponse{Body: listed.Body}) {
				id := (*listed.JSON200)[i].ID
				got = append(got, id)
				read, err := tt.as.GetProviderWithResponse(t.Context(), tt.zone, id)
				if err != nil {
					t.Fatal(err)
				}
				if !equalJSON(t, one, read.Body) {
					t.Errorf("the list shows\n%s\nand it shows itself as\n%s", one, read.Body)
				}
			}
			if !slices.Equal(got, tt.want) || tt.want == nil && strings.TrimSpace(string(listed.Body)) != "[]" {
				t.Errorf("got %s, want %v", listed.Body, tt.want)
			}
		})
	}
}

func TestListProvidersShowsEachOnceThoughTheyShareATimestamp(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	const many = 47
	for _, z := range []string{zone, other} {
		a.DB.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind, created_at, archived_at)
			SELECT $1, 'p-' || n, 'Provider', 'provider://p-' || n, 'none', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond',
				CASE WHEN n % 10 = 0 THEN now() END FROM generate_series(1, $2) AS n`, z, many)
	}
	want := storetest.Column[string](a.DB, "SELECT id FROM providers WHERE zone_id = $1 AND archived_at IS NULL ORDER BY created_at DESC, id DESC", zone)
	var got []string
	pages := eachPage(t, a, "/v1/zones/"+zone+"/providers?limit=10", func(one client.Provider) {
		if one.ZoneID != zone {
			t.Errorf("saw %+v", one)
		}
		got = append(got, one.ID)
	})
	if !slices.Equal(got, want) || pages != 5 || len(want) != many-4 {
		t.Errorf("on %d pages: %v, want %v", pages, got, want)
	}
	first := a.Do("GET", "/v1/zones/"+zone+"/providers?limit=10", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, first, http.StatusOK, "")
	for _, path := range []string{strings.Replace(next(first), zone, other, 1), strings.Replace(next(first), "/providers", "/applications", 1)} {
		servertest.Expect(t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
	}
}

func TestUpdateProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, gone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, elsewhere, systems := a.DB.Provider(zone), a.DB.Provider(other), a.DB.Provider(system)
	servertest.Expect(t, removeProvider(t, a.Admin, zone, archived), http.StatusNoContent, "")
	addProvider(t, a, zone, client.NewProvider{Identifier: new("provider://taken"), Kind: "none"})
	reserved := addProvider(t, a, zone, client.NewProvider{Identifier: new("provider://caracal-sys-own"), Kind: "api_key", ConfigJSON: configOf(keyConfig)}).ID
	named := client.ProviderPatch{Name: new(" Renamed\u00a0")}
	identified := func(identifier string) client.ProviderPatch { return client.ProviderPatch{Identifier: &identifier} }
	configured := func(kind, config string) (p client.ProviderPatch) {
		if kind != "" {
			p.Kind = new(client.ProviderKind(kind))
		}
		if config != "" {
			p.ConfigJSON = configOf(config)
		}
		return p
	}
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string // id "": a new provider of the kind api_key
		body     client.ProviderPatch
		want     code.Code
	}{
		{"name", a.Admin, zone, "", named, ""},
		{"name, by a zone token", a.ClientFor(zone, "write"), zone, "", named, ""},
		{"name, the identifier blank", a.Admin, zone, "", client.ProviderPatch{Name: new("Renamed"), Identifier: new(" ")}, ""},
		{"identifier", a.Admin, zone, "", identified(" provider://new-1"), ""},
		{"identifier of another zone's", a.Admin, zone, "", identified("provider://provider-1"), ""},
		{"identifier, the name blank", a.Admin, zone, "", client.ProviderPatch{Name: new("\ufeff"), Identifier: new("provider://new-2")}, ""},
		{"identifier malformed", a.Admin, zone, "", identified("provider://A"), code.InvalidProviderIdentifier},
		{"identifier malformed, of nothing", a.Admin, zone, "nobody", identified("a"), code.InvalidProviderIdentifier},
		{"identifier taken", a.Admin, zone, "", identified("provider://taken"), code.ProviderIdentifierConflict},
		{"identifier reserved", a.Admin, zone, "", identified("provider://caracal-sys-x"), ""},
		{"identifier reserved, not bootstrap", a.ClientFor("", "write"), zone, "", identified("provider://caracal-sys-y"), code.ReservedNamespace},
		{"identifier reserved as it was, not bootstrap", a.ClientFor("", "write"), zone, reserved, identified("provider://caracal-sys-own"), code.ReservedNamespace},
		{"name of one that has a reserved identifier", a.ClientFor("", "write"), zone, reserved, named, code.ReservedNamespace},
		{"name too long", a.Admin, zone, "", client.ProviderPatch{Name: new(strings.Repeat("x", 1001))}, code.InvalidProvider},
		{"kind unheard of", a.Admin, zone, "", configured("basic", "{}"), code.InvalidProvider},
		{"another kind", a.Admin, zone, "", configured("bearer_token", bearerConfig), ""},
		{"another kind without its configuration", a.Admin, zone, "", configured("none", ""), code.ProviderConfigRequired},
		{"another kind and the old configuration", a.Admin, zone, "", configured("bearer_token", keyConfig), code.InvalidProviderConfig},
		{"the same kind", a.Admin, zone, "", configured("api_key", ""), code.NoFields},
		{"the same kind and a name", a.Admin, zone, "", client.ProviderPatch{Kind: new(client.ProviderKindAPIKey), Name: new("x")}, ""},
		{"configuration", a.Admin, zone, "", configured("", `{"header_name":"X"}`), ""},
		{"configuration of another kind", a.Admin, zone, "", configured("", bearerConfig), code.InvalidProviderConfig},
		{"nothing", a.Admin, zone, "", client.ProviderPatch{}, code.NoFields},
		{"nothing that is not blank", a.Admin, zone, "", client.ProviderPatch{Name: new(" "), Identifier: new("\t")}, code.NoFields},
		{"nothing, of nothing", a.Admin, zone, "nobody", client.ProviderPatch{}, code.NoFields},
		{"unknown", a.Admin, zone, "nobody", named, code.ProviderNotFound},
		{"unknown, its configuration", a.Admin, zone, "nobody", configured("", "{}"), code.ProviderNotFound},
		{"archived", a.Admin, zone, archived, named, code.ProviderNotFound},
		{"archived, its configuration", a.Admin, zone, archived, configured("none", "{}"), code.ProviderNotFound},
		{"of another zone", a.Admin, zone, elsewhere, named, code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", "nobody", named, code.ZoneNotFound},
		{"zone unknown, the configuration", a.Admin, "nowhere", "nobody", configured("", "{}"), code.ZoneNotFound},
		{"zone archived", a.Admin, gone, "nobody", named, code.ZoneNotFound},
		{"zone token of another zone", a.ClientFor(other, "write"), zone, "", named, code.AdminTokenZoneMismatch},
		{"read token", a.ClientFor("", "read"), zone, "", named, code.AdminTokenReadOnly},
		{"Caracal's own zone", a.Admin, system, "", named, ""},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system, systems, named, code.SystemZoneReadOnly},
		{"Caracal's own zone, the configuration, not bootstrap", a.ClientFor("", "write"), system, systems, configured("", "{}"), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			refusedAtOnce := tt.want != "" && tt.id != "" // what there is not cannot be read before and after
			if tt.id == "" {
				tt.id = addProvider(t, a, tt.zone, client.NewProvider{Name: &tt.name, Kind: "api_key", ConfigJSON: configOf(keyConfig)}).ID
			}
			if refusedAtOnce {
				servertest.Expect(t, changeProvider(t, tt.as, tt.zone, tt.id, tt.body), 0, tt.want)
				return
			}
			want := seeProvider(t, a.Admin, tt.zone, tt.id)
			resp := changeProvider(t, tt.as, tt.zone, tt.id, tt.body)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			now := seeProvider(t, a.Admin, tt.zone, tt.id)
			if tt.want == "" {
				if !reflect.DeepEqual(now, *resp.JSON200) || now.UpdatedAt.Before(want.UpdatedAt) {
					t.Errorf("answered %+v, then read %+v", resp.JSON200, now)
				}
				if name := strings.Trim(*cmp.Or(tt.body.Name, new("")), " \u00a0\ufeff"); name != "" {
					want.Name = name
				}
				if identifier := strings.TrimSpace(*cmp.Or(tt.body.Identifier, new(""))); identifier != "" {
					want.Identifier = identifier
				}
				want.Kind = *cmp.Or(tt.body.Kind, &want.Kind)
				if tt.body.ConfigJSON != nil { // what becomes of it has a test of its own
					want.ConfigJSON, want.SecretConfigKeys = now.ConfigJSON, now.SecretConfigKeys
				}
				want.UpdatedAt = now.UpdatedAt
			}
			if !reflect.DeepEqual(now, want) {
				t.Errorf("it is %+v, want %+v", now, want)
			}
		})
	}
}

// A fate is what a change does to what is sealed.
type fate string

const (
	kept     fate = "kept"     // the very same bytes
	replaced fate = "replaced" // other bytes
	erased   fate = "erased"   // none
)

func TestWhatAChangeOfAProviderLeaves(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	basic := `{` + clientPublic + `,"client_auth_method":"client_secret_basic"`
	open := `{` + clientPublic + `,"client_auth_method":"none"`
	byKey := `{` + clientPublic + `,"client_auth_method":"private_key_jwt"`
	for _, tt := range []struct {
		name         string
		kind         client.ProviderKind
		before       string
		becomes      client.ProviderKind // "" is not sent
		config       string              // "" is not sent
		fate         fate
		public, seal string
		keys         []string
	}{
		{"no secret sent", "api_key", keyConfig, "", `{"header_name":"X"}`, kept, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"another place for the key", "api_key", keyConfig, "", `{"auth_location":"query","query_param_name":"k"}`, kept, `{"auth_location":"query","query_param_name":"k"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"a secret sent", "api_key", keyConfig, "", `{"header_name":"X","api_key":"hush-2"}`, replaced, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-2"}`, []string{"api_key"}},
		{"the same secret sent", "api_key", keyConfig, "", keyConfig, replaced, `{"auth_location":"header","header_name":"X-Api-Key"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"the configuration replaced whole", "bearer_token", `{"bearer_token":"hush","auth_header":"X","auth_scheme":"Y"}`, "", `{"auth_scheme":"Z"}`, kept, `{"auth_scheme":"Z"}`, `{"bearer_token":"hush"}`, []string{"bearer_token"}},
		{"the configuration emptied", "bearer_token", `{"bearer_token":"hush","auth_header":"X"}`, "", `{}`, kept, `{}`, `{"bearer_token":"hush"}`, []string{"bearer_token"}},
		{"the same kind said, no secret sent", "api_key", keyConfig, "api_key", `{"header_name":"X"}`, kept, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-key"}`, []string{"api_key"}},
		{"the same kind said, a secret sent", "api_key", keyConfig, "api_key", `{"header_name":"X","api_key":"hush-2"}`, replaced, `{"auth_location":"header","header_name":"X"}`, `{"api_key":"hush-2"}`, []string{"api_key"}},
		{"the same kind said, of one that has nothing", "none", `{}`, "none", `{}`, erased, `{}`, ``, []string{}},
		{"another kind that has no secrets", "api_key", keyConfig, "none", `{}`, erased, `{}`, ``, []string{}},
		{"another kind with its secret", "api_key", keyConfig, "bearer_token", bearerConfig, replaced, `{}`, `{"bearer_token":"hush-bearer"}`, []string{"bearer_token"}},
		{"from nothing to a secret", "none", `{}`, "bearer_token", bearerConfig, replaced, `{}`, `{"bearer_token":"hush-bearer"}`, []string{"bearer_token"}},
		{"another kind whose secret has the same name", "oauth2_client_credentials", clientConfig, "oauth2_authorization_code", codeConfig, replaced, `{` + codePublic + `,"client_auth_method":"client_secret_basic"}`, `{"client_secret":"hush-code"}`, []string{"client_secret"}},
		{"another kind that needs no secret now", "oauth2_client_credentials", clientConfig, "oauth2_authorization_code", `{` + codePublic + `,"client_auth_method":"none"}`, erased, `{` + codePublic + `,"client_auth_method":"none"}`, ``, []string{}},
		{"another method for the same secret", "oauth2_client_credentials", clientConfig, "", `{` + clientPublic + `,"client_auth_method":"client_secret_post"}`, kept, `{` + clientPublic + `,"client_auth_method":"client_secret_post"}`, `{"client_secret":"hush-client"}`, []string{"client_secret"}},
		{"another method with its secret", "oauth2_client_credentials", clientConfig, "", byKey + `,"private_key":"hush-pem"}`, replaced, byKey + `}`, `{"private_key":"hush-pem"}`, []string{"private_key"}},
		{"the method that needs no secret", "oauth2_client_credentials", clientConfig, "", open + `}`, erased, open + `}`, ``, []string{}},
		{"the method that needs no secret, the kind said", "oauth2_client_credentials", clientConfig, "oauth2_client_credentials", open + `}`, erased, open + `}`, ``, []string{}},
		{"the method that needs no secret, and one all the same", "oauth2_client_credentials", clientConfig, "", open + `,"client_secret":"hush-2"}`, replaced, open + `}`, `{"client_secret":"hush-2"}`, []string{"client_secret"}},
		{"the method that needs one again", "oauth2_client_credentials", open + `}`, "", basic + `,"client_secret":"hush-2"}`, replaced, basic + `}`, `{"client_secret":"hush-2"}`, []string{"client_secret"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			made := addProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: tt.kind, ConfigJSON: configOf(tt.before)})
			before := sealedOf(a.DB, zone, made.ID)
			var patch client.ProviderPatch
			if tt.becomes != "" {
				patch.Kind = &tt.becomes
			}
			if tt.config != "" {
				patch.ConfigJSON = configOf(tt.config)
			}
			resp := changeProvider(t, a.Admin, zone, made.ID, patch)
			servertest.Expect(t, resp, http.StatusOK, "")
			after, now := sealedOf(a.DB, zone, made.ID), seeProvider(t, a.Admin, zone, made.ID)
			got := replaced
			switch {
			case after == nil:
				got = erased
			case bytes.Equal(before, after):
				got = kept
			}
			if opened := openedOf(t, a.DB, zone, made.ID); got != tt.fate || opened != tt.seal {
				t.Errorf("what was sealed is %s and is %s now, want %s and %s", got, opened, tt.fate, tt.seal)
			}
			kind := tt.kind
			if tt.becomes != "" {
				kind = tt.becomes
			}
			if now.Kind != kind || !equalJSON(t, now.ConfigJSON, []byte(tt.public)) || !slices.Equal(now.SecretConfigKeys, tt.keys) || now.SecretConfigKeys == nil {
				t.Errorf("it is %+v with %s", now, now.ConfigJSON)
			}
			if bytes.Contains(resp.Body, []byte(secretive)) || bytes.Contains(after, []byte(secretive)) {
				t.Error("a secret shows")
			}
		})
	}
}

func TestASecretThatWillBeNeededMustBeThere(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	open := `{` + clientPublic + `,"client_auth_method":"none"`
	byKey := `{` + clientPublic + `,"client_auth_method":"private_key_jwt"`
	for _, tt := range []struct {
		name    string
		kind    client.ProviderKind
		before  string
		becomes client.ProviderKind
		config  string
		want    string // what is told, after the kind
		path    string
	}{
		{"from none to basic", "oauth2_client_credentials", open + `}`, "", `{` + clientPublic + `}`, "requires client_secret", "client_secret"},
		{"from none to post, the kind said", "oauth2_client_credentials", open + `}`, "oauth2_client_credentials", `{` + clientPublic + `,"client_auth_method":"client_secret_post"}`, "requires client_secret", "client_secret"},
		{"from none, where one was sealed in vain", "oauth2_client_credentials", open + `,"client_secret":"hush"}`, "", byKey + `}`, "requires private_key", "private_key"},
		{"from basic to a key", "oauth2_client_credentials", clientConfig, "", byKey + `}`, "requires private_key", "private_key"},
		{"from a key to basic", "oauth2_client_credentials", byKey + `,"private_key":"hush"}`, "", `{` + clientPublic + `}`, "requires client_secret", "client_secret"},
		{"of a person", "oauth2_authorization_code", `{` + codePublic + `,"client_auth_method":"none"}`, "", `{` + codePublic + `}`, "requires client_secret", "client_secret"},
		{"of another kind", "oauth2_client_credentials", clientConfig, "oauth2_authorization_code", `{` + codePublic + `}`, "requires client_secret", "client_secret"},
		{"the wrong one", "oauth2_client_credentials", clientConfig, "", byKey + `,"client_secret":"hush-2"}`, "client_secret is not used with private_key_jwt", "client_secret"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			made := addProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: tt.kind, ConfigJSON: configOf(tt.before)})
			sealed := openedOf(t, a.DB, zone, made.ID)
			patch, kind := client.ProviderPatch{ConfigJSON: configOf(tt.config)}, tt.kind
			if tt.becomes != "" {
				patch.Kind, kind = &tt.becomes, tt.becomes
			}
			resp := changeProvider(t, a.Admin, zone, made.ID, patch)
			servertest.Expect(t, resp, 0, code.InvalidProviderConfig)
			expectMessage(t, resp, string(kind)+" provider config "+tt.want, "config_json", tt.path)
			if now := seeProvider(t, a.Admin, zone, made.ID); !reflect.DeepEqual(now, made) || openedOf(t, a.DB, zone, made.ID) != sealed {
				t.Errorf("it was refused and is %+v", now)
			}
		})
	}
}

func TestAProviderIsChangedAndDeletedOnlyAsItWasRead(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	created, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("First"), Kind: "api_key", ConfigJSON: configOf(keyConfig)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, created, http.StatusCreated, "")
	id, first := created.JSON201.ID, created.HTTPResponse.Header.Get("ETag")
	update := func(ifMatch string, body client.ProviderPatch) *client.UpdateProviderResponse {
		t.Helper()
		resp, err := a.Admin.UpdateProviderWithResponse(t.Context(), zone, id, &client.UpdateProviderParams{IfMatch: &ifMatch}, body)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	remove := func(ifMatch string) servertest.Response {
		t.Helper()
		resp, err := a.Admin.DeleteProviderWithResponse(t.Context(), zone, id, &client.DeleteProviderParams{IfMatch: &ifMatch})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	changed := update(first, client.ProviderPatch{Name: new("Second")})
	servertest.Expect(t, changed, http.StatusOK, "")
	second := changed.HTTPResponse.Header.Get("ETag")
	sealed := sealedOf(a.DB, zone, id)
	servertest.Expect(t, update(first, client.ProviderPatch{Name: new("Third")}), 0, code.VersionConflict)
	servertest.Expect(t, update(first, client.ProviderPatch{ConfigJSON: configOf(keyConfig)}), 0, code.VersionConflict)
	servertest.Expect(t, update(first, client.ProviderPatch{Kind: new(client.ProviderKind("none")), ConfigJSON: configOf(`{}`)}), 0, code.VersionConflict)
	servertest.Expect(t, remove(first), 0, code.VersionConflict)
	if got := seeProvider(t, a.Admin, zone, id); got.Name != "Second" || got.Kind != "api_key" || first == second || !bytes.Equal(sealedOf(a.DB, zone, id), sealed) {
		t.Errorf("it is %+v; its version went from %s to %s", got, first, second)
	}
	servertest.Expect(t, update("*", client.ProviderPatch{Name: new("Fourth")}), http.StatusOK, "")
	servertest.Expect(t, remove(second), 0, code.VersionConflict)
	servertest.Expect(t, remove("*"), http.StatusNoContent, "")
}

// inLine runs requests that all wait for the row that a statement locks, until
// the last of them does; then it lets them go. Each of them starts when the one
// before is waiting. The first gets the row first; once it has changed it, the
// others come in any order.
func inLine(t *testing.T, a *servertest.API, lock string, args []any, requests ...func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), a.DB.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "SELECT set_config('caracal.zone_id', '*', false)"); err != nil {
		t.Fatal(err)
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tag, err := tx.Exec(t.Context(), lock, args...); err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("%s: %v %v", lock, tag, err)
	}
	var all sync.WaitGroup
	for i, request := range requests {
		all.Go(request)
		eventually(t, "a request waits for a lock", func() bool {
			return storetest.Value[int](a.DB, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0") == i+1
		})
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
}

const lockProvider = "SELECT FROM providers WHERE zone_id = $1 AND id = $2 FOR UPDATE"

// TestAConfigurationIsHeldAgainstTheKindThatItMeets, and not against the one that
// was there when its request came (PR-3).
func TestAConfigurationIsHeldAgainstTheKindThatItMeets(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := addProvider(t, a, zone, client.NewProvider{Name: new("Torn"), Kind: "api_key", ConfigJSON: configOf(keyConfig)}).ID
	change := func(patch client.ProviderPatch, want code.Code) func() {
		return func() {
			resp, err := a.Admin.UpdateProviderWithResponse(t.Context(), zone, id, nil, patch)
			if err != nil {
				t.Error(err)
				return
			}
			if got := code.Code(""); resp.StatusCode() != http.StatusOK {
				got = code.Code(problemOf(t, resp).Error)
				if got != want {
					t.Errorf("answered %s, want %q", resp.Body, want)
				}
			} else if want != "" {
				t.Errorf("answered %s, want %q", resp.Body, want)
			}
		}
	}
	bearerToken := client.ProviderPatch{Kind: new(client.ProviderKind("bearer_token")), ConfigJSON: configOf(bearerConfig)}
	for _, two := range [][2]func(){
		{change(client.ProviderPatch{ConfigJSON: configOf(`{"header_name":"X"}`)}, ""), change(client.ProviderPatch{Name: new("Renamed")}, "")},
		{change(bearerToken, ""), change(client.ProviderPatch{ConfigJSON: configOf(`{"header_name":"Y"}`)}, code.InvalidProviderConfig)},
		{change(client.ProviderPatch{Kind: bearerToken.Kind, Name: new("Renamed")}, ""), change(client.ProviderPatch{ConfigJSON: configOf(`{"auth_header":"X"}`)}, "")},
	} {
		inLine(t, a, lockProvider, []any{zone, id}, two[:]...)
	}
	now := seeProvider(t, a.Admin, zone, id)
	if now.Name != "Renamed" || now.Kind != "bearer_token" || !equalJSON(t, now.ConfigJSON, []byte(`{"auth_header":"X"}`)) || openedOf(t, a.DB, zone, id) != `{"bearer_token":"hush-bearer"}` {
		t.Errorf("it is %+v with %s", now, now.ConfigJSON)
	}
}

func TestOfManyChangesOfOneVersionOfAProviderOnlyOneHappens(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := addProvider(t, a, zone, client.NewProvider{Name: new("Torn"), Kind: "none"}).ID
	read, err := a.Admin.GetProviderWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	etag := read.HTTPResponse.Header.Get("ETag")
	answers := make(chan int, 3)
	change := func() {
		resp, err := a.Admin.UpdateProviderWithResponse(t.Context(), zone, id, &client.UpdateProviderParams{IfMatch: &etag}, client.ProviderPatch{Name: new("x")})
		if err != nil {
			t.Error(err)
		}
		answers <- resp.StatusCode()
	}
	remove := func() {
		resp, err := a.Admin.DeleteProviderWithResponse(t.Context(), zone, id, &client.DeleteProviderParams{IfMatch: &etag})
		if err != nil {
			t.Error(err)
		}
		answers <- resp.StatusCode()
	}
	inLine(t, a, lockProvider, []any{zone, id}, change, change, remove)
	if sum := <-answers + <-answers + <-answers; sum != http.StatusOK+2*http.StatusPreconditionFailed {
		t.Errorf("the statuses add up to %d", sum)
	}
}

const endResource = "UPDATE resources SET archived_at = now() WHERE zone_id = $1 AND id = $2"

// providerOf is the provider of a resource, from now on one that people grant
// access to.
func providerOf(a *servertest.API, zone, resource string) string {
	id := storetest.Value[string](a.DB, "SELECT credential_provider_id FROM resources WHERE zone_id = $1 AND id = $2", zone, resource)
	a.DB.Exec("UPDATE providers SET kind = 'oauth2_authorization_code', config_json = $3::jsonb WHERE zone_id = $1 AND id = $2", zone, id, `{`+codePublic+`,"client_auth_method":"none"}`)
	return id
}

// grantOf is what is left of a grant.
func grantOf(a *servertest.API, zone, id string) string {
	return storetest.Value[string](a.DB, "SELECT concat_ws(' ', status, access_token::text, refresh_token::text, data_key) FROM provider_grants WHERE zone_id = $1 AND id = $2", zone, id)
}

const (
	activeGrant  = `active \x616363657373 \x72656672657368 1`
	revokedGrant = "revoked"
)

func TestDeleteProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, gone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	used, unused, builtin, mandated := a.DB.Resource(zone), a.DB.Resource(zone), a.DB.Resource(zone), a.DB.Resource(zone)
	a.DB.Exec(endResource, zone, unused)
	inUse, released := providerOf(a, zone, used), providerOf(a, zone, unused)
	none, mandate := providerOf(a, zone, builtin), providerOf(a, zone, mandated)
	reserved := a.DB.Provider(zone)
	a.DB.Exec("UPDATE providers SET identifier = 'provider://caracal-sys-x' WHERE zone_id = $1 AND id = $2", zone, reserved)
	a.DB.Exec("UPDATE providers SET kind = 'none', config_json = '{}' WHERE zone_id = $1 AND id = $2", zone, none)
	a.DB.Exec("UPDATE providers SET kind = 'caracal_mandate', config_json = '{}' WHERE zone_id = $1 AND id = $2", zone, mandate)
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string // id "": a new provider
		want     code.Code
	}{
		{"by a global token", a.ClientFor("", "write"), zone, "", ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "", ""},
		{"a live resource names it", a.Admin, zone, inUse, code.ProviderInUse},
		{"an archived resource names it", a.Admin, zone, released, ""},
		{"none, and a resource names it", a.Admin, zone, none, ""},
		{"caracal_mandate, and a resource names it", a.Admin, zone, mandate, ""},
		{"reserved identifier, not bootstrap", a.ClientFor("", "write"), zone, reserved, code.ReservedNamespace},
		{"unknown", a.Admin, zone, "nobody", code.ProviderNotFound},
		{"of another zone", a.Admin, zone, a.DB.Provider(other), code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", "nobody", code.ZoneNotFound},
		{"zone archived", a.Admin, gone, "nobody", code.ZoneNotFound},
		{"zone token of another zone", a.ClientFor(other, "write"), zone, inUse, code.AdminTokenZoneMismatch},
		{"read token", a.ClientFor("", "read"), zone, inUse, code.AdminTokenReadOnly},
		{"Caracal's own zone", a.Admin, system, "", ""},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system, a.DB.Provider(system), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.id == "" {
				tt.id = addProvider(t, a, tt.zone, client.NewProvider{Name: &tt.name, Kind: "api_key", ConfigJSON: configOf(keyConfig)}).ID
			}
			servertest.Expect(t, removeProvider(t, tt.as, tt.zone, tt.id), http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			resp, err := a.Admin.GetProviderWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, 0, code.ProviderNotFound)
			servertest.Expect(t, changeProvider(t, a.Admin, tt.zone, tt.id, client.ProviderPatch{Name: new("x")}), 0, code.ProviderNotFound)
			servertest.Expect(t, removeProvider(t, tt.as, tt.zone, tt.id), 0, code.ProviderNotFound)
		})
	}
}

func TestADeletedProviderHoldsNothingAndItsIdentifierIsFree(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	body := client.NewProvider{Identifier: new("provider://once"), Kind: "bearer_token", ConfigJSON: configOf(bearerConfig)}
	first := addProvider(t, a, zone, body)
	servertest.Expect(t, removeProvider(t, a.Admin, zone, first.ID), http.StatusNoContent, "")
	left := storetest.Value[string](a.DB, "SELECT concat_ws(' ', secret_config::text, data_key, secret_config_keys::text, archived_at = updated_at) FROM providers WHERE zone_id = $1 AND id = $2", zone, first.ID)
	if left != "{} t" {
		t.Errorf("of what it held is left: %s", left)
	}
	if second := addProvider(t, a, zone, body); second.ID == first.ID || second.Identifier != first.Identifier {
		t.Errorf("the next one is %+v", second)
	}
}

func TestWhatPeopleHaveGrantedEndsWithWhatTheyGrantedItTo(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	addProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "bearer_token", ConfigJSON: configOf(bearerConfig)}) // the zone has a data key
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, id, resource string) servertest.Response
		code code.Code // "" is a change
		want string    // of the grant
	}{
		{"renamed", func(t *testing.T, id, _ string) servertest.Response {
			return changeProvider(t, a.Admin, zone, id, client.ProviderPatch{Name: new("x")})
		}, "", activeGrant},
		{"configured", func(t *testing.T, id, _ string) servertest.Response {
			return changeProvider(t, a.Admin, zone, id, client.ProviderPatch{ConfigJSON: configOf(codeConfig)})
		}, "", activeGrant},
		{"of the same kind again", func(t *testing.T, id, _ string) servertest.Response {
			return changeProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: new(client.ProviderKind("oauth2_authorization_code")), ConfigJSON: configOf(codeConfig)})
		}, "", activeGrant},
		{"of another kind", func(t *testing.T, id, _ string) servertest.Response {
			return changeProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: new(client.ProviderKind("oauth2_client_credentials")), ConfigJSON: configOf(clientConfig)})
		}, "", revokedGrant},
		{"of another kind, refused", func(t *testing.T, id, _ string) servertest.Response {
			return changeProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: new(client.ProviderKind("api_key")), ConfigJSON: configOf(`{}`)})
		}, code.InvalidProviderConfig, activeGrant},
		{"deleted", func(t *testing.T, id, resource string) servertest.Response {
			a.DB.Exec(endResource, zone, resource)
			return removeProvider(t, a.Admin, zone, id)
		}, "", revokedGrant},
		{"not deleted, being in use", func(t *testing.T, id, _ string) servertest.Response {
			return removeProvider(t, a.Admin, zone, id)
		}, code.ProviderInUse, activeGrant},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resource, another := a.DB.Resource(zone), a.DB.Resource(zone)
			id := providerOf(a, zone, resource)
			providerOf(a, zone, another)
			grant, untouched := a.DB.ProviderGrant(zone, resource), a.DB.ProviderGrant(zone, another)
			answer := tt.do(t, id, resource)
			servertest.Expect(t, answer, answer.StatusCode(), tt.code)
			if (answer.StatusCode() < 300) != (tt.code == "") {
				t.Errorf("answered %d %s", answer.StatusCode(), answer.GetBody())
			}
			if left := grantOf(a, zone, grant); left != tt.want {
				t.Errorf("of the grant is left %q, want %q", left, tt.want)
			}
			if left := grantOf(a, zone, untouched); left != activeGrant {
				t.Errorf("of another provider's grant is left %q", left)
			}
			entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'provider-grants' AND entity_id = $2", zone, grant)
			if revoked := tt.want == revokedGrant; (entries == 1) != revoked {
				t.Errorf("the trail has %d entries about the grant", entries)
			}
		})
	}
}

// TestAProviderIsNotDeletedFromUnderAResource that is being made: each waits for
// the other.
func TestAProviderIsNotDeletedFromUnderAResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	a.DB.Exec("INSERT INTO resource_totals (zone_id) VALUES ($1)", zone)
	application := a.DB.Application(zone)
	create := func(provider string, want code.Code) func() {
		return func() {
			resp, err := a.Admin.CreateResourceWithResponse(t.Context(), zone, client.NewResource{
				Name: new("Ledger"), Scopes: []string{"read"}, UpstreamURL: new("https://upstream.example.com"),
				CredentialProviderID: &provider, GatewayApplicationID: &application,
			})
			if err != nil || want == "" && resp.JSON201 == nil || want != "" && problemOf(t, resp).Error != string(want) {
				t.Errorf("%v %s", err, resp.Body)
			}
		}
	}
	remove := func(provider string, want code.Code) func() {
		return func() {
			resp, err := a.Admin.DeleteProviderWithResponse(t.Context(), zone, provider, nil)
			if err != nil || want == "" && resp.StatusCode() != http.StatusNoContent || want != "" && problemOf(t, resp).Error != string(want) {
				t.Errorf("%v %s", err, resp.Body)
			}
		}
	}
	add := func() string {
		return addProvider(t, a, zone, client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: configOf(keyConfig)}).ID
	}
	id := add()
	inLine(t, a, "SELECT FROM resource_totals WHERE zone_id = $1 FOR UPDATE", []any{zone}, create(id, ""), remove(id, code.ProviderInUse))
	id = add()
	inLine(t, a, lockProvider, []any{zone, id}, remove(id, ""), create(id, code.ProviderNotFound))
}

func TestWhatHappensToAProviderIsInTheTrail(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	zoned := a.ClientFor(zone, "write")
	id := addProvider(t, a, zone, client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: configOf(keyConfig)}).ID
	for _, patch := range []client.ProviderPatch{
		{Name: new("Renamed"), Identifier: new("provider://renamed")},
		{ConfigJSON: configOf(`{"header_name":"X-Api-Key","api_key":"hush-2"}`)},
		{Kind: new(client.ProviderKind("none")), ConfigJSON: configOf(`{}`)},
		{Kind: new(client.ProviderKind("bearer_token")), ConfigJSON: configOf(bearerConfig)},
	} {
		servertest.Expect(t, changeProvider(t, zoned, zone, id, patch), http.StatusOK, "")
	}
	servertest.Expect(t, removeProvider(t, zoned, zone, id), http.StatusNoContent, "")
	path := "/v1/zones/" + zone + "/providers"
	patched := "updateProvider | PATCH " + path + "/" + id + ` | zone | 200 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `",`
	want := []string{
		"createProvider | POST " + path + ` | global | 201 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["config_json","identifier","kind","name","secret_config_keys"],"changes":{` +
			`"config_json":{"from":null,"to":{"header_name":"X-Api-Key","auth_location":"header"}},"identifier":{"from":null,"to":"provider://ledger"},"kind":{"from":null,"to":"api_key"},"name":{"from":null,"to":"Ledger"},"secret_config_keys":{"from":null,"to":["api_key"]}}}`,
		patched + `"changed_fields":["identifier","name"],"changes":{"identifier":{"from":"provider://ledger","to":"provider://renamed"},"name":{"from":"Ledger","to":"Renamed"}}}`,
		patched + `"changed_fields":[],"secret_rotated":true}`,
		patched + `"changed_fields":["config_json","kind","secret_config_keys"],"changes":{"config_json":{"from":{"header_name":"X-Api-Key","auth_location":"header"},"to":{}},"kind":{"from":"api_key","to":"none"},"secret_config_keys":{"from":["api_key"],"to":[]}},"secret_rotated":true}`,
		patched + `"changed_fields":["kind","secret_config_keys"],"changes":{"kind":{"from":"none","to":"bearer_token"},"secret_config_keys":{"from":[],"to":["bearer_token"]}},"secret_rotated":true}`,
		"deleteProvider | DELETE " + path + "/" + id + ` | zone | 204 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `","changed_fields":[]}`,
	}
	got := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, actor_scope, status_code, payload) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'providers' AND entity_id = $2 ORDER BY id", zone, id)
	if !slices.Equal(got, want) {
		t.Errorf("the trail says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if all := strings.Join(storetest.Column[string](a.DB, "SELECT to_jsonb(audit_entries)::text FROM audit_entries"), "\n"); strings.Contains(all, secretive) {
		t.Errorf("the trail has a secret:\n%s", all)
	}
}

// A tokenServer stands for the internet: whatever name is asked for, it answers,
// but for some names that it makes a difference with. It notes what it was sent.
type tokenServer struct {
	*httptest.Server
	before  func() // runs when a request has come and is not answered
	mu      sync.Mutex
	heard   []string // requests, whole
	dialled []string // addresses
}

func newTokenServer(t *testing.T) *tokenServer {
	t.Helper()
	s := &tokenServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := httputil.DumpRequest(r, true)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.heard = append(s.heard, string(text))
		s.mu.Unlock()
		if s.before != nil {
			s.before()
		}
		var status int
		if _, err := fmt.Sscanf(r.URL.Path, "/answers/%d", &status); err != nil {
			t.Errorf("asked for %s", r.URL)
			return
		}
		w.Header().Set("Location", "https://login.example.com/followed")
		w.WriteHeader(status)
	}))
	s.Server.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// LookupNetIP makes it a resolver.
func (s *tokenServer) LookupNetIP(_ context.Context, _, name string) ([]netip.Addr, error) {
	switch name {
	case "private.example.com.":
		return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
	case "nowhere.example.com.":
		return nil, errors.New("lookup nowhere.example.com on 10.9.9.9:53: no such host")
	case "closed.example.com.":
		return []netip.Addr{netip.MustParseAddr("93.184.215.99")}, nil
	}
	return []netip.Addr{netip.MustParseAddr("93.184.215.14")}, nil
}

func (s *tokenServer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	s.dialled = append(s.dialled, address)
	s.mu.Unlock()
	if strings.HasPrefix(address, "93.184.215.99:") {
		return nil, errors.New("dial tcp 10.1.2.3:4444->93.184.215.99:443: connection refused")
	}
	return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
}

func (s *tokenServer) options() egress.Options {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return egress.Options{Resolver: s, Dial: s.dial, RootCAs: roots}
}

// endpointAt is a configuration whose token endpoint is at a URL.
func endpointAt(host, path string) *client.ProviderConfigInput {
	return configOf(fmt.Sprintf(`{"token_endpoint":"https://%s%s","allowed_token_hosts":["%s"],"client_id":"caracal","client_secret":"hush-client","token_params":{"tenant":"hush-tenant"}}`,
		host, path, strings.Split(host, ":")[0]))
}

func TestTestProvider(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone := a.Zone().ID
	const answered = "The token endpoint answered."
	for _, tt := range []struct {
		name       string
		host, path string
		status     int // 0 is unreachable
		detail     string
	}{
		{"answers 200", "login.example.com", "/answers/200", 200, answered},
		{"refuses", "login.example.com", "/answers/401", 401, answered},
		{"refuses the method", "Login.Example.COM:8443", "/answers/405", 405, answered},
		{"redirects", "login.example.com", "/answers/302", 302, answered},
		{"fails", "login.example.com", "/answers/500", 500, answered},
		{"has a query", "login.example.com", "/answers/400?code=hush#hush", 400, answered},
		{"has another's certificate", "login.example.org", "/answers/200", 0, "The host's certificate is not valid for its name, or TLS failed."},
		{"refuses the connection", "closed.example.com", "/answers/200", 0, "No connection to the host could be made."},
		{"is within", "private.example.com", "/answers/200", 0, "The host's name leads to no public address."},
		{"is nowhere", "nowhere.example.com", "/answers/200", 0, "The host's name leads to no public address."},
		{"is an address", "93.184.215.14", "/answers/200", 0, "The URL's host must be a DNS name; addresses are not accepted."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			made := addProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: "oauth2_client_credentials", ConfigJSON: endpointAt(tt.host, tt.path)})
			resp, err := a.Admin.TestProviderWithResponse(t.Context(), zone, made.ID)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			got := *resp.JSON200
			if got.Reachable != (tt.status != 0) || *cmp.Or(got.Status, new(0)) != tt.status || (got.Status == nil) == got.Reachable || got.Detail != tt.detail || got.DurationMs < 0 {
				t.Errorf("answered %s, want %d %q", resp.Body, tt.status, tt.detail)
			}
			if now := seeProvider(t, a.Admin, zone, made.ID); !reflect.DeepEqual(now, made) {
				t.Errorf("the test has changed it into %+v", now)
			}
			want := []string{"testProvider | POST /v1/zones/" + zone + "/providers/" + made.ID + `/test | 200 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":[]}`}
			if trail := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, status_code, payload) FROM audit_entries WHERE entity_type = 'providers' AND entity_id = $1 AND operation <> 'createProvider'", made.ID); !slices.Equal(trail, want) {
				t.Errorf("the trail says %q, want %q", trail, want)
			}
		})
	}
	t.Cleanup(func() { // when all are done
		if len(upstream.heard) != 6 {
			t.Errorf("it heard %q", upstream.heard)
		}
		for _, text := range upstream.heard {
			head, _, _ := strings.Cut(text, " ")
			if lower := strings.ToLower(text); head != http.MethodHead || strings.Contains(lower, "authorization") || strings.Contains(lower, "cookie") || strings.Contains(text, "?") || strings.Contains(text, secretive) || !strings.HasSuffix(text, "\r\n\r\n") {
				t.Errorf("it was sent %q", text)
			}
		}
		for _, address := range upstream.dialled {
			if !strings.HasPrefix(address, "93.184.215.") {
				t.Errorf("somebody dialled %s", address)
			}
		}
	})
}

// TestAProviderIsTestedOutsideAnyTransaction, whose end would have to wait for
// somebody else's server; and the trail knows first.
func TestAProviderIsTestedOutsideAnyTransaction(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone := a.Zone().ID
	id := addProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "oauth2_client_credentials", ConfigJSON: endpointAt("login.example.com", "/answers/204")}).ID
	upstream.before = func() {
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE entity_id = $1 AND operation = 'testProvider'", id); n != 1 {
			t.Errorf("the trail has %d entries when the endpoint is asked", n)
		}
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); n != 0 {
			t.Errorf("%d guards of zones are held when the endpoint is asked", n)
		}
	}
	resp, err := a.Admin.TestProviderWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if *resp.JSON200.Status != http.StatusNoContent {
		t.Errorf("answered %s", resp.Body)
	}
}

func TestWhoMayTestAProviderAndWhich(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone, other, system := a.Zone().ID, a.Zone().ID, systemZone(a).ID
	const archived = "archived"
	a.DB.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, 'Zone', $1, false)", archived)
	add := func(zone string) string {
		return addProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "oauth2_client_credentials", ConfigJSON: endpointAt("login.example.com", "/answers/401")}).ID
	}
	live, elsewhere, gone, below, systems := add(zone), add(other), add(zone), add(archived), add(system)
	servertest.Expect(t, removeProvider(t, a.Admin, zone, gone), http.StatusNoContent, "")
	a.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archived)
	type row struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string
		want     code.Code
	}
	tests := []row{
		{"global token", a.ClientFor("", "write"), zone, live, ""},
		{"zone token", a.ClientFor(zone, "write"), zone, live, ""},
		{"read token", a.ClientFor("", "read"), zone, live, code.AdminTokenReadOnly},
		{"zone token of another zone", a.ClientFor(other, "write"), zone, live, code.AdminTokenZoneMismatch},
		{"unknown", a.Admin, zone, "nobody", code.ProviderNotFound},
		{"archived", a.Admin, zone, gone, code.ProviderNotFound},
		{"of another zone", a.Admin, zone, elsewhere, code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ZoneNotFound},
		{"zone archived", a.Admin, archived, below, code.ZoneNotFound},
		{"Caracal's own zone", a.Admin, system, systems, ""},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system, systems, code.SystemZoneReadOnly},
	}
	for _, s := range samples {
		if want := code.ProviderTestUnsupported; !strings.HasPrefix(string(s.kind), "oauth2_") {
			id := addProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: s.kind, ConfigJSON: configOf(s.config)}).ID
			tests = append(tests, row{"of the kind " + string(s.kind), a.Admin, zone, id, want})
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.as.TestProviderWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
		})
	}
	t.Cleanup(func() { // when all are done
		if len(upstream.heard) != 3 {
			t.Errorf("it heard %q", upstream.heard)
		}
	})
}

// TestAConfigurationOlderThanARuleIsNotCalled: a row may be from before its
// endpoint had to be on an allowed host.
func TestAConfigurationOlderThanARuleIsNotCalled(t *testing.T) {
	t.Parallel()
	upstream := newTokenServer(t)
	a := servertest.WithEgress(t, upstream.options())
	zone := a.Zone().ID
	for _, tt := range []struct{ name, config, detail string }{
		{"another host", `{"token_endpoint":"https://evil.example.com/answers/200","allowed_token_hosts":["login.example.com"]}`, "token_endpoint must be on a host in allowed_token_hosts"},
		{"no TLS", `{"token_endpoint":"http://login.example.com/answers/200","allowed_token_hosts":["login.example.com"]}`, "token_endpoint must be an HTTPS URL"},
		{"no hosts", `{"token_endpoint":"https://login.example.com/answers/200"}`, "requires allowed_token_hosts"},
		{"nothing", `{}`, "token_endpoint must be an HTTPS URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id := a.DB.Provider(zone)
			a.DB.Exec("UPDATE providers SET kind = 'oauth2_authorization_code', config_json = $2::jsonb WHERE id = $1", id, tt.config)
			resp, err := a.Admin.TestProviderWithResponse(t.Context(), zone, id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			if want := (client.ProviderTest{Detail: "oauth2_authorization_code provider config " + tt.detail}); *resp.JSON200 != want {
				t.Errorf("answered %s, want %+v", resp.Body, want)
			}
		})
	}
	t.Cleanup(func() {
		if len(upstream.dialled) > 0 {
			t.Errorf("somebody dialled %q", upstream.dialled)
		}
	})
}
