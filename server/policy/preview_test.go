package policy_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

// TestPreview checks the summary of a policy: names of documents, decisions in the
// text, and the references of rules, their heads included.
func TestPreview(t *testing.T) {
	t.Parallel()
	content := document(`
# {"decision": "deny"}, "decision" : "allow", "decision":"allow", "decision": "maybe"
app_ids.a := "x"
app_ids.b := "y"
grants := {}
restrict[input.session.id].x := 1 if {
	input.principal.labels[_] == input.context.subject_claims["a b"].c
	some x in data.caracal.authz.grants
	data.caracal.authz.app_ids[x] == input["action"].path
	"input.resource.id" != "data.x" # input.comment
}
`)
	valid, err := policy.Validate(t.Context(), content, policy.InputSchemaVersion)
	if err != nil {
		t.Fatal(err)
	}
	want := policy.Preview{
		Package:   "caracal.authz",
		Rules:     []string{"app_ids", "grants", "restrict"},
		Decisions: []string{"allow", "deny"},
		InputsReferenced: []string{
			"input.action.path", "input.context.subject_claims", "input.principal.labels", "input.session.id",
		},
		DataReferenced: []string{"data.caracal.authz.app_ids", "data.caracal.authz.grants"},
	}
	if !reflect.DeepEqual(valid.Preview, want) {
		t.Errorf("got  %+v\nwant %+v", valid.Preview, want)
	}
}

// TestWarnings checks the position of each warning.
func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		rules []string
		want  []position
	}{
		{[]string{payments}, []position{{"unused_application", 4, 49, `app_ids := {"payments": "app-pay-01", "ledger": "app-led-01"}`}}},
		{[]string{ids}, nil},
		{[]string{grants}, nil},
		{[]string{`app_ids.payments := "x"`, `grants["r"] := {"application": "y", "roles": {}}`}, []position{
			{"unused_application", 4, 21, `app_ids.payments := "x"`}, {"unknown_application", 5, 32, `grants["r"] := {"application": "y", "roles": {}}`},
		}},
		{[]string{risk}, nil},
		{[]string{`risk contains {"scope": "s", "tier": "t"}`, "approval_tiers := [\"t\", \"u\"]"}, []position{{"unused_tier", 5, 19, `approval_tiers := ["t", "u"]`}}},
	} {
		valid, err := policy.Validate(t.Context(), document(strings.Join(tt.rules, "\n")), policy.InputSchemaVersion)
		if err != nil {
			t.Fatal(err)
		}
		got := positions(valid.Warnings)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got  %+v\nwant %+v", tt.rules, got, tt.want)
		}
	}
}

// TestWarningsAreLimited requires that many warnings are bounded, as issues are.
func TestWarningsAreLimited(t *testing.T) {
	t.Parallel()
	content := "app_ids := {" + lines(5000, `"k%d": "v",`) + "}\ngrants := {" + lines(5000, `"r%d": {"application": "x%d", "roles": {}},`) + "}"
	valid, err := policy.Validate(t.Context(), document(content), policy.InputSchemaVersion)
	if err != nil {
		t.Fatal(err)
	}
	if len(valid.Warnings) != 50 {
		t.Errorf("got %d warnings", len(valid.Warnings))
	}
	valid, err = policy.Validate(t.Context(), document(grantsOf(2000)), policy.InputSchemaVersion)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(valid.WarnUndeclared(map[string][]string{})); n != 50 {
		t.Errorf("got %d warnings about undeclared resources", n)
	}
}
