package server_test

import (
	"net/http"
	"reflect"
	"slices"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestGetResourceControlResourceNeedsGlobalToken(t *testing.T) {
	t.Parallel()
	const other = "resource://control-2"
	for _, tt := range []struct {
		name, audience string
		settings       []string
	}{
		{"default audience", controlAudience, nil},
		{"another audience", other, []string{"CONTROL_AUDIENCE=" + other}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := servertest.New(t, tt.settings...)
			z := newResourceZone(a)
			globalClient, zoneClient := a.ClientFor("", "write"), a.ClientFor(z.zone, "write")
			body := client.NewResource{Identifier: &tt.audience, Scopes: []string{"control"}}
			const managedElsewhere = "control API resource is managed only through the Control console path"
			protected := func(resp servertest.Response, detail string) {
				t.Helper()
				servertest.Expect(t, resp, 0, code.ProtectedResource)
				if problem := problemOf(t, resp); problem.Detail == nil || *problem.Detail != detail {
					t.Errorf("got %s", resp.GetBody())
				}
			}
			protected(createResource(t, zoneClient, z.zone, body), managedElsewhere)
			protected(createResource(t, zoneClient, z.zone, z.body(func(b *client.NewResource) { b.Identifier = &tt.audience })), managedElsewhere)
			created := createResource(t, globalClient, z.zone, body)
			servertest.Expect(t, created, http.StatusCreated, "")
			control := *created.JSON201
			want := client.Resource{
				ID: control.ID, ZoneID: z.zone, Name: tt.audience, Identifier: tt.audience, Scopes: []string{"control"},
				CredentialProviderID: "provider-none-" + z.zone, Operations: []client.ResourceOperation{}, OperationEnforcement: client.OperationEnforcementEnforced,
				CreatedAt: control.CreatedAt, UpdatedAt: control.CreatedAt,
			}
			if !reflect.DeepEqual(control, want) {
				t.Errorf("the resource is %+v, want %+v", control, want)
			}
			provider, err := a.Admin.GetProviderWithResponse(t.Context(), z.zone, control.CredentialProviderID)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, provider, http.StatusOK, "")
			if p := provider.JSON200; p.Name != "No credential" || p.Identifier != "provider://none" || p.Kind != client.ProviderKindNone || string(p.ConfigJSON) != "{}" {
				t.Errorf("its provider is %s", provider.Body)
			}
			if _, revision := z.totals(); revision != 0 {
				t.Errorf("the binding revision is %d, although nothing is bound", revision)
			}
			if read := readResource(t, a.ClientFor("", "read"), z.zone, control.ID); !reflect.DeepEqual(read, want) {
				t.Errorf("read %+v", read)
			}
			servertest.Expect(t, getResource(t, zoneClient, z.zone, control.ID), 0, code.ResourceNotFound)
			servertest.Expect(t, getResource(t, a.ClientFor(z.zone, "read"), z.zone, control.ID), 0, code.ResourceNotFound)
			protected(updateResource(t, zoneClient, z.zone, control.ID, client.ResourcePatch{Name: new("x")}), managedElsewhere)
			protected(updateResource(t, zoneClient, z.zone, control.ID, client.ResourcePatch{Identifier: new("urn:mine")}), managedElsewhere)
			protected(updateResource(t, zoneClient, z.zone, z.resource(t).ID, client.ResourcePatch{Identifier: &tt.audience}), managedElsewhere)
			servertest.Expect(t, deleteResource(t, zoneClient, z.zone, control.ID), 0, code.ResourceNotFound)
			stale, err := zoneClient.DeleteResourceWithResponse(t.Context(), z.zone, control.ID, &rawclient.DeleteResourceParams{IfMatch: new(`"77"`)})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, stale, 0, code.ResourceNotFound)
			protected(deleteResource(t, globalClient, z.zone, control.ID), "control API resource cannot be deleted")
			servertest.Expect(t, createResource(t, globalClient, z.zone, body), 0, code.ResourceIdentifierConflict)
			// Its identifier is not generated from a name, and a renamed control resource does
			// not become an ordinary one.
			for range 3 {
				created := createResource(t, zoneClient, z.zone, z.body(func(b *client.NewResource) { b.Name = new("Control") }))
				servertest.Expect(t, created, http.StatusCreated, "")
				if created.JSON201.Identifier == tt.audience {
					t.Errorf("a zone token created %+v", *created.JSON201)
				}
			}
			servertest.Expect(t, updateResource(t, globalClient, z.zone, control.ID, client.ResourcePatch{Name: new("x")}), http.StatusOK, "")
			z.checkTotals(t)
		})
	}
}

