package server_test

import (
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

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
	zone, other, system, archivedZone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
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
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new provider
		want     code.Code
	}{
		{"by a global token", a.ClientFor("", "write"), zone, "", ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "", ""},
		{"a live resource names it", a.Admin, zone, inUse, code.ProviderInUse},
		{"an archived resource names it", a.Admin, zone, released, ""},
		{"none, and a resource names it", a.Admin, zone, none, code.ProviderInUse},
		{"caracal_mandate, and a resource names it", a.Admin, zone, mandate, code.ProviderInUse},
		{"reserved identifier, not bootstrap", a.ClientFor("", "write"), zone, reserved, code.ReservedNamespace},
		{"unknown", a.Admin, zone, "unknown", code.ProviderNotFound},
		{"of another zone", a.Admin, zone, a.DB.Provider(other), code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", "unknown", code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, "unknown", code.ZoneNotFound},
		{"token of another zone", a.ClientFor(other, "write"), zone, inUse, code.AdminTokenZoneMismatch},
		{"read token", a.ClientFor("", "read"), zone, inUse, code.AdminTokenReadOnly},
		{"system zone", a.Admin, system, "", ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, a.DB.Provider(system), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = newProvider(t, a, tt.zone, client.NewProvider{Name: &tt.name, Kind: "api_key", ConfigJSON: rawConfig(keyConfig)}).ID
			}
			servertest.Expect(t, deleteProvider(t, tt.as, tt.zone, tt.id), http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			resp, err := a.Admin.GetProviderWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, 0, code.ProviderNotFound)
			servertest.Expect(t, updateProvider(t, a.Admin, tt.zone, tt.id, client.ProviderPatch{Name: new("x")}), 0, code.ProviderNotFound)
			servertest.Expect(t, deleteProvider(t, tt.as, tt.zone, tt.id), 0, code.ProviderNotFound)
		})
	}
}

func TestDeleteProviderErasesSecretsAndFreesIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	body := client.NewProvider{Identifier: new("provider://once"), Kind: "bearer_token", ConfigJSON: rawConfig(bearerConfig)}
	first := newProvider(t, a, zone, body)
	servertest.Expect(t, deleteProvider(t, a.Admin, zone, first.ID), http.StatusNoContent, "")
	left := storetest.Value[string](a.DB, "SELECT concat_ws(' ', secret_config::text, data_key, secret_config_keys::text, archived_at = updated_at) FROM providers WHERE zone_id = $1 AND id = $2", zone, first.ID)
	if left != "{} t" {
		t.Errorf("of what it held is left: %s", left)
	}
	if second := newProvider(t, a, zone, body); second.ID == first.ID || second.Identifier != first.Identifier {
		t.Errorf("the next one is %+v", second)
	}
}

