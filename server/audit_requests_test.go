package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// A decidedSet is a policy set with versions that decide differently about the same
// requests.
type decidedSet struct {
	policyZone
	set      string
	versions []string
}

func newDecidedSet(t *testing.T, a *servertest.API) decidedSet {
	z := newPolicyZone(a)
	s := decidedSet{policyZone: z, set: z.set(t).ID}
	const owner, roles = `app_ids := {"payments": "app-1"}
`, `grants := {"resource://bank": {"application": "payments", "roles": {"payer": ["bank:read", "bank:write"], "auditor": ["bank:read"]}},
	"resource://coordinator": {"application": "payments", "roles": {}}}
`
	for _, documents := range []string{
		owner + roles,
		owner + roles + `confinement := [{"label_prefix": "customer:", "scopes": ["bank:read"]}]`,
		owner + roles + `restrict := {"maintenance window"}`,
		owner + roles + "risk := [{\"scope\": \"bank:write\", \"tier\": \"high\"}]\napproval_tiers := [\"high\"]",
		owner + roles + `restrict := ["writes"] if { input.action.method == "POST"; input.resource.id == "res-1"; "bank:admin" in input.resource.scopes; input.principal.registration_method == "dcr" }`,
		`app_ids := {"payments": "app-2"}
` + roles,
	} {
		p := createPolicy(t, a.Admin, z.zone, client.NewPolicy{Name: uniqueName("Policy"), Content: "# caracal:data-document\npackage caracal.authz\nimport rego.v1\n" + documents})
		servertest.Expect(t, p, http.StatusCreated, "")
		s.versions = append(s.versions, z.version(t, s.set, p.JSON201.VersionID).ID)
	}
	return s
}

// simulate returns the outcomes of inputs with a version, as JSON.
func (s decidedSet) simulate(t *testing.T, version string, inputs []json.RawMessage) (outcomes []string) {
	t.Helper()
	resp, err := s.Admin.SimulatePolicySetBatchWithResponse(t.Context(), s.zone, s.set, client.PolicySimulationBatch{VersionID: version, Inputs: inputs})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	for _, outcome := range resp.JSON200.Outcomes {
		outcomes = append(outcomes, string(encode(t, outcome)))
	}
	return outcomes
}

// object is a JSON object.
type object = map[string]any

// changedInput returns an input with changes, by paths such as principal.id. A nil
// value removes a field.
func changedInput(base object, changes object) object {
	input := object{}
	for name, value := range base {
		input[name] = value
		if fields, ok := value.(object); ok {
			input[name] = maps.Clone(fields)
		}
	}
	for path, value := range changes {
		outer, inner, nested := strings.Cut(path, ".")
		target, name := input, outer
		if nested {
			if input[outer] == nil {
				input[outer] = object{}
			}
			target, name = input[outer].(object), inner
		}
		if target[name] = value; value == nil {
			delete(target, name)
		}
	}
	return input
}

