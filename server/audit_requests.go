package server

import (
	"context"
	"encoding/json"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// maxRequestEvents is the number of events of a request that are returned at once.
const maxRequestEvents = 1000

// ListAuditEventsOfRequest handles GET /v1/zones/{zoneId}/audit/by-request/{requestId}.
func (s *Server) ListAuditEventsOfRequest(ctx context.Context, req api.ListAuditEventsOfRequestRequestObject) (api.ListAuditEventsOfRequestResponseObject, error) {
	scope := "audit events of request " + req.RequestID + " of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, new(valueOr(req.Params.Limit, maxRequestEvents)), scope)
	if err != nil {
		return nil, err
	}
	rows, err := s.storeFor(ctx).AuditEventsOfRequest(ctx, req.ZoneID, req.RequestID, nil, page)
	switch {
	case err != nil:
		return nil, err
	case len(rows) == 0 && req.Params.Cursor == nil:
		return nil, code.RequestNotFound
	}
	rows, link := paginate(ctx, rows, page, scope, func(e db.AuditEvent) store.Position { return store.Position{Time: e.OccurredAt, ID: e.ID} })
	return api.ListAuditEventsOfRequest200JSONResponse{
		Body: mapSlice(rows, toRequestAuditEvent), Headers: api.ListAuditEventsOfRequest200ResponseHeaders{Link: link},
	}, nil
}

// ExplainRequest handles GET /v1/zones/{zoneId}/audit/by-request/{requestId}/explain.
func (s *Server) ExplainRequest(ctx context.Context, req api.ExplainRequestRequestObject) (api.ExplainRequestResponseObject, error) {
	from := s.storeFor(ctx)
	request, err := from.RequestDecision(ctx, req.ZoneID, req.RequestID, maxRequestEvents)
	if err != nil {
		return nil, err
	}
	denied := make([]api.DeniedAuditEvent, len(request.Denied))
	var versions []string
	for i, e := range request.Denied {
		denied[i] = toDeniedAuditEvent(e, req.ZoneID)
		if denied[i].Simulatable {
			versions = append(versions, *e.PolicySetVersionID)
		}
	}
	sets := map[string]string{}
	if len(versions) > 0 {
		if sets, err = from.PolicySetsOfVersions(ctx, req.ZoneID, versions); err != nil {
			return nil, err
		}
	}
	for i := range denied {
		d := &denied[i]
		if !d.Simulatable {
			continue
		}
		if set, found := sets[*d.PolicySetVersionID]; found {
			d.PolicySetID = &set
		} else {
			d.Simulatable, d.NotSimulatableReason = false, new("no_policy_set")
		}
	}
	return api.ExplainRequest200JSONResponse{
		RequestID: req.RequestID, ZoneID: req.ZoneID, FinalDecision: request.Decision, Denied: denied,
		Events: mapSlice(request.Events, toRequestAuditEvent), Truncated: request.Truncated,
	}, nil
}

func toRequestAuditEvent(e db.AuditEvent) api.RequestAuditEvent {
	return api.RequestAuditEvent{
		ID: e.ID, ZoneID: e.ZoneID, EventType: e.EventType, RequestID: e.RequestID, Decision: e.Decision, PolicySetID: e.PolicySetID,
		PolicySetVersionID: e.PolicySetVersionID, ManifestSha: e.ManifestSha, EvaluationStatus: e.EvaluationStatus,
		DeterminingPoliciesJSON: redactedOr(e.DeterminingPolicies, ""), DiagnosticsJSON: redactedOr(e.Diagnostics, ""), MetadataJSON: redactedOr(e.Metadata, ""),
		OccurredAt: timestamp.Time(e.OccurredAt), IngestedAt: timestamp.Time(e.IngestedAt),
	}
}

// redactedOr returns JSON without the values of secrets, or a fallback if there is none.
func redactedOr(text *string, fallback string) json.RawMessage {
	return jsonresponse.AppendRedacted(nil, valueOr(text, fallback))
}

func toDeniedAuditEvent(e db.AuditEvent, zone string) api.DeniedAuditEvent {
	recorded := readPolicyInput(valueOr(e.Metadata, ""), zone)
	reason := recorded.whyNotSimulatable(e)
	denied := api.DeniedAuditEvent{
		EventID: e.ID, EventType: e.EventType, EvaluationStatus: e.EvaluationStatus, DeterminingPolicies: redactedOr(e.DeterminingPolicies, "[]"),
		Diagnostics: redactedOr(e.Diagnostics, "[]"), Metadata: redactedOr(e.Metadata, "{}"), PolicyInput: recorded.input(),
		PolicySetID: e.PolicySetID, PolicySetVersionID: e.PolicySetVersionID, Simulatable: reason == "",
	}
	if reason != "" {
		denied.NotSimulatableReason = &reason
	}
	return denied
}
