package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// simulatedSet is a policy set with three versions: the first lets the application
// app-1 mint payments:read for agents with the label payer; the second also
// payments:write, with approval; in the third, restrict depends on the input.
type simulatedSet struct {
	policyZone
	set                       string
	reading, writing, dynamic string
}

const simulatedPolicies = "# caracal:data-document\npackage caracal.authz\nimport rego.v1\napp_ids := {\"payments\": \"app-1\"}\n"

func newSimulatedSet(t *testing.T, a *servertest.API) simulatedSet {
	z := newPolicyZone(a)
	s := simulatedSet{policyZone: z, set: z.set(t).ID}
	version := func(content string) string {
		p := createPolicy(t, a.Admin, z.zone, client.NewPolicy{Name: uniqueName("Policy"), Content: simulatedPolicies + content})
		servertest.Expect(t, p, http.StatusCreated, "")
		return z.version(t, s.set, p.JSON201.VersionID).ID
	}
	s.reading = version(`grants := {"resource://payments": {"application": "payments", "roles": {"payer": ["payments:read"]}}}`)
	s.writing = version(`grants := {"resource://payments": {"application": "payments", "roles": {"payer": ["payments:read", "payments:write"]}}}
risk := [{"scope": "payments:write", "tier": "high"}]
approval_tiers := ["high"]`)
	s.dynamic = version(dynamicRestrict(z.zone))
	return s
}

func dynamicRestrict(zone string) string {
	return `grants := {"resource://payments": {"application": "payments", "roles": {"payer": ["payments:read"]}}}
restrict := ["read only"] if input.action.method == "POST"
restrict := ["other zone"] if input.principal.zone_id != "` + zone + `"
restrict := ["conflict"] if input.session.id == "conflict"
`
}

// input returns an input to mint scopes, with changes of the fields of context.
func (s simulatedSet) input(scopes ...string) map[string]any {
	return map[string]any{
		"schema_version":  "2026-05-20",
		"principal":       map[string]any{"type": "Application", "id": "app-1", "zone_id": s.zone, "labels": []string{"payer"}, "agent_session_id": "agent-1"},
		"resource":        map[string]any{"type": "Resource", "id": "res-1", "identifier": "resource://payments", "scopes": []string{"payments:read", "payments:write"}},
		"action":          map[string]any{"id": "TokenExchange"},
		"delegation_edge": map[string]any{"id": "edge-1", "scopes": []string{"payments:read", "payments:write"}},
		"context":         map[string]any{"agent_session_id": "agent-1", "requested_scopes": scopes, "challenge_resolved": false},
	}
}

func (s simulatedSet) with(path string, value any) map[string]any {
	input := s.input("payments:read")
	if outer, inner, found := strings.Cut(path, "."); found {
		object, _ := input[outer].(map[string]any)
		if object == nil {
			object = map[string]any{}
			input[outer] = object
		}
		object[inner] = value
	} else if input[path] = value; value == nil {
		delete(input, path)
	}
	return input
}

