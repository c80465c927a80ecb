package server_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oapi-codegen/nullable"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

const controlAudience = "caracal-control"

// A resourceZone is a zone with what a resource there needs.
type resourceZone struct {
	*servertest.API
	zone, provider, application string
}

func newResourceZone(a *servertest.API) resourceZone { return resourcesOf(a, a.Zone().ID) }

func resourcesOf(a *servertest.API, zone string) resourceZone {
	return resourceZone{a, zone, a.DB.Provider(zone), a.DB.Application(zone)}
}

// body is a resource that may be made, as often as one likes.
func (z resourceZone) body(change ...func(*client.NewResource)) client.NewResource {
	b := client.NewResource{
		Name: new("Invoices"), UpstreamURL: new("https://upstream.example.com"), Scopes: []string{"read", "write"},
		CredentialProviderID: &z.provider, GatewayApplicationID: &z.application,
		Operations: []client.NewResourceOperation{{Method: "GET", Path: "/invoices", Scope: "read"}},
	}
	for _, f := range change {
		f(&b)
	}
	return b
}

// resource creates a resource.
func (z resourceZone) resource(t *testing.T, change ...func(*client.NewResource)) client.Resource {
	t.Helper()
	resp := createResource(t, z.Admin, z.zone, z.body(change...))
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// control creates the control resource.
func (z resourceZone) control(t *testing.T) client.Resource {
	t.Helper()
	resp := createResource(t, z.Admin, z.zone, controlBody())
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

func controlBody() client.NewResource {
	return client.NewResource{Name: new("Control"), Identifier: new(controlAudience), Scopes: []string{"control"}}
}

// totals are how many resources of the zone are counted as live, and how often
// gateways have had to look.
func (z resourceZone) totals() (live, revision int64) {
	return storetest.Value[int64](z.DB, "SELECT coalesce(sum(live), 0)::bigint FROM resource_totals WHERE zone_id = $1", z.zone),
		storetest.Value[int64](z.DB, "SELECT coalesce(sum(binding_revision), 0)::bigint FROM resource_totals WHERE zone_id = $1", z.zone)
}

// counted fails unless as many live resources are counted as there are.
func (z resourceZone) counted(t *testing.T) {
	t.Helper()
	live, _ := z.totals()
	if there := storetest.Value[int64](z.DB, "SELECT count(*) FROM resources WHERE zone_id = $1 AND archived_at IS NULL", z.zone); live != there {
		t.Errorf("%d resources are counted, and %d are live", live, there)
	}
}

// registered are two applications that registered themselves, of which one has
// expired.
func registered(z resourceZone) (live, expired string) {
	z.DB.DCRApplications(z.zone, 2)
	all := storetest.Column[string](z.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", z.zone)
	z.DB.Exec("UPDATE applications SET expires_at = now() - interval '1 minute' WHERE zone_id = $1 AND id = $2", z.zone, all[1])
	return all[0], all[1]
}

func createResource(t *testing.T, as *client.ClientWithResponses, zone string, body client.NewResource) *client.CreateResourceResponse {
	t.Helper()
	resp, err := as.CreateResourceWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func getResource(t *testing.T, as *client.ClientWithResponses, zone, id string) *client.GetResourceResponse {
	t.Helper()
	resp, err := as.GetResourceWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func readResource(t *testing.T, as *client.ClientWithResponses, zone, id string) client.Resource {
	t.Helper()
	resp := getResource(t, as, zone, id)
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

func updateResource(t *testing.T, as *client.ClientWithResponses, zone, id string, body client.ResourcePatch) *client.UpdateResourceResponse {
	t.Helper()
	resp, err := as.UpdateResourceWithResponse(t.Context(), zone, id, nil, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func deleteResource(t *testing.T, as *client.ClientWithResponses, zone, id string) *client.DeleteResourceResponse {
	t.Helper()
	resp, err := as.DeleteResourceWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// atOnce runs all and waits for them.
func atOnce(all ...func()) {
	var running sync.WaitGroup
	start := make(chan struct{})
	for _, f := range all {
		running.Go(func() {
			<-start
			f()
		})
	}
	close(start)
	running.Wait()
}

const (
	archiveProvider = "UPDATE providers SET archived_at = now() WHERE zone_id = $1 AND id = $2"
	archiveResource = "UPDATE resources SET archived_at = now() WHERE zone_id = $1 AND id = $2"
)

func TestCreateResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, system := newResourceZone(a), newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	gone := a.DB.ArchivedZone()
	global, zoned := a.ClientFor("", "write"), a.ClientFor(z.zone, "write")
	taken := z.resource(t)
	archivedProvider, archivedApplication := a.DB.Provider(z.zone), a.DB.Application(z.zone)
	a.DB.Exec(archiveProvider, z.zone, archivedProvider)
	a.DB.Exec(archiveApplication, z.zone, archivedApplication)
	dcr, expired := registered(z)
	as := func(identifier string) func(*client.NewResource) {
		return func(b *client.NewResource) { b.Identifier = &identifier }
	}
	provided := func(id string) func(*client.NewResource) {
		return func(b *client.NewResource) { b.CredentialProviderID = &id }
	}
	exchanged := func(id string) func(*client.NewResource) {
		return func(b *client.NewResource) { b.GatewayApplicationID = &id }
	}
	for _, tt := range []struct {
		name   string
		as     *client.ClientWithResponses
		in     resourceZone
		change func(*client.NewResource)
		want   code.Code // "" is 201
	}{
		{"name only", a.Admin, z, nil, ""},
		{"identifier only", a.Admin, z, func(b *client.NewResource) { b.Name, b.Identifier = nil, new("https://only.example.com") }, ""},
		{"both", a.Admin, z, as("https://both.example.com"), ""},
		{"neither", a.Admin, z, func(b *client.NewResource) { b.Name = nil }, code.InvalidResource},
		{"no operations", a.Admin, z, func(b *client.NewResource) { b.Operations = nil }, ""},
		{"transport_uniform", a.Admin, z, func(b *client.NewResource) { b.OperationEnforcement = new(client.OperationEnforcementTransportUniform) }, ""},
		{"enforced in no way that there is", a.Admin, z, func(b *client.NewResource) { b.OperationEnforcement = new(client.OperationEnforcement("Enforced")) }, code.InvalidResource},
		{"by a zone token", zoned, z, nil, ""},
		{"by a global token", global, z, nil, ""},
		{"name of one space", a.Admin, z, func(b *client.NewResource) { b.Name, b.Identifier = new(" "), new("urn:one-space") }, ""},
		{"the longest name", a.Admin, z, func(b *client.NewResource) { b.Name = new(strings.Repeat("😀", 200)) }, ""},
		{"name too long", a.Admin, z, func(b *client.NewResource) { b.Name = new(strings.Repeat("é", 201)) }, code.InvalidResource},
		{"name empty", a.Admin, z, func(b *client.NewResource) { b.Name = new("") }, code.InvalidResource},
		{"a scope twice, and an empty one", a.Admin, z, func(b *client.NewResource) { b.Scopes = []string{"read", "", "read"} }, ""},
		{"no scopes", a.Admin, z, func(b *client.NewResource) { b.Scopes = []string{} }, code.InvalidResource},
		{"no provider", a.Admin, z, func(b *client.NewResource) { b.CredentialProviderID = nil }, code.CredentialProviderRequired},
		{"an empty provider", a.Admin, z, provided(""), code.CredentialProviderRequired},
		{"provider unknown", a.Admin, z, provided("nobody"), code.ProviderNotFound},
		{"provider archived", a.Admin, z, provided(archivedProvider), code.ProviderNotFound},
		{"provider of another zone", a.Admin, z, provided(other.provider), code.ProviderNotFound},
		{"no upstream", a.Admin, z, func(b *client.NewResource) { b.UpstreamURL = nil }, code.UpstreamURLRequired},
		{"no application", a.Admin, z, func(b *client.NewResource) { b.GatewayApplicationID = nil }, code.GatewayApplicationRequired},
		{"an empty application", a.Admin, z, exchanged(""), code.InvalidResource},
		{"application unknown", a.Admin, z, exchanged("nobody"), code.GatewayApplicationNotFound},
		{"application archived", a.Admin, z, exchanged(archivedApplication), code.GatewayApplicationNotFound},
		{"application expired", a.Admin, z, exchanged(expired), code.GatewayApplicationNotFound},
		{"application registered by itself", a.Admin, z, exchanged(dcr), code.GatewayExchangeApplicationMustBeManaged},
		{"application of another zone", a.Admin, z, exchanged(other.application), code.GatewayApplicationNotFound},
		{"identifier taken", a.Admin, z, as(taken.Identifier), code.ResourceIdentifierConflict},
		{"identifier taken in another zone", a.Admin, other, as(taken.Identifier), ""},
		{"identifier that differs in case", a.Admin, z, as(strings.ToUpper(taken.Identifier)), ""},
		{"reserved", a.Admin, z, as("caracal-sys://x"), ""},
		{"reserved, not bootstrap", global, z, as("Caracal-SYS://y"), code.ReservedNamespace},
		{"reserved, by a zone token", zoned, z, as("caracal-sys://y"), code.ReservedNamespace},
		{"almost reserved", zoned, z, as("caracal-sysx://y"), ""},
		{"zone unknown", a.Admin, resourceZone{a, "nowhere", z.provider, z.application}, nil, code.ZoneNotFound},
		{"zone archived", a.Admin, resourceZone{a, gone, z.provider, z.application}, nil, code.ZoneNotFound},
		{"Caracal's own zone", a.Admin, system, nil, ""},
		{"Caracal's own zone, not bootstrap", global, system, nil, code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), z, nil, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other.zone, "write"), z, nil, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			body := tt.in.body()
			if tt.change != nil {
				tt.change(&body)
			}
			resp := createResource(t, tt.as, tt.in.zone, body)
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			made := *resp.JSON201
			want := client.Resource{
				ID: made.ID, ZoneID: tt.in.zone, Identifier: made.Identifier, UpstreamURL: body.UpstreamURL, Scopes: body.Scopes,
				CredentialProviderID: *body.CredentialProviderID, GatewayApplicationID: body.GatewayApplicationID,
				Operations: []client.ResourceOperation{}, OperationEnforcement: client.OperationEnforcementEnforced,
				CreatedAt: made.CreatedAt, UpdatedAt: made.CreatedAt,
			}
			if body.Identifier != nil {
				want.Name, want.Identifier = *body.Identifier, *body.Identifier
			}
			if body.Name != nil {
				want.Name = *body.Name
			}
			for _, o := range body.Operations {
				want.Operations = append(want.Operations, client.ResourceOperation(o))
			}
			if body.OperationEnforcement != nil {
				want.OperationEnforcement = *body.OperationEnforcement
			}
			read := getResource(t, tt.as, tt.in.zone, made.ID)
			servertest.Expect(t, read, http.StatusOK, "")
			if !reflect.DeepEqual(made, want) || !reflect.DeepEqual(*read.JSON200, want) {
				t.Errorf("answered %+v, then read %+v, want %+v", made, *read.JSON200, want)
			}
			if tag := resp.HTTPResponse.Header.Get("ETag"); tag == "" || tag != read.HTTPResponse.Header.Get("ETag") {
				t.Errorf("its version is %s, and then %s", tag, read.HTTPResponse.Header.Get("ETag"))
			}
		})
	}
}

// What the client cannot say is said by hand, to create and to change alike.
func TestAResourceIsWhatTheSpecAdmits(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	for _, tt := range []struct {
		name, member string // a JSON member
		create       code.Code
		update       code.Code
	}{
		{"scopes that are no strings", `"scopes":[1]`, code.InvalidResource, code.InvalidResource},
		{"scopes that are no list", `"scopes":"read"`, code.InvalidResource, code.InvalidResource},
		{"scopes null", `"scopes":null`, code.InvalidResource, code.InvalidResource},
		{"scopes empty", `"scopes":[]`, code.InvalidResource, code.InvalidResource},
		{"name null", `"name":null`, code.InvalidResource, code.InvalidResource},
		{"identifier null", `"identifier":null`, code.InvalidResource, code.InvalidResource},
		{"identifier a number", `"identifier":7`, code.InvalidResource, code.InvalidResource},
		{"identifier with a NUL", `"identifier":"https://x.example.com/\u0000"`, code.InvalidResource, code.InvalidResource},
		{"upstream null", `"upstream_url":null`, code.UpstreamURLRequired, code.UpstreamURLRequired},
		{"upstream a number", `"upstream_url":1`, code.InvalidResource, code.InvalidResource},
		{"provider null", `"credential_provider_id":null`, code.CredentialProviderRequired, code.CredentialProviderRequired},
		{"provider empty", `"credential_provider_id":""`, code.CredentialProviderRequired, code.CredentialProviderRequired},
		{"application null", `"gateway_application_id":null`, code.GatewayApplicationRequired, code.GatewayApplicationRequired},
		{"application empty", `"gateway_application_id":""`, code.InvalidResource, code.InvalidResource},
		{"operations null", `"operations":null`, code.InvalidResource, code.InvalidResource},
		{"operations an object", `"operations":{}`, code.InvalidResource, code.InvalidResource},
		{"operation a string", `"operations":["GET /"]`, code.InvalidResource, code.InvalidResource},
		{"operation without a method", `"operations":[{"path":"/x","scope":"read"}]`, code.InvalidResource, code.InvalidResource},
		{"operation without a path", `"operations":[{"method":"GET","scope":"read"}]`, code.InvalidResource, code.InvalidResource},
		{"operation without a scope", `"operations":[{"method":"GET","path":"/x"}]`, code.InvalidResource, code.InvalidResource},
		{"operation whose method is empty", `"operations":[{"method":"","path":"/x","scope":"read"}]`, code.InvalidResource, code.InvalidResource},
		{"operation whose path is empty", `"operations":[{"method":"GET","path":"","scope":"read"}]`, code.InvalidResource, code.InvalidResource},
		{"operation whose scope is empty", `"operations":[{"method":"GET","path":"/x","scope":""}]`, code.InvalidResource, code.InvalidResource},
		{"operation with more than it has", `"operations":[{"method":"GET","path":"/x","scope":"read","id":"x","extra":{"y":[1]}}]`, "", ""},
		{"scopes larger than 64 KiB", `"scopes":["read","` + strings.Repeat("x", 64<<10) + `"]`, code.InvalidResource, code.InvalidResource},
		{"scopes and operations larger than 64 KiB", `"scopes":["read","` + strings.Repeat("x", 60<<10) + `"],"operations":[{"method":"GET","path":"/` + strings.Repeat("x", 4<<10) + `","scope":"read"}]`, code.InvalidResource, code.InvalidResource},
		{"enforcement null", `"operation_enforcement":null`, code.InvalidResource, code.InvalidResource},
		{"a member that it has not", `"archived_at":"2026-01-01T00:00:00.000Z"`, "", code.NoFields},
		{"its own id", `"id":"mine"`, "", code.NoFields},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			send := func(method, path, body string) servertest.RawResponse {
				return a.Do(method, "/v1/zones/"+z.zone+"/resources"+path, body, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
			}
			before := z.resource(t)
			// Of two members with one name the last counts.
			whole := fmt.Sprintf(`{"name":"x","scopes":["read"],"upstream_url":"https://x.example.com","credential_provider_id":%q,"gateway_application_id":%q,%s}`, z.provider, z.application, tt.member)
			created, updated := send("POST", "", whole), send("PATCH", "/"+before.ID, "{"+tt.member+"}")
			servertest.Expect(t, created, http.StatusCreated, tt.create)
			servertest.Expect(t, updated, http.StatusOK, tt.update)
			if tt.update != "" {
				if after := readResource(t, a.Admin, z.zone, before.ID); !reflect.DeepEqual(after, before) {
					t.Errorf("it was %+v and is %+v", before, after)
				}
				return
			}
			want := []client.ResourceOperation{{Method: "GET", Path: "/x", Scope: "read"}}
			for _, raw := range []servertest.RawResponse{created, updated} {
				if got := decode[client.Resource](t, raw).Operations; !slices.Equal(got, want) {
					t.Errorf("its operations are %+v", got)
				}
			}
		})
	}
}

func TestAnIdentifierIsAnAudience(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	for _, tt := range []struct {
		name, identifier string
		want             code.Code
	}{
		{"https", "https://api.example.com/v1?x=y#z", ""},
		{"https with a port", "https://api.example.com:8443", ""},
		{"http on an IPv6 address", "http://[2001:db8::1]:80/", ""},
		{"upper case", "HTTPS://API.example.com", ""},
		{"urn", "urn:example:invoices", ""},
		{"resource", "resource://ledger", ""},
		{"a scheme of one's own", "x-y+z.1:a@b", ""},
		{"a host that is not ASCII", "https://münchen.example/ü", ""},
		{"the longest", "urn:" + strings.Repeat("é", 496), ""},
		{"too long", "urn:" + strings.Repeat("é", 497), code.InvalidResource},
		{"empty", "", code.InvalidResource},
		{"a word", "invoices", code.InvalidResourceIdentifier},
		{"a path", "/invoices", code.InvalidResourceIdentifier},
		{"relative to a scheme", "//api.example.com", code.InvalidResourceIdentifier},
		{"a colon first", ":x", code.InvalidResourceIdentifier},
		{"a digit first", "1x:y", code.InvalidResourceIdentifier},
		{"a provider", "provider://x", code.InvalidResourceIdentifier},
		{"a provider in upper case", "PROVIDER://x", code.InvalidResourceIdentifier},
		{"a provider in any case", "pRoViDeR:x", code.InvalidResourceIdentifier},
		{"a provider after a space", " provider://x", code.InvalidResourceIdentifier},
		{"almost a provider", "providers://x", ""},
		{"user and password", "https://user:password@api.example.com", code.InvalidResourceIdentifier},
		{"user", "resource://user@invoices", code.InvalidResourceIdentifier},
		{"user, where a browser would look for it", "https:user@api.example.com", code.InvalidResourceIdentifier},
		{"user, one slash", "https:/user@api.example.com", code.InvalidResourceIdentifier},
		{"user, three slashes", "https:///user@api.example.com", code.InvalidResourceIdentifier},
		{"https without a host", "https://", code.InvalidResourceIdentifier},
		{"https on a port that there is not", "https://api.example.com:65536", code.InvalidResourceIdentifier},
		{"a space", " ", code.InvalidResourceIdentifier},
		{"a space first", " https://api.example.com", code.InvalidResourceIdentifier},
		{"a space in the host", "https://api example.com", code.InvalidResourceIdentifier},
		{"a space last", "https://api.example.com ", code.InvalidResourceIdentifier},
		{"a line feed", "https://api.example.com/\n", code.InvalidResourceIdentifier},
		{"a tab before the scheme's colon", "provider\t://x", code.InvalidResourceIdentifier},
		{"almost the control audience", "Caracal-Control", code.InvalidResourceIdentifier},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := z.resource(t)
			identified := func(b *client.NewResource) { b.Identifier = &tt.identifier }
			created := createResource(t, a.Admin, z.zone, z.body(identified))
			servertest.Expect(t, created, http.StatusCreated, tt.want)
			if tt.want == "" {
				servertest.Expect(t, deleteResource(t, a.Admin, z.zone, created.JSON201.ID), http.StatusNoContent, "")
			}
			updated := updateResource(t, a.Admin, z.zone, before.ID, client.ResourcePatch{Identifier: &tt.identifier})
			servertest.Expect(t, updated, http.StatusOK, tt.want)
			after := readResource(t, a.Admin, z.zone, before.ID)
			switch tt.want {
			case "":
				if created.JSON201.Identifier != tt.identifier || after.Identifier != tt.identifier {
					t.Errorf("it is %q, and %q", created.JSON201.Identifier, after.Identifier)
				}
				return
			case code.InvalidResourceIdentifier:
				for _, refused := range []servertest.Response{created, updated} {
					problem := decode[struct{ Message string }](t, servertest.RawResponse{Body: refused.GetBody()})
					if problem.Message != "resource identifier must be an absolute resource audience URI and must not use the provider:// namespace" {
						t.Errorf("answered %s", refused.GetBody())
					}
				}
			}
			if !reflect.DeepEqual(after, before) {
				t.Errorf("it was %+v and is %+v", before, after)
			}
		})
	}
}

func TestAnUpstreamIsAWebAddress(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	for _, tt := range []struct {
		name, upstream, stored string
		want                   code.Code
	}{
		{"https", "https://api.example.com/v1?x=y", "https://api.example.com/v1?x=y", ""},
		{"http", "http://10.0.0.1:8080", "http://10.0.0.1:8080", ""},
		{"upper case", "HTTPS://API.example.com", "HTTPS://API.example.com", ""},
		{"the highest port", "http://x:65535", "http://x:65535", ""},
		{"spaces around it", " \t\n\uFEFFhttps://api.example.com\u00A0\n", "https://api.example.com", ""},
		{"the longest", "https://" + strings.Repeat("x", 2040), "https://" + strings.Repeat("x", 2040), ""},
		{"too long", "https://" + strings.Repeat("x", 2041), "", code.InvalidResource},
		{"empty", "", "", code.InvalidResource},
		{"spaces", "  ", "", code.InvalidResource},
		{"ftp", "ftp://x", "", code.InvalidResource},
		{"a socket", "ws://x", "", code.InvalidResource},
		{"a script", "javascript:alert(1)", "", code.InvalidResource},
		{"a word", "foo", "", code.InvalidResource},
		{"relative to a scheme", "//x", "", code.InvalidResource},
		{"no authority", "http:x", "", code.InvalidResource},
		{"one slash", "http:/x", "", code.InvalidResource},
		{"an empty authority", "https:///x", "", code.InvalidResource},
		{"a port alone", "http://:80", "", code.InvalidResource},
		{"a port that there is not", "http://x:99999", "", code.InvalidResource},
		{"the first port that there is not", "http://x:65536", "", code.InvalidResource},
		{"a port beyond all numbers", "http://x:99999999999999999999", "", code.InvalidResource},
		{"a port that is no number", "http://x:http", "", code.InvalidResource},
		{"half an IPv6 address", "http://[::1", "", code.InvalidResource},
		{"a space in the host", "http://a b", "", code.InvalidResource},
		{"a line feed in the path", "http://x/a\nb", "", code.InvalidResource},
		{"a badly encoded host", "http://%zz", "", code.InvalidResource},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := z.resource(t)
			created := createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.UpstreamURL = &tt.upstream }))
			servertest.Expect(t, created, http.StatusCreated, tt.want)
			updated := updateResource(t, a.Admin, z.zone, before.ID, client.ResourcePatch{UpstreamURL: nullable.NewNullableWithValue(tt.upstream)})
			servertest.Expect(t, updated, http.StatusOK, tt.want)
			after := readResource(t, a.Admin, z.zone, before.ID)
			if tt.want != "" {
				if !reflect.DeepEqual(after, before) {
					t.Errorf("it was %+v and is %+v", before, after)
				}
				return
			}
			if *created.JSON201.UpstreamURL != tt.stored || *after.UpstreamURL != tt.stored {
				t.Errorf("it is %q, and %q", *created.JSON201.UpstreamURL, *after.UpstreamURL)
			}
		})
	}
}