// decidedInputs are the inputs of requests to start an agent, to mint a token and to use
// one, with changes that different rules deny.
func decidedInputs(zone string) []object {
	base := object{
		"schema_version": "2026-05-20", "principal": object{"type": "Application", "id": "app-1", "zone_id": zone, "registration_method": "managed"},
		"resource": object{"type": "Resource", "id": "res-0", "identifier": "resource://coordinator", "scopes": []string{"agent:lifecycle"}},
		"action":   object{"id": "TokenExchange"}, "context": object{"actor_claims": object{}, "challenge_resolved": false, "requested_scopes": []string{"agent:lifecycle"}},
	}
	edge := object{"delegation_edge.id": "edge-1", "delegation_edge.scopes": []string{"bank:read", "bank:write"}, "context.delegation_edge_id": "edge-1"}
	bank := object{
		"resource": object{"type": "Resource", "id": "res-1", "identifier": "resource://bank", "scopes": []string{"bank:read", "bank:write", "bank:admin"}},
		"session":  object{"id": "sess-1"}, "context.session_id": "sess-1",
		"principal.agent_session_id": "ag-1", "principal.lifecycle": "task", "principal.labels": []string{"payer"}, "context.agent_session_id": "ag-1", "context.requested_scopes": []string{"bank:read"},
	}
	mint := changedInput(changedInput(base, bank), edge)
	use := changedInput(mint, object{
		"principal.labels": []string{"auditor"}, "context.requested_scopes": []string{}, "context.subject_claims": object{"delegation_edge_id": "edge-1", "target": []string{"resource://bank"}},
	})
	inputs := []object{base, mint, use}
	for _, changes := range []object{edge, {"principal.agent_session_id": "ag-1", "context.agent_session_id": "ag-1"}, {"context.requested_scopes": []string{"agent:lifecycle", "bank:read"}}, {"principal.id": "app-9"}} {
		inputs = append(inputs, changedInput(base, changes))
	}
	for _, changes := range []object{
		{"context.requested_scopes": []string{"bank:write", "bank:read"}}, {"context.requested_scopes": []string{"bank:admin"}}, {"context.requested_scopes": []string{}}, {"principal.labels": []string{"viewer"}},
		{"principal.labels": nil}, {"principal.labels": []string{"payer", "customer:1"}, "context.requested_scopes": []string{"bank:write"}}, {"principal.labels": []string{"payer", "customer:1"}},
		{"delegation_edge": nil, "context.delegation_edge_id": nil}, {"principal.agent_session_id": nil, "context.agent_session_id": nil}, {"delegation_edge.scopes": []string{"bank:read"}, "context.requested_scopes": []string{"bank:write"}},
		{"delegation_edge.scopes": nil}, {"session": nil, "context.session_id": nil}, {"resource.identifier": "resource://other"}, {"context.challenge_resolved": true, "context.requested_scopes": []string{"bank:write"}},
		{"action.method": "POST", "action.path": "/x", "principal.registration_method": "dcr"}, {"action.method": "POST", "resource.id": "res-2", "principal.registration_method": "dcr"}, {"action.method": "GET", "principal.registration_method": "dcr"},
		{"resource.scopes": []string{"bank:read"}, "action.method": "POST", "principal.registration_method": "dcr"},
	} {
		inputs = append(inputs, changedInput(mint, changes))
	}
	for _, changes := range []object{
		{"context.subject_claims": object{"delegation_edge_id": "edge-1", "target": []string{"resource://other"}}}, {"context.subject_claims": object{"target": []string{"resource://bank"}}}, {"context.subject_claims": object{}},
		{"context.requested_scopes": []string{"bank:read"}}, {"principal.labels": []string{"viewer"}},
	} {
		inputs = append(inputs, changedInput(use, changes))
	}
	return inputs
}

// recordedMetadata returns what STS records of an input. An identifier that it does not
// have is empty.
func recordedMetadata(input object) object {
	field := func(outer, inner string) any {
		if fields, ok := input[outer].(object); ok && fields[inner] != nil {
			return fields[inner]
		}
		return ""
	}
	m := object{
		"application_id": field("principal", "id"), "application_name": "Payments", "application_registration_method": field("principal", "registration_method"), "resource": field("resource", "identifier"),
		"resource_id": field("resource", "id"), "resource_scopes": field("resource", "scopes"), "requested_scopes": field("context", "requested_scopes"), "session_id": field("context", "session_id"),
		"agent_session_id": field("context", "agent_session_id"), "delegation_edge_id": field("context", "delegation_edge_id"), "agent_lifecycle": field("principal", "lifecycle"), "delegation_hop_count": 1,
		"challenge_resolved": field("context", "challenge_resolved"), "method": field("action", "method"), "path": field("action", "path"),
	}
	if labels := field("principal", "labels"); labels != "" {
		m["agent_labels"] = labels
	}
	if edge, ok := input["delegation_edge"].(object); ok {
		m["delegation_edge_scopes"] = edge["scopes"]
		if edge["scopes"] == nil {
			m["delegation_edge_scopes"] = []string{}
		}
	}
	if claims, ok := input["context"].(object)["subject_claims"].(object); ok {
		m["subject_claims"] = maps.Clone(claims)
		m["subject_claims"].(object)["sub"] = "not read by policies"
	}
	return m
}

func explain(t *testing.T, as *rawclient.ClientWithResponses, zone, request string) *client.RequestExplanation {
	t.Helper()
	resp, err := as.ExplainRequestWithResponse(t.Context(), zone, request)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return resp.JSON200
}