func encode(t *testing.T, value any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s simulatedSet) simulate(t *testing.T, as *rawclient.ClientWithResponses, version string, input map[string]any) *rawclient.SimulatePolicySetResponse {
	t.Helper()
	body := client.PolicySimulation{VersionID: version, Trace: new(true)}
	if input != nil {
		body.Input = new(encode(t, input))
	}
	resp, err := as.SimulatePolicySetWithResponse(t.Context(), s.zone, s.set, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func reasonsOf(d *client.PolicyDecision) (all []string) {
	for _, diagnostic := range d.Diagnostics {
		switch {
		case diagnostic.Reason != "":
			all = append(all, diagnostic.Reason)
		case diagnostic.StepUpRequired != "":
			all = append(all, diagnostic.StepUpRequired)
		default:
			for _, r := range diagnostic.Risk {
				all = append(all, r.Scope+" "+r.Tier)
			}
		}
	}
	return all
}

func TestSimulatePolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newSimulatedSet(t, a)
	other := newSimulatedSet(t, a)
	writer := s.ClientFor(s.zone, "write")
	before := everythingOf(a.DB, s.zone)
	for _, tt := range []struct {
		name, version string
		input         map[string]any
		decision      string // "" if it failed
		diagnostics   []string
		warnings      []string
		reason        string // a part of the explanation's reason
	}{
		{"allowed", s.reading, s.input("payments:read"), "allow", nil, nil, "evaluated"},
		{"denied", s.reading, s.input("payments:write"), "deny", []string{"no_rule_matched", "role_missing"}, nil, "evaluated"},
		{"approval required", s.writing, s.input("payments:write"), "allow", []string{"human_approval", "payments:write high"}, nil, "evaluated"},
		{"restricted by the input", s.dynamic, s.with("action.method", "POST"), "deny", []string{"no_rule_matched", "restricted"}, nil, "evaluated"},
		{"not restricted by the input", s.dynamic, s.with("action.method", "GET"), "allow", nil, nil, "evaluated"},
		{"another zone", s.dynamic, s.with("principal.zone_id", other.zone), "allow", nil, []string{"principal_zone_mismatch"}, "evaluated"},
		{"no principal", s.reading, s.with("principal", nil), "deny", []string{"no_rule_matched", "not_owner"}, []string{"principal_zone_mismatch"}, "evaluated"},
		{"nothing", s.reading, map[string]any{}, "deny", []string{"no_rule_matched", "no_agent_session", "no_scope_requested", "not_delegated", "not_owner"},
			[]string{"principal_zone_mismatch", "missing_resource", "missing_action", "missing_context"}, "evaluated"},
		{"other schema version", s.reading, s.with("schema_version", "2026-03-16"), "", nil, []string{"input_schema_mismatch:2026-03-16", "sts_simulation_failed:policy_eval_failed"}, "schema_version must be 2026-05-20"},
		{"wrong type", s.reading, s.with("principal.labels", "payer"), "", nil, []string{"sts_simulation_failed:policy_eval_failed"}, "principal.labels must be a list of strings"},
		{"an array for an object", s.reading, s.with("context", []string{}), "", nil, []string{"sts_simulation_failed:policy_eval_failed"}, "context must be an object"},
		{"conflict", s.dynamic, func() map[string]any {
			input := s.with("session.id", "conflict")
			input["action"] = map[string]any{"id": "TokenExchange", "method": "POST"}
			return input
		}(), "", nil, []string{"sts_simulation_failed:policy_eval_failed"}, "two different values"},
		{"no schema version", s.reading, s.with("schema_version", json.RawMessage("null")), "allow", nil, nil, "evaluated"},
		{"unknown fields", s.reading, s.with("unknown", 1), "allow", nil, nil, "evaluated"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := s.simulate(t, writer, tt.version, tt.input)
			servertest.Expect(t, resp, http.StatusOK, "")
			got := resp.JSON200
			if !slices.Equal(got.Warnings, tt.warnings) && len(got.Warnings)+len(tt.warnings) > 0 {
				t.Errorf("warnings %q, want %q", got.Warnings, tt.warnings)
			}
			if !strings.Contains(got.Explanation.Reason, tt.reason) {
				t.Errorf("reason %q, want %q", got.Explanation.Reason, tt.reason)
			}
			if !got.DryRun || got.WouldActivate != (len(tt.warnings) == 0) || got.VersionID != tt.version || got.PolicySetID != s.set || len(got.Policies) != 1 {
				t.Errorf("got %s", resp.Body)
			}
			if tt.decision == "" {
				if got.Result != nil || got.Decision != nil || got.Explanation.Evaluation != "failed" {
					t.Errorf("got %s", resp.Body)
				}
				return
			}
			if got.Result == nil || got.Decision == nil || *got.Decision != tt.decision || got.Explanation.Decision != tt.decision || got.Explanation.Evaluation != "executed" {
				t.Fatalf("got %s", resp.Body)
			}
			if reasons := reasonsOf(got.Result); !slices.Equal(slices.Sorted(slices.Values(reasons)), slices.Sorted(slices.Values(tt.diagnostics))) {
				t.Errorf("diagnostics %q, want %q", reasons, tt.diagnostics)
			}
			if tt.name == "allowed" && !slices.Equal(got.DocumentsRead, []string{"app_ids", "grants"}) || len(got.InputsRead) == 0 || len(got.Trace) == 0 {
				t.Errorf("read %v and %v, %d lines of trace", got.DocumentsRead, got.InputsRead, len(got.Trace))
			}
		})
	}
	t.Cleanup(func() { // after the parallel subtests
		if after := everythingOf(a.DB, s.zone); after != before {
			t.Errorf("the zone was\n%s\nand became\n%s", before, after)
		}
	})
}

