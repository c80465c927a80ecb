package server

import (
	"context"
	"encoding/json"
	"net/http"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/state"
)

// PlanState handles POST /v1/zones/{zoneId}/state/plan.
func (s *Server) PlanState(ctx context.Context, req api.PlanStateRequestObject) (api.PlanStateResponseObject, error) {
	document, err := s.stateDocument(ctx, req.Params.Prune)
	if err != nil {
		return nil, err
	}
	plan, err := s.state.Plan(ctx, cause(ctx).Actor, req.ZoneID, document, stateMode(req.Params.Mode))
	if err != nil {
		return nil, err
	}
	report, err := toStateReport(req.ZoneID, state.Report{Plan: plan})
	return api.PlanState200JSONResponse(report), err
}

// ApplyState handles POST /v1/zones/{zoneId}/state/apply.
func (s *Server) ApplyState(ctx context.Context, req api.ApplyStateRequestObject) (api.ApplyStateResponseObject, error) {
	document, err := s.stateDocument(ctx, req.Params.Prune)
	if err != nil {
		return nil, err
	}
	applied, err := s.state.Apply(ctx, cause(ctx), req.ZoneID, document, state.ApplyOptions{
		Mode: stateMode(req.Params.Mode), PlanID: req.Params.PlanID, Revision: req.Params.Revision, ConfirmPrune: valueOr(req.Params.ConfirmPrune, false),
		TakeOwnership: valueOr(req.Params.TakeOwnership, false),
	})
	if err != nil {
		return nil, err
	}
	report, err := toStateReport(req.ZoneID, applied)
	return appliedState(report), err
}

func stateMode[Parameter ~string](mode *Parameter) state.Mode {
	return state.Mode(valueOr(mode, Parameter(state.Atomic)))
}

// An appliedState is the response of ApplyState. It can contain secrets that were generated
// in this request, so it is not compressed.
type appliedState api.StateReport

// VisitApplyStateResponse writes the response.
func (r appliedState) VisitApplyStateResponse(w http.ResponseWriter) error {
	w.Header().Set("Cache-Control", "no-store, no-transform")
	return jsonresponse.Write(w, http.StatusOK, api.StateReport(r))
}

// stateDocument decodes the document in the request that ctx belongs to. The parameter
// prune overrides the field of the document. It returns invalid_state.
func (s *Server) stateDocument(ctx context.Context, prune *bool) (state.Document, error) {
	document, issues := state.Decode(middleware.RequestInfoFrom(ctx).Document, s.requests.StateSchemas())
	document.Prune.Enabled = valueOr(prune, document.Prune.Enabled)
	if len(issues) > 0 {
		return document, &code.Error{Code: code.InvalidState, Issues: issues}
	}
	return document, nil
}

func toStateReport(zone string, r state.Report) (api.StateReport, error) {
	report := api.StateReport{
		Ok: true, DryRun: r.Results == nil, Prune: r.Plan.Prunes, ZoneID: zone, Mode: api.StateMode(r.Plan.Mode),
		PlanID: r.Plan.ID, Revision: r.Plan.Revision, Drift: r.Plan.Drift(), Outcomes: make([]api.StateOutcome, len(r.Plan.Actions)),
	}
	changes := 0
	for _, i := range r.Plan.Order() {
		a := r.Plan.Actions[i]
		o := api.StateOutcome{
			Kind: api.StateKind(a.Kind), Identity: a.Identity, Action: api.StateAction(a.Verb), Status: api.StateOutcomeStatusPlanned,
			ID: nilIfEmpty(&a.ID), VersionID: nilIfEmpty(&a.Version), Drift: a.Drift(), Warnings: a.Warnings,
		}
		failure := a.Failure
		if r.Results != nil {
			failure = r.Results[i].Failure
		}
		if failure != nil {
			o.Status, o.Error = api.StateOutcomeStatusFailed, &api.StateFailure{Code: api.StateFailureCode(failure.Code), Reason: failure.Reason}
			if a.Verb != state.Archive {
				o.Action, o.Drift = api.StateActionUnchanged, nil
			}
			report.Ok, report.Drift = false, true
			report.Summary.Failed++
			report.Outcomes[i] = o
			continue
		}
		if a.Verb != state.Unchanged {
			changes++
			o.Order = new(changes)
		}
		switch {
		case a.Verb == state.Unchanged:
			o.Status, o.Applied = api.StateOutcomeStatusUnchanged, true
			report.Summary.Unchanged++
		case a.Verb == state.Create:
			report.Summary.Created++
		case a.Verb == state.Archive:
			report.Summary.Pruned++
		default:
			report.Summary.Updated++
		}
		if r.Results != nil && a.Verb != state.Unchanged && r.Results[i].Done {
			o.Status, o.Applied = api.StateOutcomeStatusApplied, true
			o.ID, o.VersionID, o.ClientSecret = &r.Results[i].ID, nilIfEmpty(&r.Results[i].VersionID), nilIfEmpty(&r.Results[i].ClientSecret)
		}
		for _, c := range a.Changes {
			change := api.StateChange{Field: c.Field, Sensitive: c.Sensitive}
			var err error
			if change.Before, err = jsonOf(c.Before); err != nil {
				return report, err
			}
			if change.After, err = jsonOf(c.After); err != nil {
				return report, err
			}
			o.Changes = append(o.Changes, change)
		}
		report.Outcomes[i] = o
	}
	return report, nil
}

// jsonOf returns a value in JSON, or nothing for nil.
func jsonOf(value any) (json.RawMessage, error) {
	if value == nil {
		return nil, nil
	}
	return jsonresponse.Marshal(value)
}
