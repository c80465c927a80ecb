package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// registeringZone creates a zone in which clients can register without a token.
func registeringZone(a *servertest.API) string {
	a.TB.Helper()
	zone := openZone(a)
	a.DB.Exec("UPDATE zones SET open_registration = true WHERE id = $1", zone)
	return zone
}

// withToken sends a request with a registration token or registration access token; "" is
// none.
func withToken(a *servertest.API, method, path, token, body string) servertest.RawResponse {
	a.TB.Helper()
	var headers []string
	if token != "" {
		headers = bearer(token)
	}
	if body != "" {
		headers = append(headers, "Content-Type", jsonType)
	}
	return a.Do(method, path, body, headers...)
}

// registerClient registers a client in a zone that allows everyone to.
func registerClient(t *testing.T, a *servertest.API, zone, body string) client.ClientInformation {
	t.Helper()
	raw := withToken(a, "POST", "/v1/zones/"+zone+"/register", "", body)
	servertest.Expect(t, raw, http.StatusCreated, "")
	return decode[client.ClientInformation](t, raw)
}

func clientPath(zone string, c client.ClientInformation) string {
	return "/v1/zones/" + zone + "/register/" + c.ClientID
}

const serviceClient = `{"client_name":"Report job","grant_types":["client_credentials"]}`

// publicClients are the requests of public MCP clients.
var publicClients = []struct{ name, body string }{
	{"MCP TypeScript SDK", `{"client_name":"Simple OAuth MCP Client","redirect_uris":["http://localhost:8090/callback"],"grant_types":["authorization_code","refresh_token"],
		"response_types":["code"],"token_endpoint_auth_method":"client_secret_post"}`},
	{"MCP Python SDK", `{"redirect_uris":["http://localhost:3030/callback"],"token_endpoint_auth_method":"client_secret_post","grant_types":["authorization_code","refresh_token"],
		"response_types":["code"],"scope":"user","client_name":"Simple Auth Client"}`},
	{"MCP Inspector", `{"redirect_uris":["http://localhost:6274/oauth/callback"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"],
		"response_types":["code"],"client_name":"MCP Inspector","client_uri":"https://github.com/modelcontextprotocol/inspector","scope":""}`},
	{"Claude", `{"client_name":"Claude","grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none",
		"scope":"mcp:tools","redirect_uris":["https://claude.ai/api/mcp/auth_callback"]}`},
	{"Claude Code", `{"client_name":"Claude Code (records)","redirect_uris":["http://localhost:3118/callback"],"grant_types":["authorization_code","refresh_token"],
		"response_types":["code"],"token_endpoint_auth_method":"none","application_type":"native"}`},
	{"Codex", `{"client_name":"Codex","redirect_uris":["http://127.0.0.1:37819/callback/6f1c"],"grant_types":["authorization_code","refresh_token"],
		"response_types":["code"],"token_endpoint_auth_method":"none","application_type":"native"}`},
	{"ChatGPT", `{"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector_platform_oauth_redirect"],"grant_types":["authorization_code","refresh_token"],
		"response_types":["code"],"token_endpoint_auth_method":"client_secret_basic"}`},
	{"Cursor", `{"client_name":"Cursor","redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback","http://localhost:8787/callback"],
		"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none"}`},
	{"VS Code", `{"client_name":"Visual Studio Code","client_uri":"https://code.visualstudio.com","grant_types":["authorization_code","refresh_token","urn:ietf:params:oauth:grant-type:device_code"],
		"response_types":["code"],"redirect_uris":["https://insiders.vscode.dev/redirect","https://vscode.dev/redirect","http://localhost/","http://127.0.0.1/","http://localhost:33418/","http://127.0.0.1:33418/"],
		"token_endpoint_auth_method":"none","application_type":"native"}`},
	{"mcp-remote", `{"redirect_uris":["http://localhost:3334/oauth/callback"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"],
		"response_types":["code"],"client_name":"MCP CLI Proxy","client_uri":"https://github.com/modelcontextprotocol/mcp-cli",
		"software_id":"2e6dc280-f3c3-4e01-99a7-8181dbd1d23d","software_version":"0.1.18"}`},
}