// A generated identifier may be that of the control resource, which exists once, or
// an ordinary one. It is never an ordinary one for a body that is valid only for the
// control resource, and a zone token never gets the control resource.
func TestCreateResourceControlResourceByName(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "CONTROL_AUDIENCE=resource://control-2")
	z := newResourceZone(a)
	zoneClient := a.ClientFor(z.zone, "write")
	called := func(name string) client.NewResource {
		return z.body(func(b *client.NewResource) { b.Name = &name })
	}
	var got []string
	for range 3 {
		resp := createResource(t, zoneClient, z.zone, called("Control"))
		servertest.Expect(t, resp, http.StatusCreated, "")
		got = append(got, resp.JSON201.Identifier)
	}
	if slices.Contains(got, "resource://control-2") || got[0] != "resource://control" {
		t.Errorf("a zone token created %q", got)
	}
	servertest.Expect(t, createResource(t, zoneClient, z.zone, called("Control 2")), 0, code.ProtectedResource)
	bare := client.NewResource{Name: new("Control 2"), Scopes: []string{"control"}}
	first := createResource(t, a.Admin, z.zone, bare)
	servertest.Expect(t, first, http.StatusCreated, "")
	if first.JSON201.Identifier != "resource://control-2" {
		t.Errorf("the resource is %+v", *first.JSON201)
	}
	servertest.Expect(t, createResource(t, a.Admin, z.zone, bare), 0, code.ResourceIdentifierConflict)
	z.checkTotals(t)
}

func TestCreateResourceControlResourceIsNeverBound(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	upstream := new("https://control.example.com")
	created := createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.Identifier, b.UpstreamURL = new(controlAudience), upstream }))
	servertest.Expect(t, created, http.StatusCreated, "")
	control := *created.JSON201
	if control.GatewayApplicationID != nil || control.CredentialProviderID != z.provider || *control.UpstreamURL != *upstream {
		t.Errorf("the resource is %+v", control)
	}
	is, none := client.Set[string], client.Null[string]()
	updated := updateResource(t, a.Admin, z.zone, control.ID, client.ResourcePatch{GatewayApplicationID: is(z.application)})
	servertest.Expect(t, updated, http.StatusOK, "")
	if updated.JSON200.GatewayApplicationID != nil {
		t.Errorf("the resource is %+v", *updated.JSON200)
	}
	if _, revision := z.totals(); revision != 0 {
		t.Errorf("the binding revision is %d, although nothing was bound", revision)
	}
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, control.ID, client.ResourcePatch{GatewayApplicationID: is("unknown")}), 0, code.GatewayApplicationNotFound)
	updated = updateResource(t, a.Admin, z.zone, control.ID, client.ResourcePatch{UpstreamURL: none, CredentialProviderID: none, GatewayApplicationID: none})
	servertest.Expect(t, updated, http.StatusOK, "")
	if r := updated.JSON200; r.UpstreamURL != nil || r.CredentialProviderID != "provider-none-"+z.zone || r.GatewayApplicationID != nil {
		t.Errorf("the resource is %+v", *r)
	}
}

func TestUpdateResourceToAndFromControlResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t).ID
	is := client.Set[string]
	update := func(p client.ResourcePatch, want code.Code) (r client.Resource, bumped int64) {
		t.Helper()
		_, before := z.totals()
		resp := updateResource(t, a.Admin, z.zone, id, p)
		servertest.Expect(t, resp, http.StatusOK, want)
		if want == "" {
			r = *resp.JSON200
		}
		_, after := z.totals()
		return r, after - before
	}
	r, bumped := update(client.ResourcePatch{Identifier: new(controlAudience), CredentialProviderID: is("")}, "")
	if r.GatewayApplicationID != nil || r.CredentialProviderID != "provider-none-"+z.zone || r.UpstreamURL == nil || bumped != 1 {
		t.Errorf("the binding revision rose by %d; the resource is %+v", bumped, r)
	}
	servertest.Expect(t, getResource(t, a.ClientFor(z.zone, "read"), z.zone, id), 0, code.ResourceNotFound)
	update(client.ResourcePatch{Identifier: new("urn:x")}, code.GatewayApplicationRequired)
	r, bumped = update(client.ResourcePatch{Identifier: new("urn:x"), GatewayApplicationID: is(z.application)}, "")
	if *r.GatewayApplicationID != z.application || r.CredentialProviderID != "provider-none-"+z.zone || bumped != 1 {
		t.Errorf("the binding revision rose by %d; the resource is %+v", bumped, r)
	}
	readResource(t, a.ClientFor(z.zone, "read"), z.zone, id)
	servertest.Expect(t, deleteResource(t, a.ClientFor(z.zone, "write"), z.zone, id), http.StatusNoContent, "")
	z.control(t)
	z.checkTotals(t)
}

