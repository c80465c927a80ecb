package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"caracal.run/management/server/servertest"
)

// A shell runs commands in this process, with variables and no others.
type shell struct {
	t         *testing.T
	variables map[string]string
}

// newShell returns a shell for a service, with the bootstrap token.
func newShell(t *testing.T, a *servertest.API, zone string) *shell {
	return &shell{t, map[string]string{"CARACAL_URL": a.URL, "CARACAL_ADMIN_TOKEN": servertest.Bootstrap, "CARACAL_ZONE": zone, "XDG_CONFIG_HOME": t.TempDir()}}
}

// run runs a command as main does.
func (s *shell) run(stdin string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	var out, errOut bytes.Buffer
	code = s.start(s.t.Context(), strings.NewReader(stdin), &out, &errOut, args...)
	return out.String(), errOut.String(), code
}

// start runs a command as main does, until ctx ends, and returns its exit code.
func (s *shell) start(ctx context.Context, in io.Reader, out, errOut io.Writer, args ...string) int {
	root := newRoot(func(name string) string { return s.variables[name] })
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	printError(errOut, err)
	return exitCode(err)
}

// ok runs a command that must succeed, and returns its output.
func (s *shell) ok(args ...string) string {
	s.t.Helper()
	stdout, stderr, code := s.run("", args...)
	if code != 0 {
		s.t.Fatalf("%v: exit code %d\n%s", args, code, stderr)
	}
	return stdout
}