// Each public client can register, and gets back what it sent, except for what is unknown
// or empty.
func TestRegisterClientOfPublicClients(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "PUBLIC_URL=https://api.example.com/caracal")
	for _, tt := range publicClients {
		t.Run(tt.name, func(t *testing.T) {
			zone := registeringZone(a)
			raw := withToken(a, "POST", "/v1/zones/"+zone+"/register", "", tt.body)
			servertest.Expect(t, raw, http.StatusCreated, "")
			var sent map[string]any
			if err := json.Unmarshal([]byte(tt.body), &sent); err != nil {
				t.Fatal(err)
			}
			got, c := decode[map[string]any](t, raw), decode[client.ClientInformation](t, raw)
			for name, value := range sent {
				if stored := value != "" && name != "application_type"; stored && !reflect.DeepEqual(got[name], value) || !stored && got[name] != nil {
					t.Errorf("%s: got %v, sent %v", name, got[name], value)
				}
			}
			read := readApplication(t, a.Admin, zone, c.ClientID)
			if secret := sent["token_endpoint_auth_method"] != "none"; secret != (c.ClientSecret != nil) || secret != (c.ClientSecretExpiresAt != nil) || secret != (len(*read.Secrets) == 1) {
				t.Errorf("got %s", raw.Body)
			}
			if c.ClientSecret != nil && !verifies(t, a, zone, c.ClientID, *c.ClientSecret) {
				t.Error("the client secret is not valid")
			}
			if read.Name != sent["client_name"] || read.RegistrationMethod != "dcr" || !read.ExpiresAt.Equal(read.CreatedAt.Add(time.Hour)) || c.ClientIDIssuedAt != read.CreatedAt.Unix() {
				t.Errorf("got %+v", read)
			}
			if want := "https://api.example.com/caracal" + clientPath(zone, c); c.RegistrationClientURI != want || raw.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("got the URI %s, want %s", c.RegistrationClientURI, want)
			}
		})
	}
}