func TestOperationsAreNormalisedAndHeldAgainstTheScopes(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	type operations = []client.NewResourceOperation
	for _, tt := range []struct {
		name       string
		operations operations
		stored     []client.ResourceOperation
		want       code.Code
	}{
		{"none", operations{}, []client.ResourceOperation{}, ""},
		{"in lower case, spaces around it", operations{{Method: " post\t", Path: "\n/a b ", Scope: "write"}}, []client.ResourceOperation{{Method: "POST", Path: "/a b", Scope: "write"}}, ""},
		{"in the order in which they were said", operations{{Method: "PUT", Path: "/z", Scope: "read"}, {Method: "GET", Path: "/<&\"\\é", Scope: "read"}, {Method: "GET", Path: "/z", Scope: "write"}},
			[]client.ResourceOperation{{Method: "PUT", Path: "/z", Scope: "read"}, {Method: "GET", Path: "/<&\"\\é", Scope: "read"}, {Method: "GET", Path: "/z", Scope: "write"}}, ""},
		{"paths that differ in case", operations{{Method: "GET", Path: "/a", Scope: "read"}, {Method: "GET", Path: "/A", Scope: "read"}},
			[]client.ResourceOperation{{Method: "GET", Path: "/a", Scope: "read"}, {Method: "GET", Path: "/A", Scope: "read"}}, ""},
		{"method of spaces", operations{{Method: "  ", Path: "/x", Scope: "read"}}, nil, code.OperationMethodAndPathRequired},
		{"path of spaces", operations{{Method: "GET", Path: "\uFEFF ", Scope: "read"}}, nil, code.OperationMethodAndPathRequired},
		{"path relative", operations{{Method: "GET", Path: "x", Scope: "read"}}, nil, code.OperationPathMustBeAbsolute},
		{"path a URL", operations{{Method: "GET", Path: "https://x/", Scope: "read"}}, nil, code.OperationPathMustBeAbsolute},
		{"scope unknown", operations{{Method: "GET", Path: "/x", Scope: "admin"}}, nil, code.OperationScopeNotInResourceScopes},
		{"scope in another case", operations{{Method: "GET", Path: "/x", Scope: "Read"}}, nil, code.OperationScopeNotInResourceScopes},
		{"scope with spaces around it", operations{{Method: "GET", Path: "/x", Scope: " read"}}, nil, code.OperationScopeNotInResourceScopes},
		{"twice", operations{{Method: "GET", Path: "/x", Scope: "read"}, {Method: "GET", Path: "/x", Scope: "write"}}, nil, code.OperationDuplicate},
		{"twice, once it is normalised", operations{{Method: "GET", Path: "/x", Scope: "read"}, {Method: " get", Path: "/x ", Scope: "read"}}, nil, code.OperationDuplicate},
		{"the first that is wrong is told", operations{{Method: "GET", Path: "x", Scope: "read"}, {Method: " ", Path: " ", Scope: "read"}}, nil, code.OperationPathMustBeAbsolute},
		{"of what is wrong with one, the first is told", operations{{Method: " ", Path: "x", Scope: "admin"}}, nil, code.OperationMethodAndPathRequired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before := z.resource(t)
			created := createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.Operations = tt.operations }))
			servertest.Expect(t, created, http.StatusCreated, tt.want)
			updated := updateResource(t, a.Admin, z.zone, before.ID, client.ResourcePatch{Operations: &tt.operations})
			servertest.Expect(t, updated, http.StatusOK, tt.want)
			after := readResource(t, a.Admin, z.zone, before.ID)
			if tt.want != "" {
				if !reflect.DeepEqual(after, before) {
					t.Errorf("it was %+v and is %+v", before, after)
				}
				return
			}
			if !reflect.DeepEqual(created.JSON201.Operations, tt.stored) || !reflect.DeepEqual(after.Operations, tt.stored) {
				t.Errorf("they are %+v, and %+v", created.JSON201.Operations, after.Operations)
			}
		})
	}
}

func TestANameSuggestsAnIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name string
		said []string // names of resources, one made after the other
		want []string // their identifiers, or a code
	}{
		{"words", []string{"  The Invoices, 2nd (é) "}, []string{"resource://the-invoices-2nd"}},
		{"taken", []string{"A", "a", "a!"}, []string{"resource://a", "resource://a-2", "resource://a-3"}},
		{"a numbered one taken", []string{"a-2", "a", "a"}, []string{"resource://a-2", "resource://a", "resource://a-3"}},
		{"an identifier", []string{" resource://Some/Thing?x ", "resource://Some/Thing?x"}, []string{"resource://Some/Thing?x", "resource://Some/Thing?x-2"}},
		{"an identifier in upper case is a name", []string{"RESOURCE://x"}, []string{"resource://resource-x"}},
		{"no letters", []string{"😀", " "}, []string{"resource://resource", "resource://resource-2"}},
		{"an identifier with a user", []string{"resource://user@x"}, []string{string(code.InvalidResourceIdentifier)}},
		{"an identifier with a space in its host", []string{"resource://a b"}, []string{string(code.InvalidResourceIdentifier)}},
		{"a name out of the reserved namespace leads elsewhere", []string{"caracal-sys://x"}, []string{"resource://caracal-sys-x"}},
		{"a number after which it is no audience any more", []string{"resource://x:80", "resource://x:80"}, []string{"resource://x:80", string(code.ResourceIdentifierConflict)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			z := newResourceZone(a)
			var got []string
			for _, name := range tt.said {
				resp := createResource(t, a.ClientFor("", "write"), z.zone, z.body(func(b *client.NewResource) { b.Name = &name }))
				if resp.JSON201 == nil {
					got = append(got, problemOf(t, resp).Error)
					continue
				}
				got = append(got, resp.JSON201.Identifier)
				if resp.JSON201.Name != name {
					t.Errorf("its name is %q", resp.JSON201.Name)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			z.counted(t)
		})
	}
}

func TestAfterNineHundredNumbersAnIdentifierIsUnguessable(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	a.DB.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement)
		SELECT $1, 'r-' || n, 'x', 'resource://x' || CASE n WHEN 1 THEN '' ELSE '-' || n END, '{read}', $2, 'enforced' FROM generate_series(1, 999) AS n`, z.zone, z.provider)
	made := z.resource(t, func(b *client.NewResource) { b.Name = new("x") })
	if rest, ok := strings.CutPrefix(made.Identifier, "resource://x-"); !ok || len(rest) != 32 {
		t.Errorf("it is %s", made.Identifier)
	}
}

func TestHoweverManyChooseANameAtOnceEachGetsAnIdentifier(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	const many = 20
	var got, want [many]string
	all := make([]func(), many)
	for i := range all {
		want[i] = "resource://invoices"
		if i > 0 {
			want[i] = fmt.Sprintf("resource://invoices-%d", i+1)
		}
		all[i] = func() {
			resp, err := a.Admin.CreateResourceWithResponse(t.Context(), z.zone, z.body())
			if err != nil || resp.JSON201 == nil {
				t.Errorf("%v: %s", err, resp.Body)
				return
			}
			got[i] = resp.JSON201.Identifier
		}
	}
	atOnce(all...)
	slices.Sort(got[:])
	slices.Sort(want[:])
	if got != want {
		t.Errorf("got %q", got)
	}
	z.counted(t)
}

func TestAnIdentifierIsFreeOnceItsResourceIsGone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	first := z.resource(t)
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, first.ID), http.StatusNoContent, "")
	if again := z.resource(t); again.Identifier != first.Identifier {
		t.Errorf("it was %s and is now %s", first.Identifier, again.Identifier)
	}
	third := z.resource(t)
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, third.ID, client.ResourcePatch{Identifier: new("urn:third")}), http.StatusOK, "")
	if fourth := z.resource(t); fourth.Identifier != third.Identifier {
		t.Errorf("what was %s is free, and yet it became %s", third.Identifier, fourth.Identifier)
	}
	z.counted(t)
}

func TestAZoneHasNoMoreResourcesThanItMay(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_MAX_RESOURCES_PER_ZONE=3")
	z, other := newResourceZone(a), newResourceZone(a)
	var mu sync.Mutex
	got := map[int]int{}
	var made []string
	all := make([]func(), 10)
	for i := range all {
		all[i] = func() {
			resp, err := a.Admin.CreateResourceWithResponse(t.Context(), z.zone, z.body())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[resp.StatusCode()]++
			if resp.JSON201 != nil {
				made = append(made, resp.JSON201.ID)
			}
		}
	}
	atOnce(all...)
	if got[http.StatusCreated] != 3 || got[http.StatusConflict] != 7 {
		t.Fatalf("of ten, answers were %v", got)
	}
	servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body()), 0, code.ResourceQuotaExceeded)
	servertest.Expect(t, createResource(t, a.Admin, z.zone, controlBody()), 0, code.ResourceQuotaExceeded)
	z.counted(t)
	other.resource(t)
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, made[0]), http.StatusNoContent, "")
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, made[0]), 0, code.ResourceNotFound)
	servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.Scopes = []string{"other"} })), 0, code.OperationScopeNotInResourceScopes)
	z.resource(t)
	servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body()), 0, code.ResourceQuotaExceeded)
	z.counted(t)
}

func TestWithoutALimitAZoneHasAsManyResourcesAsOneLikes(t *testing.T) {
	t.Parallel()
	z := newResourceZone(servertest.New(t, "API_MAX_RESOURCES_PER_ZONE=0"))
	for range 3 {
		z.resource(t)
	}
	z.counted(t)
}

func TestGetResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newResourceZone(a), newResourceZone(a)
	live, gone, elsewhere := z.resource(t).ID, z.resource(t).ID, other.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, gone)
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string
		want     code.Code
	}{
		{"global read", a.ClientFor("", "read"), z.zone, live, ""},
		{"zone read", a.ClientFor(z.zone, "read"), z.zone, live, ""},
		{"archived", a.Admin, z.zone, gone, code.ResourceNotFound},
		{"unknown", a.Admin, z.zone, "nothing", code.ResourceNotFound},
		{"of another zone", a.Admin, z.zone, elsewhere, code.ResourceNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ResourceNotFound},
		{"token of another zone", a.ClientFor(other.zone, "read"), z.zone, live, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp := getResource(t, tt.as, tt.zone, tt.id)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("asked for %s, got %+v", tt.id, resp.JSON200)
			}
		})
	}
}

func TestListResources(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, empty, other := newResourceZone(a), a.Zone().ID, newResourceZone(a)
	first, gone, control, last := z.resource(t).ID, z.resource(t).ID, z.control(t).ID, z.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, gone)
	other.resource(t)
	for _, tt := range []struct {
		name string
		as   *client.ClientWithResponses
		zone string
		want []string // ids; none is [] and not null
	}{
		{"global read", a.ClientFor("", "read"), z.zone, []string{last, control, first}},
		{"zone read", a.ClientFor(z.zone, "read"), z.zone, []string{last, first}},
		{"of a zone that has none", a.Admin, empty, nil},
		{"of a zone that there is not", a.Admin, "nowhere", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.as.ListResourcesWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			var got []string
			for _, one := range *resp.JSON200 {
				got = append(got, one.ID)
			}
			if !slices.Equal(got, tt.want) || tt.want == nil && strings.TrimSpace(string(resp.Body)) != "[]" {
				t.Errorf("got %s, want %v", resp.Body, tt.want)
			}
		})
	}
}

func TestListResourcesShowsEachOnceThoughTheyShareATimestamp(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newResourceZone(a), newResourceZone(a)
	const many = 47
	for _, in := range []resourceZone{z, other} {
		a.DB.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement, created_at)
			SELECT $1, 'r-' || n, 'Resource', 'urn:' || n, '{read}', $2, 'enforced', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $3) AS n`, in.zone, in.provider, many)
	}
	seen := map[string]int{}
	pages := eachPage(t, a, "/v1/zones/"+z.zone+"/resources?limit=10", func(one client.Resource) {
		if one.ZoneID != z.zone {
			t.Errorf("saw %+v", one)
		}
		seen[one.ID]++
	})
	for n := range many {
		if id := fmt.Sprintf("r-%d", n+1); seen[id] != 1 {
			t.Errorf("%s was seen %d times", id, seen[id])
		}
	}
	if pages != 5 || len(seen) != many {
		t.Errorf("%d resources on %d pages", len(seen), pages)
	}
	first := a.Do("GET", "/v1/zones/"+z.zone+"/resources?limit=10", "", bearer(servertest.Bootstrap)...)
	for _, elsewhere := range []string{strings.Replace(next(first), z.zone, other.zone, 1), strings.Replace(next(first), "/resources", "/providers", 1)} {
		servertest.Expect(t, a.Do("GET", elsewhere, "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
	}
}

// A page hides the control resource and is full nevertheless.
func TestAPageIsFullThoughTheControlResourceIsHidden(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	z.resource(t)
	z.control(t)
	z.resource(t)
	resp, err := a.ClientFor(z.zone, "read").ListResourcesWithResponse(t.Context(), z.zone, &client.ListResourcesParams{Limit: new(2)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if link := resp.HTTPResponse.Header.Get("Link"); len(*resp.JSON200) != 2 || link != "" {
		t.Errorf("it has %d resources and a link to %q", len(*resp.JSON200), link)
	}
}

// A page is written by hand, an item by encoding/json.
func TestAPageShowsAResourceAsItself(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	hard := "\"\\</>&\u2028\u2029\u007f\t\n\x01é😀\uFFFD"
	z.resource(t, func(b *client.NewResource) {
		b.Name, b.Identifier, b.Scopes = &hard, new(`urn:<&>"\é😀`), []string{hard, "", hard}
		b.Operations = []client.NewResourceOperation{{Method: "é" + hard, Path: "/" + hard, Scope: hard}}
		b.UpstreamURL = new(`https://x.example.com/<&>"é?'`)
		b.OperationEnforcement = new(client.OperationEnforcementTransportUniform)
	})
	z.resource(t, func(b *client.NewResource) { b.Operations = nil })
	z.control(t)
	unbound := z.resource(t)
	a.DB.Exec("UPDATE resources SET gateway_application_id = NULL, updated_at = '2026-07-01 12:00:00.1239Z' WHERE id = $1", unbound.ID)
	list := a.Do("GET", "/v1/zones/"+z.zone+"/resources", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, list, http.StatusOK, "")
	page := decode[[]map[string]any](t, list)
	if len(page) != 4 {
		t.Fatalf("it has %d resources", len(page))
	}
	for _, listed := range page {
		item := a.Do("GET", fmt.Sprintf("/v1/zones/%s/resources/%s", z.zone, listed["id"]), "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, item, http.StatusOK, "")
		if one := decode[map[string]any](t, item); !reflect.DeepEqual(listed, one) {
			t.Errorf("the list shows\n%v\nand the item is\n%v", listed, one)
		}
	}
}

func TestUpdateResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, system := newResourceZone(a), newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	gone := a.DB.ArchivedZone()
	global, zoned := a.ClientFor("", "write"), a.ClientFor(z.zone, "write")
	taken, archived, elsewhere := z.resource(t), z.resource(t).ID, other.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, archived)
	provider, archivedProvider := a.DB.Provider(z.zone), a.DB.Provider(z.zone)
	application, archivedApplication := a.DB.Application(z.zone), a.DB.Application(z.zone)
	a.DB.Exec(archiveProvider, z.zone, archivedProvider)
	a.DB.Exec(archiveApplication, z.zone, archivedApplication)
	dcr, expired := registered(z)
	reserved := z.resource(t, func(b *client.NewResource) { b.Identifier = new("caracal-sys://x") }).ID
	is, none := nullable.NewNullableWithValue[string], nullable.NewNullNullable[string]()
	type patch = client.ResourcePatch
	named := patch{Name: new("New name")}
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string // id "": a new resource of z
		body     patch
		want     code.Code
	}{
		{"name", a.Admin, z.zone, "", named, ""},
		{"name of one space", a.Admin, z.zone, "", patch{Name: new(" ")}, ""},
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
		{"by a zone token", zoned, z.zone, "", named, ""},
		{"by a global token", global, z.zone, "", named, ""},
		{"nothing", a.Admin, z.zone, "", patch{}, code.NoFields},
		{"nothing, of nothing", a.Admin, z.zone, "nothing", patch{}, code.NoFields},
		{"name empty", a.Admin, z.zone, "", patch{Name: new("")}, code.InvalidResource},
		{"name too long", a.Admin, z.zone, "", patch{Name: new(strings.Repeat("é", 201))}, code.InvalidResource},
		{"upstream null", a.Admin, z.zone, "", patch{UpstreamURL: none}, code.UpstreamURLRequired},
		{"provider null", a.Admin, z.zone, "", patch{CredentialProviderID: none}, code.CredentialProviderRequired},
		{"provider empty", a.Admin, z.zone, "", patch{CredentialProviderID: is("")}, code.CredentialProviderRequired},
		{"provider unknown", a.Admin, z.zone, "", patch{CredentialProviderID: is("nobody")}, code.ProviderNotFound},
		{"provider unknown, of nothing", a.Admin, z.zone, "nothing", patch{CredentialProviderID: is("nobody")}, code.ProviderNotFound},
		{"provider archived", a.Admin, z.zone, "", patch{CredentialProviderID: is(archivedProvider)}, code.ProviderNotFound},
		{"provider of another zone", a.Admin, z.zone, "", patch{CredentialProviderID: is(other.provider)}, code.ProviderNotFound},
		{"application null", a.Admin, z.zone, "", patch{GatewayApplicationID: none}, code.GatewayApplicationRequired},
		{"application unknown", a.Admin, z.zone, "", patch{GatewayApplicationID: is("nobody")}, code.GatewayApplicationNotFound},
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
		{"into the reserved namespace, not bootstrap", zoned, z.zone, "", patch{Identifier: new("CARACAL-sys://z")}, code.ReservedNamespace},
		{"out of the reserved namespace, not bootstrap", global, z.zone, reserved, patch{Identifier: new("urn:out")}, code.ReservedNamespace},
		{"unknown", a.Admin, z.zone, "nothing", named, code.ResourceNotFound},
		{"archived", a.Admin, z.zone, archived, named, code.ResourceNotFound},
		{"of another zone", a.Admin, z.zone, elsewhere, named, code.ResourceNotFound},
		{"zone unknown", a.Admin, "nowhere", "nothing", named, code.ZoneNotFound},
		{"zone archived", a.Admin, gone, "nothing", named, code.ZoneNotFound},
		{"Caracal's own zone", a.Admin, system.zone, system.resource(t).ID, named, ""},
		{"Caracal's own zone, not bootstrap", global, system.zone, system.resource(t).ID, named, code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), z.zone, "nothing", named, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other.zone, "write"), z.zone, taken.ID, named, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
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
			want.UpdatedAt = after.JSON200.UpdatedAt
			if !reflect.DeepEqual(*resp.JSON200, want) || !reflect.DeepEqual(*after.JSON200, want) {
				t.Errorf("answered %+v, then read %+v, want %+v", *resp.JSON200, *after.JSON200, want)
			}
			if is, was := resp.HTTPResponse.Header.Get("ETag"), before.HTTPResponse.Header.Get("ETag"); is == was || is != after.HTTPResponse.Header.Get("ETag") {
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
	if upstream, err := p.UpstreamURL.Get(); err == nil {
		r.UpstreamURL = &upstream
	}
	if p.Scopes != nil {
		r.Scopes = *p.Scopes
	}
	if provider, err := p.CredentialProviderID.Get(); err == nil {
		r.CredentialProviderID = provider
	}
	if application, err := p.GatewayApplicationID.Get(); err == nil {
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

// To whoever is not the bootstrap token a reserved resource is closed, whatever
// is to be changed, and it cannot be deleted.
func TestAReservedResourceBelongsToCaracal(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t, func(b *client.NewResource) { b.Identifier = new("caracal-sys://x") }).ID
	for _, as := range []*client.ClientWithResponses{a.ClientFor("", "write"), a.ClientFor(z.zone, "write")} {
		readResource(t, as, z.zone, id)
		servertest.Expect(t, updateResource(t, as, z.zone, id, client.ResourcePatch{Name: new("x")}), 0, code.ReservedNamespace)
		servertest.Expect(t, deleteResource(t, as, z.zone, id), 0, code.ReservedNamespace)
	}
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, id, client.ResourcePatch{Name: new("x")}), http.StatusOK, "")
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, id), http.StatusNoContent, "")
}

