package server

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/control"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/problem"
	"caracal.run/management/store/ingest"
)

// Outcomes of invocations in audit events.
const (
	outcomeDenied  = "denied"  // it was denied, and nothing was done
	outcomeApplied = "applied" // it was done
	outcomePartial = "partial" // a part of it was done
	outcomeFailed  = "failed"  // the operation changed nothing
	outcomeUnknown = "unknown" // it may or may not have changed something
	// It was done before: the response is the stored one of that invocation.
	outcomeReplayed = "replayed"
)

// outcomeOf returns the outcome of an invocation and the reason of its audit event.
func outcomeOf(result controlResult, err error) (outcome, reason string) {
	var codeErr *code.Error
	switch errors.As(err, &codeErr); {
	case err == nil && result.partial:
		return outcomePartial, ""
	case err == nil:
		return outcomeApplied, ""
	case errors.Is(err, code.ControlTokenReplayed):
		return outcomeDenied, "replay"
	case codeErr == nil:
		return outcomeUnknown, code.InternalError.Error()
	case (errors.Is(err, code.ControlUpstream) || errors.Is(err, code.ServiceUnavailable)) && result.changes:
		return outcomeUnknown, cmp.Or(codeErr.Sentence, codeErr.Code.Error())
	case codeErr.Cause != nil: // of the operation
		return outcomeFailed, cmp.Or(codeErr.Sentence, codeErr.Code.Error())
	}
	return outcomeDenied, cmp.Or(codeErr.Sentence, codeErr.Code.Error())
}

// A controlMetadata is the metadata of the audit event of an invocation. Texts are empty
// if they are unknown.
type controlMetadata struct {
	Subject        string   `json:"subject"` // anonymous: not authenticated
	TokenID        string   `json:"jti"`
	ClientID       string   `json:"client_id"`
	Command        string   `json:"command"`
	Subcommand     string   `json:"subcommand"`
	Reason         string   `json:"reason"`
	IdempotencyKey string   `json:"idempotency_key"`
	AuthorizedBy   string   `json:"authorized_by"` // not verified
	Outcome        string   `json:"outcome"`
	ObjectIDs      []string `json:"object_ids,omitempty"` // of the changed objects
}

// controlEvent returns the audit event of an invocation by a caller, or by an unknown one if
// it is nil, with the IDs of the objects that were changed.
func controlEvent(info *middleware.RequestInfo, caller *middleware.ControlCaller, i control.Invocation, outcome, reason string, objects []string) ingest.Event {
	e := ingest.Event{
		ID: uuid.NewString(), ZoneID: "unknown", EventType: "control.invoke", RequestID: info.RequestID, Decision: "deny", EvaluationStatus: "complete",
		DeterminingPolicies: []any{}, Diagnostics: []any{}, OccurredAt: time.Now().UTC().Truncate(time.Millisecond),
	}
	metadata := controlMetadata{
		Subject: "anonymous", Command: i.Command, Subcommand: i.Subcommand, Reason: reason, IdempotencyKey: i.IdempotencyKey, AuthorizedBy: i.AuthorizedBy,
		Outcome: outcome, ObjectIDs: objects,
	}
	if slices.Contains([]string{outcomeApplied, outcomePartial, outcomeReplayed}, outcome) {
		e.Decision = "allow"
	}
	if caller != nil {
		e.ZoneID = caller.ZoneID
		metadata.Subject, metadata.ClientID, metadata.TokenID = caller.KeyID, caller.KeyID, caller.TokenID
	}
	e.Metadata = metadata
	return e
}

// recordInvocation publishes the audit event of an invocation by an authenticated caller.
func (s *Server) recordInvocation(info *middleware.RequestInfo, i control.Invocation, outcome, reason string, objects []string) {
	info.Control.Recorded = true
	s.auditEvents.add(controlEvent(info, info.Control, i, outcome, reason, objects))
}

// recordRejected publishes the audit event of a request that failed before it was an
// invocation: because its body is too large, for example.
func (s *Server) recordRejected(info *middleware.RequestInfo, err error) {
	if info.Control.Recorded {
		return
	}
	errCode, outcome := problem.Code(err), outcomeDenied
	if code.Table[errCode].Status >= http.StatusInternalServerError {
		outcome = outcomeUnknown // to an earlier attempt with the same idempotency key
	}
	s.recordInvocation(info, control.Invocation{}, outcome, string(errCode), nil)
}