func TestRegisterClientMetadata(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	const key = `{"crv":"P-256","kty":"EC","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	redirecting := func(uri string) string { return fmt.Sprintf(`{"redirect_uris":[%q]}`, uri) }
	for _, tt := range []struct {
		name, body string
		want       code.Code // "" is 201
		has        string    // part of the response
	}{
		{"defaults", `{"redirect_uris":["https://a.example.com/cb"]}`, "", `"client_name":"Unnamed client","redirect_uris":["https://a.example.com/cb"],"grant_types":["authorization_code"],"response_types":["code"],"token_endpoint_auth_method":"client_secret_basic"`},
		{"no redirect URIs", `{}`, code.InvalidRedirectUri, ""},
		{"empty list of redirect URIs", `{"redirect_uris":[]}`, code.InvalidRedirectUri, ""},
		{"without redirects", serviceClient, "", `"response_types":[]`},
		{"unknown metadata", `{"redirect_uris":["https://a.example.com/cb"],"client_name#de":"x","jwks_uri":"https://a.example.com","x":{"y":1}}`, "", ""},
		{"everything", `{"redirect_uris":["https://a.example.com/cb"],"scope":"a b:c","client_uri":"https://a.example.com","logo_uri":"https://a.example.com/l","contacts":["a@example.com"],"tos_uri":"http://a.example.com/t","policy_uri":"https://a.example.com/p","software_id":"s","software_version":"1"}`,
			"", `"scope":"a b:c","client_uri":"https://a.example.com","logo_uri":"https://a.example.com/l","contacts":["a@example.com"],"tos_uri":"http://a.example.com/t","policy_uri":"https://a.example.com/p","software_id":"s","software_version":"1"`},
		{"name of one space", `{"client_name":" ","redirect_uris":["https://a.example.com/cb"]}`, code.InvalidClientMetadata, ""},
		{"reserved name", `{"client_name":"caracal.sys/x","redirect_uris":["https://a.example.com/cb"]}`, code.InvalidClientMetadata, ""},
		{"unknown grant type", `{"grant_types":["password"]}`, code.InvalidClientMetadata, ""},
		{"unknown response type", `{"response_types":["token"],"redirect_uris":["https://a.example.com/cb"]}`, code.InvalidClientMetadata, ""},
		{"code without its grant type", `{"grant_types":["client_credentials"],"response_types":["code"]}`, code.InvalidClientMetadata, ""},
		{"unknown method", `{"token_endpoint_auth_method":"tls_client_auth","redirect_uris":["https://a.example.com/cb"]}`, code.InvalidClientMetadata, ""},
		{"client credentials of a public client", `{"grant_types":["client_credentials"],"token_endpoint_auth_method":"none"}`, code.InvalidClientMetadata, ""},
		{"scope with a quote", `{"scope":"a\"b","grant_types":["client_credentials"]}`, code.InvalidClientMetadata, ""},
		{"script as logo", `{"logo_uri":"javascript:alert(1)","grant_types":["client_credentials"]}`, code.InvalidClientMetadata, ""},
		{"public keys", `{"grant_types":["client_credentials"],"token_endpoint_auth_method":"private_key_jwt","jwks":{"keys":[` + key + `}]}}`, "", `"jwks":{"keys":[` + key + `}]}`},
		{"no public keys", `{"grant_types":["client_credentials"],"token_endpoint_auth_method":"private_key_jwt"}`, code.InvalidClientMetadata, ""},
		{"empty set of keys", `{"grant_types":["client_credentials"],"token_endpoint_auth_method":"private_key_jwt","jwks":{"keys":[]}}`, code.InvalidClientMetadata, ""},
		{"private key", `{"grant_types":["client_credentials"],"jwks":{"keys":[` + key + `,"d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}]}}`, code.InvalidClientMetadata, ""},
		{"symmetric key", `{"grant_types":["client_credentials"],"jwks":{"keys":[{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}]}}`, code.InvalidClientMetadata, ""},
		{"not a key", `{"grant_types":["client_credentials"],"jwks":{"keys":[{"kty":"x"}]}}`, code.InvalidClientMetadata, ""},
		{"loopback IPv6", redirecting("http://[::1]:7/cb?x=1"), "", ""},
		{"reversed domain", redirecting("com.example.app:/cb"), "", ""},
		{"not loopback", redirecting("http://a.example.com/cb"), code.InvalidRedirectUri, ""},
		{"looks like loopback", redirecting("http://127.0.0.1.example.com/cb"), code.InvalidRedirectUri, ""},
		{"fragment", redirecting("https://a.example.com/cb#x"), code.InvalidRedirectUri, ""},
		{"empty fragment", redirecting("https://a.example.com/cb#"), code.InvalidRedirectUri, ""},
		{"user", redirecting("https://a@b.example.com/cb"), code.InvalidRedirectUri, ""},
		{"wildcard", redirecting("https://*.example.com/cb"), code.InvalidRedirectUri, ""},
		{"no host", redirecting("https:///cb"), code.InvalidRedirectUri, ""},
		{"relative", redirecting("/cb"), code.InvalidRedirectUri, ""},
		{"script", redirecting("javascript:alert(1)"), code.InvalidRedirectUri, ""},
		{"script in capitals", redirecting("JavaScript://x/%0aalert(1)"), code.InvalidRedirectUri, ""},
		{"data", redirecting("data:text/html,x"), code.InvalidRedirectUri, ""},
		{"only a scheme", redirecting("app:"), code.InvalidRedirectUri, ""},
		{"redirect URI too long", redirecting("https://a.example.com/" + strings.Repeat("x", 2048)), code.InvalidClientMetadata, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := withToken(a, "POST", "/v1/zones/"+registeringZone(a)+"/register", "", tt.body)
			servertest.Expect(t, raw, http.StatusCreated, tt.want)
			if !strings.Contains(string(raw.Body), tt.has) {
				t.Errorf("got %s, want %s", raw.Body, tt.has)
			}
		})
	}
}