func TestAResourcesTimeStandsStillWhenOnlyItsBindingChanges(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id, application := z.resource(t).ID, a.DB.Application(z.zone)
	updatedAt := func() string {
		return storetest.Value[string](a.DB, "SELECT updated_at::text FROM resources WHERE zone_id = $1 AND id = $2", z.zone, id)
	}
	bound := nullable.NewNullableWithValue(application)
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

func TestDeleteResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, system := newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	gone, elsewhere, systems := a.DB.ArchivedZone(), newResourceZone(a).resource(t).ID, system.resource(t).ID
	archived := z.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, archived)
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string // id "": a new resource of z
		want     code.Code
	}{
		{"by a global token", a.ClientFor("", "write"), z.zone, "", ""},
		{"by a zone token", a.ClientFor(z.zone, "write"), z.zone, "", ""},
		{"archived", a.Admin, z.zone, archived, code.ResourceNotFound},
		{"unknown", a.Admin, z.zone, "nothing", code.ResourceNotFound},
		{"of another zone", a.Admin, z.zone, elsewhere, code.ResourceNotFound},
		{"zone unknown", a.Admin, "nowhere", "nothing", code.ZoneNotFound},
		{"zone archived", a.Admin, gone, "nothing", code.ZoneNotFound},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system.zone, systems, code.SystemZoneReadOnly},
		{"read token", a.ClientFor(z.zone, "read"), z.zone, "nothing", code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.id == "" {
				tt.id = z.resource(t).ID
			}
			servertest.Expect(t, deleteResource(t, tt.as, tt.zone, tt.id), http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			servertest.Expect(t, getResource(t, a.Admin, tt.zone, tt.id), 0, code.ResourceNotFound)
			servertest.Expect(t, deleteResource(t, tt.as, tt.zone, tt.id), 0, code.ResourceNotFound)
			servertest.Expect(t, updateResource(t, tt.as, tt.zone, tt.id, client.ResourcePatch{Name: new("x")}), 0, code.ResourceNotFound)
		})
	}
}

