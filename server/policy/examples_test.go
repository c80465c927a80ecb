package policy_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

// document returns the content of a policy that defines documents.
func document(rules string) string {
	return "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n" + rules + "\n"
}

// The documents of policy-evaluation.md §9.
const (
	ids    = `app_ids := {"payments": "app-pay-01", "ledger": "app-led-01"}`
	grants = `grants := {
	"resource://bank": {"application": "payments", "roles": {"payer": ["bank:read", "bank:write"], "auditor": ["bank:read"]}},
	"resource://coordinator": {"application": "payments", "roles": {}},
}`
	confinement = `confinement := [{"label_prefix": "customer:", "scopes": ["bank:read"]}]`
	risk        = `risk := [{"scope": "bank:write", "tier": "high"}, {"scope": "bank:read", "tier": "low"}]
approval_tiers := ["high"]`
	restricted = `restrict := {"maintenance window"}`
)

type object = map[string]any

// baseInput, mintInput and useInput are the inputs of policy-evaluation.md §9, with
// changes: a path such as principal.labels and its value; nil removes the field.
func baseInput(changes object) object {
	return change(object{
		"schema_version": "2026-05-20",
		"principal":      object{"type": "Application", "id": "app-pay-01", "zone_id": "zone-1", "registration_method": "managed"},
		"action":         object{"id": "TokenExchange"},
		"context":        object{"actor_claims": object{"caracal_client_id": "app-pay-01"}, "challenge_resolved": false},
	}, changes)
}

func mintInput(changes object) object {
	return change(baseInput(object{
		"principal.agent_session_id": "ag-1", "principal.lifecycle": "task", "principal.labels": []string{"payer"},
		"resource":                 object{"type": "Resource", "id": "res-1", "identifier": "resource://bank", "scopes": []string{"bank:read", "bank:write"}},
		"delegation_edge":          object{"id": "edge-1", "source_session_id": "ag-0", "target_session_id": "ag-1", "scopes": []string{"bank:read", "bank:write"}, "path": []string{"edge-1"}, "graph_epoch": 3},
		"context.agent_session_id": "ag-1", "context.delegation_edge_id": "edge-1", "context.requested_scopes": []string{"bank:read"},
	}), changes)
}

func useInput(changes object) object {
	return change(baseInput(object{
		"principal.agent_session_id": "ag-1", "principal.labels": []string{"auditor"},
		"resource":                 object{"type": "Resource", "id": "res-1", "identifier": "resource://bank", "scopes": []string{"bank:read", "bank:write"}},
		"session":                  object{"id": "sess-1"},
		"action":                   object{"id": "TokenExchange", "method": "GET", "path": "/accounts"},
		"context.agent_session_id": "ag-1",
		"context.subject_claims": object{
			"sub": "app-pay-01", "delegation_edge_id": "edge-1", "target": []string{"resource://bank"}, "scope": "bank:read", "use": "session",
		},
		"context.requested_scopes": []string{},
	}), changes)
}

func bootstrapInput(changes object) object {
	return change(baseInput(object{
		"resource": object{"identifier": "resource://coordinator"}, "context.requested_scopes": []string{"agent:lifecycle"},
	}), changes)
}

func change(input, changes object) object {
	for path, value := range changes {
		parent, name := input, path
		if before, after, found := strings.Cut(path, "."); found {
			nested, _ := parent[before].(object)
			nested = maps.Clone(nested)
			if nested == nil {
				nested = object{}
			}
			parent[before], parent, name = nested, nested, after
		}
		if value == nil {
			delete(parent, name)
		} else {
			parent[name] = value
		}
	}
	return input
}

