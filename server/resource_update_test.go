package server_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestUpdateResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, system := newResourceZone(a), newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	archivedZone := a.DB.ArchivedZone()
	globalClient, zoneClient := a.ClientFor("", "write"), a.ClientFor(z.zone, "write")
	taken, archived, ofOtherZone := z.resource(t), z.resource(t).ID, other.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, archived)
	provider, archivedProvider := a.DB.Provider(z.zone), a.DB.Provider(z.zone)
	application, archivedApplication := a.DB.Application(z.zone), a.DB.Application(z.zone)
	a.DB.Exec(archiveProvider, z.zone, archivedProvider)
	a.DB.Exec(archiveApplication, z.zone, archivedApplication)
	dcr, expired := dcrApplications(z)
	reserved := z.resource(t, func(b *client.NewResource) { b.Identifier = new("caracal-sys://x") }).ID
	is, none := client.Set[string], client.Null[string]()
	type patch = client.ResourcePatch
	named := patch{Name: new("New name")}
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new resource of z
		body     patch
		want     code.Code
	}{
		{"name", a.Admin, z.zone, "", named, ""},
		{"name of one space", a.Admin, z.zone, "", patch{Name: new(" ")}, code.InvalidResource},
		{"identifier", a.Admin, z.zone, "", patch{Identifier: new("urn:identifier")}, ""},
		{"upstream", a.Admin, z.zone, "", patch{UpstreamURL: is("http://other.example.com")}, ""},
		{"scopes", a.Admin, z.zone, "", patch{Scopes: &[]string{"read", "x", "read"}}, ""},
		{"provider", a.Admin, z.zone, "", patch{CredentialProviderID: is(provider)}, ""},
		{"application", a.Admin, z.zone, "", patch{GatewayApplicationID: is(application)}, ""},
		{"operations", a.Admin, z.zone, "", patch{Operations: &[]client.NewResourceOperation{{Method: "PUT", Path: "/x", Scope: "write"}}}, ""},
		{"no operations any more", a.Admin, z.zone, "", patch{Operations: &[]client.NewResourceOperation{}}, ""},
		{"enforcement", a.Admin, z.zone, "", patch{OperationEnforcement: new(client.OperationEnforcementTransportUniform)}, ""},
		{"everything", a.Admin, z.zone, "", patch{
			Name: new("x"), Identifier: new("urn:everything"), UpstreamURL: is("http://other.example.com"), Scopes: &[]string{"x"},
			CredentialProviderID: is(provider), GatewayApplicationID: is(application),
			Operations: &[]client.NewResourceOperation{{Method: "PUT", Path: "/x", Scope: "x"}}, OperationEnforcement: new(client.OperationEnforcementTransportUniform),
		}, ""},
		{"by a zone token", zoneClient, z.zone, "", named, ""},
		{"by a global token", globalClient, z.zone, "", named, ""},
		{"nothing", a.Admin, z.zone, "", patch{}, code.NoFields},
		{"nothing, of nothing", a.Admin, z.zone, "nothing", patch{}, code.NoFields},
		{"name empty", a.Admin, z.zone, "", patch{Name: new("")}, code.InvalidResource},
		{"name too long", a.Admin, z.zone, "", patch{Name: new(strings.Repeat("é", 201))}, code.InvalidResource},
		{"upstream null", a.Admin, z.zone, "", patch{UpstreamURL: none}, code.UpstreamURLRequired},
		{"provider null", a.Admin, z.zone, "", patch{CredentialProviderID: none}, code.CredentialProviderRequired},
		{"provider empty", a.Admin, z.zone, "", patch{CredentialProviderID: is("")}, code.CredentialProviderRequired},
		{"provider unknown", a.Admin, z.zone, "", patch{CredentialProviderID: is("unknown")}, code.ProviderNotFound},
		{"provider unknown, of nothing", a.Admin, z.zone, "nothing", patch{CredentialProviderID: is("unknown")}, code.ProviderNotFound},
		{"provider archived", a.Admin, z.zone, "", patch{CredentialProviderID: is(archivedProvider)}, code.ProviderNotFound},
		{"provider of another zone", a.Admin, z.zone, "", patch{CredentialProviderID: is(other.provider)}, code.ProviderNotFound},
		{"application null", a.Admin, z.zone, "", patch{GatewayApplicationID: none}, code.GatewayApplicationRequired},
		{"application unknown", a.Admin, z.zone, "", patch{GatewayApplicationID: is("unknown")}, code.GatewayApplicationNotFound},
		{"application archived", a.Admin, z.zone, "", patch{GatewayApplicationID: is(archivedApplication)}, code.GatewayApplicationNotFound},
		{"application expired", a.Admin, z.zone, "", patch{GatewayApplicationID: is(expired)}, code.GatewayApplicationNotFound},
		{"application registered by itself", a.Admin, z.zone, "", patch{GatewayApplicationID: is(dcr)}, code.GatewayExchangeApplicationMustBeManaged},
		{"application of another zone", a.Admin, z.zone, "", patch{GatewayApplicationID: is(other.application)}, code.GatewayApplicationNotFound},
		{"scopes without those of the operations", a.Admin, z.zone, "", patch{Scopes: &[]string{"write"}}, code.OperationScopeNotInResourceScopes},
		{"scopes and operations that fit", a.Admin, z.zone, "", patch{Scopes: &[]string{"write"}, Operations: &[]client.NewResourceOperation{{Method: "GET", Path: "/invoices", Scope: "write"}}}, ""},
		{"operations that fit the scopes as they were", a.Admin, z.zone, "", patch{Scopes: &[]string{"x"}, Operations: &[]client.NewResourceOperation{{Method: "GET", Path: "/x", Scope: "read"}}}, code.OperationScopeNotInResourceScopes},
		{"identifier taken", a.Admin, z.zone, "", patch{Identifier: &taken.Identifier}, code.ResourceIdentifierConflict},
		{"its own identifier", a.Admin, z.zone, taken.ID, patch{Identifier: &taken.Identifier}, ""},
		{"into the reserved namespace", a.Admin, z.zone, "", patch{Identifier: new("caracal-sys://y")}, ""},
		{"into the reserved namespace, not bootstrap", zoneClient, z.zone, "", patch{Identifier: new("CARACAL-sys://z")}, code.ReservedNamespace},
		{"out of the reserved namespace, not bootstrap", globalClient, z.zone, reserved, patch{Identifier: new("urn:out")}, code.ReservedNamespace},
		{"unknown", a.Admin, z.zone, "nothing", named, code.ResourceNotFound},
		{"archived", a.Admin, z.zone, archived, named, code.ResourceNotFound},
		{"of another zone", a.Admin, z.zone, ofOtherZone, named, code.ResourceNotFound},
		{"zone unknown", a.Admin, "nowhere", "nothing", named, code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, "nothing", named, code.ZoneNotFound},
		{"system zone", a.Admin, system.zone, system.resource(t).ID, named, ""},
		{"system zone, not bootstrap", globalClient, system.zone, system.resource(t).ID, named, code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), z.zone, "nothing", named, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other.zone, "write"), z.zone, "", named, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = z.resource(t).ID
			}
			before := getResource(t, a.Admin, tt.zone, tt.id)
			resp := updateResource(t, tt.as, tt.zone, tt.id, tt.body)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			after := getResource(t, a.Admin, tt.zone, tt.id)
			if tt.want != "" {
				if !slices.Equal(before.Body, after.Body) && before.StatusCode() == http.StatusOK {
					t.Errorf("it was %s and is %s", before.Body, after.Body)
				}
				return
			}
			want := patched(*before.JSON200, tt.body)
			unchanged := reflect.DeepEqual(want, *before.JSON200)
			want.UpdatedAt = after.JSON200.UpdatedAt
			if !reflect.DeepEqual(*resp.JSON200, want) || !reflect.DeepEqual(*after.JSON200, want) {
				t.Errorf("answered %+v, then read %+v, want %+v", *resp.JSON200, *after.JSON200, want)
			}
			if is, was := resp.HTTPResponse.Header.Get("ETag"), before.HTTPResponse.Header.Get("ETag"); (is == was) != unchanged || is != after.HTTPResponse.Header.Get("ETag") {
				t.Errorf("its version was %s, became %s and is %s", was, is, after.HTTPResponse.Header.Get("ETag"))
			}
		})
	}
}