func TestAResourceIsChangedAndDeletedOnlyAsItWasRead(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t).ID
	update := func(ifMatch, name string) *client.UpdateResourceResponse {
		t.Helper()
		resp, err := a.Admin.UpdateResourceWithResponse(t.Context(), z.zone, id, &client.UpdateResourceParams{IfMatch: &ifMatch}, client.ResourcePatch{Name: &name})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	remove := func(ifMatch string) *client.DeleteResourceResponse {
		t.Helper()
		resp, err := a.Admin.DeleteResourceWithResponse(t.Context(), z.zone, id, &client.DeleteResourceParams{IfMatch: &ifMatch})
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
	// Whoever loses its application is another than was read.
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	servertest.Expect(t, remove(second), 0, code.VersionConflict)
	servertest.Expect(t, remove("*"), http.StatusNoContent, "")
	z.counted(t)
}

func deleteApplicationOf(t *testing.T, z resourceZone) servertest.Response {
	t.Helper()
	resp, err := z.Admin.DeleteApplicationWithResponse(t.Context(), z.zone, z.application, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestGatewaysHearOfExactlyWhatChangesABinding(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	is := nullable.NewNullableWithValue[string]
	type patch = client.ResourcePatch
	for _, tt := range []struct {
		name string
		body func(z resourceZone, r client.Resource) patch
		want int64 // how often they hear
	}{
		{"name", func(resourceZone, client.Resource) patch { return patch{Name: new("x")} }, 0},
		{"scopes", func(resourceZone, client.Resource) patch { return patch{Scopes: &[]string{"read"}} }, 0},
		{"everything, as it is", func(z resourceZone, r client.Resource) patch {
			return patch{
				Name: &r.Name, Identifier: &r.Identifier, UpstreamURL: is(*r.UpstreamURL), Scopes: &r.Scopes, CredentialProviderID: is(z.provider),
				GatewayApplicationID: is(z.application), OperationEnforcement: &r.OperationEnforcement,
				Operations: &[]client.NewResourceOperation{{Method: " get", Path: "/invoices ", Scope: "read"}},
			}
		}, 0},
		{"identifier", func(resourceZone, client.Resource) patch { return patch{Identifier: new("urn:x")} }, 1},
		{"upstream", func(resourceZone, client.Resource) patch { return patch{UpstreamURL: is("http://x")} }, 1},
		{"provider", func(z resourceZone, _ client.Resource) patch {
			return patch{CredentialProviderID: is(z.DB.Provider(z.zone))}
		}, 1},
		{"application", func(z resourceZone, _ client.Resource) patch {
			return patch{GatewayApplicationID: is(z.DB.Application(z.zone))}
		}, 1},
		{"operations", func(resourceZone, client.Resource) patch {
			return patch{Operations: &[]client.NewResourceOperation{{Method: "GET", Path: "/invoices", Scope: "write"}}}
		}, 1},
		{"no operations", func(resourceZone, client.Resource) patch {
			return patch{Operations: &[]client.NewResourceOperation{}}
		}, 1},
		{"enforcement", func(resourceZone, client.Resource) patch {
			return patch{OperationEnforcement: new(client.OperationEnforcementTransportUniform)}
		}, 1},
		{"identifier, upstream and enforcement", func(resourceZone, client.Resource) patch {
			return patch{Identifier: new("urn:x"), UpstreamURL: is("http://x"), OperationEnforcement: new(client.OperationEnforcementTransportUniform)}
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			z := newResourceZone(a)
			r := z.resource(t)
			live, before := z.totals()
			if live != 1 || before != 1 {
				t.Errorf("of a new resource they hear %d times, and %d are counted", before, live)
			}
			servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, tt.body(z, r)), http.StatusOK, "")
			live, after := z.totals()
			if after-before != tt.want || live != 1 {
				t.Errorf("they hear %d times, want %d; %d are counted", after-before, tt.want, live)
			}
			// What is refused, nobody hears of.
			servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, patch{Identifier: new("x")}), 0, code.InvalidResourceIdentifier)
			servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.UpstreamURL = nil })), 0, code.UpstreamURLRequired)
			servertest.Expect(t, deleteResource(t, a.Admin, z.zone, r.ID), http.StatusNoContent, "")
			live, last := z.totals()
			if last-after != 1 || live != 0 {
				t.Errorf("of the end they hear %d times; %d are counted", last-after, live)
			}
		})
	}
}