func TestRegisterClientAccess(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	closed, open, system := openZone(a), registeringZone(a), a.Zone(func(z *client.NewZone) { z.Name, z.DCREnabled = "caracal.sys/system", new(true) }).ID
	disabled, full := a.Zone().ID, registeringZone(a)
	a.DB.Exec("UPDATE zones SET open_registration = true WHERE id = ANY ($1)", []string{system, disabled})
	a.DB.DCRApplications(full, 1000)
	token := func(zone string, body client.NewRegistrationToken) string {
		return newRegistrationToken(t, a, zone, body).Token
	}
	valid, other, once := token(closed, client.NewRegistrationToken{Name: "x"}), token(open, client.NewRegistrationToken{Name: "x"}), token(closed, client.NewRegistrationToken{Name: "x", MaxUses: new(1)})
	servertest.Expect(t, withToken(a, "POST", "/v1/zones/"+closed+"/register", once, serviceClient), http.StatusCreated, "")
	crowded := registeringZone(a)
	a.DB.DCRApplications(crowded, 250)
	a.DB.Exec("INSERT INTO client_registrations (zone_id, application_id, token_sha256, metadata, anonymous) SELECT zone_id, id, '', '{}', true FROM applications WHERE zone_id = $1", crowded)
	expired := token(closed, client.NewRegistrationToken{Name: "expired"})
	a.DB.Exec("UPDATE registration_tokens SET expires_at = now() WHERE name = 'expired'")
	for _, tt := range []struct {
		name, zone, token string
		want              code.Code // "" is 201
	}{
		{"with a token", closed, valid, ""},
		{"without a token", closed, "", code.InvalidRegistrationToken},
		{"with the admin token", closed, servertest.Bootstrap, code.InvalidRegistrationToken},
		{"with a token of another zone", closed, other, code.InvalidRegistrationToken},
		{"with an expired token", closed, expired, code.InvalidRegistrationToken},
		{"with a used token", closed, once, code.InvalidRegistrationToken},
		{"open", open, "", ""},
		{"open, with a token", open, other, ""},
		{"open, with a wrong token", open, valid, code.InvalidRegistrationToken},
		{"registration disabled", disabled, "", code.DCRDisabled},
		{"too many clients", full, "", code.DCRLimitExceeded},
		{"too many clients without a token", crowded, "", code.DCRLimitExceeded},
		{"too many clients without a token, with one", crowded, token(crowded, client.NewRegistrationToken{Name: "x"}), ""},
		{"reserved zone", system, "", code.SystemZoneReadOnly},
		{"unknown zone", "unknown", "", code.ZoneNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw := withToken(a, "POST", "/v1/zones/"+tt.zone+"/register", tt.token, serviceClient)
			servertest.Expect(t, raw, http.StatusCreated, tt.want)
			if tt.want == code.InvalidRegistrationToken && raw.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("got the headers %v", raw.Header)
			}
		})
	}
}

