package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/provider"
	"caracal.run/management/server/servertest"
)

const stateDocument = `objects:
- kind: application
  spec: {name: Billing}
- kind: identity-provider
  spec:
    identifier: provider://ledger
    name: Ledger
    kind: bearer_token
    config: {bearer_token: "${LEDGER_TOKEN}"}
- kind: policy
  spec:
    name: Restrict
    content: |
      # caracal:data-document
      package caracal.authz

      restrict := []
`

// A document is planned, applied and verified, and each exit code says how it ended.
func TestStateCommands(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	s := newShell(t, a, zone)
	s.variables["LEDGER_TOKEN"] = "hunter2-ledger"
	file := s.file("zone.yaml", stateDocument)
	expect := func(code int, want []string, args ...string) (stdout string) {
		t.Helper()
		stdout, stderr, got := s.run("", args...)
		for _, text := range want {
			if !strings.Contains(stdout, text) {
				t.Errorf("%v: the output does not contain %q:\n%s", args, text, stdout)
			}
		}
		if got != code || strings.Contains(stdout+stderr, "hunter2") || strings.Contains(stdout, "\x1b") || strings.Contains(stderr, "caracald: ") {
			t.Errorf("%v: exit code %d, want %d\n%s%s", args, got, code, stdout, stderr)
		}
		return stdout
	}
	created := []string{
		"+ application        Billing\n", "+ identity-provider  provider://ledger\n", "(will change)\n", "+ policy             Restrict\n",
		"      + restrict := []\n", "\nPlan: 3 to create, 0 to update, 0 unchanged.\n",
	}
	expect(0, created, "plan", file)
	expect(exitDrift, created, "verify", file)
	planID := strings.TrimSpace(s.ok("plan", file, "-o", "name"))
	var report client.StateReport
	if err := json.Unmarshal([]byte(s.ok("plan", file, "-o", "json")), &report); err != nil || report.PlanID != planID || report.Summary.Created != 3 {
		t.Errorf("the plan is %+v, %v", report, err)
	}
	expect(0, append(created, "\nApplied: 3 created, 0 updated, 0 unchanged.\n", "Client secret of the application Billing ("), "apply", file, "--plan-id", planID)
	unchanged := []string{"= application        Billing\n", "\nThe zone is as the document says.\n"}
	expect(0, unchanged, "verify", file)
	expect(0, unchanged, "apply", file)
	expect(0, nil, "apply", file, "-o", "json")
	if _, stderr, code := s.run("", "apply", file, "--plan-id", planID); code != exitFailed || !strings.Contains(stderr, "was changed since the plan") {
		t.Errorf("another plan is applied: %d, %s", code, stderr)
	}

	changed := strings.NewReplacer("name: Ledger", "name: Books", "restrict := []", "restrict := [1]").Replace(stateDocument)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(exitDrift, []string{
		"= application        Billing\n", "~ identity-provider  provider://ledger\n    name  Ledger → Books\n", "~ policy             Restrict\n    content\n      - restrict := []\n      + restrict := [1]\n",
		"\nPlan: 0 to create, 2 to update, 1 unchanged.\n",
	}, "verify", file)
	if err := json.Unmarshal([]byte(expect(exitDrift, nil, "verify", file, "-o", "json")), &report); err != nil || !report.Drift {
		t.Errorf("the report is %+v, %v", report, err)
	}
	s.ok("application", "create", "--set", "name=Forgotten", "--set", "registration_method=managed")
	expect(exitDrift, []string{"\n- application        Forgotten\n", "1 to archive"}, "verify", s.file("prune.yaml", "prune_kinds: [application]\n"+changed), "--prune")
	s.ok("apply", s.file("ours.yaml", "owner: ours\n"+changed))
	theirs := s.file("theirs.yaml", "owner: theirs\n"+changed)
	url := s.variables["CARACAL_URL"]
	s.variables["CARACAL_URL"] = "http://127.0.0.1:1"
	if _, stderr, code := s.run("", "plan", file); code != exitFailed || strings.Contains(stderr, "Secrets are taken") {
		t.Errorf("no service took the secrets: %d, %s", code, stderr)
	}
	s.variables["CARACAL_URL"] = url
	if _, stderr, code := s.run("", "apply", theirs); code != exitFailed || !strings.Contains(stderr, "ours") {
		t.Errorf("objects of another owner: %d, %s", code, stderr)
	}
	s.ok("apply", theirs, "--take-ownership")
	s.ok("verify", theirs)
	if _, stderr, code := s.run(changed, "plan", "-"); code != 0 {
		t.Errorf("the standard input: %d, %s", code, stderr)
	}
}

