package server_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestCreateResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, system := newResourceZone(a), newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	archivedZone := a.DB.ArchivedZone()
	globalClient, zoneClient := a.ClientFor("", "write"), a.ClientFor(z.zone, "write")
	taken := z.resource(t)
	archivedProvider, archivedApplication := a.DB.Provider(z.zone), a.DB.Application(z.zone)
	a.DB.Exec(archiveProvider, z.zone, archivedProvider)
	a.DB.Exec(archiveApplication, z.zone, archivedApplication)
	dcr, expired := dcrApplications(z)
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
		as     *rawclient.ClientWithResponses
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
		{"by a zone token", zoneClient, z, nil, ""},
		{"by a global token", globalClient, z, nil, ""},
		{"name of one space", a.Admin, z, func(b *client.NewResource) { b.Name, b.Identifier = new(" "), new("urn:one-space") }, code.InvalidResource},
		{"the longest name", a.Admin, z, func(b *client.NewResource) { b.Name = new(strings.Repeat("😀", 200)) }, ""},
		{"name too long", a.Admin, z, func(b *client.NewResource) { b.Name = new(strings.Repeat("é", 201)) }, code.InvalidResource},
		{"name empty", a.Admin, z, func(b *client.NewResource) { b.Name = new("") }, code.InvalidResource},
		{"a scope twice, and an empty one", a.Admin, z, func(b *client.NewResource) { b.Scopes = []string{"read", "", "read"} }, ""},
		{"no scopes", a.Admin, z, func(b *client.NewResource) { b.Scopes = []string{} }, code.InvalidResource},
		{"no provider", a.Admin, z, func(b *client.NewResource) { b.CredentialProviderID = nil }, code.CredentialProviderRequired},
		{"an empty provider", a.Admin, z, provided(""), code.CredentialProviderRequired},
		{"provider unknown", a.Admin, z, provided("unknown"), code.ProviderNotFound},
		{"provider archived", a.Admin, z, provided(archivedProvider), code.ProviderNotFound},
		{"provider of another zone", a.Admin, z, provided(other.provider), code.ProviderNotFound},
		{"no upstream", a.Admin, z, func(b *client.NewResource) { b.UpstreamURL = nil }, code.UpstreamURLRequired},
		{"no application", a.Admin, z, func(b *client.NewResource) { b.GatewayApplicationID = nil }, code.GatewayApplicationRequired},
		{"an empty application", a.Admin, z, exchanged(""), code.InvalidResource},
		{"application unknown", a.Admin, z, exchanged("unknown"), code.GatewayApplicationNotFound},
		{"application archived", a.Admin, z, exchanged(archivedApplication), code.GatewayApplicationNotFound},
		{"application expired", a.Admin, z, exchanged(expired), code.GatewayApplicationNotFound},
		{"application registered by itself", a.Admin, z, exchanged(dcr), code.GatewayExchangeApplicationMustBeManaged},
		{"application of another zone", a.Admin, z, exchanged(other.application), code.GatewayApplicationNotFound},
		{"identifier taken", a.Admin, z, as(taken.Identifier), code.ResourceIdentifierConflict},
		{"identifier taken in another zone", a.Admin, other, as(taken.Identifier), ""},
		{"identifier that differs in case", a.Admin, z, as(strings.ToUpper(taken.Identifier)), ""},
		{"reserved", a.Admin, z, as("caracal-sys://x"), ""},
		{"reserved, not bootstrap", globalClient, z, as("Caracal-SYS://y"), code.ReservedNamespace},
		{"reserved, by a zone token", zoneClient, z, as("caracal-sys://y"), code.ReservedNamespace},
		{"almost reserved", zoneClient, z, as("caracal-sysx://y"), ""},
		{"zone unknown", a.Admin, resourceZone{a, "nowhere", z.provider, z.application}, nil, code.ZoneNotFound},
		{"zone archived", a.Admin, resourceZone{a, archivedZone, z.provider, z.application}, nil, code.ZoneNotFound},
		{"system zone", a.Admin, system, nil, ""},
		{"system zone, not bootstrap", globalClient, system, nil, code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), z, nil, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other.zone, "write"), z, nil, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := tt.in.body()
			if tt.change != nil {
				tt.change(&body)
			}
			resp := createResource(t, tt.as, tt.in.zone, body)
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			created := *resp.JSON201
			want := client.Resource{
				ID: created.ID, ZoneID: tt.in.zone, Identifier: created.Identifier, UpstreamURL: body.UpstreamURL, Scopes: body.Scopes,
				CredentialProviderID: *body.CredentialProviderID, GatewayApplicationID: body.GatewayApplicationID,
				Operations: []client.ResourceOperation{}, OperationEnforcement: client.OperationEnforcementEnforced,
				CreatedAt: created.CreatedAt, UpdatedAt: created.CreatedAt,
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
			read := getResource(t, tt.as, tt.in.zone, created.ID)
			servertest.Expect(t, read, http.StatusOK, "")
			if !reflect.DeepEqual(created, want) || !reflect.DeepEqual(*read.JSON200, want) {
				t.Errorf("answered %+v, then read %+v, want %+v", created, *read.JSON200, want)
			}
			if tag := resp.HTTPResponse.Header.Get("ETag"); tag == "" || tag != read.HTTPResponse.Header.Get("ETag") {
				t.Errorf("its version is %s, and then %s", tag, read.HTTPResponse.Header.Get("ETag"))
			}
		})
	}
}

