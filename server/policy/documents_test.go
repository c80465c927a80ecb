package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

// payments are documents with which the inputs of examples_test.go are allowed.
const payments = ids + "\n" + grants

// TestMergeRules checks each row of policy-evaluation.md §4.1: what two modules that
// define the same document are together.
func TestMergeRules(t *testing.T) {
	t.Parallel()
	bank := func(roles string) string {
		return `grants["resource://bank"] := {"application": "payments", "roles": {` + roles + `}}`
	}
	payer, auditor := bank(`"payer": ["bank:read"]`), bank(`"auditor": ["bank:read"]`)
	for _, tt := range []struct {
		name         string
		a, b         string
		code         string // of the error, or ""
		mint, denied object // an input that is allowed, and one that is not
	}{
		{"same values", ids, payments, "", mintInput(nil), nil},
		{"different values", `app_ids := {"payments": "app-x"}`, payments, "conflicting_document:app_ids", nil, nil},
		{"different defaults and values", "default app_ids := {}\n" + ids, `app_ids := {"payments": "app-x"}`, "conflicting_document:app_ids", nil, nil},
		{"restrict contains, twice", payments + "\nrestrict contains \"a\" if input.session.id == \"a\"", `restrict contains "b" if input.session.id == "b"`, "", mintInput(nil), mintInput(object{"session.id": "a"})},
		{"restrict contains, twice, the other", payments + "\nrestrict contains \"a\" if input.session.id == \"a\"", `restrict contains "b" if input.session.id == "b"`, "", mintInput(nil), mintInput(object{"session.id": "b"})},
		{"restrict as a whole and in parts", payments + "\nrestrict := {\"a\"}", `restrict contains "b"`, "compile_error:", nil, nil},
		{"different grants", ids + "\n" + `grants["resource://other"] := {"application": "ledger", "roles": {}}`, payer, "", mintInput(nil), mintInput(object{"resource.identifier": "resource://other"})},
		{"same grant twice", ids + "\n" + payer, payer, "", mintInput(nil), nil},
		{"different values of a grant", ids + "\n" + payer, auditor, "conflicting_document:grants", nil, nil},
		{"grants as a whole and in parts", payments, payer, "compile_error:", nil, nil},
		{"default and a value", "default app_ids := {}", payments, "", mintInput(nil), nil},
		{"default without a value", "default app_ids := {}", grants, "", nil, mintInput(nil)},
		{"two defaults", "default app_ids := {}", "default app_ids := {}", "compile_error:", nil, nil},
		{"default of a helper", payments, "default confined := false", "unknown_document:confined", nil, nil},
		{"default of result", payments, "default result := {}", "data_document_must_not_define_result", nil, nil},
		{"members of app_ids", `app_ids.payments := "app-pay-01"` + "\n" + payer, `app_ids.ledger := "app-led-01"`, "", mintInput(nil), mintInput(object{"principal.id": "app-led-01"})},
		{"a document that uses one of another module", `app_ids := {key: id | some key, id in {"payments": "app-pay-01"}}`, `grants[r] := {"application": key, "roles": {"payer": ["bank:read"]}} if {
	some r in ["resource://bank"]
	some key, _ in app_ids
}`, "", mintInput(nil), mintInput(object{"principal.labels": []string{"auditor"}})},
		{"restrict that uses a document of another module", payments, `restrict contains r if {
	some r, _ in data.caracal.authz.grants
	r == "resource://coordinator"
}`, "", nil, mintInput(nil)},
		{"restrict that uses the input and a document", payments, `restrict contains "owner" if {
	grants[input.resource.identifier].application == "payments"
	input.session.id == "x"
}`, "", mintInput(nil), mintInput(object{"session.id": "x"})},
		{"tiers of two modules", payments + "\napproval_tiers contains \"high\"", `approval_tiers contains "low"`, "", mintInput(nil), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, order := range [][]string{{tt.a, tt.b}, {tt.b, tt.a}} {
				b, err := policy.Compile(t.Context(), modules(order...))
				if tt.code != "" {
					if invalid := compileError(t, err); !strings.HasPrefix(invalid.Issues[0].Code, tt.code) {
						t.Errorf("got %+v, want %s", invalid.Issues, tt.code)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if tt.mint != nil {
					if got := decide(t, b, tt.mint); got.Decision != "allow" {
						t.Errorf("got %+v, want allow", got)
					}
				}
				if tt.denied != nil {
					if got := decide(t, b, tt.denied); got.Decision != "deny" {
						t.Errorf("got %+v, want deny", got)
					}
				}
			}
		})
	}
}

// compileError requires that an error is a *policy.CompileError with complete issues.
func compileError(t testing.TB, err error) *policy.CompileError {
	t.Helper()
	var invalid *policy.CompileError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v, want a CompileError", err)
	}
	if len(invalid.Issues) == 0 {
		t.Fatal("a CompileError without issues")
	}
	return invalid
}