func TestCreateResourceControlResourceFindsOrCreatesItsProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	implicit := func(z resourceZone) string { return "provider-none-" + z.zone }
	add := func(z resourceZone, id, identifier, kind string) {
		a.DB.Exec("INSERT INTO providers (zone_id, id, name, identifier, kind) VALUES ($1, $2, 'Mine', $3, $4)", z.zone, id, identifier, kind)
	}
	for _, tt := range []struct {
		name       string
		before     func(z resourceZone)
		own        bool   // the zone's own provider, not one with the ID mine-…
		identifier string // the provider's
	}{
		{"no provider", func(resourceZone) {}, true, "provider://none"},
		{"its provider exists", func(z resourceZone) { add(z, implicit(z), "provider://none", "none") }, true, "provider://none"},
		{"its provider has another identifier", func(z resourceZone) { add(z, implicit(z), "provider://nothing", "none") }, true, "provider://nothing"},
		{"its provider is archived", func(z resourceZone) {
			add(z, implicit(z), "provider://none", "none")
			a.DB.Exec(archiveProvider, z.zone, implicit(z))
		}, true, "provider://none"},
		{"another provider has no credential", func(z resourceZone) { add(z, "mine-"+z.zone, "provider://none", "none") }, false, "provider://none"},
		{"its provider is archived and another has no credential", func(z resourceZone) {
			add(z, implicit(z), "provider://none", "none")
			a.DB.Exec(archiveProvider, z.zone, implicit(z))
			add(z, "mine-"+z.zone, "provider://none", "none")
		}, false, "provider://none"},
		{"another without credential is archived", func(z resourceZone) {
			add(z, "mine-"+z.zone, "provider://none", "none")
			a.DB.Exec(archiveProvider, z.zone, "mine-"+z.zone)
		}, true, "provider://none"},
		{"one of another kind has the identifier", func(z resourceZone) { add(z, "mine-"+z.zone, "provider://none", "api_key") }, true, "provider://none-2"},
		{"its provider is archived and one of another kind has the identifier", func(z resourceZone) {
			add(z, implicit(z), "provider://none", "none")
			a.DB.Exec(archiveProvider, z.zone, implicit(z))
			add(z, "mine-"+z.zone, "provider://none", "api_key")
		}, true, "provider://none-2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newResourceZone(a)
			tt.before(z)
			control := z.control(t)
			provider, err := a.Admin.GetProviderWithResponse(t.Context(), z.zone, control.CredentialProviderID)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, provider, http.StatusOK, "")
			if p := provider.JSON200; (p.ID == implicit(z)) != tt.own || p.Identifier != tt.identifier || p.Kind != client.ProviderKindNone {
				t.Errorf("its provider is %s", provider.Body)
			}
		})
	}
}

func TestUpdateResourceControlResourceRestoresItsProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	control := z.control(t)
	servertest.Expect(t, deleteProvider(t, a.Admin, z.zone, control.CredentialProviderID), 0, code.ProviderInUse)
	a.DB.Exec(archiveProvider, z.zone, control.CredentialProviderID) // as earlier versions allowed
	// A reference that does not change is not checked again.
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, control.ID, client.ResourcePatch{Name: new("x")}), http.StatusOK, "")
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, control.ID, client.ResourcePatch{CredentialProviderID: client.Null[string]()}), http.StatusOK, "")
	provider, err := a.Admin.GetProviderWithResponse(t.Context(), z.zone, control.CredentialProviderID)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, provider, http.StatusOK, "")
}

func TestCreateResourceOneControlResourcePerZone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for range 10 {
		z := newResourceZone(a)
		var got [2]int
		try := func(i int) func() {
			return func() {
				resp, err := a.Admin.CreateResourceWithResponse(t.Context(), z.zone, controlBody())
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = resp.StatusCode()
			}
		}
		concurrently(try(0), try(1))
		slices.Sort(got[:])
		if got != [2]int{http.StatusCreated, http.StatusConflict} {
			t.Errorf("the statuses are %v", got)
		}
		z.checkTotals(t)
	}
}

// Others may take the identifier of the control resource's provider at the same
// time.
func TestCreateResourceControlResourceProviderNeedsNoReservedNamespaceAccess(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for range 20 {
		z := newResourceZone(a)
		id := z.resource(t).ID
		concurrently(func() {
			resp, err := a.Admin.CreateProviderWithResponse(t.Context(), z.zone, client.NewProvider{Identifier: new("provider://none"), Kind: client.ProviderKindCaracalMandate})
			if err != nil || resp.StatusCode() != http.StatusCreated && resp.StatusCode() != http.StatusConflict {
				t.Errorf("%v: %s", err, resp.Body)
			}
		}, func() {
			resp, err := a.Admin.UpdateResourceWithResponse(t.Context(), z.zone, id, nil, client.ResourcePatch{Identifier: new(controlAudience), CredentialProviderID: client.Null[string]()})
			if err != nil || resp.StatusCode() != http.StatusOK {
				t.Errorf("%v: %s", err, resp.Body)
			}
		})
	}
}

func TestCreateResourceControlResourceNeverUsesProviderWithCredential(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	control := z.control(t)
	changed, err := a.ClientFor(z.zone, "write").UpdateProviderWithResponse(t.Context(), z.zone, control.CredentialProviderID, nil,
		client.ProviderPatch{Kind: new(client.ProviderKindAPIKey), ConfigJSON: rawConfig(keyConfig)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, changed, http.StatusOK, "")
	again := updateResource(t, a.Admin, z.zone, control.ID, client.ResourcePatch{CredentialProviderID: client.Null[string]()})
	servertest.Expect(t, again, http.StatusOK, "")
	provider := readProvider(t, a.Admin, z.zone, again.JSON200.CredentialProviderID)
	if provider.Kind != client.ProviderKindNone || readProvider(t, a.Admin, z.zone, control.CredentialProviderID).Kind != client.ProviderKindAPIKey {
		t.Errorf("it references %+v", provider)
	}
}
