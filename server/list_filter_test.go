package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// idsAt returns the IDs on one page of a list, and the path of the next page.
func idsAt(t *testing.T, a *servertest.API, path, token string) (ids []string, following string) {
	t.Helper()
	raw := a.Do("GET", path, "", bearer(token)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	for _, one := range decode[[]struct{ ID string }](t, raw) {
		ids = append(ids, one.ID)
	}
	return ids, next(raw)
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	one := a.Zone(func(z *client.NewZone) { z.Name, z.Slug = "Production", new("prod-1") })
	two := a.Zone(func(z *client.NewZone) { z.Name, z.Slug = "Production", new("prod-2") })
	archived := a.Zone(func(z *client.NewZone) { z.Name, z.Slug = "Production", new("prod-3") })
	a.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archived.ID)
	system := systemZone(a)
	zone, other := "/v1/zones/"+one.ID, newResourceZone(a)
	create := func(path, body string, args ...any) string {
		raw := a.Do("POST", path, fmt.Sprintf(body, args...), append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, http.StatusCreated, "")
		return decode[struct{ ID string }](t, raw).ID
	}
	app1 := create(zone+"/applications", `{"name":"Billing","registration_method":"managed"}`)
	app2 := create(zone+"/applications", `{"name":"Billing","registration_method":"managed"}`)
	app3 := create(zone+"/applications", `{"name":"Invoices & co","registration_method":"managed"}`)
	app4 := create(zone+"/applications", `{"name":"Café","registration_method":"managed"}`)
	a.DB.DCRApplications(one.ID, 1) // application-1
	_, last := idsAt(t, a, zone+"/applications?limit=1", servertest.Bootstrap)
	dcr, _ := idsAt(t, a, zone+"/applications?registration_method=dcr", servertest.Bootstrap)
	if len(dcr) != 1 || last == "" {
		t.Fatalf("the registered applications are %v", dcr)
	}
	provider1 := create(zone+"/providers", `{"name":"Ledger","identifier":"provider://ledger","kind":"none"}`)
	provider2 := create(zone+"/providers", `{"name":"Ledger","identifier":"provider://ledger-2","kind":"caracal_mandate"}`)
	resource := func(name, identifier string) string {
		return create(zone+"/resources", `{"name":%q,"identifier":%q,"scopes":["a"],"upstream_url":"https://example.com","credential_provider_id":%q,"gateway_application_id":%q}`, name, identifier, provider1, app1)
	}
	resource1, resource2 := resource("Files", "https://files.example.com"), resource("Files", "urn:files")
	control := create(zone+"/resources", `{"name":"Control","identifier":"caracal-control","scopes":["a"]}`)
	theirs := other.resource(t, func(b *client.NewResource) { b.Name, b.Identifier = new("Files"), new("urn:files") })
	policy := create(zone+"/policies", `{"name":"Grants","content":%q}`, documentOf("x"))
	create(zone+"/policies", `{"name":"Other","content":%q}`, documentOf("x"))
	set := create(zone+"/policy-sets", `{"name":"Default"}`)
	create(zone+"/policy-sets", `{"name":"Other"}`)
	login := create(zone+"/providers", `{"name":"Login","kind":"oauth2_authorization_code","config_json":%s}`, codeConfig)
	mail := create(zone+"/resources", `{"name":"Mail","scopes":["a"],"upstream_url":"https://example.com","credential_provider_id":%q,"gateway_application_id":%q}`, login, app1)
	calendar := create(zone+"/resources", `{"name":"Calendar","scopes":["a"],"upstream_url":"https://example.com","credential_provider_id":%q,"gateway_application_id":%q}`, login, app1)
	grant := func(user, resource string) string {
		return create(zone+"/provider-grants", `{"user_id":%q,"resource_id":%q,"provider_id":%q,"scopes":["a"],"access_token":"x"}`, user, resource, login)
	}
	grant1, grant2, grant3 := grant("ana", mail), grant("ben", mail), grant("ana", calendar)
	a.DB.Exec("UPDATE provider_grants SET status = 'revoked', access_token = NULL, data_key = NULL WHERE id = $1", grant1)
	token1 := create("/v1/admin-tokens", `{"name":"deploy","scope":"global"}`)
	token2 := create("/v1/admin-tokens", `{"name":"deploy","scope":"zone","zone_id":%q}`, one.ID)
	zoneToken := a.Token(one.ID, "read").Token
	for _, tt := range []struct {
		path, token string
		want        []string
	}{
		{"/v1/zones?name=Production", "", []string{two.ID, one.ID}},
		{"/v1/zones?name=production", "", nil},
		{"/v1/zones?name=%20Production%C2%A0", "", []string{two.ID, one.ID}}, // trimmed, as in a new zone
		{zone + "/applications?name=Cafe%CC%81", "", []string{app4}},         // normalized, as in a new application
		{"/v1/zones?slug=prod-1", "", []string{one.ID}},
		{"/v1/zones?slug=prod-3", "", nil},
		{"/v1/zones?slug=prod-1&name=Production", "", []string{one.ID}},
		{"/v1/zones?slug=prod-1&name=Other", "", nil},
		{"/v1/zones?slug=" + system.Slug, "", nil},
		{"/v1/zones?name=" + url.QueryEscape(system.Name), "", nil},
		{zone + "/applications?name=Billing", "", []string{app2, app1}},
		{zone + "/applications?name=Billing", zoneToken, []string{app2, app1}},
		{zone + "/applications?name=Invoices+%26+co", "", []string{app3}},
		{zone + "/applications?name=Bill", "", nil},
		{zone + "/applications?name=Billing&registration_method=dcr", "", nil},
		{zone + "/applications?name=Billing&registration_method=managed", "", []string{app2, app1}},
		{zone + "/applications?registration_method=managed", "", []string{app4, app3, app2, app1}},
		{zone + "/providers?name=Ledger", "", []string{provider2, provider1}},
		{zone + "/providers?kind=none", "", []string{"provider-none-" + one.ID, provider1}},
		{zone + "/providers?kind=caracal_mandate&name=Ledger", "", []string{provider2}},
		{zone + "/providers?identifier=provider://ledger", "", []string{provider1}},
		{zone + "/providers?identifier=provider://ledger&kind=none&name=Ledger", "", []string{provider1}},
		{zone + "/providers?identifier=provider://ledger&kind=api_key", "", nil},
		{zone + "/providers?identifier=provider://ledger&name=Other", "", nil},
		{zone + "/resources?name=Files", "", []string{resource2, resource1}},
		{zone + "/resources?identifier=https://files.example.com", "", []string{resource1}},
		{zone + "/resources?identifier=urn:files&name=Files", zoneToken, []string{resource2}},
		{zone + "/resources?identifier=urn:files&name=Other", "", nil},
		{zone + "/resources?identifier=caracal-control", "", []string{control}},
		{zone + "/resources?identifier=caracal-control", zoneToken, nil}, // the control resource is for global tokens
		{zone + "/resources?name=Control", zoneToken, nil},
		{"/v1/zones/" + other.zone + "/resources?identifier=urn:files", "", []string{theirs.ID}},
		{zone + "/policies?name=Grants", "", []string{policy}},
		{zone + "/policy-sets?name=Default", "", []string{set}},
		{zone + "/provider-grants?user_id=ana", "", []string{grant3, grant1}},
		{zone + "/provider-grants?user_id=ana&status=active", "", []string{grant3}},
		{zone + "/provider-grants?user_id=ana&resource_id=" + mail + "&provider_id=" + login + "&status=revoked", "", []string{grant1}},
		{zone + "/provider-grants?user_id=Ana", "", nil},
		{zone + "/provider-grants?resource_id=" + mail, "", []string{grant2, grant1}},
		{zone + "/provider-grants?resource_id=" + mail + "&status=active", zoneToken, []string{grant2}},
		{zone + "/provider-grants?resource_id=" + mail + "&provider_id=x", "", nil},
		{zone + "/provider-grants?resource_id=" + mail + "&provider_id=x&status=active", "", nil},
		{zone + "/provider-grants?provider_id=" + login, "", []string{grant3, grant2, grant1}},
		{zone + "/provider-grants?provider_id=" + login + "&status=revoked", "", []string{grant1}},
		{zone + "/provider-grants?status=active", "", []string{grant3, grant2}},
		{zone + "/provider-grants?status=revoked", "", []string{grant1}},
		{"/v1/admin-tokens?name=deploy", "", []string{token2, token1}},
		{"/v1/admin-tokens?name=other", "", nil},
	} {
		t.Run(tt.path, func(t *testing.T) {
			if tt.token == "" {
				tt.token = servertest.Bootstrap
			}
			got, following := idsAt(t, a, tt.path, tt.token)
			if !slices.Equal(got, tt.want) || following != "" {
				t.Errorf("got %v and the next page %q, want %v", got, following, tt.want)
			}
			// The same, page by page.
			got, following = idsAt(t, a, tt.path+"&limit=1", tt.token)
			for following != "" {
				var more []string
				more, following = idsAt(t, a, following, tt.token)
				got = append(got, more...)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("page by page: got %v, want %v", got, tt.want)
			}
		})
	}
	t.Run("a cursor of other filters", func(t *testing.T) {
		_, following := idsAt(t, a, "/v1/zones?name=Production&limit=1", servertest.Bootstrap)
		link, err := url.Parse(following)
		if err != nil {
			t.Fatal(err)
		}
		cursor := link.Query().Get("cursor")
		for _, query := range []string{"", "&name=Other", "&slug=prod-1", "&name=Production&slug=prod-1"} {
			raw := a.Do("GET", "/v1/zones?cursor="+cursor+query, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, 0, code.InvalidCursor)
		}
		raw := a.Do("GET", "/v1/zones?unknown=x&name=Production+&cursor="+cursor, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
	})
	for _, query := range []string{
		"/v1/zones?name=", "/v1/zones?name=%20", "/v1/zones?name=a&name=b", "/v1/zones?name=%00", "/v1/zones?name=%FF", "/v1/zones?name=a%07b", "/v1/zones?slug=Not%20a%20slug",
		zone + "/applications?registration_method=other", zone + "/providers?kind=other", zone + "/providers?identifier=",
		zone + "/provider-grants?status=expired", zone + "/provider-grants?user_id=", zone + "/provider-grants?resource_id=a&resource_id=b", zone + "/provider-grants?user_id=" + strings.Repeat("x", 501),
	} {
		t.Run("invalid "+query, func(t *testing.T) {
			servertest.Expect(t, a.Do("GET", query, "", bearer(servertest.Bootstrap)...), 0, code.InvalidQuery)
		})
	}
}

func TestEveryOperationRejectsUnknownParametersIfStrict(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	eachOperation(t, private, func(t *testing.T, op servertest.Operation) {
		headers := append(bearer(servertest.Bootstrap), "Content-Type", jsonType, "Prefer", "respond-async", "Prefer", `wait=1, Handling = "strict"; x=1, handling=lenient`)
		raw := w.Do(op.Method, w.path(op, "x")+"?zzz=1&Limit=2&zzz=3", "{", headers...)
		servertest.Expect(t, raw, 0, code.InvalidQuery)
		var names []string
		for _, issue := range decode[rawclient.Problem](t, raw).Details.Issues {
			names = append(names, issue.Path...)
		}
		if !slices.Equal(names, []string{"Limit", "zzz"}) || raw.Header.Get("Preference-Applied") != "handling=strict" {
			t.Errorf("got %s with Preference-Applied %q", raw.Body, raw.Header.Get("Preference-Applied"))
		}
	})
	for _, prefer := range []string{"", "handling=lenient", "handling=lenient, handling=strict", "handling", "strict", "x-handling=strict", `x="handling=strict"`} {
		raw := w.Do("GET", "/v1/zones?zzz=1", "", append(bearer(servertest.Bootstrap), "Prefer", prefer)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		if applied := raw.Header.Get("Preference-Applied"); applied != "" {
			t.Errorf("%s: got Preference-Applied %q", prefer, applied)
		}
	}
	raw := w.Do("GET", "/v1/zones?limit=5&name=x", "", append(bearer(servertest.Bootstrap), "Prefer", "handling=strict")...)
	servertest.Expect(t, raw, http.StatusOK, "")
	if raw.Header.Get("Preference-Applied") != "handling=strict" {
		t.Error("Preference-Applied is missing")
	}
}