// patched is what a resource becomes, when it was changed.
func patched(r client.Resource, p client.ResourcePatch) client.Resource {
	if p.Name != nil {
		r.Name = *p.Name
	}
	if p.Identifier != nil {
		r.Identifier = *p.Identifier
	}
	if upstream, given := p.UpstreamURL.Get(); given {
		r.UpstreamURL = &upstream
	}
	if p.Scopes != nil {
		r.Scopes = *p.Scopes
	}
	if provider, given := p.CredentialProviderID.Get(); given {
		r.CredentialProviderID = provider
	}
	if application, given := p.GatewayApplicationID.Get(); given {
		r.GatewayApplicationID = &application
	}
	if p.Operations != nil {
		r.Operations = []client.ResourceOperation{}
		for _, o := range *p.Operations {
			r.Operations = append(r.Operations, client.ResourceOperation(o))
		}
	}
	if p.OperationEnforcement != nil {
		r.OperationEnforcement = *p.OperationEnforcement
	}
	return r
}

// Only the bootstrap token can update a reserved resource, and no token can delete it.
func TestUpdateResourceReservedNeedsBootstrap(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t, func(b *client.NewResource) { b.Identifier = new("caracal-sys://x") }).ID
	for _, as := range []*rawclient.ClientWithResponses{a.ClientFor("", "write"), a.ClientFor(z.zone, "write")} {
		readResource(t, as, z.zone, id)
		servertest.Expect(t, updateResource(t, as, z.zone, id, client.ResourcePatch{Name: new("x")}), 0, code.ReservedNamespace)
		servertest.Expect(t, deleteResource(t, as, z.zone, id), 0, code.ReservedNamespace)
	}
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, id, client.ResourcePatch{Name: new("x")}), http.StatusOK, "")
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, id), http.StatusNoContent, "")
}