func TestWithAnApplicationItsBindingsEnd(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newResourceZone(a), newResourceZone(a)
	first, second, gone := z.resource(t), z.resource(t), z.resource(t)
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, gone.ID), http.StatusNoContent, "")
	successor := a.DB.Application(z.zone)
	beside := z.resource(t, func(b *client.NewResource) { b.GatewayApplicationID = &successor })
	elsewhere := other.resource(t)
	live, before := z.totals()
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	if still, after := z.totals(); after-before != 1 || still != live {
		t.Errorf("gateways hear %d times; %d are counted and were %d", after-before, still, live)
	}
	is := nullable.NewNullableWithValue[string]
	for _, r := range []client.Resource{first, second} {
		unbound := r
		unbound.GatewayApplicationID = nil
		if now := readResource(t, a.Admin, z.zone, r.ID); !reflect.DeepEqual(now, unbound) {
			t.Errorf("it was %+v and is %+v", r, now)
		}
		servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{Name: new("x")}), 0, code.GatewayApplicationRequired)
		servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{GatewayApplicationID: is(z.application)}), 0, code.GatewayApplicationNotFound)
		trail := storetest.Column[string](a.DB, "SELECT concat_ws(' ', operation, payload::jsonb->>'changed_fields', payload::jsonb->>'changes') FROM audit_entries WHERE operation = 'deleteApplication' AND entity_type = 'resources' AND entity_id = $1", r.ID)
		if want := fmt.Sprintf(`deleteApplication ["gateway_application_id"] {"gateway_application_id": {"to": null, "from": %q}}`, z.application); !slices.Equal(trail, []string{want}) {
			t.Errorf("the trail says %s, want %s", trail, want)
		}
		servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{Name: new("x"), GatewayApplicationID: is(successor)}), http.StatusOK, "")
	}
	for _, r := range []client.Resource{beside, elsewhere} {
		if now := readResource(t, a.Admin, r.ZoneID, r.ID); !reflect.DeepEqual(now, r) {
			t.Errorf("it was %+v and is %+v", r, now)
		}
	}
	if entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE operation = 'deleteApplication' AND entity_type = 'resources'"); entries != 2 {
		t.Errorf("the trail has %d entries", entries)
	}
	// An application without resources ends without a sound.
	lonely := resourceZone{a, z.zone, z.provider, a.DB.Application(z.zone)}
	_, before = z.totals()
	servertest.Expect(t, deleteApplicationOf(t, lonely), http.StatusNoContent, "")
	if _, after := z.totals(); after != before {
		t.Errorf("gateways hear %d times", after-before)
	}
}

