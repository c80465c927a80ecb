package server_test

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestCreateProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, archivedZone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	newProvider(t, a, zone, client.NewProvider{Identifier: new("provider://taken"), Kind: "none"})
	newProvider(t, a, other, client.NewProvider{Identifier: new("provider://taken-elsewhere"), Kind: "none"})
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
		return client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: rawConfig(config)}
	}
	for _, tt := range []struct {
		name       string
		as         *rawclient.ClientWithResponses
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
		{"token of another zone", a.ClientFor(other, "write"), zone, of("x", ""), code.AdminTokenZoneMismatch, "", ""},
		{"read token", a.ClientFor("", "read"), zone, of("x", ""), code.AdminTokenReadOnly, "", ""},
		{"zone unknown", a.Admin, "nowhere", of("x", ""), code.ZoneNotFound, "", ""},
		{"zone unknown, with a secret", a.Admin, "nowhere", key(keyConfig), code.ZoneNotFound, "", ""},
		{"zone archived", a.Admin, archivedZone, of("x", ""), code.ZoneNotFound, "", ""},
		{"zone archived, with a secret", a.Admin, archivedZone, key(keyConfig), code.ZoneNotFound, "", ""},
		{"system zone", a.Admin, system, of("x", ""), "", "x", "provider://x"},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, of("x", ""), code.SystemZoneReadOnly, "", ""},
		{"system zone, with a secret, by its own token", a.ClientFor(system, "write"), system, key(keyConfig), code.SystemZoneReadOnly, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
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
					t.Errorf("got %s", resp.Body)
				}
			case "":
				created := *resp.JSON201
				if created.ZoneID != tt.zone || created.Name != tt.called || created.Kind != tt.body.Kind || tt.identifier != "" && created.Identifier != tt.identifier || !created.CreatedAt.Equal(created.UpdatedAt) {
					t.Errorf("answered %s, want %q as %s", resp.Body, tt.called, tt.identifier)
				}
				read, err := tt.as.GetProviderWithResponse(t.Context(), tt.zone, created.ID)
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

func TestCreateProviderAndUpdateProviderValidateTheBody(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "none"}).ID
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

func TestCreateProviderReportsTheFirstConfigError(t *testing.T) {
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
			path := append([]string{"config_json"}, tt.path...)
			created, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new("x"), Kind: tt.kind, ConfigJSON: rawConfig(tt.config)})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, created, 0, code.InvalidProviderConfig)
			expectMessage(t, created, tt.want, path...)
			other := client.ProviderKind("none")
			if tt.kind == other {
				other = "caracal_mandate"
			}
			id := newProvider(t, a, zone, client.NewProvider{Name: &tt.name, Kind: other}).ID
			changed := updateProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: &tt.kind, ConfigJSON: rawConfig(tt.config)})
			servertest.Expect(t, changed, 0, code.InvalidProviderConfig)
			expectMessage(t, changed, tt.want, path...)
			if readProvider(t, a.Admin, zone, id).Kind != other {
				t.Error("it has changed its kind all the same")
			}
		})
	}
}

func TestCreateProviderSealsSecretsOfEveryKind(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range samples {
		t.Run(string(tt.kind), func(t *testing.T) {
			resp, err := a.Admin.CreateProviderWithResponse(t.Context(), zone, client.NewProvider{Name: new(string(tt.kind)), Kind: tt.kind, ConfigJSON: rawConfig(tt.config)})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, "")
			created := *resp.JSON201
			if !slices.Equal(created.SecretConfigKeys, tt.keys) || created.SecretConfigKeys == nil || !equalJSON(t, created.ConfigJSON, []byte(tt.public)) {
				t.Errorf("answered %s, want %s and the keys %q", resp.Body, tt.public, tt.keys)
			}
			if opened := openedSecrets(t, a.DB, zone, created.ID); opened != tt.sealed {
				t.Errorf("sealed is %s, want %s", opened, tt.sealed)
			}
			if bytes.Contains(sealedSecrets(a.DB, zone, created.ID), []byte(secretMarker)) {
				t.Error("it is kept as it came")
			}
			responses := map[string]servertest.Response{"create": resp}
			if responses["get"], err = a.Admin.GetProviderWithResponse(t.Context(), zone, created.ID); err != nil {
				t.Fatal(err)
			}
			if responses["list"], err = a.Admin.ListProvidersWithResponse(t.Context(), zone, nil); err != nil {
				t.Fatal(err)
			}
			responses["patch"] = updateProvider(t, a.Admin, zone, created.ID, client.ProviderPatch{ConfigJSON: rawConfig(tt.config)})
			for operation, resp := range responses {
				if resp.StatusCode() >= 300 || bytes.Contains(resp.GetBody(), []byte(secretMarker)) {
					t.Errorf("%s answers %d %s", operation, resp.StatusCode(), resp.GetBody())
				}
			}
		})
	}
	t.Cleanup(func() { // when all kinds are done
		if strings.Contains(a.Log.String(), secretMarker) {
			t.Error("the log has a secret")
		}
		if all := everythingOf(a.DB, zone); strings.Contains(all, secretMarker) {
			t.Errorf("the database has a secret in the plain:\n%s", all)
		}
	})
}
