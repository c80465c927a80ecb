package server_test

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestGetGrant(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newResourceZone(a), newResourceZone(a)
	id := z.grant(t, z.resource(t).ID).ID
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code // "" is 200
	}{
		{"global token", a.ClientFor("", "read"), z.zone, id, ""},
		{"zone token", a.ClientFor(z.zone, "read"), z.zone, id, ""},
		{"token of another zone", a.ClientFor(other.zone, "read"), z.zone, id, code.AdminTokenZoneMismatch},
		{"another zone", a.Admin, other.zone, id, code.GrantNotFound},
		{"unknown", a.Admin, z.zone, "unknown", code.GrantNotFound},
		{"unknown zone", a.Admin, "unknown", id, code.GrantNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			servertest.Expect(t, getGrant(t, tt.as, tt.zone, tt.id), http.StatusOK, tt.want)
		})
	}
}

// A grantScene has grants of two applications, users, resources and providers: every
// combination once, newest last.
type grantScene struct {
	resourceZone
	values map[string][]string // filter -> its two values
	grants []client.Grant
}

func newGrantScene(t *testing.T) grantScene {
	t.Helper()
	a := servertest.New(t)
	one := newResourceZone(a)
	two := resourcesOf(a, one.zone)
	s := grantScene{resourceZone: one, values: map[string][]string{
		"application_id": {one.application, two.application}, "user_id": {"user,1", "user 2&"},
		"provider_id": {one.provider, two.provider}, "status": {"active", "revoked"},
		"resource_id": {one.resource(t).ID, two.resource(t).ID, one.resource(t).ID}, // the third has the provider of the first
	}}
	for _, application := range s.values["application_id"] {
		for _, user := range s.values["user_id"] {
			for _, resource := range s.values["resource_id"] {
				for _, scopes := range [][]string{{"read"}, {"write", "read"}} {
					s.grants = append(s.grants, s.grant(t, resource, func(n *client.NewGrant) { n.ApplicationID, n.UserID, n.Scopes = application, user, scopes }))
				}
			}
		}
	}
	for i := range s.grants {
		if i%3 == 0 {
			s.grants[i].Status = client.GrantStatusRevoked
			s.DB.Exec("UPDATE grants SET status = 'revoked' WHERE id = $1", s.grants[i].ID)
		}
	}
	return s
}

// matches reports whether a grant matches the filters of a query.
func (s grantScene) matches(g client.Grant, query url.Values) bool {
	provider := s.values["provider_id"][0]
	if g.ResourceID == s.values["resource_id"][1] {
		provider = s.values["provider_id"][1]
	}
	for name, value := range map[string]string{"application_id": g.ApplicationID, "user_id": g.UserID, "subject_id": g.UserID, "resource_id": g.ResourceID, "provider_id": provider, "status": string(g.Status)} {
		if query.Has(name) && query.Get(name) != value && !(name == "subject_id" && query.Has("user_id")) {
			return false
		}
	}
	for scope := range strings.SplitSeq(strings.Join(query["scopes"], ","), ",") {
		if scope = strings.TrimSpace(scope); scope != "" && !slices.Contains(g.Scopes, scope) {
			return false
		}
	}
	return true
}