// The policy input of each denied request, when it is simulated, repeats the decision and
// its diagnostics; and with any other version, it is decided like the original input.
func TestExplainRequestRepeatsDecisions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newDecidedSet(t, a)
	var inputs []json.RawMessage
	originals := decidedInputs(s.zone)
	for _, input := range originals {
		inputs = append(inputs, encode(t, input))
	}
	var decided [][]string // by version and input
	for _, version := range s.versions {
		decided = append(decided, s.simulate(t, version, inputs))
	}
	var reasons []string
	denied, allowed := 0, 0
	for v, version := range s.versions {
		var replayed []json.RawMessage
		var indexes []int
		for i, input := range originals {
			var outcome client.PolicyOutcome
			if err := json.Unmarshal([]byte(decided[v][i]), &outcome); err != nil || outcome.Result == nil {
				t.Fatalf("%s was decided as %s", inputs[i], decided[v][i])
			}
			request := fmt.Sprintf("r-%d-%d", v, i)
			event := a.DB.AuditEvent(s.zone, object{
				"request_id": request, "decision": outcome.Result.Decision, "policy_set_version_id": version, "determining_policies": outcome.Result.DeterminingPolicies, "diagnostics": outcome.Result.Diagnostics,
				"metadata": recordedMetadata(input),
			})
			explanation := explain(t, a.Admin, s.zone, request)
			if explanation.FinalDecision != outcome.Result.Decision || len(explanation.Events) != 1 || explanation.Events[0].ID != event {
				t.Errorf("got %+v", explanation)
			}
			if outcome.Result.Decision == "allow" {
				allowed++
				if len(explanation.Denied) > 0 {
					t.Errorf("%s is allowed, and explained as %+v", inputs[i], explanation.Denied)
				}
				continue
			}
			denied++
			reasons = append(reasons, reasonsOf(outcome.Result)...)
			if len(explanation.Denied) != 1 {
				t.Fatalf("got %+v", explanation)
			}
			d := explanation.Denied[0]
			if !d.Simulatable || d.NotSimulatableReason != nil || *d.PolicySetID != s.set || *d.PolicySetVersionID != version || d.EventID != event {
				t.Errorf("%s: got %+v", inputs[i], d)
			}
			replayed, indexes = append(replayed, d.PolicyInput), append(indexes, i)
		}
		for other := range s.versions {
			for n, outcome := range s.simulate(t, s.versions[other], replayed) {
				if want := decided[other][indexes[n]]; outcome != want {
					t.Errorf("version %d decides about %s\n%s, and about its input\n%s\n%s", other, inputs[indexes[n]], want, replayed[n], outcome)
				}
			}
		}
		// Without warnings, such as that a field is missing.
		resp, err := a.Admin.SimulatePolicySetWithResponse(t.Context(), s.zone, s.set, client.PolicySimulation{VersionID: version, Input: &replayed[0]})
		if err != nil {
			t.Fatal(err)
		}
		if result := resp.JSON200; *result.Decision != "deny" || len(result.Warnings) > 0 {
			t.Errorf("%s is decided as %+v", replayed[0], result)
		}
	}
	slices.Sort(reasons)
	want := []string{
		"agent_session", "confined", "delegated", "no_agent_session", "no_rule_matched", "no_scope_requested", "not_delegated", "not_owner", "other_scope_requested", "outside_target", "restricted", "role_missing",
		"scope_outside_edge", "scope_requested",
	}
	if got := slices.Compact(reasons); !slices.Equal(got, want) || allowed == 0 {
		t.Errorf("%d requests were denied for the reasons %q, want %q, and %d allowed", denied, got, want, allowed)
	}
}

