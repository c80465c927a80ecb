package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

// A grantZone is a zone with a provider that users can grant access to, and a resource
// of it.
type grantZone struct {
	*servertest.API
	zone, provider, resource string
}

func newGrantZone(t *testing.T, a *servertest.API) grantZone {
	t.Helper()
	return grantZoneOf(t, a, a.Zone().ID)
}

func grantZoneOf(t *testing.T, a *servertest.API, zone string) grantZone {
	t.Helper()
	z := grantZone{API: a, zone: zone}
	z.provider = newProvider(t, a, zone, client.NewProvider{Name: new("Login"), Kind: client.ProviderKindOAuth2AuthorizationCode, ConfigJSON: rawConfig(codeConfig)}).ID
	z.resource = z.resourceOf(t, z.provider)
	return z
}

// resourceOf creates a resource with a credential provider and the scopes read and
// write.
func (z grantZone) resourceOf(t *testing.T, provider string) string {
	t.Helper()
	return resourcesOf(z.API, z.zone).resource(t, func(b *client.NewResource) { b.CredentialProviderID = &provider }).ID
}

// body returns a valid grant of user-1.
func (z grantZone) body(change ...func(*client.NewProviderGrant)) client.NewProviderGrant {
	b := client.NewProviderGrant{UserID: "user-1", ResourceID: z.resource, ProviderID: z.provider, Scopes: []string{"read"}, AccessToken: "hush-access"}
	for _, f := range change {
		f(&b)
	}
	return b
}

// key returns the key of the grant of user-1.
func (z grantZone) key() client.ProviderGrantRevocation {
	return client.ProviderGrantRevocation{UserID: "user-1", ResourceID: z.resource, ProviderID: z.provider}
}

// grant creates or replaces a grant.
func (z grantZone) grant(t *testing.T, change ...func(*client.NewProviderGrant)) client.ProviderGrant {
	t.Helper()
	resp := createProviderGrant(t, z.Admin, z.zone, z.body(change...))
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// tokens returns the opened tokens of a grant; "" for one that is not stored.
func (z grantZone) tokens(t *testing.T, id string) (access, refresh string) {
	t.Helper()
	open := func(column string) string {
		const of = " FROM provider_grants WHERE zone_id = $1 AND id = $2"
		sealed := storetest.Value[[]byte](z.DB, "SELECT "+column+of, z.zone, id)
		if sealed == nil {
			return ""
		}
		number := storetest.Value[int32](z.DB, "SELECT data_key"+of, z.zone, id)
		return openSealed(t, z.DB, number, seal.Location{Zone: z.zone, Table: "provider_grants", Column: column, Row: id}, sealed)
	}
	return open("access_token"), open("refresh_token")
}

func createProviderGrant(t *testing.T, as *rawclient.ClientWithResponses, zone string, body client.NewProviderGrant) *rawclient.CreateProviderGrantResponse {
	t.Helper()
	resp, err := as.CreateProviderGrantWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func getProviderGrant(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) *rawclient.GetProviderGrantResponse {
	t.Helper()
	resp, err := as.GetProviderGrantWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func revokeProviderGrant(t *testing.T, as *rawclient.ClientWithResponses, zone string, body client.ProviderGrantRevocation) *rawclient.RevokeProviderGrantResponse {
	t.Helper()
	resp, err := as.RevokeProviderGrantWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