// Every combination of filters returns exactly the grants that match all of them, in
// the order of the list, in one page and page by page.
func TestListGrantsByEveryCombinationOfFilters(t *testing.T) {
	t.Parallel()
	s := newGrantScene(t)
	options := map[string][]string{"scopes": {"write", "read,write", " read , ,read "}}
	for name, values := range s.values {
		options[name] = values[:2]
	}
	queries := []url.Values{{}}
	for name, values := range options {
		for _, query := range slices.Clone(queries) {
			for _, value := range append(values, "unknown") {
				if value == "unknown" && len(query) > 0 {
					continue // alone
				}
				more := url.Values{name: {value}}
				for k, v := range query {
					more[k] = v
				}
				queries = append(queries, more)
			}
		}
	}
	queries = append(queries, url.Values{"subject_id": {"user,1"}}, url.Values{"subject_id": {"user,1"}, "user_id": {"user 2&"}}, url.Values{"scopes": {"read", "write"}}, url.Values{"scopes": {"read", " write,"}})
	found := 0
	for _, query := range queries {
		var want []string
		for _, g := range slices.Backward(s.grants) {
			if s.matches(g, query) {
				want = append(want, g.ID)
			}
		}
		path := "/v1/zones/" + s.zone + "/grants?" + query.Encode()
		got, following := idsAt(t, s.API, path, servertest.Bootstrap)
		if !slices.Equal(got, want) || following != "" {
			t.Errorf("%s: got %v and the next page %q, want %v", query, got, following, want)
		}
		if found += len(got); len(query) > 2 {
			continue
		}
		got, following = idsAt(t, s.API, path+"&limit=2", servertest.Bootstrap)
		for following != "" {
			var more []string
			more, following = idsAt(t, s.API, following, servertest.Bootstrap)
			got = append(got, more...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s, page by page: got %v, want %v", query, got, want)
		}
	}
	t.Logf("%d queries found %d grants", len(queries), found)
}

func TestListGrantsCursorIsBoundToFilters(t *testing.T) {
	t.Parallel()
	s := newGrantScene(t)
	list := "/v1/zones/" + s.zone + "/grants"
	_, following := idsAt(t, s.API, list+"?user_id=user,1&limit=1", servertest.Bootstrap)
	link, err := url.Parse(following)
	if err != nil || !link.Query().Has("cursor") {
		t.Fatalf("the next page is %q", following)
	}
	cursor := "cursor=" + link.Query().Get("cursor")
	for query, want := range map[string]code.Code{"user_id=user,1": "", "": code.InvalidCursor, "user_id=other": code.InvalidCursor, "subject_id=user,1": code.InvalidCursor, "user_id=user,1&status=active": code.InvalidCursor} {
		servertest.Expect(t, s.Do("GET", list+"?"+query+"&"+cursor, "", bearer(servertest.Bootstrap)...), http.StatusOK, want)
	}
}

func TestListGrantsRejectsInvalidFilters(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	list := "/v1/zones/" + a.Zone().ID + "/grants?"
	for _, query := range []string{
		"application_id=", "resource_id=", "status=", "user_id=", "subject_id=", "provider_id=", "scopes=", "scopes=,", "scopes=%20,%20", "scopes=read&scopes=",
		"application_id=a&application_id=b", "user_id=a&user_id=a", "status=active&status=revoked",
		"scopes=Read", "scopes=read%20write", "scopes=read,%C3%A9", "scopes=read,%00", "scopes=%FF", "scopes=a%5Cb", "scopes=" + strings.Repeat("x", 201), "scopes=" + strings.Repeat("a,", 65),
		strings.Repeat("scopes=a&", 65),
	} {
		servertest.Expect(t, a.Do("GET", list+query, "", bearer(servertest.Bootstrap)...), 0, code.InvalidQuery)
	}
	for _, query := range []string{"status=other", "user_id=%20", "user_id=" + url.QueryEscape(incompressible(1000)), "scopes=" + strings.Repeat("a,", 64), "application_id=not%20an%20id"} {
		raw := a.Do("GET", list+query, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		if string(raw.Body) != "[]\n" && string(raw.Body) != "[]" {
			t.Errorf("%s: got %s", query, raw.Body)
		}
	}
}

// A list has the names of what a grant refers to, also of what is archived, and of the
// provider that the resource has now.
func TestListGrantsNamesWhatTheyReferTo(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	resource := z.resource(t).ID
	g := z.grant(t, resource)
	listed := func() client.ListedGrant {
		t.Helper()
		resp, err := a.Admin.ListGrantsWithResponse(t.Context(), z.zone, nil)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		return (*resp.JSON200)[0]
	}
	want := client.ListedGrant{
		ID: g.ID, ZoneID: z.zone, ApplicationID: z.application, UserID: "user-7", ResourceID: resource, Scopes: []string{"read"}, Status: client.GrantStatusActive, CreatedAt: g.CreatedAt, UpdatedAt: g.UpdatedAt,
		ProviderID: z.provider, ApplicationName: "Billing", ResourceName: "Invoices", ProviderName: "Provider", ProviderKind: client.ProviderKindCaracalMandate,
	}
	if got := listed(); !reflect.DeepEqual(got, want) {
		t.Errorf("listed %+v, want %+v", got, want)
	}
	next := a.DB.Provider(z.zone)
	a.DB.Exec("UPDATE providers SET name = 'Next' WHERE id = $1", next)
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, resource, client.ResourcePatch{Name: new("Renamed"), Scopes: &[]string{"write"}, Operations: &[]client.NewResourceOperation{}, CredentialProviderID: client.Set(next)}), http.StatusOK, "")
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, resource), http.StatusNoContent, "")
	a.DB.Exec(archiveProvider, z.zone, next)
	want.ResourceName, want.ProviderID, want.ProviderName = "Renamed", next, "Next"
	if got := listed(); !reflect.DeepEqual(got, want) { // the grant itself is as it was
		t.Errorf("listed %+v, want %+v", got, want)
	}
	for query, found := range map[string]int{"provider_id=" + next: 1, "provider_id=" + z.provider: 0, "resource_id=" + resource + "&status=active": 1} {
		if ids, _ := idsAt(t, a, "/v1/zones/"+z.zone+"/grants?"+query, servertest.Bootstrap); len(ids) != found {
			t.Errorf("%s: found %v", query, ids)
		}
	}
}