// The policy input of a denial that policies did not decide, or that the event does not
// record, says that it does not repeat the decision.
func TestExplainRequestOfDenialsThatCannotBeSimulated(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := newDecidedSet(t, a)
	archived := s.set
	s.set = s.policyZone.set(t).ID
	active := s.version(t, s.set, insertPolicyVersion(a.DB, s.zone)).ID
	servertest.Expect(t, deletePolicySet(t, a.Admin, s.zone, archived, ""), http.StatusNoContent, "")
	mint := recordedMetadata(decidedInputs(s.zone)[1])
	without := func(name string) object {
		m := maps.Clone(mint)
		delete(m, name)
		return m
	}
	reasons := func(all ...string) (diagnostics []object) {
		for _, reason := range all {
			diagnostics = append(diagnostics, object{"reason": reason})
		}
		return diagnostics
	}
	for n, tt := range []struct {
		event object
		want  string
	}{
		{object{"evaluation_status": "resource_not_found"}, "not_decided_by_policies"},
		{object{"evaluation_status": "policy_eval_failed"}, "not_decided_by_policies"},
		{object{"evaluation_status": nil}, "not_decided_by_policies"},
		{object{"event_type": "control.invoke"}, "not_decided_by_policies"},
		{object{"event_type": nil}, "not_decided_by_policies"},
		{object{"evaluation_status": "interaction_required"}, "approval_required"},
		{object{"policy_set_version_id": nil, "manifest_sha": "no_active_policy_set"}, "no_policy_set"},
		{object{"policy_set_version_id": "unknown"}, "no_policy_set"},
		{object{"policy_set_version_id": s.versions[0]}, "no_policy_set"}, // archived
		{object{"metadata": nil}, "request_not_recorded"},
		{object{"metadata": object{}}, "request_not_recorded"},
		{object{"metadata": without("requested_scopes")}, "request_not_recorded"},
		{object{"metadata": without("application_id")}, "request_not_recorded"},
		{object{"metadata": without("resource")}, "request_not_recorded"},
		{object{"metadata": without("delegation_edge_scopes")}, "edge_scopes_not_recorded"},
		{object{"metadata": mint, "diagnostics": reasons("no_rule_matched", "outside_target")}, "subject_claims_not_recorded"},
		{object{"metadata": mint, "diagnostics": reasons("no_rule_matched", "scope_requested")}, "subject_claims_not_recorded"},
		{object{"metadata": recordedMetadata(changedInput(decidedInputs(s.zone)[1], object{"context.requested_scopes": []string{}}))}, "subject_claims_not_recorded"},
	} {
		event := object{"request_id": fmt.Sprint("r-", n), "decision": "deny", "policy_set_version_id": active, "metadata": mint}
		maps.Copy(event, tt.event)
		a.DB.AuditEvent(s.zone, event)
		d := explain(t, a.Admin, s.zone, fmt.Sprint("r-", n)).Denied[0]
		if d.Simulatable || d.NotSimulatableReason == nil || *d.NotSimulatableReason != tt.want || !strings.HasPrefix(string(d.PolicyInput), `{"schema_version":"2026-05-20","principal":{"type":"Application","id":"`) || d.PolicySetID != nil {
			t.Errorf("%v: got %+v, want %s", tt.event, d, tt.want)
		}
	}
}