// file writes a file and returns its name.
func (s *shell) file(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

const dataPolicy = "# caracal:data-document\npackage caracal.authz\n\nrestrict := []\n"

// Every command of every kind of objects works against a service.
func TestEveryNounAndVerb(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	s := newShell(t, a, zone)
	rego, manifest := s.file("policy.rego", dataPolicy), s.file("manifest.yaml", "manifest:\n- policy_version_id: $PVERSION\n")
	session := a.DB.Session(zone)
	vars := map[string]string{
		"$REGO": rego, "$MANIFEST": manifest, "$AGENT": a.DB.AgentSession(zone, a.DB.Application(zone), session),
		"$SESSION": session, "$PENDING": a.DB.StepUpChallenge(zone, session), "$ANOTHER": a.DB.StepUpChallenge(zone, session),
		"$DEAD": a.DB.DeadLetter(zone), "$REJECTED": a.DB.DeadLetter(zone), "$SECRETFILE": s.file("secret", "a-secret\n"),
	}
	expand := func(text string) string {
		for _, name := range slices.SortedFunc(func(yield func(string) bool) {
			for name := range vars {
				if !yield(name) {
					return
				}
			}
		}, func(a, b string) int { return len(b) - len(a) }) {
			text = strings.ReplaceAll(text, name, vars[name])
		}
		return text
	}
	used := map[string]bool{}
	for _, tt := range []struct {
		args string
		want string // part of the output
		save string // the variable for the ID of the created object
	}{
		{"zone create --set name=Production", "Production", "$ZONE"},
		{"zone list --slug production", "Production", ""},
		{"zone get $ZONE", "slug", ""},
		{"zone update $ZONE --set name=Staging", "Staging", ""},
		{"zone overview $ZONE", "applications", ""},
		{"zone rotate-signing-key $ZONE", "kid", ""},
		{"zone delete $ZONE", "zone $ZONE deleted", ""},

		{"application create --set name=Invoices --set registration_method=managed", "client_secret", "$APP"},
		{"application list --name Invoices", "Invoices", ""},
		{"application get $APP", "managed", ""},
		{"application update $APP --set name=Bills", "Bills", ""},
		{"application rotate-secret $APP", "client_secret", ""},
		{"application rotate-secret $APP --set overlap_seconds=60", "client_secret", ""},

		{"provider create --set name=Mandates --set kind=caracal_mandate", "Mandates", "$PROVIDER"},
		{"provider create --set name=Tokens --set kind=bearer_token --set-file config_json.bearer_token=$SECRETFILE", "bearer_token", "$BEARER"},
		{"provider list --kind bearer_token", "Tokens", ""},
		{"provider get $PROVIDER", "Mandates", ""},
		{"provider update $PROVIDER --set name=Signed", "Signed", ""},
		{`provider create --set name=OAuth --set kind=oauth2_client_credentials --set config_json={"token_endpoint":"https://auth.invalid/token","client_id":"c","allowed_token_hosts":["auth.invalid"]} --set-file config_json.client_secret=$SECRETFILE`, "client_secret", "$OAUTH"},
		{"provider test $OAUTH", "reachable    false", ""},
		{"provider delete $BEARER", "deleted", ""},

		{`resource create --set name=Invoices --set identifier=resource://invoices --set scopes=["invoices:read"] --set credential_provider_id=$PROVIDER --set upstream_url=https://invoices.example.com --set gateway_application_id=$APP`, "invoices:read", "$RESOURCE"},
		{"resource list --identifier resource://invoices", "resource://invoices", ""},
		{"resource get $RESOURCE", "upstream_url", ""},
		{"resource update $RESOURCE --set name=Bills", "Bills", ""},

		{`grant create --set user_id=ada --set application_id=$APP --set resource_id=$RESOURCE --set scopes=["invoices:read"]`, "ada", "$GRANT"},
		{"grant list --user-id ada --status active", "Bills", ""},
		{"grant get $GRANT", "active", ""},
		{"grant revoke $GRANT", "grant $GRANT revoked", ""},

		{`provider create --set name=Calendar --set kind=oauth2_authorization_code --set config_json={"token_endpoint":"https://auth.invalid/token","authorization_endpoint":"https://auth.invalid/authorize","redirect_uri":"https://x.example.com/callback","client_id":"c","allowed_token_hosts":["auth.invalid"]} --set-file config_json.client_secret=$SECRETFILE`, "Calendar", "$CODE"},
		{`resource create --set name=Calendar --set identifier=resource://calendar --set scopes=["read"] --set credential_provider_id=$CODE --set upstream_url=https://calendar.example.com --set gateway_application_id=$APP`, "calendar", "$CALENDAR"},
		{`provider-grant create --set user_id=ada --set resource_id=$CALENDAR --set provider_id=$CODE --set scopes=["read"] --set-file access_token=$SECRETFILE`, "ada", "$PGRANT"},
		{"provider-grant list --user-id ada", "$PGRANT", ""},
		{"provider-grant get $PGRANT", "active", ""},
		{"provider-grant revoke --set user_id=ada --set resource_id=$CALENDAR --set provider_id=$CODE", "revoked", ""},
		{"resource delete $CALENDAR", "deleted", ""},
		{"resource delete $RESOURCE", "resource $RESOURCE deleted", ""},
		{"provider delete $PROVIDER", "deleted", ""},

		{"control-key create --set name=Ops --set allowed_scopes=[\"control:app:read\"]", "client_secret", "$KEY"},
		{"control-key list", "Ops", ""},
		{"control-key get $KEY", "max_ttl_seconds", ""},
		{"control-key revoke $KEY", "revoked", ""},

		{"registration-token create --set name=Partners", "Partners", "$REGISTRATION"},
		{"registration-token list", "Partners", ""},
		{"registration-token revoke $REGISTRATION", "revoked", ""},

		{"policy create --set name=Restrict --set-file content=$REGO", "Restrict", "$POLICY"},
		{"policy list --name Restrict", "Restrict", ""},
		{"policy get $POLICY", "restrict := []", ""},
		{"policy versions $POLICY", "content_sha256", "$PVERSION"},
		{"policy add-version $POLICY --set-file content=$REGO", "version_id", ""},
		{"policy validate $REGO", "is valid", ""},

		{"policy-set create --set name=Production", "Production", "$SET"},
		{"policy-set add-version $SET -f $MANIFEST", "manifest_sha256", "$SVERSION"},
		{"policy-set versions $SET", "$SVERSION", ""},
		{"policy-set list --name Production", "Production", ""},
		{"policy-set get $SET", "active_version_id", ""},
		{"policy-set simulate $SET --set version_id=$SVERSION", "would_activate", ""},
		{"policy-set activate $SET --set version_id=$SVERSION", "$SVERSION", ""},
		{"policy-set status $SET", "propagation_status", ""},
		{"policy-set deactivate $SET", "outbox_id", ""},
		{"policy-set activate $SET --set version_id=$SVERSION", "$SVERSION", ""},
		{"policy-set add-version $SET -f $MANIFEST", "manifest_sha256", "$SECOND"},
		{"policy-set activate $SET --set version_id=$SECOND", "$SECOND", ""},
		{"policy-set rollback $SET", "$SVERSION", ""},
		{"policy-activation list", "rollback", ""},
		{"policy-set deactivate $SET", "outbox_id", ""},
		{"policy-set delete $SET", "deleted", ""},
		{"policy delete $POLICY", "deleted", ""},

		{"session list --subject-id user-1", "SUBJECT ID", ""},
		{"agent-session list --status active", "$AGENT", ""},
		{"challenge list --status pending", "$PENDING", ""},
		{"challenge get $PENDING", "pending", ""},
		{"challenge satisfy $PENDING", "satisfied", ""},
		{"challenge reject $ANOTHER --set reason=no", "rejected", ""},
		{"dead-letter list", "$DEAD", ""},
		{"dead-letter rearm $DEAD", "done", ""},
		{"dead-letter delete $REJECTED", "deleted", ""},
		{"audit-entry list --entity-type grants", "createGrant", ""},
		{"audit-event list", "", ""},

		{"token create --set name=deploy --set scope=global", "cat_", "$TOKEN"},
		{"token show", "bootstrap", ""},
		{"token list --name deploy", "deploy", ""},
		{"token get $TOKEN", "capability", ""},
		{"token update $TOKEN --set name=deploy-eu", "deploy-eu", ""},
		{"token revoke $TOKEN", "token $TOKEN revoked", ""},
		{"application delete $APP", "application $APP deleted", ""},
	} {
		if err := os.WriteFile(manifest, []byte("manifest:\n- policy_version_id: "+vars["$PVERSION"]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args := strings.Fields(expand(tt.args))
		used[args[0]+" "+args[1]] = true
		if tt.save != "" {
			args = append(args, "-o", "json")
		}
		stdout, stderr, code := s.run("", args...)
		if code != 0 || !strings.Contains(stdout, expand(tt.want)) {
			t.Errorf("%s: exit code %d, want %q\n%s%s", tt.args, code, tt.want, stdout, stderr)
		}
		if tt.save != "" {
			object := []byte(stdout)
			var list []json.RawMessage
			if json.Unmarshal(object, &list) == nil && len(list) > 0 {
				object = list[0]
			}
			vars[tt.save] = (&noun{}).idOf(object)
		}
	}
	for _, n := range nouns {
		command, _, err := newRoot(noVariables).Find([]string{n.name})
		if err != nil {
			t.Fatal(err)
		}
		eachCommand(command, func(c *cobra.Command) {
			if !used[n.name+" "+c.Name()] {
				t.Errorf("no row tests %s %s", n.name, c.Name())
			}
		})
	}
}

// -o json prints the JSON of the API as it is, -o yaml the same values, and -o name the IDs.
func TestOutputFormats(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	s := newShell(t, a, zone)
	for range 3 {
		a.DB.Application(zone)
	}
	get := func(path string) []byte {
		return a.Do("GET", path, "", "Authorization", "Bearer "+servertest.Bootstrap).Body
	}
	compact := func(text string) string {
		var b bytes.Buffer
		if err := json.Compact(&b, []byte(text)); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return b.String()
	}
	applications := strings.TrimSpace(string(get("/v1/zones/" + zone + "/applications")))
	if got := compact(s.ok("applications", "list", "-o", "json")); got != applications {
		t.Errorf("the list is %s, want %s", got, applications)
	}
	if got, want := compact(s.ok("zone", "get", zone, "-o", "json")), strings.TrimSpace(string(get("/v1/zones/"+zone))); got != want {
		t.Errorf("the zone is %s, want %s", got, want)
	}
	var fromYAML, fromJSON any
	if err := yaml.Unmarshal([]byte(s.ok("application", "list", "-o", "yaml")), &fromYAML); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(applications), &fromJSON); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(fromYAML, fromJSON) {
		t.Errorf("YAML has %v, want %v", fromYAML, fromJSON)
	}
	var listed []struct{ ID string }
	if err := json.Unmarshal([]byte(applications), &listed); err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(s.ok("application", "list", "-o", "name", "--limit", "2")); !slices.Equal(got, []string{listed[0].ID, listed[1].ID}) {
		t.Errorf("the names are %v, want the first two of %v", got, listed)
	}
	table := s.ok("application", "list")
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) != 4 || !strings.HasPrefix(lines[0], "ID ") || strings.Contains(table, "\x1b") {
		t.Errorf("the table is %q", table)
	}
	if stdout, stderr, code := s.run("", "provider", "list"); code != 0 || stdout != "" || stderr != "There are no providers.\n" {
		t.Errorf("without objects: %d, %q, %q", code, stdout, stderr)
	}
	if got := s.ok("provider", "list", "-o", "json"); got != "[]\n" {
		t.Errorf("without objects, JSON is %q", got)
	}
	a.DB.Exec("UPDATE zones SET name = E'Red \\x1b[31m\\nzone' WHERE id = $1", zone)
	if got := s.ok("zone", "list"); strings.Contains(got, "\x1b") || strings.Count(got, "\n") != 2 {
		t.Errorf("a name controls the terminal: %q", got)
	}
}

// A list is complete although it has several pages.
func TestListRequestsAllPages(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	a.DB.DCRApplications(zone, maxPage+1)
	s := newShell(t, a, zone)
	for limit, want := range map[string]int{"0": maxPage + 1, "201": maxPage + 1, "200": maxPage, "7": 7} {
		if got := strings.Fields(s.ok("application", "list", "-o", "name", "--limit", limit)); len(got) != want || len(slices.Compact(slices.Sorted(slices.Values(got)))) != want {
			t.Errorf("limit %s lists %d, want %d different ones", limit, len(got), want)
		}
	}
}

func TestInput(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newShell(t, a, a.Zone().ID)
	body := s.file("body.yaml", "name: From YAML\nregistration_method: managed\n")
	for _, tt := range []struct {
		name, stdin string
		args        []string
		code        int
		want        string
	}{
		{"YAML file", "", []string{"-f", body}, 0, "From YAML"},
		{"JSON on the standard input", `{"name":"From JSON","registration_method":"managed"}`, []string{"-f", "-"}, 0, "From JSON"},
		{"flags replace fields", "", []string{"-f", body, "--set", "name=From a flag"}, 0, "From a flag"},
		{"text that is JSON", "", []string{"-f", body, "--set", `name="42"`}, 0, "42"},
		{"text of a file", "From stdin", []string{"-f", body, "--set-file", "name=-"}, 0, "From stdin"},
		{"nothing", "", nil, exitInvalid, "the fields are required"},
		{"no value", "", []string{"--set", "name"}, exitInvalid, "--set name: must be field=value"},
		{"no field", "", []string{"--set", "=x"}, exitInvalid, "the name of the field is empty"},
		{"field of a text", "", []string{"--set", "name=x", "--set", "name.a=x"}, exitInvalid, "name: is not an object"},
		{"a secret", "", []string{"--set", "config_json.client_secret=hunter2"}, exitInvalid, "a secret must not be an argument"},
		{"a secret in an object", "", []string{"--set", `config_json={"a":[{"api_key":"hunter2"}]}`}, exitInvalid, "a secret must not be an argument"},
		{"no file", "", []string{"-f", "/does/not/exist"}, exitFailed, "no such file"},
		{"empty file", "", []string{"-f", "-"}, exitFailed, "caracald: -: must not be empty"},
		{"neither JSON nor YAML", "{", []string{"-f", "-"}, exitFailed, "caracald: -:1:1: must be JSON: unexpected end"},
		{"several documents", "a: 1\n---\nb: 1\n", []string{"-f", "-"}, exitFailed, "caracald: -:2:1: must be a single YAML document"},
		{"not an object", "[]", []string{"-f", "-", "--set", "a=1"}, exitInvalid, "requires that - is an object"},
		{"unknown field", "", []string{"-f", body, "--set", "color=red"}, exitFailed, "  color: "},
		{"unknown field in a file", "name: x\nregistration_method: managed\ncolor: red\n", []string{"-f", "-"}, exitFailed, "  -:3:1: color: "},
		{"number", "", []string{"-f", body, "--set", "name=42"}, exitFailed, "  name: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shell{t, s.variables}
			stdout, stderr, code := s.run(tt.stdin, append([]string{"application", "create"}, tt.args...)...)
			if code != tt.code || !strings.Contains(stdout+stderr, tt.want) || strings.Contains(stdout+stderr, "hunter2") || strings.Count(stderr, "caracald: ") != min(code, 1) {
				t.Errorf("exit code %d, want %d, %q\n%s%s", code, tt.code, tt.want, stdout, stderr)
			}
		})
	}
}