func TestUpdateResourceBindingKeepsUpdatedAt(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id, application := z.resource(t).ID, a.DB.Application(z.zone)
	updatedAt := func() string {
		return storetest.Value[string](a.DB, "SELECT updated_at::text FROM resources WHERE zone_id = $1 AND id = $2", z.zone, id)
	}
	bound := client.Set(application)
	before := updatedAt()
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, id, client.ResourcePatch{GatewayApplicationID: bound}), http.StatusOK, "")
	if after := updatedAt(); after != before {
		t.Errorf("bound, it was updated at %s, and before at %s", after, before)
	}
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, id, client.ResourcePatch{GatewayApplicationID: bound, Name: new("x")}), http.StatusOK, "")
	if after := updatedAt(); after == before {
		t.Errorf("bound and renamed, it is as old as before: %s", after)
	}
}

// Clients send back what they have read, which can be older than the rules for URLs.
func TestUpdateResourceAcceptsTheStoredURL(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t).ID
	const old = "https://user:password@x.example.com/?api_key=k"
	a.DB.Exec("UPDATE resources SET upstream_url = $3 WHERE zone_id = $1 AND id = $2", z.zone, id, old)
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, id, client.ResourcePatch{Name: new("Renamed"), UpstreamURL: client.Set(old)}), http.StatusOK, "")
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, id, client.ResourcePatch{UpstreamURL: client.Set(old + "2")}), 0, code.InvalidResource)
	if now := readResource(t, a.Admin, z.zone, id); now.Name != "Renamed" || *now.UpstreamURL != old {
		t.Errorf("it is %+v", now)
	}
}

func TestUpdateResourceIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t).ID
	update := func(ifMatch, name string) *rawclient.UpdateResourceResponse {
		t.Helper()
		resp, err := a.Admin.UpdateResourceWithResponse(t.Context(), z.zone, id, &rawclient.UpdateResourceParams{IfMatch: &ifMatch}, client.ResourcePatch{Name: &name})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	remove := func(ifMatch string) *rawclient.DeleteResourceResponse {
		t.Helper()
		resp, err := a.Admin.DeleteResourceWithResponse(t.Context(), z.zone, id, &rawclient.DeleteResourceParams{IfMatch: &ifMatch})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	first := getResource(t, a.Admin, z.zone, id).HTTPResponse.Header.Get("ETag")
	changed := update(first, "Second")
	servertest.Expect(t, changed, http.StatusOK, "")
	second := changed.HTTPResponse.Header.Get("ETag")
	servertest.Expect(t, update(first, "Third"), 0, code.VersionConflict)
	servertest.Expect(t, remove(first), 0, code.VersionConflict)
	if got := readResource(t, a.Admin, z.zone, id); got.Name != "Second" {
		t.Errorf("its name is %q", got.Name)
	}
	// Deleting its application changes the resource, so the ETag no longer matches.
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	servertest.Expect(t, remove(second), 0, code.VersionConflict)
	servertest.Expect(t, remove("*"), http.StatusNoContent, "")
	z.checkTotals(t)
}
