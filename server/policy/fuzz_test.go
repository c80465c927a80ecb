package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/rego"

	"caracal.run/management/server/policy"
)

// seeds are rules of policies, valid and not.
var seeds = []string{
	ids, grants, confinement, risk, restricted, payments, grantsOf(3), "",
	`restrict contains "x" if input.session.id == "s"`,
	`restrict contains sprintf("%s may not use %v", [input.principal.id, s]) if some s in input.context.requested_scopes`,
	`restrict := input.session`, `restrict if not input.principal.labels`, `restrict[input.principal.id].x := input.action`,
	"restrict := {} if {\n\tinput.session.id\n} else := {\"a\": input.principal.id}",
	"default restrict := set()\nrestrict := {x | some x in input.principal.labels; startswith(x, \"a\")}",
	`restrict contains 1 if { every l in input.principal.labels { regex.match("^pay", l) } }`,
	`restrict contains r if { some r, g in grants; g.application == "payments"; some l in input.principal.labels; g.roles[l] }`,
	`grants[r] := {"application": "a", "roles": {x: [y] | some x, y in {"a": "b"}}} if some r in ["r", "s"]`,
	"app_ids.a := \"x\"\napp_ids[`b`] := \"y\"", "risk contains {\"scope\": \"s\", \"tier\": \"t\"}", "approval_tiers contains t if some t in {\"a\", \"b\"}",
	`restrict contains x if x := http.send({"method": "get", "url": "http://localhost"})`, `result := {"decision": "allow"}`, `result.decision = "allow"`,
	"restrict := [1 | some x in data.caracal.authz.grants; x with input as 1]", "import data.caracal.contract", "restrict := {a: b | a := input[b]}",
	"app_ids := ;\n\tgrants := [\n(}", "import rego.v1\nrestrict := {}", "import future.keywords.if\nimport future.keywords.if\nrestrict := {}", "app_ids := {\"\xff\": `\n`, \"é\": 1e400}", "restrict := $\"{input.x}\"", "a := b\nb := a", "x if 1 == 1; 2 == 2", "restrict := 1 - -1 * [2 % 3] & {4} | {5}",
	"restrict contains 1 if {\n\tx := [1, 2]\n\ty := [x, x]\n\tz := [y, y] == x\n}",
}

// FuzzParse requires that any content is valid or has complete issues, and that valid
// content compiles, with OPA alone too.
func FuzzParse(f *testing.F) {
	for _, seed := range seeds {
		f.Add(document(seed), false)
		f.Add("# caracal:data-document\npackage caracal.authz\n"+seed, true)
		f.Add(seed, false)
	}
	f.Add("\uFEFF# caracal:data-document\r\npackage caracal[\"authz\"]\r\nimport future.keywords\r\nrestrict := {}", true)
	f.Fuzz(func(t *testing.T, content string, old bool) {
		version := policy.InputSchemaVersion
		if old {
			version = legacy
		}
		valid, err := policy.Validate(t.Context(), content, version)
		if err != nil {
			requireComplete(t, content, compileError(t, err).Issues)
			return
		}
		if err := policy.CompileWithOPA(content, version); err != nil {
			t.Errorf("OPA rejects valid content: %v", err)
		}
		requireComplete(t, content, valid.WarnUndeclared(map[string][]string{"resource://bank": {"bank:read"}}))
		if len(valid.Preview.Rules) == 0 || valid.Preview.Package != "caracal.authz" {
			t.Errorf("preview %+v", valid.Preview)
		}
		for _, rule := range valid.Preview.Rules {
			if !slices.Contains([]string{"app_ids", "approval_tiers", "confinement", "grants", "restrict", "risk"}, rule) {
				t.Errorf("%s is not a document", rule)
			}
		}
		if _, err := policy.Compile(t.Context(), []policy.Module{{ID: "a", Content: content, SchemaVersion: version}}); err != nil {
			// A value close to the time limit can exceed it the second time.
			if invalid := compileError(t, err); !slices.ContainsFunc(invalid.Issues, func(i policy.Issue) bool { return i.Code == "evaluation_timeout:"+valid.Preview.Rules[0] }) {
				t.Errorf("valid content does not compile: %v", invalid.Issues)
			}
		}
	})
}

// FuzzDecide requires that any request is allowed, denied or has an error, and that it
// is never allowed if OPA itself finds that restrict is not empty.
func FuzzDecide(f *testing.F) {
	for _, seed := range seeds {
		for _, input := range []object{mintInput(nil), useInput(nil), bootstrapInput(nil), mintInput(object{"session.id": "s", "principal.labels": []string{"payer", "a"}})} {
			raw, err := json.Marshal(input)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(seed, raw)
		}
	}
	f.Add(restricted, []byte(`{"context":{"requested_scopes":null,"subject_claims":{"target":[[]],"delegation_edge_id":null}},"principal":{"labels":[]}} x`))
	f.Fuzz(func(t *testing.T, rules string, raw []byte) {
		input, err := policy.ParseInput(raw, "zone-1")
		if err != nil {
			var invalid *policy.InputError
			if !errors.As(err, &invalid) || invalid.Message == "" {
				t.Errorf("got %v, want an InputError", err)
			}
			return
		}
		bundle, err := policy.Compile(t.Context(), modules(payments, rules))
		if err != nil {
			bundle, err = policy.Compile(t.Context(), modules(rules))
		}
		if err != nil {
			compileError(t, err)
			return
		}
		result, err := bundle.Decide(t.Context(), input)
		if err != nil {
			var failed *policy.EvaluationError
			if !errors.As(err, &failed) || failed.Code == "" || failed.Message == "" {
				t.Errorf("got %v, want an EvaluationError", err)
			}
			return
		}
		if result.EvaluationStatus != "complete" || result.Decision != "allow" && result.Decision != "deny" {
			t.Errorf("got %+v", result)
		}
		if result.Decision == "allow" && restricts(t, rules, input) {
			t.Errorf("restrict is not empty, got %+v", result)
		}
	})
}

// restricts reports whether OPA finds an element in restrict, or another value.
func restricts(t *testing.T, rules string, input policy.Input) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	results, err := rego.New(rego.Query("data.caracal.authz.restrict"), rego.Module("a", document(rules)), rego.ParsedInput(input.Value())).Eval(ctx)
	if err != nil || len(results) == 0 {
		return false
	}
	switch value := results[0].Expressions[0].Value.(type) {
	case []any:
		return len(value) > 0
	case map[string]any:
		return len(value) > 0
	}
	return true
}