// TestErrorsAreReportedInTheirModule requires that an error has the id of the module
// that contains it, with the position there.
func TestErrorsAreReportedInTheirModule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rules []string
		id    string
		want  position
	}{
		{[]string{ids, grants + "\nrestrict := ;"}, "b", position{"parse_error:8", 8, 13, "restrict := ;"}},
		{[]string{ids, grants, "x := 1"}, "c", position{"unknown_document:x", 4, 1, "x := 1"}},
		{[]string{ids, "restrict := {y}"}, "b", position{"compile_error:4", 4, 14, "restrict := {y}"}},
		{[]string{grants, "\napp_ids := {\"a\": 1}"}, "b", position{"invalid_document:app_ids", 5, 18, `app_ids := {"a": 1}`}},
		{[]string{"app_ids.a := \"x\"", "app_ids.b := \"x\"", "\n\napp_ids.c := 1"}, "c", position{"invalid_document:app_ids", 6, 14, `app_ids.c := 1`}},
		{[]string{"app_ids.a := \"x\"", "app_ids.b := \"x\"", "\napp_ids.a := \"y\""}, "c", position{"conflicting_document:app_ids", 5, 1, `app_ids.a := "y"`}},
	} {
		_, err := policy.Compile(t.Context(), modules(tt.rules...))
		invalid := compileError(t, err)
		if got := positions(invalid.Issues); invalid.ID != tt.id || !slices.Equal(got, []position{tt.want}) {
			t.Errorf("%s: got %s %+v, want %s %+v", tt.rules, invalid.ID, got, tt.id, tt.want)
		}
	}
}

// TestModulesNeedDifferentIDs requires that no module replaces another with its id.
func TestModulesNeedDifferentIDs(t *testing.T) {
	t.Parallel()
	set := modules(restricted, payments)
	set[1].ID = set[0].ID
	_, err := policy.Compile(t.Context(), set)
	if invalid := compileError(t, err); invalid.ID != set[0].ID || invalid.Issues[0].Code != "duplicate_module" {
		t.Errorf("got %s %v", invalid.ID, invalid.Issues)
	}
}