// A token that can be used a number of times is not used more often, at the same time
// either, and a registration that fails does not use it.
func TestRegisterClientUsesTokenAtMost(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := openZone(a)
	token := newRegistrationToken(t, a, zone, client.NewRegistrationToken{Name: "x", MaxUses: new(2)})
	path := "/v1/zones/" + zone + "/register"
	servertest.Expect(t, withToken(a, "POST", path, token.Token, `{}`), 0, code.InvalidRedirectUri)
	const requests = 5
	statuses := make(chan int, requests)
	for range requests {
		go func() { statuses <- withToken(a, "POST", path, token.Token, serviceClient).StatusCode() }()
	}
	got := map[int]int{}
	for range requests {
		got[<-statuses]++
	}
	if got[http.StatusCreated] != 2 || got[http.StatusUnauthorized] != requests-2 {
		t.Errorf("got %v", got)
	}
	if used := storetest.Value[int](a.DB, "SELECT uses FROM registration_tokens WHERE id = $1", token.ID); used != 2 {
		t.Errorf("used %d times", used)
	}
	entries := storetest.Column[string](a.DB, "SELECT concat_ws(' ', actor_id, actor_name, actor_scope, payload::jsonb ->> 'rls_mode') FROM audit_entries WHERE operation = 'registerClient' AND entity_type = 'applications'")
	if want := token.ID + " x zone zone_scoped"; len(entries) != 2 || entries[0] != want || entries[1] != want {
		t.Errorf("got %q", entries)
	}
}

func TestRegisterClientRateLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := registeringZone(a)
	path := "/v1/zones/" + zone + "/register"
	token := newRegistrationToken(t, a, zone, client.NewRegistrationToken{Name: "x"}).Token
	admitted := until(t, 500, code.DCRRateLimitExceeded, func() servertest.RawResponse { return withToken(a, "POST", path, token, serviceClient) })
	if admitted < 10 {
		t.Errorf("%d were allowed, want 10", admitted)
	}
	servertest.Expect(t, withToken(a, "POST", path, "", serviceClient), http.StatusCreated, "")
}

func TestAnonymousRegistrationLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	path := "/v1/zones/" + registeringZone(a) + "/register"
	const limit = 60
	left := func() int {
		return int(time.Hour/time.Second - time.Duration(time.Now().Unix())%(time.Hour/time.Second))
	} // seconds of the hour
	for registered := 0; ; {
		before := left()
		raw := withToken(a, "POST", path, "", serviceClient)
		if raw.StatusCode() == http.StatusCreated {
			registered++
			continue
		}
		if strings.Contains(string(raw.Body), string(code.DCRRateLimitExceeded)) {
			<-time.After(50 * time.Millisecond) // until the next second
			continue
		}
		servertest.Expect(t, raw, 0, code.DCRLimitExceeded)
		if wait, err := strconv.Atoi(raw.Header.Get("Retry-After")); err != nil || wait > before || wait < min(left(), before) {
			t.Errorf("Retry-After: %q with %d seconds left", raw.Header.Get("Retry-After"), before)
		}
		if registered < limit || registered > 2*limit { // an hour may end in between
			t.Errorf("%d clients were registered, want %d", registered, limit)
		}
		return
	}
}

