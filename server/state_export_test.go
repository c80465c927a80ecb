package server_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen"
	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

const yamlType = "application/yaml"

// exportedState exports a zone with a token. headers is alternating names and values.
func (z stateZone) exported(t testing.TB, token, query string, headers ...string) string {
	t.Helper()
	raw := z.Do("GET", "/v1/zones/"+z.zone+"/state"+query, "", append(bearer(token), headers...)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	return string(raw.Body)
}

// sent sends a document to an operation of a zone.
func (z stateZone) sent(operation, document, mediaType string) servertest.RawResponse {
	return z.Do("POST", "/v1/zones/"+z.zone+"/state/"+operation, document, append(bearer(servertest.Bootstrap), "Content-Type", mediaType)...)
}

// expectUnchanged plans a document and expects it to change nothing.
func (z stateZone) expectUnchanged(t testing.TB, document, mediaType string) {
	t.Helper()
	raw := z.sent("plan", document, mediaType)
	servertest.Expect(t, raw, http.StatusOK, "")
	var report client.StateReport
	if err := json.Unmarshal(raw.Body, &report); err != nil {
		t.Fatal(err)
	}
	if report.Drift || len(report.Outcomes) == 0 {
		t.Errorf("the plan of %s\nis %s", document, raw.Body)
	}
}

// withEverything returns a zone that has objects of every kind, and what an export leaves out.
func withEverything(t *testing.T) stateZone {
	t.Helper()
	z := newStateZone(t)
	z.apply(t, z.Admin, bootstrapDocument, "")
	z.apply(t, z.Admin, `{"objects":[
		{"kind":"zone","spec":{"dcr_enabled":true,"operator_coauthor_badge":false}},
		{"kind":"identity-provider","spec":{"identifier":"provider://mail","name":"Mail: yes","kind":"oauth2_authorization_code","config":{
			"authorization_endpoint":"https://mail.example.com/authorize","token_endpoint":"https://mail.example.com/token?api_key=in-the-url","allowed_token_hosts":["mail.example.com"],
			"client_id":"x","client_secret":"secret-2","redirect_uri":"https://api.example.com/cb","token_params":{"audience":"y","password":"in-a-parameter"}}}},
		{"kind":"identity-provider","spec":{"identifier":"provider://open","kind":"none"}},
		{"kind":"grant","spec":{"application":"Billing","user_id":"ada","resource":"https://invoices.example.com","scopes":["invoices:read"]}}]}`, "")
	z.apply(t, z.Admin, policyDocument(`,"activate":true`, "IDs="+documentOf("x"), "Risk="+riskOf("read")), "")
	z.apply(t, z.Admin, `{"objects":[{"kind":"policy-set","spec":{"name":"Draft","description":"yes","policies":["Risk"]}}]}`, "")
	z.DB.DCRApplications(z.zone, 1)
	newControlKey(t, z.API, z.zone, client.ControlScopeControlAppRead)
	return z
}

const everyKind = "?kinds=zone&kinds=application&kinds=identity-provider&kinds=resource&kinds=policy&kinds=policy-set&kinds=grant"

func TestExportState(t *testing.T) {
	t.Parallel()
	z := withEverything(t)
	document := z.exported(t, servertest.Bootstrap, everyKind)
	z.expectUnchanged(t, document, jsonType)
	inYAML := z.exported(t, servertest.Bootstrap, everyKind, "Accept", yamlType)
	z.expectUnchanged(t, inYAML, yamlType)
	if again := z.exported(t, servertest.Bootstrap, everyKind); again != document {
		t.Errorf("got %s\nand then %s", document, again)
	}
	for _, unwanted := range []string{"secret-", "in-the-url", "in-a-parameter", "control:", "DCR", z.zone} {
		if strings.Contains(document, unwanted) || strings.Contains(inYAML, unwanted) {
			t.Errorf("%q is in %s", unwanted, document)
		}
	}
	for _, wanted := range []string{
		"# yaml-language-server: $schema=http://localhost", "/v1/state/schema\n# Not in this document:\n# - registered applications, which clients create: 1\nobjects:\n", "name: 'Mail: yes'", "# config has other secrets, which are omitted: token_endpoint.api_key",
		"client_secret: ${MAIL_CLIENT_SECRET}", "password: ${MAIL_TOKEN_PARAMS_PASSWORD}", "content: |\n", `description: "yes"`,
	} {
		if !strings.Contains(inYAML, wanted) {
			t.Errorf("%q is not in\n%s", wanted, inYAML)
		}
	}
	var kinds []string
	var all struct{ Objects []struct{ Kind string } }
	if err := json.Unmarshal([]byte(document), &all); err != nil {
		t.Fatal(err)
	}
	for _, o := range all.Objects {
		kinds = append(kinds, o.Kind)
	}
	if got, want := strings.Join(kinds, " "), "zone application application identity-provider identity-provider identity-provider identity-provider resource policy policy policy-set policy-set grant"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// An export says which grants it leaves out, and has no comment if there are none.
func TestExportStateNamesOmittedGrants(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	exported := func() string {
		text := z.exported(t, servertest.Bootstrap, "?kinds=grant", "Accept", yamlType)
		z.expectUnchanged(t, text, yamlType)
		_, text, _ = strings.Cut(text, "\n")
		return text
	}
	applied := z.apply(t, z.Admin, grantDocument(`["invoices:read"]`), "")
	resource, billing := *outcome(t, applied, "https://invoices.example.com").ID, *outcome(t, applied, "Billing").ID
	const kept = "objects:\n  - kind: grant\n    spec:\n      application: Billing\n      user_id: user-7\n      resource: https://invoices.example.com\n      scopes:\n        - invoices:read\n"
	if got := exported(); got != kept {
		t.Errorf("got %s", got)
	}
	z.DB.DCRApplications(z.zone, 1)
	registered := storetest.Value[string](z.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", z.zone)
	z.DB.Grant(z.zone, registered, resource)
	repeated := z.DB.Grant(z.zone, billing, resource)
	z.DB.Exec("UPDATE grants SET scopes = '{invoices:read}' WHERE zone_id = $1", z.zone)
	z.DB.Exec("INSERT INTO grants (zone_id, id, application_id, user_id, resource_id, scopes) SELECT zone_id, 'x' || id, application_id, user_id, resource_id, scopes FROM grants WHERE id = $1", repeated)
	want := "# Not in this document:\n# - grants of applications that are not managed or not active, or for resources that no document can have: 1\n" +
		"# - grants that others repeat, for the same application, user and resource: 2\n" + kept
	if got := exported(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// An export, with its placeholders replaced, brings up another zone like it.
func TestExportStateBringsUpAnotherZone(t *testing.T) {
	t.Parallel()
	from := withEverything(t)
	to := stateZone{from.API, from.Zone().ID}
	document := from.exported(t, servertest.Bootstrap, everyKind, "Accept", yamlType)
	raw := to.sent("apply", document, yamlType)
	servertest.Expect(t, raw, 0, code.InvalidState)
	var problem struct {
		Details struct {
			Issues []struct {
				Line    int
				Message string
			}
		}
	}
	if err := json.Unmarshal(raw.Body, &problem); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(document, "\n")
	var got []string
	for _, issue := range problem.Details.Issues {
		got = append(got, strings.TrimSpace(lines[issue.Line-1])+" "+issue.Message)
	}
	slices.Sort(got)
	const message = " must be the secret: this is a placeholder"
	want := []string{"client_secret: ${LEDGER_CLIENT_SECRET}" + message, "client_secret: ${MAIL_CLIENT_SECRET}" + message, "password: ${MAIL_TOKEN_PARAMS_PASSWORD}" + message}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	replaced := strings.NewReplacer("${LEDGER_CLIENT_SECRET}", "s1", "${MAIL_CLIENT_SECRET}", "s2", "${MAIL_TOKEN_PARAMS_PASSWORD}", "s3").Replace(document)
	servertest.Expect(t, to.sent("apply", replaced, yamlType), http.StatusOK, "")
	to.expectUnchanged(t, document, yamlType)
	same := to.exported(t, servertest.Bootstrap, everyKind, "Accept", yamlType)
	document = strings.Replace(document, "# Not in this document:\n# - registered applications, which clients create: 1\n", "", 1)
	if want := strings.Replace(document, "    # config has other secrets, which are omitted: token_endpoint.api_key\n", "", 1); same != strings.ReplaceAll(want, "  # config has other secrets, which are omitted: token_endpoint.api_key\n", "") {
		t.Errorf("got\n%s\nwant\n%s", same, want)
	}
}

func TestExportStateOfZoneToken(t *testing.T) {
	t.Parallel()
	z := withEverything(t)
	token := z.Token(z.zone, "read").Token
	document := z.exported(t, token, "")
	if strings.Contains(document, "traits") || strings.Contains(document, `"grant"`) {
		t.Errorf("got %s", document)
	}
	z.expectUnchanged(t, document, jsonType)
	if got := z.exported(t, token, "?kinds=policy-set"); strings.Contains(got, `"policy"`) || !strings.Contains(got, `"Draft"`) {
		t.Errorf("got %s", got)
	}
	for _, tt := range []struct {
		path, token string
		want        code.Code
	}{
		{"/v1/zones/" + z.zone + "/state?kinds=session", token, code.InvalidQuery},
		{"/v1/zones/" + z.zone + "/state?kinds=", token, code.InvalidQuery},
		{"/v1/zones/unknown/state", servertest.Bootstrap, code.ZoneNotFound},
		{"/v1/zones/" + z.Zone().ID + "/state", token, code.AdminTokenZoneMismatch},
	} {
		servertest.Expect(t, z.Do("GET", tt.path, "", bearer(tt.token)...), 0, tt.want)
	}
}

// What a document cannot express is left out, so that a plan of the rest is empty.
func TestExportStateSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	z := withEverything(t)
	z.apply(t, z.Admin, policyDocument("", "Risk="+riskOf("write")), "")
	z.DB.Exec("UPDATE resources SET gateway_application_id = NULL WHERE zone_id = $1", z.zone)
	got := z.exported(t, servertest.Bootstrap, "", "Accept", yamlType)
	for _, wanted := range []string{
		"# gateway_application is omitted: the resource has none that is a managed application\n",
		"# policies are omitted: the newest version of the policy set does not have the newest versions of its policies\n",
	} {
		if !strings.Contains(got, wanted) {
			t.Errorf("%q is not in\n%s", wanted, got)
		}
	}
	z.expectUnchanged(t, got, yamlType)
}

func TestExportStateFails(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	for range 2 {
		newApplication(t, z.API, z.zone)
	}
	raw := z.Do("GET", "/v1/zones/"+z.zone+"/state", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, 0, code.StateNotExportable)
	if !strings.Contains(string(raw.Body), `"object":{"identity":`) {
		t.Errorf("got %s", raw.Body)
	}
	z.exported(t, servertest.Bootstrap, "?kinds=policy")
	application, resource := z.DB.Application(z.zone), z.DB.Resource(z.zone)
	z.DB.Exec(`INSERT INTO grants (zone_id, id, application_id, user_id, resource_id, scopes, status)
		SELECT $1, 'grant-' || n, $2, 'user-' || n, $3, '{read}', 'active' FROM generate_series(1, 2001) AS n`, z.zone, application, resource)
	raw = z.Do("GET", "/v1/zones/"+z.zone+"/state?kinds=grant", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, 0, code.StateNotExportable)
	if !strings.Contains(string(raw.Body), "more than 2000 active grants") {
		t.Errorf("got %s", raw.Body)
	}
	if n := storetest.Value[int](z.DB, "SELECT count(*) FROM grants WHERE zone_id = $1", z.zone); n != 2001 {
		t.Errorf("%d grants", n)
	}
}

func TestStateOfYAMLSaysLines(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	raw := z.sent("plan", "objects:\n  - kind: application\n    spec:\n      name: Billing\n      trait: [a]\n  - kind: policy\n    spec: {name: x, contents: y}\n", yamlType)
	servertest.Expect(t, raw, 0, code.InvalidState)
	for _, wanted := range []string{
		`{"path":["objects","0","spec","trait"],"message":"unknown field","line":5,"column":7}`,
		`"line":7,`,
	} {
		if !strings.Contains(string(raw.Body), wanted) {
			t.Errorf("%s is not in %s", wanted, raw.Body)
		}
	}
	for _, tt := range []struct{ text, mediaType, want string }{
		{"objects:\n  - kind: application\n   spec: {}\n", yamlType, `{"path":[],"message":"must be YAML: did not find expected '-' indicator","line":3,"column":4}`},
		{"{\"objects\": [\n  {},\n]}", "application/json", `{"path":[],"message":"must be JSON: invalid character ']' looking for beginning of value","line":3,"column":1}`},
		{"{\"objects\": [],\n \"objects\": []}", "application/json", `{"path":["objects"],"message":"must not be given twice","line":2,"column":2}`},
	} {
		raw := z.sent("plan", tt.text, tt.mediaType)
		servertest.Expect(t, raw, 0, code.InvalidJSON)
		if !strings.Contains(string(raw.Body), tt.want) {
			t.Errorf("%s is not in %s", tt.want, raw.Body)
		}
	}
	for _, mediaType := range []string{yamlType, "application/json"} {
		servertest.Expect(t, z.sent("plan", "\ufeff{\"objects\": []}", mediaType), 0, code.InvalidJSON)
	}
	servertest.Expect(t, z.sent("plan", "objects: []", "text/yaml"), 0, code.UnsupportedMediaType)
}

func TestGetStateSchema(t *testing.T) {
	t.Parallel()
	raw := servertest.New(t).Do("GET", "/v1/state/schema", "")
	servertest.Expect(t, raw, http.StatusOK, "")
	if string(raw.Body) != string(gen.StateSchema) || raw.Header.Get("Content-Type") != "application/schema+json" {
		t.Errorf("got %v %.100s", raw.Header, raw.Body)
	}
}

// A placeholder is never stored: not in a URL, in a list, in another text, or with white space.
func TestStateRefusesMisplacedPlaceholders(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	for _, tt := range []struct{ fields, want string }{
		{`"client_secret":" ${LEDGER_SECRET}\n"`, "objects.0.spec.config.client_secret: must be the secret: this is a placeholder"},
		{`"client_secret":"x","token_params":{"password":"${X} "}`, "objects.0.spec.config.token_params.password: must be the secret: this is a placeholder"},
		{`"client_secret":"Bearer ${X}"`, "objects.0.spec.config.client_secret: must not contain a placeholder, which stands for a secret as a whole"},
		{`"client_secret":"x","scope":"${lower}"`, "objects.0.spec.config.scope: must not contain a placeholder, which stands for a secret as a whole"},
		{`"client_secret":"x","token_endpoint":"https://login.example.com/token?api_key=%24%7BX%7D"`, "objects.0.spec.config.token_endpoint: must not contain a placeholder, which stands for a secret as a whole"},
		{`"client_secret":"x","allowed_token_hosts":["login.example.com","${X}"]`, "objects.0.spec.config.allowed_token_hosts: must not contain a placeholder, which stands for a secret as a whole"},
	} {
		config := `"client_id":"x",` + tt.fields
		for name, value := range map[string]string{"token_endpoint": `"https://login.example.com/token"`, "allowed_token_hosts": `["login.example.com"]`} {
			if !strings.Contains(tt.fields, name) {
				config += `,"` + name + `":` + value
			}
		}
		raw := z.sent("plan", `{"objects":[{"kind":"identity-provider","spec":{"identifier":"provider://a","kind":"oauth2_client_credentials","config":{`+config+`}}}]}`, jsonType)
		servertest.Expect(t, raw, 0, code.InvalidState)
		var problem struct {
			Details struct {
				Issues []struct {
					Path    []string
					Message string
				}
			}
		}
		if err := json.Unmarshal(raw.Body, &problem); err != nil || len(problem.Details.Issues) != 1 {
			t.Errorf("%s: got %s, %v", tt.fields, raw.Body, err)
			continue
		}
		if issue := problem.Details.Issues[0]; strings.Join(issue.Path, ".")+": "+issue.Message != tt.want {
			t.Errorf("%s: got %v", tt.fields, issue)
		}
	}
}