func TestCreateWithIdempotencyKey(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newShell(t, a, a.Zone().ID)
	create := []string{"application", "create", "--set", "name=Billing", "--set", "registration_method=managed", "--idempotency-key", "run-1"}
	if first, second := s.ok(create...), s.ok(create...); first != second {
		t.Errorf("the repeated request printed %s, the first one %s", second, first)
	}
	if got := strings.Fields(s.ok("application", "list", "-o", "name")); len(got) != 1 {
		t.Errorf("created %v", got)
	}
}

// An error has the code, the sentence, the issues by field and the ID of the request.
func TestErrorsOfTheAPI(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	s := newShell(t, a, zone.ID)
	_, stderr, code := s.run("", "zone", "create", "--set", "name=", "--set", "slug=A B")
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	if code != exitFailed || len(lines) != 4 || !strings.HasPrefix(lines[0], "caracald: invalid_zone: The ") || !strings.Contains(stderr, "\n  name: ") || !strings.Contains(stderr, "\n  slug: ") || !strings.HasPrefix(lines[3], "  request: ") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	var etag string
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"zone", "get", "nix"}, "caracald: zone_not_found: "},
		{[]string{"zone", "update", zone.ID, "--set", "name=x", "--if-match", `"nix"`}, "caracald: version_conflict: "},
		{[]string{"zone", "delete", zone.ID, "--if-match", `"nix"`}, "caracald: version_conflict: "},
		{[]string{"zone", "create", "--set", "name=x", "--set", "slug=" + zone.Slug}, "caracald: zone_slug_conflict: "},
		{[]string{"policy", "validate", s.file("x.rego", "package x\n\nallow := ")}, "  3:"},
	} {
		if _, stderr, code := s.run("", tt.args...); code != exitFailed || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "caracald: ") != 1 {
			t.Errorf("%v%s: exit code %d, want %q\n%s", tt.args, etag, code, tt.want, stderr)
		}
	}
	s.variables["CARACAL_URL"] = "http://127.0.0.1:1"
	if _, stderr, code := s.run("", "zone", "get", "x"); code != exitFailed || !strings.Contains(stderr, "connection refused") {
		t.Errorf("without a service: %d, %s", code, stderr)
	}
}
