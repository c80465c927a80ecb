package policy_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"caracal.run/management/server/policy"
)

// TestInputErrors checks the path and the message of each error of an input.
func TestInputErrors(t *testing.T) {
	t.Parallel()
	const large = "must not contain a number with more than 40 digits or an exponent beyond 308"
	for _, tt := range []struct{ raw, path, message string }{
		{"", "", "must be valid JSON"},
		{"{", "", "must be valid JSON"},
		{"{} {}", "", "must be valid JSON"},
		{"{}]", "", "must be valid JSON"},
		{"{} x", "", "must be valid JSON"},
		{"null", "", "must be an object"},
		{"[]", "", "must be an object"},
		{`"x"`, "", "must be an object"},
		{strings.Repeat("[", 20_000), "", "must be valid JSON"},
		{`{"x": "` + strings.Repeat("x", policy.MaxInputBytes) + `"}`, "", "must be at most 65536 bytes"},
		{`{"schema_version": "2026-03-16"}`, "schema_version", "must be 2026-05-20"},
		{`{"schema_version": 1}`, "schema_version", "must be a string"},
		{`{"principal": []}`, "principal", "must be an object"},
		{`{"principal": "x"}`, "principal", "must be an object"},
		{`{"principal": {"id": 1}}`, "principal.id", "must be a string"},
		{`{"principal": {"labels": "x"}}`, "principal.labels", "must be a list of strings"},
		{`{"principal": {"labels": ["x", null]}}`, "principal.labels", "must be a list of strings"},
		{`{"principal": {"labels": {"x": 1}}}`, "principal.labels", "must be a list of strings"},
		{`{"resource": {"scopes": [1]}}`, "resource.scopes", "must be a list of strings"},
		{`{"delegation_edge": {"scopes": [["x"]]}}`, "delegation_edge.scopes", "must be a list of strings"},
		{`{"delegation_edge": {"edge_version": 1.5}}`, "delegation_edge.edge_version", "must be an integer"},
		{`{"delegation_edge": {"edge_version": 1e3}}`, "delegation_edge.edge_version", "must be an integer"},
		{`{"delegation_edge": {"graph_epoch": "1"}}`, "delegation_edge.graph_epoch", "must be an integer"},
		{`{"delegation_edge": {"graph_epoch": 99999999999999999999}}`, "delegation_edge.graph_epoch", "must be an integer"},
		{`{"delegation_edge": {"constraints_json": [{"a": 1e999}]}}`, "delegation_edge.constraints_json", large},
		{`{"context": {"requested_scopes": {}}}`, "context.requested_scopes", "must be a list of strings"},
		{`{"context": {"challenge_resolved": "true"}}`, "context.challenge_resolved", "must be true or false"},
		{`{"context": {"subject_claims": []}}`, "context.subject_claims", "must be an object"},
		{`{"context": {"subject_claims": {"x": [1, {"y": 1e-999999999}]}}}`, "context.subject_claims", large},
		{`{"context": {"actor_claims": {"x": ` + strings.Repeat("9", 50) + `}}}`, "context.actor_claims", large},
	} {
		_, err := policy.ParseInput([]byte(tt.raw), "zone-1")
		var invalid *policy.InputError
		if !errors.As(err, &invalid) {
			t.Errorf("%.100s: got %v, want an InputError", tt.raw, err)
		} else if invalid.Path != tt.path || invalid.Message != tt.message {
			t.Errorf("%.100s: got %q %q, want %q %q", tt.raw, invalid.Path, invalid.Message, tt.path, tt.message)
		}
	}
}

// TestInputOfRules checks what the rules of a policy can read of an input: absent
// fields, the replaced zone, and lists in their order.
func TestInputOfRules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		condition string
		input     object
		want      bool
	}{
		{`input.schema_version == "2026-05-20"`, object{}, true},
		{`input.schema_version == "2026-05-20"`, object{"schema_version": ""}, true},
		{`input.context.requested_scopes == []`, object{}, true},
		{`input.context.requested_scopes == []`, object{"context": object{"requested_scopes": nil}}, true},
		{`input.context.requested_scopes == ["b", "a", "b"]`, object{"context": object{"requested_scopes": []string{"b", "a", "b"}}}, true},
		{`input.principal.labels == ["b", "a"]`, object{"principal": object{"labels": []string{"b", "a"}}}, true},
		{`input.principal.zone_id == "zone-1"`, object{"principal": object{"zone_id": "zone-2"}}, true},
		{`input.principal.zone_id == "zone-1"`, object{"principal": object{}}, true},
		{`input.principal.id == null`, object{"principal": object{"id": nil}}, false},
		{`input.principal`, object{"principal": nil}, false},
		{`input.unknown`, object{"unknown": true}, false},
		{`input.principal.unknown`, object{"principal": object{"unknown": true}}, false},
		{`input.context.subject_claims.unknown.x[0] == 1.5`, object{"context": object{"subject_claims": object{"unknown": object{"x": []any{1.5}}}}}, true},
		{`input.context.subject_claims.x == null`, object{"context": object{"subject_claims": object{"x": nil}}}, true},
		{`input.context.subject_claims.target == ["b", "a"]`, object{"context": object{"subject_claims": object{"target": []string{"b", "a"}}}}, true},
		{`input.delegation_edge.graph_epoch == 3`, object{"delegation_edge": object{"graph_epoch": 3}}, true},
	} {
		b := compile(t, "restrict contains 1 if "+tt.condition)
		got := decide(t, b, tt.input)
		restricted := false
		for _, d := range got.Diagnostics {
			restricted = restricted || d.Reason == "restricted"
		}
		if restricted != tt.want {
			t.Errorf("%s with %v is %v", tt.condition, tt.input, restricted)
		}
	}
}

// TestClaimsOfWrongTypeAreDenied requires that claims of the subject, which can have
// any type, do not allow the use of a token.
func TestClaimsOfWrongTypeAreDenied(t *testing.T) {
	t.Parallel()
	b := compile(t, payments)
	for claims, reason := range map[string]string{
		`{"delegation_edge_id": null, "target": ["resource://bank"]}`:               "not_delegated",
		`{"delegation_edge_id": false, "target": ["resource://bank"]}`:              "not_delegated",
		`{"delegation_edge_id": 1, "target": ["resource://bank"]}`:                  "not_delegated",
		`{"delegation_edge_id": ["edge-1"], "target": ["resource://bank"]}`:         "not_delegated",
		`{"delegation_edge_id": "", "target": ["resource://bank"]}`:                 "not_delegated",
		`{"target": ["resource://bank"]}`:                                           "not_delegated",
		`{"delegation_edge_id": "edge-1", "target": "resource://bank"}`:             "outside_target",
		`{"delegation_edge_id": "edge-1", "target": {"resource://bank": "x"}}`:      "outside_target",
		`{"delegation_edge_id": "edge-1", "target": {"x": "resource://bank"}}`:      "outside_target",
		`{"delegation_edge_id": "edge-1", "target": [["resource://bank"]]}`:         "outside_target",
		`{"delegation_edge_id": "edge-1", "target": [null, 1, "resource://bank/"]}`: "outside_target",
		`{"delegation_edge_id": "edge-1", "target": null}`:                          "outside_target",
		`{"delegation_edge_id": "edge-1"}`:                                          "outside_target",
	} {
		requireResult(t, deny(reason), decide(t, b, useInput(object{"context.subject_claims": json.RawMessage(claims)})))
	}
}