// Only the registration access token gives access to a client.
func TestRegisteredClientAccess(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := registeringZone(a)
	mine, other, expired, archived := registerClient(t, a, zone, serviceClient), registerClient(t, a, zone, serviceClient), registerClient(t, a, zone, serviceClient), registerClient(t, a, zone, serviceClient)
	a.DB.Exec("UPDATE applications SET expires_at = now() WHERE id = $1", expired.ClientID)
	a.DB.Exec("UPDATE applications SET archived_at = now() WHERE id = $1", archived.ClientID)
	managed := newApplication(t, a, zone)
	for _, tt := range []struct{ name, path, token string }{
		{"no token", clientPath(zone, mine), ""},
		{"of another client", clientPath(zone, mine), other.RegistrationAccessToken},
		{"admin token", clientPath(zone, mine), servertest.Bootstrap},
		{"client secret", clientPath(zone, mine), *mine.ClientSecret},
		{"another letter", clientPath(zone, mine), mine.RegistrationAccessToken + "x"},
		{"other zone", clientPath(registeringZone(a), mine), mine.RegistrationAccessToken},
		{"unknown client", "/v1/zones/" + zone + "/register/unknown", mine.RegistrationAccessToken},
		{"managed application", "/v1/zones/" + zone + "/register/" + managed.ID, managed.ClientSecret},
		{"expired", clientPath(zone, expired), expired.RegistrationAccessToken},
		{"archived", clientPath(zone, archived), archived.RegistrationAccessToken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, method := range []string{"GET", "PUT", "DELETE"} {
				body := ""
				if method == "PUT" {
					body = `{"client_id":"` + mine.ClientID + `","grant_types":["client_credentials"]}`
				}
				servertest.Expect(t, withToken(a, method, tt.path, tt.token, body), 0, code.InvalidRegistrationToken)
			}
		})
	}
	raw := withToken(a, "GET", clientPath(zone, mine), mine.RegistrationAccessToken, "")
	servertest.Expect(t, raw, http.StatusOK, "")
	want := mine
	want.ClientSecret = nil
	if got := decode[client.ClientInformation](t, raw); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUpdateRegisteredClient(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := registeringZone(a)
	c := registerClient(t, a, zone, `{"client_name":"First","redirect_uris":["https://a.example.com/cb"],"scope":"a","software_id":"s"}`)
	path := clientPath(zone, c)
	put := func(fields string) servertest.RawResponse {
		t.Helper()
		return withToken(a, "PUT", path, c.RegistrationAccessToken, `{"client_id":"`+c.ClientID+`"`+fields+`}`)
	}
	const redirect = `,"redirect_uris":["https://b.example.com/cb"]`
	for _, tt := range []struct {
		name, fields string
		want         code.Code
	}{
		{"invalid redirect URI", `,"redirect_uris":["http://b.example.com/cb"]`, code.InvalidRedirectUri},
		{"no redirect URI", ``, code.InvalidRedirectUri},
		{"wrong client secret", redirect + `,"client_secret":"cs_wrong"`, code.InvalidClientMetadata},
		{"reserved name", redirect + `,"client_name":"caracal.sys/x"`, code.InvalidClientMetadata},
		{"wrong grant type", redirect + `,"grant_types":["x"]`, code.InvalidClientMetadata},
	} {
		servertest.Expect(t, put(tt.fields), 0, tt.want)
	}
	servertest.Expect(t, withToken(a, "PUT", path, c.RegistrationAccessToken, `{"client_id":"other"`+redirect+`}`), 0, code.InvalidClientMetadata)

	// It replaces all metadata, and keeps the secret.
	raw := put(redirect + `,"client_name":"Second","client_secret":"` + *c.ClientSecret + `"`)
	servertest.Expect(t, raw, http.StatusOK, "")
	want := c
	want.ClientSecret, want.ClientName, want.RedirectUris, want.Scope, want.SoftwareID = nil, "Second", []string{"https://b.example.com/cb"}, nil, nil
	if got := decode[client.ClientInformation](t, raw); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if !verifies(t, a, zone, c.ClientID, *c.ClientSecret) {
		t.Error("the secret is not valid any more")
	}
	// A public client has no secret, and gets one when it is not public any more.
	raw = put(redirect + `,"token_endpoint_auth_method":"none"`)
	servertest.Expect(t, raw, http.StatusOK, "")
	if got := decode[client.ClientInformation](t, raw); got.ClientSecret != nil || got.ClientSecretExpiresAt != nil || verifies(t, a, zone, c.ClientID, *c.ClientSecret) {
		t.Errorf("a public client has a secret: %s", raw.Body)
	}
	raw = put(redirect + `,"client_name":"Third"`)
	servertest.Expect(t, raw, http.StatusOK, "")
	if got := decode[client.ClientInformation](t, raw); got.ClientSecret == nil || !verifies(t, a, zone, c.ClientID, *got.ClientSecret) {
		t.Errorf("it got no valid secret: %s", raw.Body)
	}
	entries := storetest.Column[string](a.DB, `SELECT concat_ws(' ', actor_id = entity_id, actor_name, payload::jsonb -> 'changed_fields', payload::jsonb -> 'secret_rotated', payload::jsonb #> '{changes,client_metadata,to,redirect_uris}')
		FROM audit_entries WHERE operation = 'updateRegisteredClient' AND entity_id = $1 ORDER BY id`, c.ClientID)
	wantEntries := []string{`t First ["client_metadata", "name"] ["https://b.example.com/cb"]`, `t Second ["client_metadata", "name", "secrets"] ["https://b.example.com/cb"]`, `t Unnamed client ["client_metadata", "name", "secrets"] true ["https://b.example.com/cb"]`}
	if !reflect.DeepEqual(entries, wantEntries) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(entries, "\n"), strings.Join(wantEntries, "\n"))
	}
	// A client that administrators have given privileges cannot be changed by its token.
	a.DB.Exec("UPDATE applications SET traits = '{control:invoke}' WHERE id = $1", c.ClientID)
	servertest.Expect(t, put(redirect), 0, code.TraitForbidden)
	servertest.Expect(t, withToken(a, "DELETE", path, c.RegistrationAccessToken, ""), 0, code.TraitForbidden)
	a.DB.Exec("UPDATE zones SET reserved = true WHERE id = $1", zone)
	servertest.Expect(t, put(redirect), 0, code.SystemZoneReadOnly)
	servertest.Expect(t, withToken(a, "DELETE", path, c.RegistrationAccessToken, ""), 0, code.SystemZoneReadOnly)
}

