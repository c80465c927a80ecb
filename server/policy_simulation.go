package server

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/policy"
	"caracal.run/management/store"
)

// simulationTimeout limits the decisions of one request.
const simulationTimeout = 5 * time.Second

// SimulatePolicySet handles POST /v1/zones/{zoneId}/policy-sets/{id}/simulate.
func (s *Server) SimulatePolicySet(ctx context.Context, req api.SimulatePolicySetRequestObject) (api.SimulatePolicySetResponseObject, error) {
	v, err := s.simulatedVersion(ctx, req.ZoneID, req.ID, req.Body.VersionID)
	if err != nil {
		return nil, err
	}
	body := api.PolicySimulationResult{
		DryRun: true, WouldActivate: true, PolicySetID: req.ID, VersionID: req.Body.VersionID, SchemaVersion: v.schemaVersion,
		InputSchemaVersion: policy.InputSchemaVersion, ManifestSHA256: v.manifestSHA256, Policies: v.manifest, Warnings: []string{},
		Explanation:   api.PolicyExplanation{Evaluation: "not_executed", Reason: "The request has no input."},
		DocumentsRead: []string{}, InputsRead: []string{},
	}
	if req.Body.Input == nil {
		return api.SimulatePolicySet200JSONResponse(body), nil
	}
	body.Warnings = inputWarnings(*req.Body.Input, req.ZoneID)
	ctx, cancel := context.WithTimeout(ctx, simulationTimeout)
	defer cancel()
	explanation, err := explain(ctx, v.bundle, *req.Body.Input, req.ZoneID, valueOr(req.Body.Trace, false))
	if message, failed := evaluationFailure(err); failed {
		body.Explanation = api.PolicyExplanation{Evaluation: "failed", Reason: message}
		body.Warnings = append(body.Warnings, "sts_simulation_failed:policy_eval_failed")
	} else if err != nil {
		return nil, err
	} else {
		decision := toPolicyDecision(explanation.Result)
		body.Result, body.Decision = &decision, &decision.Decision
		body.Explanation = api.PolicyExplanation{
			Evaluation: "executed", Reason: "The input was evaluated.", Decision: decision.Decision,
			PolicySetVersionID: req.Body.VersionID, ManifestSHA256: v.manifestSHA256,
		}
	}
	body.WouldActivate = len(body.Warnings) == 0
	body.DocumentsRead, body.InputsRead, body.Trace = append(body.DocumentsRead, explanation.Documents...), append(body.InputsRead, explanation.Inputs...), explanation.Trace
	return api.SimulatePolicySet200JSONResponse(body), nil
}

// SimulatePolicySetBatch handles POST /v1/zones/{zoneId}/policy-sets/{id}/simulate-batch.
func (s *Server) SimulatePolicySetBatch(ctx context.Context, req api.SimulatePolicySetBatchRequestObject) (api.SimulatePolicySetBatchResponseObject, error) {
	v, err := s.simulatedVersion(ctx, req.ZoneID, req.ID, req.Body.VersionID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, simulationTimeout)
	defer cancel()
	body := api.PolicySimulationBatchResult{PolicySetID: req.ID, VersionID: req.Body.VersionID, ManifestSHA256: v.manifestSHA256}
	for _, input := range req.Body.Inputs {
		outcome, err := decide(ctx, v.bundle, input, req.ZoneID)
		if err != nil {
			return nil, err
		}
		switch decisionOf(outcome) {
		case "allow":
			body.Allowed++
		case "deny":
			body.Denied++
		default:
			body.Failed++
		}
		body.Outcomes = append(body.Outcomes, outcome)
	}
	return api.SimulatePolicySetBatch200JSONResponse(body), nil
}

// ComparePolicySetVersions handles POST /v1/zones/{zoneId}/policy-sets/{id}/compare.
func (s *Server) ComparePolicySetVersions(ctx context.Context, req api.ComparePolicySetVersionsRequestObject) (api.ComparePolicySetVersionsResponseObject, error) {
	versions, err := s.simulatedVersions(ctx, req.ZoneID, req.ID, req.Body.FromVersionID, req.Body.ToVersionID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, simulationTimeout)
	defer cancel()
	body := api.PolicyComparisonResult{
		PolicySetID: req.ID, FromVersionID: req.Body.FromVersionID, ToVersionID: req.Body.ToVersionID, Changes: []api.PolicyChange{},
	}
	for i, input := range req.Body.Inputs {
		from, err := decide(ctx, versions[0].bundle, input, req.ZoneID)
		if err != nil {
			return nil, err
		}
		to, err := decide(ctx, versions[1].bundle, input, req.ZoneID)
		if err != nil {
			return nil, err
		}
		failed := from.Result == nil || to.Result == nil
		if !failed && reflect.DeepEqual(from, to) {
			body.Unchanged++
			continue
		}
		body.Changes = append(body.Changes, api.PolicyChange{Input: i, From: from, To: to})
		switch before, after := decisionOf(from), decisionOf(to); {
		case failed:
			body.Failed++
		case before != "allow" && after == "allow":
			body.NewlyAllowed++
		case before == "allow" && after != "allow":
			body.NewlyDenied++
		}
	}
	return api.ComparePolicySetVersions200JSONResponse(body), nil
}