func parseInput(t testing.TB, input object) policy.Input {
	t.Helper()
	raw, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := policy.ParseInput(raw, "zone-1")
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// compile compiles policies that define the given documents, one each.
func compile(t testing.TB, rules ...string) *policy.Bundle {
	t.Helper()
	b, err := policy.Compile(t.Context(), modules(rules...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func modules(rules ...string) []policy.Module {
	var list []policy.Module
	for i, r := range rules {
		list = append(list, policy.Module{ID: string(rune('a' + i)), Content: document(r), SchemaVersion: policy.InputSchemaVersion})
	}
	return list
}

func decide(t testing.TB, b *policy.Bundle, input object) policy.Result {
	t.Helper()
	r, err := b.Decide(t.Context(), parseInput(t, input))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func allow(name string, diagnostics ...policy.Diagnostic) policy.Result {
	return policy.Result{Decision: "allow", EvaluationStatus: "complete", DeterminingPolicies: []string{name}, Diagnostics: diagnostics}
}

func deny(reasons ...string) policy.Result {
	r := policy.Result{Decision: "deny", EvaluationStatus: "complete", Diagnostics: []policy.Diagnostic{{Reason: "no_rule_matched"}}}
	for _, reason := range reasons {
		r.Diagnostics = append(r.Diagnostics, policy.Diagnostic{Reason: reason})
	}
	return r
}

// TestWorkedExamples decides the examples of policy-evaluation.md §9.
func TestWorkedExamples(t *testing.T) {
	t.Parallel()
	stepUp := policy.Diagnostic{StepUpRequired: "human_approval"}
	low, high := policy.Tag{Scope: "bank:read", Tier: "low"}, policy.Tag{Scope: "bank:write", Tier: "high"}
	for _, tt := range []struct {
		name      string
		documents []string
		input     object
		want      policy.Result
	}{
		{"1 bootstrap", []string{ids, grants}, bootstrapInput(nil), allow("caracal-bootstrap")},
		{"2 mint", []string{ids, grants}, mintInput(nil), allow("caracal-payments-mint")},
		{"3 approval required", []string{ids, grants, risk}, mintInput(object{"context.requested_scopes": []string{"bank:write", "bank:read"}}),
			allow("caracal-payments-mint", stepUp, policy.Diagnostic{Risk: []policy.Tag{low, high}})},
		{"4 outside confinement", []string{ids, grants, confinement},
			mintInput(object{"principal.labels": []string{"payer", "customer:42"}, "context.requested_scopes": []string{"bank:write", "bank:read"}}), deny("confined")},
		{"5 within confinement", []string{ids, grants, confinement}, mintInput(object{"principal.labels": []string{"payer", "customer:42"}}), allow("caracal-payments-mint")},
		{"6 restricted", []string{ids, grants, restricted}, mintInput(nil), deny("restricted")},
		{"7 use", []string{ids, grants}, useInput(nil), allow("caracal-payments-use")},
		{"8 outside edge", []string{ids, grants},
			mintInput(object{"delegation_edge.scopes": []string{"bank:read"}, "context.requested_scopes": []string{"bank:write"}}), deny("scope_outside_edge")},
		{"9 no documents", nil, mintInput(nil), deny("not_owner")},
		{"10 other application", []string{ids, grants}, mintInput(object{"principal.id": "app-led-01"}), deny("not_owner")},
		{"11 no role", []string{ids, grants}, mintInput(object{"principal.labels": []string{"viewer"}}), deny("role_missing")},
		{"12 challenge resolved", []string{ids, grants, risk},
			mintInput(object{"context.challenge_resolved": true, "context.requested_scopes": []string{"bank:write"}}),
			allow("caracal-payments-mint", stepUp, policy.Diagnostic{Risk: []policy.Tag{high}})},
		{"13 roles are not united", []string{ids, `grants := {"resource://bank": {"application": "payments", "roles": {"r2": ["bank:write"], "auditor": ["bank:read"]}}}`},
			mintInput(object{"principal.labels": []string{"auditor", "r2"}, "context.requested_scopes": []string{"bank:read", "bank:write"}}), deny("role_missing")},
		{"14 confinement does not apply to use", []string{ids, grants, confinement}, useInput(object{"principal.labels": []string{"auditor", "customer:1"}}),
			allow("caracal-payments-use")},
		{"15 tagged, without approval", []string{ids, grants, risk}, mintInput(nil), allow("caracal-payments-mint", policy.Diagnostic{Risk: []policy.Tag{low}})},
		{"16 confinements intersect", []string{ids, grants, `confinement := [
	{"label_prefix": "customer:", "scopes": ["bank:read", "bank:write"]},
	{"label_prefix": "region:", "scopes": ["bank:write"]},
]`}, mintInput(object{"principal.labels": []string{"payer", "customer:1", "region:eu"}}), deny("confined")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := decide(t, compile(t, tt.documents...), tt.input); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}