// The fields of an explanation, in full.
func TestExplainRequestFields(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	a.DB.AuditEvent(zone, object{"id": "e-1", "request_id": "r-1", "decision": "allow", "occurred_at": "2026-03-01T00:00:00Z", "determining_policies": []object{{"policy": "p", "token": "x"}}})
	a.DB.AuditEvent(zone, object{"id": "e-2", "request_id": "r-1", "decision": "deny", "occurred_at": "2026-03-01T00:00:00.5Z", "evaluation_status": "exchange_denied", "determining_policies": nil, "diagnostics": nil, "metadata": nil})
	a.DB.AuditEvent(zone, object{"id": "e-3", "request_id": "r-1", "decision": "allow", "occurred_at": "2026-03-01T00:00:01Z"})
	raw := a.Do("GET", "/v1/zones/"+zone+"/audit/by-request/r-1/explain", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	want := `{"request_id":"r-1","zone_id":"` + zone + `","final_decision":"deny","denied":[{"event_id":"e-2","event_type":"token_exchange","evaluation_status":"exchange_denied","determining_policies":[],"diagnostics":[],"metadata":{},` +
		`"policy_input":{"schema_version":"2026-05-20","principal":{"type":"Application","id":"","zone_id":"` + zone + `"},"resource":{"type":"Resource","identifier":"","scopes":[]},"action":{"id":"TokenExchange"},` +
		`"context":{"actor_claims":{},"challenge_resolved":false,"requested_scopes":[]}},"policy_set_id":null,"policy_set_version_id":"psv-1","simulatable":false,"not_simulatable_reason":"not_decided_by_policies"}],` +
		`"events":[{"id":"e-1","zone_id":"` + zone + `","event_type":"token_exchange","request_id":"r-1","decision":"allow","policy_set_id":null,"policy_set_version_id":"psv-1","manifest_sha":"aa11","evaluation_status":"complete",` +
		`"determining_policies_json":[{"token":"[redacted]","policy":"p"}],"diagnostics_json":[],"metadata_json":{"resource":"resource://invoices","session_id":"session-1","agent_labels":["planner"],"application_id":"application-1","agent_session_id":"agent-1"},` +
		`"occurred_at":"2026-03-01T00:00:00.000Z","ingested_at":"`
	if !strings.HasPrefix(string(raw.Body), want) || !strings.HasSuffix(string(raw.Body), `"truncated":false}`+"\n") {
		t.Errorf("got\n%s, want\n%s", raw.Body, want)
	}
	listed := a.Do("GET", "/v1/zones/"+zone+"/audit/by-request/r-1", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, listed, http.StatusOK, "")
	if _, events, _ := strings.Cut(strings.TrimSuffix(string(raw.Body), `,"truncated":false}`+"\n"), `"events":`); events+"\n" != string(listed.Body) {
		t.Errorf("the events are %s, and listed as %s", events, listed.Body)
	}
}

// Without a denial, the last event decides. All events count, also those that are not
// returned.
func TestExplainRequestFinalDecision(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const many = 1003
	for n, tt := range []struct {
		decisions []any
		want      string
		denied    int
	}{
		{[]any{"allow", "partial"}, "partial", 0}, {[]any{"allow", nil}, "unknown", 0}, {[]any{"deny", "allow", "deny"}, "deny", 2}, {[]any{nil, "allow"}, "allow", 0},
		{append(slices.Repeat([]any{"allow"}, many-1), "deny"), "deny", 1}, {append(slices.Repeat([]any{"allow"}, many-1), "partial"), "partial", 0}, {append(slices.Repeat([]any{"allow"}, many-1), nil), "unknown", 0},
		{slices.Repeat([]any{"deny"}, many), "deny", 1000},
	} {
		request := fmt.Sprint("r-", n)
		at := time.Now().Truncate(time.Second)
		ids := a.DB.AuditEvents(zone, len(tt.decisions), func(i int) map[string]any {
			return object{"id": fmt.Sprintf("%s-%04d", request, i), "request_id": request, "decision": tt.decisions[i], "occurred_at": at.Add(time.Duration(i/7) * time.Microsecond)}
		})
		got := explain(t, a.Admin, zone, request)
		if got.FinalDecision != tt.want || len(got.Denied) != tt.denied || len(got.Events) != min(len(ids), 1000) || got.Truncated != (len(ids) > 1000) {
			t.Errorf("%v...: got %s, %d denied of %d, truncated: %v", tt.decisions[0], got.FinalDecision, len(got.Denied), len(got.Events), got.Truncated)
		}
		var listed []string
		for path := "/v1/zones/" + zone + "/audit/by-request/" + request; path != ""; {
			raw := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, http.StatusOK, "")
			for _, e := range decode[[]client.RequestAuditEvent](t, raw) {
				listed = append(listed, e.ID)
			}
			path = next(raw)
		}
		if !reflect.DeepEqual(listed, ids) {
			t.Errorf("%v...: listed %d events, want %d", tt.decisions[0], len(listed), len(ids))
		}
	}
}

func TestListAuditEventsOfRequestAccess(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	a.DB.AuditEvent(zone, object{"request_id": "r-1"})
	for _, tt := range []struct {
		name          string
		as            *rawclient.ClientWithResponses
		zone, request string
		want          code.Code // "" is 200
	}{
		{"zone token", a.ClientFor(zone, "read"), zone, "r-1", ""},
		{"token of another zone", a.ClientFor(other, "write"), zone, "r-1", code.AdminTokenZoneMismatch},
		{"no token", a.Anonymous(), zone, "r-1", code.InvalidAdminToken},
		{"another zone", a.ClientFor(other, "read"), other, "r-1", code.RequestNotFound},
		{"unknown zone", a.Admin, "unknown", "r-1", code.RequestNotFound},
		{"unknown request", a.Admin, zone, "r-2", code.RequestNotFound},
		{"invalid request", a.Admin, zone, "r 1", code.InvalidParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			events, err := tt.as.ListAuditEventsOfRequestWithResponse(t.Context(), tt.zone, tt.request, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, events, http.StatusOK, tt.want)
			explanation, err := tt.as.ExplainRequestWithResponse(t.Context(), tt.zone, tt.request)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, explanation, http.StatusOK, tt.want)
		})
	}
}