// decide returns the decision about an input, or why it failed.
func decide(ctx context.Context, b *policy.Bundle, input json.RawMessage, zone string) (api.PolicyOutcome, error) {
	parsed, err := policy.ParseInput(input, zone)
	var result policy.Result
	if err == nil {
		result, err = b.Decide(ctx, parsed)
	}
	if message, failed := evaluationFailure(err); failed {
		return api.PolicyOutcome{Error: message}, nil
	} else if err != nil {
		return api.PolicyOutcome{}, err
	}
	decision := toPolicyDecision(result)
	return api.PolicyOutcome{Result: &decision}, nil
}

func explain(ctx context.Context, b *policy.Bundle, input json.RawMessage, zone string, trace bool) (policy.Explanation, error) {
	parsed, err := policy.ParseInput(input, zone)
	if err != nil {
		return policy.Explanation{}, err
	}
	return b.Explain(ctx, parsed, trace)
}

// evaluationFailure reports whether an error concerns the input or the policies, and
// returns its message.
func evaluationFailure(err error) (message string, failed bool) {
	var invalid *policy.InputError
	var evaluation *policy.EvaluationError
	switch {
	case errors.As(err, &invalid):
		return "The input is invalid: " + invalid.Error() + ".", true
	case errors.As(err, &evaluation):
		return "The evaluation failed: " + evaluation.Error() + ".", true
	}
	return "", false
}

func decisionOf(o api.PolicyOutcome) string {
	if o.Result == nil {
		return ""
	}
	return o.Result.Decision
}

// inputWarnings returns what is unusual about an input (policy-sets.md, "simulate").
func inputWarnings(input json.RawMessage, zone string) []string {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(input, &fields) // the spec requires an object
	warnings := []string{}
	if version, ok := fields["schema_version"]; ok && string(version) != "null" {
		var text string
		if json.Unmarshal(version, &text) != nil {
			text = string(version)
		}
		if text != policy.InputSchemaVersion {
			warnings = append(warnings, "input_schema_mismatch:"+text)
		}
	}
	var principal struct {
		ZoneID any `json:"zone_id"`
	}
	_ = json.Unmarshal(fields["principal"], &principal)
	if principal.ZoneID != zone {
		warnings = append(warnings, "principal_zone_mismatch")
	}
	for _, name := range []string{"resource", "action", "context"} {
		if value := fields[name]; len(value) == 0 || value[0] != '{' && value[0] != '[' {
			warnings = append(warnings, "missing_"+name)
		}
	}
	return warnings
}

// A simulatedVersion is a compiled version of a policy set.
type simulatedVersion struct {
	bundle         *policy.Bundle
	schemaVersion  string
	manifest       []string
	manifestSHA256 string
}

func (s *Server) simulatedVersion(ctx context.Context, zone, set, id string) (simulatedVersion, error) {
	versions, err := s.simulatedVersions(ctx, zone, set, id)
	if err != nil {
		return simulatedVersion{}, err
	}
	return versions[0], nil
}

// simulatedVersions compiles versions of a policy set. It returns version_not_found
// or invalid_policy_contract.
func (s *Server) simulatedVersions(ctx context.Context, zone, set string, ids ...string) ([]simulatedVersion, error) {
	sources, err := s.storeFor(ctx).PolicySetSources(ctx, zone, set, ids...)
	if err != nil {
		return nil, err
	}
	var versions []simulatedVersion
	for _, id := range ids {
		source, found := sources[id]
		if !found {
			return nil, code.VersionNotFound
		}
		manifest := mapSlice(source.Policies, func(p store.PolicySource) string { return p.ID })
		bundle, err := s.compileManifest(ctx, zone, code.InvalidPolicyContract, source.SchemaVersion, manifest, source.Policies)
		if err != nil {
			return nil, err
		}
		versions = append(versions, simulatedVersion{bundle: bundle, schemaVersion: source.SchemaVersion, manifest: manifest, manifestSHA256: source.ManifestSHA256})
	}
	return versions, nil
}

func toPolicyDecision(r policy.Result) api.PolicyDecision {
	return api.PolicyDecision{
		Decision: r.Decision, EvaluationStatus: r.EvaluationStatus,
		DeterminingPolicies: mapSlice(r.DeterminingPolicies, func(name string) api.DeterminingPolicy { return api.DeterminingPolicy{Policy: name} }),
		Diagnostics: mapSlice(r.Diagnostics, func(d policy.Diagnostic) api.PolicyDiagnostic {
			return api.PolicyDiagnostic{
				Reason: d.Reason, StepUpRequired: d.StepUpRequired,
				Risk: mapSlice(d.Risk, func(t policy.Tag) api.PolicyRisk { return api.PolicyRisk{Scope: t.Scope, Tier: t.Tier} }),
			}
		}),
	}
}