// An exported zone has no drift, and another zone can be set up with it.
func TestExport(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newShell(t, a, a.Zone().ID)
	s.variables["LEDGER_TOKEN"] = "hunter2-ledger"
	s.ok("apply", s.file("zone.yaml", stateDocument))
	file := s.file("exported.yaml", "")
	s.ok("export", "--file", file)
	text, err := os.ReadFile(file)
	if err != nil || s.ok("export") != string(text) || strings.Contains(string(text), "hunter2") {
		t.Errorf("exported\n%s, %v", text, err)
	}
	s.ok("verify", file)
	if policies := s.ok("export", "--kinds", "policy,policy-set"); !strings.Contains(policies, "kind: policy") || strings.Contains(policies, "kind: application") {
		t.Errorf("the policies are\n%s", policies)
	}
	if _, stderr, code := s.run("", "export", "--kinds", "nix"); code != exitFailed || !strings.Contains(stderr, "kinds") {
		t.Errorf("an unknown kind: %d, %s", code, stderr)
	}
	s.variables["CARACAL_ZONE"] = a.Zone().ID
	if _, stderr, code := s.run("", "apply", file); code != exitFailed || !strings.Contains(stderr, "bearer_token: must be the secret") {
		t.Errorf("without the secret: %d, %s", code, stderr)
	}
	s.variables["LEDGER_BEARER_TOKEN"] = "hunter2-ledger"
	if stdout, stderr, code := s.run("", "apply", file); code != 0 || !strings.Contains(stderr, "from the environment: LEDGER_BEARER_TOKEN.") || strings.Contains(stdout, "hunter2") {
		t.Errorf("with the secret: %d, %s\n%s", code, stderr, stdout)
	}
}

// Errors name the line of the document, and are no drift.
func TestInvalidState(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newShell(t, a, a.Zone().ID)
	for _, tt := range []struct{ name, text, want string }{
		{"unknown field", "objects:\n- kind: application\n  spec:\n    name: Billing\n    color: red\n", ":5:5: objects.0.spec.color: "},
		{"missing field", "objects:\n- kind: application\n  spec:\n    traits: []\n", ":3:3: objects.0.spec.name: "},
		{"JSON", "{\"objects\": [\n  {\"kind\": \"nix\", \"spec\": {}}]}", ":2:4: objects.0.kind: "},
		{"a byte order mark", "\ufeffobjects:\n- kind: nix\n  spec: {}\n", ":2:3: objects.0.kind: "},
		{"nothing", "# nothing\n", "zone.yaml: must not be empty\n"},
		{"null", "~\n", "zone.yaml:1:1: must not be null\n"},
		{"a list", "---\n- a\n", "zone.yaml:2:1: must be an object\n"},
		{"two documents", "objects: []\n---\nobjects: []\n", "zone.yaml:2:1: must be a single YAML document\n"},
		{"indentation", "objects:\n  - kind: application\n    spec:\n      name: x\n     traits: []\n", "zone.yaml:5:6: must be YAML: did not find expected key\n"},
		{"a tab", "objects:\n  - kind: application\n\tspec: {}\n", "zone.yaml:3:1: must be YAML: found a tab "},
		{"a field twice", "objects: []\nowner: a\nobjects: []\n", "zone.yaml:3:1: objects: must not be given twice\n"},
		{"neither JSON nor YAML", "{\"objects\": []\n\"owner\": 1}", "zone.yaml:2:1: must be JSON: invalid character"},
		{"a comma in JSON", "{\"objects\": [\n  {},\n]}", "zone.json:3:1: must be JSON: invalid character ']'"},
		{"a field twice in JSON", "{\"owner\": \"a\",\n \"owner\": \"b\", \"objects\": []}", "zone.json:2:2: owner: must not be given twice\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &shell{t, s.variables}
			name := "zone.yaml"
			if strings.Contains(tt.want, "zone.json") {
				name = "zone.json"
			}
			file := s.file(name, tt.text)
			for _, command := range []string{"plan", "apply", "verify"} {
				if stdout, stderr, code := s.run("", command, file); code != exitFailed || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "caracald: ") != 1 {
					t.Errorf("%s: exit code %d, want %q\n%s%s", command, code, tt.want, stdout, stderr)
				}
			}
		})
	}
	for _, tt := range []struct {
		args string
		code int
	}{
		{"plan", exitInvalid}, {"apply", exitInvalid}, {"verify", exitFailed}, {"verify --nix x", exitFailed}, {"verify /does/not/exist", exitFailed},
		{"verify -o xml x", exitFailed}, {"verify --zone x --context nix x", exitFailed},
	} {
		if _, stderr, code := s.run("", strings.Fields(tt.args)...); code != tt.code || strings.Count(stderr, "caracald: ") != 1 {
			t.Errorf("%s: exit code %d, want %d\n%s", tt.args, code, tt.code, stderr)
		}
	}
}

