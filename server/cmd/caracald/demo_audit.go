package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"caracal.run/management/gen/client"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/redisconn"
)

// demoRequests are requests of an agent for a token, as the STS records them: the first
// one is allowed, and the second one is denied, because an auditor cannot write.
var demoRequests = []struct{ id, scope string }{
	{"demo-allowed", "invoices:read"},
	{"demo-denied", "invoices:write"},
}

// publishAudit publishes the audit events of the demo's requests, which the STS would
// publish. The active policies decide about each.
func (d demo) publishAudit(ctx context.Context, c *client.Client, zone, application string, active client.AddedPolicySetVersion) error {
	events, err := redisconn.Open(d.redisURL, "demo")
	if err != nil {
		return err
	}
	defer func() { _ = events.Close() }()
	const edge = "demo-edge"
	scopes := []string{"invoices:read", "invoices:write"}
	simulation := client.PolicySimulationBatch{VersionID: active.ID}
	for _, r := range demoRequests {
		input, err := json.Marshal(map[string]any{
			"principal":       map[string]any{"id": application, "zone_id": zone, "agent_session_id": "demo-agent", "labels": []string{"auditor"}, "registration_method": "managed"},
			"resource":        map[string]any{"identifier": "resource://invoices", "scopes": []string{r.scope}},
			"action":          map[string]any{"id": "TokenExchange"},
			"delegation_edge": map[string]any{"id": edge, "scopes": scopes},
			"context":         map[string]any{"agent_session_id": "demo-agent", "delegation_edge_id": edge, "requested_scopes": []string{r.scope}},
		})
		if err != nil {
			return err
		}
		simulation.Inputs = append(simulation.Inputs, input)
	}
	decided, err := c.SimulatePolicySetBatch(ctx, zone, active.PolicySetID, simulation)
	if err != nil {
		return err
	}
	var all []ingest.Event
	for i, r := range demoRequests {
		result := decided.Outcomes[i].Result
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		all = append(all, ingest.Event{
			ID: id.String(), ZoneID: zone, EventType: "token_exchange", RequestID: r.id, Decision: result.Decision, OccurredAt: time.Now(),
			PolicySetID: active.PolicySetID, PolicySetVersionID: active.ID, ManifestSHA: active.ManifestSHA256, EvaluationStatus: result.EvaluationStatus,
			DeterminingPolicies: toAny(result.DeterminingPolicies), Diagnostics: toAny(result.Diagnostics),
			Metadata: map[string]any{
				"application_id": application, "application_name": "Billing", "application_registration_method": "managed", "resource": "resource://invoices",
				"requested_scopes": []string{r.scope}, "agent_session_id": "demo-agent", "agent_labels": []string{"auditor"}, "session_id": "",
				"delegation_edge_id": edge, "delegation_edge_scopes": scopes,
			},
		})
	}
	return ingest.Publish(ctx, events, d.auditKey, all...)
}

func toAny[T any](values []T) []any {
	all := make([]any, len(values))
	for i, v := range values {
		all[i] = v
	}
	return all
}
