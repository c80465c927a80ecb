//go:build browser

package docs_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/provider/authserver"
	"caracal.run/management/server/servertest"
)

// A user opens the authorization URL, allows access and is connected, or denies it: in
// light and dark mode, on a desktop and a phone.
func TestUserCanAuthorizeProviderGrant(t *testing.T) {
	auth, err := authserver.Start(authserver.Options{Host: "demo-login.localhost"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = auth.Close() })
	a := servertest.WithEgress(t, auth.Egress())
	zone := a.Zone().ID
	path := "/v1/zones/" + zone + "/provider-grants/oauth/"
	auth.Register(authserver.Client{ID: "caracal-demo", AuthMethod: "none", RedirectURI: a.URL + path + "callback", SendIssuer: true})
	post := func(path, body string, into any) {
		t.Helper()
		raw := a.Do("POST", path, body, "Authorization", "Bearer "+servertest.Bootstrap, "Content-Type", "application/json")
		if err := json.Unmarshal(raw.Body, into); err != nil || raw.StatusCode() >= 300 {
			t.Fatalf("got %d %s", raw.StatusCode(), raw.Body)
		}
	}
	var provider, resource struct{ ID string }
	post("/v1/zones/"+zone+"/providers", fmt.Sprintf(`{"name":"Login","kind":"oauth2_authorization_code","config_json":{"authorization_endpoint":%q,"token_endpoint":%q,
		"allowed_token_hosts":["demo-login.localhost"],"client_id":"caracal-demo","client_auth_method":"none","redirect_uri":%q,"scopes":["openid","calendar"]}}`,
		auth.AuthorizationEndpoint(), auth.TokenEndpoint(""), a.URL+path+"callback"), &provider)
	post("/v1/zones/"+zone+"/resources", fmt.Sprintf(`{"name":"Calendar","scopes":["read"],"upstream_url":"https://calendar.example.com","credential_provider_id":%q,"gateway_application_id":%q}`,
		provider.ID, a.DB.Application(zone)), &resource)
	for _, tt := range []struct {
		name, scheme  string
		width, height int
	}{
		{"consent-light", "light", 1280, 900},
		{"consent-dark", "dark", 1280, 900},
		{"consent-light-phone", "light", 390, 844},
		{"consent-dark-phone", "dark", 390, 844},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, tt.scheme, tt.width, tt.height)
			visit := func() {
				t.Helper()
				var started client.ProviderAuthorization
				post(path+"authorize", fmt.Sprintf(`{"user_id":%q,"resource_id":%q,"provider_id":%q,"scopes":["read"]}`, tt.name, resource.ID, provider.ID), &started)
				b.visit(started.AuthorizationURL)
				b.shows("h1", "Allow caracal-demo to act for you?")
			}
			fits := func(where string) {
				t.Helper()
				if width := run[int](b, "return document.documentElement.scrollWidth"); width > tt.width {
					t.Errorf("%s: the page is %d pixels wide on a screen of %d", where, width, tt.width)
				}
				b.picture(tt.name + "-" + where)
			}
			visit()
			fits("1-consent")
			b.click("button[value=allow]")
			b.shows("h1", "Connected")
			fits("2-connected")
			used := run[string](b, "return location.href")
			visit()
			b.click("button[value=deny]")
			b.shows("h1", "Access denied")
			b.shows("main", "The user denied access.")
			fits("3-denied")
			b.visit(used)
			b.shows("h1", "Authorization expired")
			fits("4-expired")
			dark := run[string](b, "return getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
			if dark != (tt.scheme == "dark") {
				t.Errorf("the page is dark: %v", dark)
			}
			for _, entry := range b.log("browser") {
				if strings.Contains(entry.Message, "Content Security Policy") || strings.Contains(entry.Message, "favicon") {
					t.Errorf("the console has %s", entry.Message)
				}
			}
			grants, err := a.Admin.ListProviderGrantsWithResponse(t.Context(), zone, nil)
			if err != nil || grants.StatusCode() != http.StatusOK {
				t.Fatalf("got %v %s", err, grants.Body)
			}
			if n := strings.Count(string(grants.Body), `"user_id":"`+tt.name+`"`); n != 1 {
				t.Errorf("the user has %d grants, want 1", n)
			}
		})
	}
}