// Variables replace placeholders of secrets only, and never the
// credential of the command.
func TestPlaceholders(t *testing.T) {
	t.Parallel()
	s := &apiCaller{getenv: func(name string) string {
		return map[string]string{"SECRET": "hunter2", "CARACAL_ADMIN_TOKEN": "hunter2"}[name]
	}}
	for text, want := range map[string]string{
		`{"client_secret":" ${SECRET}\n","token_params":{"password":"${SECRET}","audience":"${SECRET}"}}`: `{"client_secret":"hunter2","token_params":{"audience":"${SECRET}","password":"hunter2"}}`,
		`{"client_id":"${SECRET}","allowed_token_hosts":["${SECRET}"],"token_endpoint":"${SECRET}"}`:      `{"allowed_token_hosts":["${SECRET}"],"client_id":"${SECRET}","token_endpoint":"${SECRET}"}`,
		`{"api_key":"${CARACAL_ADMIN_TOKEN}","bearer_token":"x ${SECRET}","private_key":"${UNSET}"}`:      `{"api_key":"${CARACAL_ADMIN_TOKEN}","bearer_token":"x ${SECRET}","private_key":"${UNSET}"}`,
	} {
		var config map[string]any
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
		provider.ReplacePlaceholders(config, s.secretVariable)
		if got, err := json.Marshal(config); err != nil || string(got) != want {
			t.Errorf("%s becomes %s, %v, want %s", text, got, err, want)
		}
	}
}

// A plan is in colors only if the painter has them, and shows only the lines of a text that
// differ.
func TestPrintReport(t *testing.T) {
	t.Parallel()
	report := client.StateReport{
		OK: true, Drift: true, Summary: client.StateSummary{Updated: 1, Pruned: 1},
		Outcomes: []client.StateOutcome{
			{Kind: "resource", Identity: "x\x1b[31m", Action: "update", Warnings: []string{"careful"}, Changes: []client.StateChange{
				{Field: "scopes", Before: json.RawMessage(`["a"]`), After: json.RawMessage(`["a","b"]`)},
				{Field: "content", Before: json.RawMessage(`"same\nold\nsame\n"`), After: json.RawMessage(`"same\nnew\nsame\n"`)},
				{Field: "key", Sensitive: true},
			}},
			{Kind: "policy-set", Identity: "one", Action: "update", Changes: []client.StateChange{
				{Field: "policies", Before: json.RawMessage(`[{"policy":"Ledger","version":1}]`), After: json.RawMessage(`[{"policy":"Ledger","version":2}]`)},
			}},
			{Kind: "policy-set", Identity: "two", Action: "update", Changes: []client.StateChange{
				{Field: "policies", Before: json.RawMessage(`[]`), After: json.RawMessage(`[{"policy":"Ledger","version":2},{"policy":"Mail","version":1}]`)},
			}},
			{Kind: "policy", Identity: "p", Action: "prune"},
		},
	}
	var plain, colored strings.Builder
	painter{&plain, false}.printReport(report)
	painter{&colored, true}.printReport(report)
	const want = `~ resource    x [31m
    scopes   a → a,b
    content
      - old
      + new
    key      (will change)
    warning: careful
~ policy-set  one
    policies  Ledger v1 → Ledger v2
~ policy-set  two
    policies
      + Ledger v2
      + Mail v1
- policy      p

Plan: 0 to create, 1 to update, 0 unchanged, 1 to archive.
`
	if plain.String() != want {
		t.Errorf("the plan is\n%s\nwant\n%s", &plain, want)
	}
	if !strings.Contains(colored.String(), "\x1b[31m- policy      p\x1b[0m\n") {
		t.Errorf("in colors, the plan is %q", colored.String())
	}
}