func TestDeleteRegisteredClient(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := registeringZone(a)
	c := registerClient(t, a, zone, serviceClient)
	session := a.DB.ApplicationSession(zone, c.ClientID)
	agent := a.DB.AgentSession(zone, c.ClientID, session)
	a.DB.DelegationEdge(zone, agent, agent)
	servertest.Expect(t, withToken(a, "DELETE", clientPath(zone, c), c.RegistrationAccessToken, ""), http.StatusNoContent, "")
	servertest.Expect(t, withToken(a, "GET", clientPath(zone, c), c.RegistrationAccessToken, ""), 0, code.InvalidRegistrationToken)
	if verifies(t, a, zone, c.ClientID, *c.ClientSecret) {
		t.Error("the secret is still valid")
	}
	if n := storetest.Value[int](a.DB, "SELECT (SELECT count(*) FROM client_registrations) + (SELECT count(*) FROM sessions WHERE status = 'active')"); n != 0 {
		t.Errorf("%d registrations and active sessions are left", n)
	}
}

// The tokens and their hashes are neither in the log nor in the audit log.
func TestRegisterClientLeaksNoToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := registeringZone(a)
	token := newRegistrationToken(t, a, zone, client.NewRegistrationToken{Name: "x"})
	raw := withToken(a, "POST", "/v1/zones/"+zone+"/register", token.Token, serviceClient)
	servertest.Expect(t, raw, http.StatusCreated, "")
	c := decode[client.ClientInformation](t, raw)
	servertest.Expect(t, withToken(a, "GET", clientPath(zone, c), c.RegistrationAccessToken, ""), http.StatusOK, "")
	if err := a.Service.Stop(); err != nil { // flushes the log
		t.Fatal(err)
	}
	for _, secret := range []string{token.Token, c.RegistrationAccessToken, *c.ClientSecret} {
		if strings.Contains(a.Log.String(), secret) {
			t.Errorf("%q is in the log", secret)
		}
		for _, table := range storetest.Column[string](a.DB, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'") {
			if n := storetest.Value[int](a.DB, "SELECT count(*) FROM "+table+" AS t WHERE strpos(to_jsonb(t)::text, $1) > 0", secret); n > 0 {
				t.Errorf("%q is in %s", secret, table)
			}
		}
	}
	hashes := storetest.Column[string](a.DB, "SELECT encode(token_sha256, 'base64') FROM registration_tokens UNION ALL SELECT encode(token_sha256, 'hex') FROM client_registrations")
	for _, hash := range hashes {
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE strpos(payload, $1) > 0", hash); n > 0 {
			t.Errorf("the hash %s is in the audit log", hash)
		}
	}
}