func TestSimulatePolicySetWithoutInput(t *testing.T) {
	t.Parallel()
	s := newSimulatedSet(t, servertest.New(t))
	resp := s.simulate(t, s.Admin, s.reading, nil)
	servertest.Expect(t, resp, http.StatusOK, "")
	if got := resp.JSON200; !got.WouldActivate || got.Result != nil || got.Decision != nil || got.Explanation.Evaluation != "not_executed" || got.SchemaVersion != "2026-05-20" {
		t.Errorf("got %s", resp.Body)
	}
	for _, input := range []string{"null", "[]", `"x"`} {
		raw := s.Do("POST", "/v1/zones/"+s.zone+"/policy-sets/"+s.set+"/simulate", `{"version_id":"`+s.reading+`","input":`+input+`}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, 0, code.InvalidBody)
	}
}

// Each operation of simulation returns the same errors.
func TestSimulationErrors(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s, other := newSimulatedSet(t, a), newSimulatedSet(t, a)
	// The version was valid, and then its policy was archived.
	archived := newSimulatedSet(t, a)
	archived.DB.Exec("UPDATE policies SET archived_at = now() WHERE zone_id = $1", archived.zone)
	empty := s.policyZone.set(t).ID
	input := encode(t, s.input("payments:read"))
	for _, tt := range []struct {
		name               string
		zone, set, version string
		want               code.Code
	}{
		{"version of another set", s.zone, empty, s.reading, code.VersionNotFound},
		{"version of another zone", s.zone, s.set, other.reading, code.VersionNotFound},
		{"set of another zone", s.zone, other.set, other.reading, code.VersionNotFound},
		{"unknown zone", "unknown", s.set, s.reading, code.VersionNotFound},
		{"no version", s.zone, s.set, "", code.InvalidBody},
		{"archived policy", archived.zone, archived.set, archived.reading, code.InvalidPolicyContract},
		{"valid", s.zone, s.set, s.reading, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, err := a.Admin.SimulatePolicySetWithResponse(t.Context(), tt.zone, tt.set, client.PolicySimulation{VersionID: tt.version})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, one, http.StatusOK, tt.want)
			batch, err := a.Admin.SimulatePolicySetBatchWithResponse(t.Context(), tt.zone, tt.set, client.PolicySimulationBatch{VersionID: tt.version, Inputs: client.PolicyInputs{input}})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, batch, http.StatusOK, tt.want)
			compared, err := a.Admin.ComparePolicySetVersionsWithResponse(t.Context(), tt.zone, tt.set, client.PolicyComparison{FromVersionID: tt.version, ToVersionID: tt.version, Inputs: client.PolicyInputs{input}})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, compared, http.StatusOK, tt.want)
		})
	}
}

func TestSimulatePolicySetBatch(t *testing.T) {
	t.Parallel()
	s := newSimulatedSet(t, servertest.New(t))
	var inputs client.PolicyInputs
	for i := range 100 {
		switch {
		case i == 99:
			inputs = append(inputs, encode(t, s.with("principal.labels", 1)))
		case i%2 == 0:
			inputs = append(inputs, encode(t, s.input("payments:read")))
		default:
			inputs = append(inputs, encode(t, s.input("payments:write")))
		}
	}
	send := func(inputs client.PolicyInputs) *rawclient.SimulatePolicySetBatchResponse {
		resp, err := s.ClientFor(s.zone, "write").SimulatePolicySetBatchWithResponse(t.Context(), s.zone, s.set, client.PolicySimulationBatch{VersionID: s.reading, Inputs: inputs})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := send(inputs)
	servertest.Expect(t, resp, http.StatusOK, "")
	got := resp.JSON200
	if got.Allowed != 50 || got.Denied != 49 || got.Failed != 1 || len(got.Outcomes) != 100 {
		t.Fatalf("%d allowed, %d denied, %d failed, %d outcomes", got.Allowed, got.Denied, got.Failed, len(got.Outcomes))
	}
	if o := got.Outcomes; o[0].Result.Decision != "allow" || o[1].Result.Decision != "deny" || o[99].Result != nil || !strings.Contains(o[99].Error, "principal.labels must be a list of strings") {
		t.Errorf("got %+v, %+v and %+v", o[0], o[1], o[99])
	}
	// How many of the most inputs are decided in time depends on the machine.
	most := slices.Repeat(inputs, 10)
	resp = send(most)
	servertest.Expect(t, resp, http.StatusOK, "")
	if got := resp.JSON200; len(got.Outcomes) != 1000 || got.Allowed+got.Denied+got.Failed != 1000 {
		t.Errorf("%d allowed, %d denied, %d failed, %d outcomes", got.Allowed, got.Denied, got.Failed, len(got.Outcomes))
	}
	servertest.Expect(t, send(append(most, inputs[0])), 0, code.InvalidBody)
	servertest.Expect(t, send(client.PolicyInputs{}), 0, code.InvalidBody)
}

func TestComparePolicySetVersions(t *testing.T) {
	t.Parallel()
	s := newSimulatedSet(t, servertest.New(t))
	inputs := client.PolicyInputs{
		encode(t, s.input("payments:read")),        // the same
		encode(t, s.input("payments:write")),       // denied, then allowed with approval
		encode(t, s.with("principal.labels", nil)), // denied for the same reason
		encode(t, s.with("principal.labels", 1)),   // fails
	}
	compare := func(from, to string) *client.PolicyComparisonResult {
		resp, err := s.Admin.ComparePolicySetVersionsWithResponse(t.Context(), s.zone, s.set, client.PolicyComparison{FromVersionID: from, ToVersionID: to, Inputs: inputs})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		return resp.JSON200
	}
	forward := compare(s.reading, s.writing)
	if forward.Unchanged != 2 || forward.NewlyAllowed != 1 || forward.NewlyDenied != 0 || forward.Failed != 1 || len(forward.Changes) != 2 {
		t.Fatalf("got %+v", forward)
	}
	change := forward.Changes[0]
	if change.Input != 1 || change.From.Result.Decision != "deny" || change.To.Result.Decision != "allow" ||
		!slices.Equal(reasonsOf(change.From.Result), []string{"no_rule_matched", "role_missing"}) ||
		!slices.Equal(reasonsOf(change.To.Result), []string{"human_approval", "payments:write high"}) {
		t.Errorf("got %+v", change)
	}
	back := compare(s.writing, s.reading)
	if back.Unchanged != 2 || back.NewlyAllowed != 0 || back.NewlyDenied != 1 || back.Failed != 1 {
		t.Errorf("got %+v", back)
	}
	if same := compare(s.writing, s.writing); same.Unchanged != 3 || same.Failed != 1 || len(same.Changes) != 1 {
		t.Errorf("got %+v", same)
	}
}

// A policy whose evaluation is endless fails within the limits, for each input and
// for the request.
func TestSimulationOfAnEndlessPolicyFails(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set := z.set(t).ID
	content := simulatedPolicies + `restrict contains "never" if {
	some a in input.principal.labels
	some b in input.principal.labels
	some c in input.principal.labels
	some d in input.principal.labels
	some e in input.principal.labels
	concat("", [a, b, c, d, e]) == "never"
}
`
	p := createPolicy(t, a.Admin, z.zone, client.NewPolicy{Name: "Endless", Content: content})
	servertest.Expect(t, p, http.StatusCreated, "")
	version := z.version(t, set, p.JSON201.VersionID).ID
	labels := make([]string, 100)
	for i := range labels {
		labels[i] = fmt.Sprint(i)
	}
	input := encode(t, map[string]any{"principal": map[string]any{"labels": labels}})
	inputs := client.PolicyInputs{}
	for range 100 { // each would take 250 ms
		inputs = append(inputs, input)
	}
	resp, err := a.Admin.SimulatePolicySetBatchWithResponse(t.Context(), z.zone, set, client.PolicySimulationBatch{VersionID: version, Inputs: inputs})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if resp.JSON200.Failed != len(inputs) {
		t.Errorf("%d of %d failed", resp.JSON200.Failed, len(inputs))
	}
	if first := resp.JSON200.Outcomes[0].Error; !strings.Contains(first, "250ms") {
		t.Errorf("got %q", first)
	}
}

func TestSimulationRecordsNoAuditEntry(t *testing.T) {
	t.Parallel()
	s := newSimulatedSet(t, servertest.New(t))
	count := func() int64 {
		return storetest.Value[int64](s.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1", s.zone)
	}
	before := count()
	s.simulate(t, s.Admin, s.reading, s.input("payments:read"))
	if after := count(); after != before {
		t.Errorf("%d audit entries were recorded", after-before)
	}
}