// TestShapes checks the values that a document cannot have, with the position of the
// wrong part, and the values that it can have.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rules string
		want  []position
	}{
		{"restrict := true", []position{{"invalid_document:restrict", 4, 13, "restrict := true"}}},
		{"restrict := false", []position{{"invalid_document:restrict", 4, 13, "restrict := false"}}},
		{`restrict := "x"`, []position{{"invalid_document:restrict", 4, 13, `restrict := "x"`}}},
		{"restrict := 1", []position{{"invalid_document:restrict", 4, 13, "restrict := 1"}}},
		{"restrict := null", []position{{"invalid_document:restrict", 4, 13, "restrict := null"}}},
		{"restrict if true", []position{{"invalid_document:restrict", 4, 1, "restrict if true"}}},
		{"app_ids := []", []position{{"invalid_document:app_ids", 4, 12, "app_ids := []"}}},
		{`app_ids := {"a"}`, []position{{"invalid_document:app_ids", 4, 12, `app_ids := {"a"}`}}},
		{`app_ids contains "a"`, []position{{"invalid_document:app_ids", 4, 1, `app_ids contains "a"`}}},
		{`app_ids := {1: "a"}`, []position{{"invalid_document:app_ids", 4, 16, `app_ids := {1: "a"}`}}},
		{`app_ids := {"a": null}`, []position{{"invalid_document:app_ids", 4, 18, `app_ids := {"a": null}`}}},
		{`app_ids := {"a": ["b"]}`, []position{{"invalid_document:app_ids", 4, 18, `app_ids := {"a": ["b"]}`}}},
		{`app_ids.a.b := "c"`, []position{{"invalid_document:app_ids", 4, 1, `app_ids.a.b := "c"`}}},
		{"grants := {\n\t\"r\": 1,\n\t\"s\": {},\n}", []position{
			{"invalid_document:grants", 5, 7, "\t\"r\": 1,"}, {"invalid_document:grants", 6, 7, "\t\"s\": {},"}, {"invalid_document:grants", 6, 7, "\t\"s\": {},"},
		}},
		{`grants := {"r": {"application": 1, "roles": {}}}`, []position{{"invalid_document:grants", 4, 33, `grants := {"r": {"application": 1, "roles": {}}}`}}},
		{`grants := {"r": {"application": "a", "roles": []}}`, []position{{"invalid_document:grants", 4, 47, `grants := {"r": {"application": "a", "roles": []}}`}}},
		{`grants := {"r": {"application": "a", "roles": {"x": "s"}}}`, []position{{"invalid_document:grants", 4, 53, `grants := {"r": {"application": "a", "roles": {"x": "s"}}}`}}},
		{`grants := {"r": {"application": "a", "roles": {"x": {"s": 1}}}}`, []position{{"invalid_document:grants", 4, 53, `grants := {"r": {"application": "a", "roles": {"x": {"s": 1}}}}`}}},
		{`grants := {"r": {"application": "a", "roles": {"x": ["s", 1]}}}`, []position{{"invalid_document:grants", 4, 59, `grants := {"r": {"application": "a", "roles": {"x": ["s", 1]}}}`}}},
		{`grants := {"r": {"application": "a", "roles": {"x": {"s", 1}}}}`, []position{{"invalid_document:grants", 4, 59, `grants := {"r": {"application": "a", "roles": {"x": {"s", 1}}}}`}}},
		{`grants["r"] := {"application": "a"}`, []position{{"invalid_document:grants", 4, 16, `grants["r"] := {"application": "a"}`}}},
		{`grants["r"].roles["x"] := ["s"]`, []position{{"invalid_document:grants", 4, 1, `grants["r"].roles["x"] := ["s"]`}}},
		{"confinement := \"x\"", []position{{"invalid_document:confinement", 4, 16, "confinement := \"x\""}}},
		{"confinement := [1]", []position{{"invalid_document:confinement", 4, 17, "confinement := [1]"}}},
		{`confinement := [{"scopes": []}]`, []position{{"invalid_document:confinement", 4, 17, `confinement := [{"scopes": []}]`}}},
		{`confinement := [{"label_prefix": "a"}]`, []position{{"invalid_document:confinement", 4, 17, `confinement := [{"label_prefix": "a"}]`}}},
		{`confinement := {"x": {"label_prefix": 1, "scopes": []}}`, []position{{"invalid_document:confinement", 4, 39, `confinement := {"x": {"label_prefix": 1, "scopes": []}}`}}},
		{`confinement := {{"label_prefix": "a", "scopes": null}}`, []position{{"invalid_document:confinement", 4, 49, `confinement := {{"label_prefix": "a", "scopes": null}}`}}},
		{"risk := 1", []position{{"invalid_document:risk", 4, 9, "risk := 1"}}},
		{`risk := [{"scope": "s"}]`, []position{{"invalid_document:risk", 4, 10, `risk := [{"scope": "s"}]`}}},
		{`risk contains {"scope": "s", "tier": 1}`, []position{{"invalid_document:risk", 4, 38, `risk contains {"scope": "s", "tier": 1}`}}},
		{`risk := {"s": "high"}`, []position{{"invalid_document:risk", 4, 15, `risk := {"s": "high"}`}}},
		{`approval_tiers := "high"`, []position{{"invalid_document:approval_tiers", 4, 19, `approval_tiers := "high"`}}},
		{`approval_tiers := {"high": true}`, []position{{"invalid_document:approval_tiers", 4, 19, `approval_tiers := {"high": true}`}}},
		{`approval_tiers := [1]`, []position{{"invalid_document:approval_tiers", 4, 20, `approval_tiers := [1]`}}},

		{"restrict := {}", nil},
		{"restrict := set()", nil},
		{"restrict := []", nil},
		{"restrict := [null, false, 1, [], {}]", nil},
		{"app_ids := {}", nil},
		{"grants := {}", nil},
		{`grants := {"r": {"application": "a", "roles": {"x": {"s"}, "y": []}, "comment": 1}}`, nil},
		{`grants["r"].application := "a"` + "\n" + `grants["r"].roles := {}`, nil},
		{`confinement contains {"label_prefix": "", "scopes": set(), "note": "x"}`, nil},
		{`confinement := {"a": {"label_prefix": "", "scopes": []}}`, nil},
		{`risk := {"a": {"scope": "s", "tier": "t"}, "b": {"scope": "s", "tier": "t"}}`, nil},
		{`approval_tiers := {"high"}`, nil},
	} {
		t.Run(tt.rules, func(t *testing.T) {
			t.Parallel()
			if got := positions(check(t, document(tt.rules), policy.InputSchemaVersion)); !slices.Equal(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// TestShapeProbes checks the rows of the table of shapes in policy-evaluation.md §4.1
// that are valid, with a mint that is otherwise allowed, and labels that a prefix can
// match.
func TestShapeProbes(t *testing.T) {
	t.Parallel()
	for rules, want := range map[string]policy.Result{
		"restrict := {}":               allow("caracal-payments-mint"),
		"restrict := set()":            allow("caracal-payments-mint"),
		"restrict := []":               allow("caracal-payments-mint"),
		`restrict := ["x"]`:            deny("restricted"),
		`restrict := {"a": "b"}`:       deny("restricted"),
		`restrict := {"f": false}`:     deny("restricted"),
		"restrict := [null]":           deny("restricted"),
		"restrict := [false]":          deny("restricted"),
		`restrict := {"x"}`:            deny("restricted"),
		`restrict["x"] := false`:       deny("restricted"),
		`restrict contains false`:      deny("restricted"),
		`restrict := {"x"} if 1 == 2`:  allow("caracal-payments-mint"),
		`default restrict := {"x"}`:    deny("restricted"),
		`restrict contains "x" if {1}`: deny("restricted"),
		`confinement := [{"label_prefix": "", "scopes": ["x"]}]`:                                         deny("confined"),
		`confinement := {"a": {"label_prefix": "pay", "scopes": ["x"]}}`:                                 deny("confined"),
		`confinement contains {"label_prefix": "pay", "scopes": []}`:                                     deny("confined"),
		`confinement := {"a": {"label_prefix": "pay", "scopes": {"bank:read"}}}`:                         allow("caracal-payments-mint"),
		`risk := {"a": {"scope": "bank:read", "tier": "t"}, "b": {"scope": "bank:read", "tier": "t"}}`:   allow("caracal-payments-mint", policy.Diagnostic{Risk: []policy.Tag{{Scope: "bank:read", Tier: "t"}}}),
		`risk contains {"scope": "bank:read", "tier": "t", "x": 1}` + "\n" + `approval_tiers := {"t"}`:   allow("caracal-payments-mint", policy.Diagnostic{StepUpRequired: "human_approval"}, policy.Diagnostic{Risk: []policy.Tag{{Scope: "bank:read", Tier: "t"}}}),
		`risk := [{"scope": "bank:read", "tier": "t"}]` + "\n" + `approval_tiers := ["other", "t", "t"]`: allow("caracal-payments-mint", policy.Diagnostic{StepUpRequired: "human_approval"}, policy.Diagnostic{Risk: []policy.Tag{{Scope: "bank:read", Tier: "t"}}}),
	} {
		t.Run(rules, func(t *testing.T) {
			t.Parallel()
			b := compile(t, payments, rules)
			requireResult(t, want, decide(t, b, mintInput(nil)))
			if want.Decision == "deny" && want.Diagnostics[1].Reason == "restricted" {
				requireResult(t, want, decide(t, b, useInput(nil)))
				requireResult(t, want, decide(t, b, bootstrapInput(nil)))
			}
		})
	}
}

// TestConflictsOfData requires that data which names two owners or two tiers fails
// only the decisions that need the one.
func TestConflictsOfData(t *testing.T) {
	t.Parallel()
	b := compile(t, grants, `app_ids := {"payments": "app-pay-01", "also": "app-pay-01", "ledger": "app-led-01"}`)
	for _, input := range []object{mintInput(nil), useInput(nil), bootstrapInput(nil)} {
		requireEvaluationError(t, b, input, "conflicting_document")
	}
	requireResult(t, deny("not_owner"), decide(t, b, mintInput(object{"principal.id": "app-led-01"})))

	b = compile(t, payments, `risk := [{"scope": "bank:write", "tier": "high"}, {"scope": "bank:write", "tier": "low"}, {"scope": "bank:read", "tier": "low"}]`)
	requireEvaluationError(t, b, mintInput(object{"context.requested_scopes": []string{"bank:write"}}), "conflicting_document")
	requireEvaluationError(t, b, mintInput(object{"context.requested_scopes": []string{"bank:write", "bank:read"}}), "conflicting_document")
	requireResult(t, allow("caracal-payments-mint", policy.Diagnostic{Risk: []policy.Tag{{Scope: "bank:read", Tier: "low"}}}), decide(t, b, mintInput(nil)))
	requireResult(t, allow("caracal-payments-use"), decide(t, b, useInput(nil)))
	requireResult(t, allow("caracal-bootstrap"), decide(t, b, bootstrapInput(nil)))
}

// A restrict that depends on the input must be a collection for every input.
func TestRestrictMustBeACollection(t *testing.T) {
	t.Parallel()
	for _, rules := range []string{
		`restrict := input`, `restrict := input.session`, `restrict := input.session.id`, `restrict := input.context.challenge_resolved`,
		`restrict := input.delegation_edge.path`, `restrict if input.session.id`, `restrict := count(input.principal.labels)`,
		"default restrict := false\nrestrict := {1} if input.session.id", "restrict := {1} if {\n\tinput.session.id\n} else := 1",
		"restrict := {1} if input.session.id\nrestrict := null if input.principal.id",
	} {
		t.Run(rules, func(t *testing.T) {
			t.Parallel()
			if issues := check(t, document(rules), policy.InputSchemaVersion); len(issues) != 1 || issues[0].Code != "invalid_document:restrict" || issues[0].Row != 4 {
				t.Errorf("got %+v", issues)
			}
		})
	}
}

// TestRestrictThatDependsOnInput requires that restrict is evaluated with each input.
func TestRestrictThatDependsOnInput(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rules string
		input object
		want  string // the decision, or the code of the error
	}{
		{`restrict contains "frozen" if input.session.id == "x"`, mintInput(nil), "allow"},
		{`restrict contains "frozen" if input.session.id == "x"`, mintInput(object{"session.id": "x"}), "deny"},
		{`restrict contains "frozen" if input.session.id == "x"`, useInput(object{"session.id": "x"}), "deny"},
		{`restrict contains "frozen" if input.session.id == "x"`, bootstrapInput(object{"session.id": "x"}), "deny"},
		{`restrict[l] := true if some l in input.principal.labels`, mintInput(nil), "deny"},
		{`restrict[l] := false if some l in input.principal.labels`, mintInput(nil), "deny"},
		{`restrict[input.session.id].b := 1`, mintInput(object{"session.id": "x"}), "deny"},
		{`restrict[input.session.id].b := 1`, mintInput(nil), "allow"},
		{"default restrict := set()\nrestrict := {1} if input.session.id", mintInput(nil), "allow"},
		{"default restrict := {0}\nrestrict := set() if input.session.id", mintInput(nil), "deny"},
		{"default restrict := {0}\nrestrict := set() if input.session.id", mintInput(object{"session.id": "x"}), "allow"},
		{"restrict := {} if {\n\tinput.session.id\n} else := {\"a\": input.principal.id}", mintInput(nil), "deny"},
		{"restrict := {1} if input.session.id\nrestrict := {2} if input.session.id", mintInput(nil), "allow"},
		{"restrict := {1} if input.session.id\nrestrict := {2} if input.session.id", mintInput(object{"session.id": "x"}), "conflicting_document"},
		{"restrict.a := 1 if input.session.id\nrestrict[\"a\"] := 2 if input.session.id", mintInput(object{"session.id": "x"}), "conflicting_document"},
		{`restrict contains 1 if grants[input.resource.identifier].application == "payments"`, mintInput(nil), "deny"},
		{`restrict contains 1 if data.caracal.authz.grants[input.resource.identifier].application == "ledger"`, mintInput(nil), "allow"},
		{`restrict contains 1 if app_ids[_] == input.principal.id`, mintInput(nil), "deny"},
		{`restrict contains 1 if not input.session.id`, mintInput(nil), "deny"},
		{`restrict contains 1 if not input.session.id`, mintInput(object{"session.id": "x"}), "allow"},
		{`restrict contains 1 if input.principal.labels == ["payer"]`, mintInput(nil), "deny"}, // the order of the request, not a set
		{`restrict contains 1 if input.unknown`, mintInput(object{"unknown": true}), "allow"},  // dropped
		{`restrict contains 1 if input.delegation_edge.constraints_json.a[1].b`, mintInput(object{"delegation_edge.constraints_json": object{"a": []any{1, object{"b": 2}}}}), "deny"},
	} {
		t.Run(tt.rules, func(t *testing.T) {
			t.Parallel()
			b := compile(t, payments, tt.rules)
			if tt.want == "allow" || tt.want == "deny" {
				if got := decide(t, b, tt.input); got.Decision != tt.want || tt.want == "deny" && !slices.ContainsFunc(got.Diagnostics, func(d policy.Diagnostic) bool { return d.Reason == "restricted" }) {
					t.Errorf("got %+v, want %s", got, tt.want)
				}
			} else {
				requireEvaluationError(t, b, tt.input, tt.want)
			}
		})
	}
}

func requireResult(t testing.TB, want, got policy.Result) {
	t.Helper()
	if !equalResults(want, got) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func equalResults(a, b policy.Result) bool {
	return a.Decision == b.Decision && a.EvaluationStatus == b.EvaluationStatus && slices.Equal(a.DeterminingPolicies, b.DeterminingPolicies) &&
		slices.EqualFunc(a.Diagnostics, b.Diagnostics, func(a, b policy.Diagnostic) bool {
			return a.Reason == b.Reason && a.StepUpRequired == b.StepUpRequired && slices.Equal(a.Risk, b.Risk)
		})
}

func requireEvaluationError(t testing.TB, b *policy.Bundle, input object, code string) {
	t.Helper()
	result, err := b.Decide(t.Context(), parseInput(t, input))
	var failed *policy.EvaluationError
	if !errors.As(err, &failed) {
		t.Fatalf("got %+v and %v, want an EvaluationError", result, err)
	}
	if failed.Code != code || failed.Message == "" {
		t.Errorf("got %+v, want %s", failed, code)
	}
}

// A function that fails in restrict must not remove the restriction.
func TestFailedFunctionIsAnError(t *testing.T) {
	t.Parallel()
	b := compile(t, ids, grants, `restrict contains "old" if time.parse_rfc3339_ns(input.context.trace_id) < 5`)
	_, err := b.Decide(t.Context(), parseInput(t, mintInput(object{"context.trace_id": "no time"})))
	var failed *policy.EvaluationError
	if !errors.As(err, &failed) || failed.Code != "evaluation_error" {
		t.Errorf("got %v", err)
	}
	if got := decide(t, b, mintInput(object{"context.trace_id": "2026-07-01T12:00:00Z"})); got.Decision != "allow" {
		t.Errorf("got %+v", got)
	}
	if issues := check(t, document(`restrict contains "x" if to_number("x") > 1`), policy.InputSchemaVersion); len(issues) != 1 || issues[0].Code != "evaluation_error:restrict" {
		t.Errorf("got %+v", issues)
	}
}

// A document with a condition that is never met would be ignored.
func TestDocumentWithoutValueIsInvalid(t *testing.T) {
	t.Parallel()
	issues := check(t, document("app_ids := {}\nconfinement := [{\"label_prefix\": \"a\", \"scopes\": []}] if 1 == 2"), policy.InputSchemaVersion)
	if len(issues) != 1 || issues[0].Code != "undefined_document:confinement" || issues[0].Row != 5 {
		t.Errorf("got %+v", issues)
	}
}