// What the client cannot say is said by hand, to create and to change alike.
func TestCreateResourceAndUpdateResourceValidateTheBody(t *testing.T) {
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

func TestCreateResourceIdentifierRules(t *testing.T) {
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
		{"an invisible character", "urn:in\u200bvoices", code.InvalidResourceIdentifier},
		{"a bidirectional override", "https://api.example.com/\u202e", code.InvalidResourceIdentifier},
		{"a reserved one after an invisible character", "\u200bcaracal-sys://x", code.InvalidResourceIdentifier},
		{"almost the control audience", "Caracal-Control", code.InvalidResourceIdentifier},
	} {
		t.Run(tt.name, func(t *testing.T) {
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
						t.Errorf("got %s", refused.GetBody())
					}
				}
			}
			if !reflect.DeepEqual(after, before) {
				t.Errorf("it was %+v and is %+v", before, after)
			}
		})
	}
}

func TestCreateResourceUpstreamURLRules(t *testing.T) {
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
		{"five numbers", "http://1.2.3.4.5/", "", code.InvalidResource},
		{"an IPv6 zone", "http://[fe80::1%25eth0]/", "", code.InvalidResource},
		{"an encoded angle bracket", "http://a%EF%BC%9Cb/", "", code.InvalidResource},
		{"a short IPv4 address", "http://127.1/", "http://127.1/", ""},
		{"a user", "https://user@x.example.com/", "", code.InvalidResource},
		{"a user and a password", "https://user:password@x.example.com/", "", code.InvalidResource},
		{"an API key", "https://x.example.com/?a=b&api%5Fkey=c", "", code.InvalidResource},
		{"the name of an API key", "https://x.example.com/?api_key=", "https://x.example.com/?api_key=", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := z.resource(t)
			created := createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.UpstreamURL = &tt.upstream }))
			servertest.Expect(t, created, http.StatusCreated, tt.want)
			updated := updateResource(t, a.Admin, z.zone, before.ID, client.ResourcePatch{UpstreamURL: client.Set(tt.upstream)})
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

func TestCreateResourceNormalizesOperations(t *testing.T) {
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
		{"methods that are tokens", operations{{Method: "m-search", Path: "/x", Scope: "read"}, {Method: "*", Path: "/*/{id}", Scope: "read"}},
			[]client.ResourceOperation{{Method: "M-SEARCH", Path: "/x", Scope: "read"}, {Method: "*", Path: "/*/{id}", Scope: "read"}}, ""},
		{"two methods", operations{{Method: "GET, POST", Path: "/x", Scope: "read"}}, nil, code.InvalidResource},
		{"a method that is not ASCII", operations{{Method: "GÉT", Path: "/x", Scope: "read"}}, nil, code.InvalidResource},
		{"a path with a query", operations{{Method: "GET", Path: "/x?y=z", Scope: "read"}}, nil, code.InvalidResource},
		{"a path with a fragment", operations{{Method: "GET", Path: "/x#y", Scope: "read"}}, nil, code.InvalidResource},
		{"a path with a line feed", operations{{Method: "GET", Path: "/x\ny", Scope: "read"}}, nil, code.InvalidResource},
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
