package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/sts"
	"caracal.run/management/server/timestamp"
)

// GetActivationStatus handles GET /v1/zones/{zoneId}/policy-sets/{id}/activation-status.
func (s *Server) GetActivationStatus(ctx context.Context, req api.GetActivationStatusRequestObject) (api.GetActivationStatusResponseObject, error) {
	status, err := s.storeFor(ctx).ActivationStatus(ctx, req.ZoneID, req.ID, req.Params.VersionID, req.Params.OutboxID)
	if err != nil {
		return nil, err
	}
	version := req.Params.VersionID
	if version == nil {
		version = status.ActiveVersionID
	}
	if version == nil {
		return nil, code.ActivePolicySetVersionNotFound
	}
	body := api.PolicySetActivationStatus{
		ZoneID: req.ZoneID, PolicySetID: req.ID, VersionID: *version, Active: *version == valueOr(status.ActiveVersionID, ""),
		ActiveVersionID: status.ActiveVersionID, ShadowVersionID: status.ShadowVersionID, ManifestSHA256: status.ManifestSHA256,
		Outbox: toEventStatus(status, time.Now().Add(-s.config.OutboxRetention.duration())),
		STS:    s.stsStatus(ctx, req.ZoneID),
	}
	body.PropagationStatus = propagationStatus(body)
	return api.GetActivationStatus200JSONResponse(body), nil
}

// toEventStatus converts the state of an event. Published events are deleted after a
// retention, so the event of a change before purgedUntil that is gone was published. A
// later one can only be gone because its dead letter was discarded.
func toEventStatus(s db.GetActivationStatusRow, purgedUntil time.Time) api.ActivationEventStatus {
	event := api.ActivationEventStatus{State: api.ActivationEventStatusStateMissing}
	if s.OutboxID != "" {
		event.ID = &s.OutboxID
	}
	switch {
	case !s.Stored && (s.RecordedAt == nil || s.RecordedAt.After(purgedUntil)):
		return event
	case !s.Matches:
		event.State = api.ActivationEventStatusStateMismatch
		return event
	case !s.Stored || s.DispatchedAt != nil:
		event.State = api.ActivationEventStatusStateDispatched
	case s.DeadAt != nil:
		event.State = api.ActivationEventStatusStateDead
	default:
		event.State = api.ActivationEventStatusStatePending
	}
	event.Attempts, event.LastError = s.Attempts, s.LastError
	if s.DispatchedAt != nil {
		event.DispatchedAt = new(timestamp.Time(*s.DispatchedAt))
	}
	return event
}

// stsStatus asks the STS what it has loaded of a zone.
func (s *Server) stsStatus(ctx context.Context, zone string) api.STSPolicyStatus {
	if s.sts == nil {
		return api.STSPolicyStatus{State: api.STSPolicyStatusStateNotConfigured, Detail: new("GATEWAY_STS_HMAC_KEY is not configured")}
	}
	loaded, err := s.sts.Status(ctx, zone)
	if err != nil {
		status := api.STSPolicyStatus{State: api.STSPolicyStatusStateFailed}
		var stsErr *sts.Error
		if errors.As(err, &stsErr) {
			status.Detail = &stsErr.Detail
			if stsErr.Unreachable {
				status.State = api.STSPolicyStatusStateUnreachable
			}
		}
		s.log.LogAttrs(ctx, slog.LevelWarn, "failed to get the policy status of the STS", slog.String("zone_id", zone), slog.Any("error", err))
		return status
	}
	status := api.STSPolicyStatus{
		State: api.STSPolicyStatusStateNotLoaded, Loaded: &loaded.Loaded, ZoneID: loaded.ZoneID, PolicySetVersionID: loaded.PolicySetVersionID,
		ManifestSHA256: loaded.ManifestSHA256, LoadedAt: loaded.LoadedAt, AgeSeconds: loaded.AgeSeconds,
	}
	if loaded.Loaded {
		status.State = api.STSPolicyStatusStateLoaded
	}
	return status
}

// propagationStatus returns what an activation waits for (policy-sets.md).
func propagationStatus(s api.PolicySetActivationStatus) api.PropagationStatus {
	switch {
	case !s.Active:
		return api.PropagationStatusWaitingForActivation
	case s.Outbox.State == api.ActivationEventStatusStateDead || s.Outbox.State == api.ActivationEventStatusStateMismatch:
		return api.PropagationStatusFailed
	case s.Outbox.State != api.ActivationEventStatusStateDispatched:
		return api.PropagationStatusWaitingForOutbox
	case s.STS.State == api.STSPolicyStatusStateLoaded && valueOr(s.STS.PolicySetVersionID, "") == s.VersionID:
		return api.PropagationStatusLoaded
	case s.STS.State == api.STSPolicyStatusStateFailed:
		return api.PropagationStatusFailed
	}
	return api.PropagationStatusWaitingForSTS
}
