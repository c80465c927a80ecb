package policy_test

import (
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

// TestTemplates checks the conformance rules of policy-templates.md.
func TestTemplates(t *testing.T) {
	t.Parallel()
	var ids []string
	var set []policy.Module
	for _, template := range policy.Templates() {
		ids = append(ids, template.ID)
		set = append(set, policy.Module{ID: template.ID, Content: template.Content, SchemaVersion: policy.InputSchemaVersion})
		v, err := policy.Validate(t.Context(), template.Content, policy.InputSchemaVersion)
		if err != nil || len(v.Preview.Rules) != 1 || len(v.Warnings) > 0 {
			t.Errorf("%s: %v, warnings %+v, rules %v", template.ID, err, v.Warnings, v.Preview.Rules)
		}
		if !strings.HasPrefix(template.Content, "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n") {
			t.Errorf("%s starts with other lines", template.ID)
		}
		if strings.Count(template.Content, ":= ") != 1 {
			t.Errorf("%s must have one rule", template.ID)
		}
		if template.Name == "" || template.Description == "" {
			t.Errorf("%s has no name or no description", template.ID)
		}
	}
	if want := []string{"application-bindings", "resource-grants", "label-confinement", "zone-restriction"}; !slices.Equal(ids[:4], want) {
		t.Errorf("ids %v, want %v first", ids, want)
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(ids))); len(sorted) != len(ids) {
		t.Errorf("ids %v are not unique", ids)
	}
	if _, err := policy.Compile(t.Context(), set); err != nil {
		t.Errorf("the templates do not compile together: %v", err)
	}
	if grants := policy.Templates()[1].Content; !strings.Contains(grants, "grants := {") {
		t.Error("resource-grants must contain the literal text: grants := {")
	}
}