func TestDeleteProviderRevokesGrants(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "bearer_token", ConfigJSON: rawConfig(bearerConfig)}) // the zone has a data key
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, id, resource string) servertest.Response
		code code.Code // "" is a change
		want string    // of the grant
	}{
		{"renamed", func(t *testing.T, id, _ string) servertest.Response {
			return updateProvider(t, a.Admin, zone, id, client.ProviderPatch{Name: new("x")})
		}, "", activeGrant},
		{"configured", func(t *testing.T, id, _ string) servertest.Response {
			return updateProvider(t, a.Admin, zone, id, client.ProviderPatch{ConfigJSON: rawConfig(codeConfig)})
		}, "", activeGrant},
		{"of the same kind again", func(t *testing.T, id, _ string) servertest.Response {
			return updateProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: new(client.ProviderKind("oauth2_authorization_code")), ConfigJSON: rawConfig(codeConfig)})
		}, "", activeGrant},
		{"of another token host", func(t *testing.T, id, _ string) servertest.Response {
			return updateProvider(t, a.Admin, zone, id, client.ProviderPatch{ConfigJSON: rawConfig(strings.ReplaceAll(codeConfig, "login.example.com", "collector.example.net"))})
		}, "", revokedGrant},
		{"of another kind", func(t *testing.T, id, _ string) servertest.Response {
			return updateProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: new(client.ProviderKind("oauth2_client_credentials")), ConfigJSON: rawConfig(clientConfig)})
		}, "", revokedGrant},
		{"of another kind, refused", func(t *testing.T, id, _ string) servertest.Response {
			return updateProvider(t, a.Admin, zone, id, client.ProviderPatch{Kind: new(client.ProviderKind("api_key")), ConfigJSON: rawConfig(`{}`)})
		}, code.InvalidProviderConfig, activeGrant},
		{"deleted", func(t *testing.T, id, resource string) servertest.Response {
			a.DB.Exec(endResource, zone, resource)
			return deleteProvider(t, a.Admin, zone, id)
		}, "", revokedGrant},
		{"not deleted, being in use", func(t *testing.T, id, _ string) servertest.Response {
			return deleteProvider(t, a.Admin, zone, id)
		}, code.ProviderInUse, activeGrant},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resource, another := a.DB.Resource(zone), a.DB.Resource(zone)
			id := providerOf(a, zone, resource)
			providerOf(a, zone, another)
			grant, untouched := a.DB.ProviderGrant(zone, resource), a.DB.ProviderGrant(zone, another)
			resp := tt.do(t, id, resource)
			servertest.Expect(t, resp, resp.StatusCode(), tt.code)
			if (resp.StatusCode() < 300) != (tt.code == "") {
				t.Errorf("answered %d %s", resp.StatusCode(), resp.GetBody())
			}
			if left := grantOf(a, zone, grant); left != tt.want {
				t.Errorf("of the grant is left %q, want %q", left, tt.want)
			}
			if left := grantOf(a, zone, untouched); left != activeGrant {
				t.Errorf("of another provider's grant is left %q", left)
			}
			entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'provider-grants' AND entity_id = $2", zone, grant)
			if revoked := tt.want == revokedGrant; (entries == 1) != revoked {
				t.Errorf("got %d audit entries about the grant", entries)
			}
		})
	}
}

// TestDeleteProviderWhileResourceIsCreated that is being made: each waits for
// the other.
func TestDeleteProviderWhileResourceIsCreated(t *testing.T) {
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
	for _, s := range samples {
		add := func() string {
			return newProvider(t, a, zone, client.NewProvider{Name: new("Ledger"), Kind: s.kind, ConfigJSON: rawConfig(s.config)}).ID
		}
		id := add()
		inLine(t, a, "SELECT FROM resource_totals WHERE zone_id = $1 FOR UPDATE", []any{zone}, create(id, ""), remove(id, code.ProviderInUse))
		id = add()
		inLine(t, a, lockProvider, []any{zone, id}, remove(id, ""), create(id, code.ProviderNotFound))
	}
}

// Whatever the order in which resources are moved to a provider and the provider is
// archived, no active resource names an archived provider.
func TestResourceNeverNamesArchivedProvider(t *testing.T) {
	t.Parallel()
	z := newResourceZone(servertest.New(t))
	control, other := z.control(t).ID, z.resource(t).ID
	const rounds = 20
	outcomes := map[int]int{}
	for range rounds {
		provider := newProvider(t, z.API, z.zone, client.NewProvider{Name: new("x"), Kind: "none"}).ID
		implicit := "provider-none-" + z.zone
		var status int
		concurrently(
			func() { status = deleteProvider(t, z.Admin, z.zone, provider).StatusCode() },
			func() { deleteProvider(t, z.Admin, z.zone, implicit) },
			func() {
				updateResource(t, z.Admin, z.zone, other, client.ResourcePatch{CredentialProviderID: client.Set(provider)})
			},
			func() {
				updateResource(t, z.Admin, z.zone, control, client.ResourcePatch{CredentialProviderID: client.Set(provider)})
				updateResource(t, z.Admin, z.zone, control, client.ResourcePatch{CredentialProviderID: client.Null[string]()})
			},
		)
		outcomes[status]++
		if dangling := storetest.Column[string](z.DB, `SELECT r.id FROM resources AS r JOIN providers AS p ON p.zone_id = r.zone_id AND p.id = r.credential_provider_id
			WHERE r.archived_at IS NULL AND p.archived_at IS NOT NULL`); len(dangling) > 0 {
			t.Fatalf("%v name an archived provider", dangling)
		}
		updateResource(t, z.Admin, z.zone, other, client.ResourcePatch{CredentialProviderID: client.Set(z.provider)})
	}
	t.Logf("the statuses of DELETE are %v", outcomes)
}