func TestAResourceThatLostItsApplicationCanStillBeDeleted(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t).ID
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	_, before := z.totals()
	servertest.Expect(t, deleteResource(t, a.ClientFor(z.zone, "write"), z.zone, id), http.StatusNoContent, "")
	if live, after := z.totals(); after != before || live != 0 {
		t.Errorf("gateways hear %d times of what was not bound; %d are counted", after-before, live)
	}
}

// One of two wins: the resource that names a thing, or the end of that thing.
func TestNothingIsNamedThatEndsAtTheSameMoment(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	is := nullable.NewNullableWithValue[string]
	credential := func() string {
		id := a.DB.Provider(z.zone)
		a.DB.Exec("UPDATE providers SET kind = 'api_key' WHERE zone_id = $1 AND id = $2", z.zone, id)
		return id
	}
	create := func(change func(*client.NewResource)) (int, []byte) {
		resp, err := a.Admin.CreateResourceWithResponse(t.Context(), z.zone, z.body(change))
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		return resp.StatusCode(), resp.Body
	}
	update := func(id string, patch client.ResourcePatch) (int, []byte) {
		resp, err := a.Admin.UpdateResourceWithResponse(t.Context(), z.zone, id, nil, patch)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		return resp.StatusCode(), resp.Body
	}
	endProvider := func(id string) int {
		resp, err := a.Admin.DeleteProviderWithResponse(t.Context(), z.zone, id, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		return resp.StatusCode()
	}
	endApplication := func(id string) int {
		resp, err := a.Admin.DeleteApplicationWithResponse(t.Context(), z.zone, id, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		return resp.StatusCode()
	}
	existing := z.resource(t).ID
	for range 25 {
		provider, application, another := credential(), a.DB.Application(z.zone), a.DB.Application(z.zone)
		var named, ended, bound, parted, rebound, partedToo int
		var fromNullable [3][]byte
		atOnce(
			func() {
				named, fromNullable[0] = create(func(b *client.NewResource) { b.CredentialProviderID = &provider })
			},
			func() { ended = endProvider(provider) },
			func() {
				bound, fromNullable[1] = create(func(b *client.NewResource) { b.GatewayApplicationID = &application })
			},
			func() { parted = endApplication(application) },
			func() {
				rebound, fromNullable[2] = update(existing, client.ResourcePatch{GatewayApplicationID: is(another)})
			},
			func() { partedToo = endApplication(another) },
		)
		if got := [2]int{named, ended}; got != [2]int{http.StatusCreated, http.StatusConflict} && got != [2]int{http.StatusNotFound, http.StatusNoContent} {
			t.Errorf("a resource named a provider that ended: %v %s", got, fromNullable[0])
		}
		if bound != http.StatusCreated && bound != http.StatusNotFound || parted != http.StatusNoContent {
			t.Errorf("a resource named an application that ended: %d %d %s", bound, parted, fromNullable[1])
		}
		if rebound != http.StatusOK && rebound != http.StatusNotFound || partedToo != http.StatusNoContent {
			t.Errorf("a resource came to name an application that ended: %d %d %s", rebound, partedToo, fromNullable[2])
		}
	}
	orphans := storetest.Value[int](a.DB, `SELECT count(*) FROM resources AS r
		JOIN providers AS p ON p.zone_id = r.zone_id AND p.id = r.credential_provider_id
		LEFT JOIN applications AS a ON a.zone_id = r.zone_id AND a.id = r.gateway_application_id
		WHERE r.archived_at IS NULL AND (p.archived_at IS NOT NULL OR a.archived_at IS NOT NULL)`)
	if orphans > 0 {
		t.Errorf("%d live resources name what is archived", orphans)
	}
	z.counted(t)
}

// Whoever creates, renames and deletes under one identifier waits for the others,
// but nobody in a circle: Postgres would have to break it, a second later.
func TestThoseWhoWantOneIdentifierNeverWaitForEachOther(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	const left, right = "urn:left", "urn:right"
	named := func(identifier string) client.NewResource {
		return z.body(func(b *client.NewResource) { b.Identifier = &identifier })
	}
	answered := func(answer servertest.Response, err error) {
		if err != nil || answer.StatusCode() >= 500 {
			t.Errorf("%v: %s", err, answer.GetBody())
		}
	}
	create := func(identifier string) func() {
		return func() { answered(a.Admin.CreateResourceWithResponse(t.Context(), z.zone, named(identifier))) }
	}
	rename := func(id, identifier string) func() {
		return func() {
			answered(a.Admin.UpdateResourceWithResponse(t.Context(), z.zone, id, nil, client.ResourcePatch{Identifier: &identifier}))
		}
	}
	remove := func(id string) func() {
		return func() { answered(a.Admin.DeleteResourceWithResponse(t.Context(), z.zone, id, nil)) }
	}
	for range 40 {
		l, r := createResource(t, a.Admin, z.zone, named(left)), createResource(t, a.Admin, z.zone, named(right))
		servertest.Expect(t, l, http.StatusCreated, "")
		servertest.Expect(t, r, http.StatusCreated, "")
		atOnce(create(left), remove(l.JSON201.ID), create(right), rename(r.JSON201.ID, left), create(left), create(right))
		for _, id := range storetest.Column[string](a.DB, "SELECT id FROM resources WHERE zone_id = $1 AND archived_at IS NULL", z.zone) {
			servertest.Expect(t, deleteResource(t, a.Admin, z.zone, id), http.StatusNoContent, "")
		}
	}
	z.counted(t)
	if err := a.Service.Stop(); err != nil { // a connection tells what it met when it ends
		t.Fatal(err)
	}
	eventually(t, "the service's connections end", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'caracal_service'") == 0
	})
	if n := storetest.Value[int64](a.DB, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"); n > 0 {
		t.Errorf("Postgres broke %d circles", n)
	}
}

func TestWhatHappensToAResourceIsInTheTrailAndInNoEvent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	zoned := a.ClientFor(z.zone, "write")
	r := z.resource(t)
	servertest.Expect(t, updateResource(t, zoned, z.zone, r.ID, client.ResourcePatch{
		Name: new("Renamed"), Scopes: &r.Scopes, Operations: &[]client.NewResourceOperation{}, UpstreamURL: nullable.NewNullableWithValue("http://x"),
	}), http.StatusOK, "")
	servertest.Expect(t, updateResource(t, zoned, z.zone, r.ID, client.ResourcePatch{Identifier: new("x")}), 0, code.InvalidResourceIdentifier)
	servertest.Expect(t, deleteResource(t, zoned, z.zone, r.ID), http.StatusNoContent, "")
	control := z.control(t)
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	trail := func(kind, id string) []string {
		return storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, actor_scope, status_code, payload) FROM audit_entries WHERE entity_type = $1 AND entity_id = $2 ORDER BY id", kind, id)
	}
	path := "/v1/zones/" + z.zone + "/resources"
	wildcard, own := `{"rls_mode":"control_plane_wildcard","rls_zone_guc":"*",`, `{"rls_mode":"zone_scoped","rls_zone_guc":"`+z.zone+`",`
	fields := `"changed_fields":["credential_provider_id","gateway_application_id","identifier","name","operation_enforcement","operations","scopes","upstream_url"],`
	got := slices.Concat(trail("resources", r.ID), trail("resources", control.ID), trail("providers", control.CredentialProviderID))
	want := []string{
		"createResource | POST " + path + " | global | 201 | " + wildcard + fields + `"changes":{"credential_provider_id":{"from":null,"to":"` + z.provider + `"},"gateway_application_id":{"from":null,"to":"` + z.application +
			`"},"identifier":{"from":null,"to":"resource://invoices"},"name":{"from":null,"to":"Invoices"},"operation_enforcement":{"from":null,"to":"enforced"},"operations":{"from":null,"to":[{"path":"/invoices","scope":"read","method":"GET"}]},"scopes":{"from":null,"to":["read","write"]},"upstream_url":{"from":null,"to":"https://upstream.example.com"}}}`,
		"updateResource | PATCH " + path + "/" + r.ID + " | zone | 200 | " + own + `"changed_fields":["name","operations","upstream_url"],"changes":{"name":{"from":"Invoices","to":"Renamed"},"operations":{"from":[{"path":"/invoices","scope":"read","method":"GET"}],"to":[]},"upstream_url":{"from":"https://upstream.example.com","to":"http://x"}}}`,
		"deleteResource | DELETE " + path + "/" + r.ID + " | zone | 204 | " + own + `"changed_fields":[]}`,
		"createResource | POST " + path + " | global | 201 | " + wildcard + fields + `"changes":{"credential_provider_id":{"from":null,"to":"provider-none-` + z.zone + `"},"gateway_application_id":{"from":null,"to":null},"identifier":{"from":null,"to":"caracal-control"},"name":{"from":null,"to":"Control"},"operation_enforcement":{"from":null,"to":"enforced"},"operations":{"from":null,"to":[]},"scopes":{"from":null,"to":["control"]},"upstream_url":{"from":null,"to":null}}}`,
		"createResource | POST " + path + " | global | 201 | " + wildcard + `"changed_fields":["identifier","kind","name"],"changes":{"identifier":{"from":null,"to":"provider://none"},"kind":{"from":null,"to":"none"},"name":{"from":null,"to":"No credential"}}}`,
	}
	// A refusal is noted beside the answer, when it may be.
	got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, " | 400 | ") })
	if !slices.Equal(got, want) {
		t.Errorf("the trail says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if events := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); events > 0 {
		t.Errorf("%d events left", events)
	}
}

// An entry of the trail stays for ever, so no password gets into it.
func TestAPasswordInAnUpstreamStaysOutOfTheTrail(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	r := z.resource(t, func(n *client.NewResource) { n.UpstreamURL = new("https://somebody:hush@upstream.example.com/x") })
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{UpstreamURL: nullable.NewNullableWithValue("https://u:hush@other.example.com")}), http.StatusOK, "")
	trail := storetest.Column[string](a.DB, "SELECT payload FROM audit_entries WHERE zone_id = $1 AND entity_type = 'resources' ORDER BY id", z.zone)
	text := strings.Join(trail, "\n")
	if len(trail) != 2 || strings.Contains(text, "hush") || !strings.Contains(text, "https://upstream.example.com/x") {
		t.Errorf("the trail says\n%s", text)
	}
}
