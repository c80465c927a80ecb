package server

import (
	"context"
	"errors"
	"math"
	"net/url"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ActivatePolicySet handles POST /v1/zones/{zoneId}/policy-sets/{id}/activate.
func (s *Server) ActivatePolicySet(ctx context.Context, req api.ActivatePolicySetRequestObject) (api.ActivatePolicySetResponseObject, error) {
	b := store.PolicyBinding{PolicySetID: req.ID, VersionID: req.Body.VersionID, ShadowVersionID: req.Body.ShadowVersionID}
	if err := s.compileBinding(ctx, req.ZoneID, b); err != nil {
		return nil, err
	}
	a, err := inTx(ctx, s, func(tx *store.Tx) (store.PolicyActivation, error) {
		return tx.ActivatePolicySet(ctx, req.ZoneID, b)
	})
	if err != nil {
		return nil, err
	}
	return api.ActivatePolicySet202JSONResponse(toPolicySetActivation(req.ZoneID, a)), nil
}

// RollbackPolicySet handles POST /v1/zones/{zoneId}/policy-sets/{id}/rollback.
func (s *Server) RollbackPolicySet(ctx context.Context, req api.RollbackPolicySetRequestObject) (api.RollbackPolicySetResponseObject, error) {
	const maxAttempts = 10 // each is lost to a change that succeeded
	for attempt := 1; ; attempt++ {
		a, err := s.rollbackPolicySet(ctx, req.ZoneID, req.ID)
		switch {
		case err == nil:
			return api.RollbackPolicySet202JSONResponse(toPolicySetActivation(req.ZoneID, a)), nil
		case !errors.Is(err, store.ErrRollbackTargetChanged):
			return nil, err
		case attempt == maxAttempts:
			return nil, code.ServiceUnavailable.Because(err)
		}
	}
}

func (s *Server) rollbackPolicySet(ctx context.Context, zone, set string) (a store.PolicyActivation, err error) {
	target, err := s.storeFor(ctx).RollbackTarget(ctx, zone, set)
	if err != nil {
		return a, err
	}
	if err := s.compileBinding(ctx, zone, target); errors.Is(err, code.VersionNotFound) {
		return a, code.NoPreviousVersion.Because(err) // the policy set was archived since
	} else if err != nil {
		return a, err
	}
	return inTx(ctx, s, func(tx *store.Tx) (store.PolicyActivation, error) {
		return tx.RollbackPolicySet(ctx, zone, set, target)
	})
}

// DeactivatePolicySet handles POST /v1/zones/{zoneId}/policy-sets/{id}/deactivate.
func (s *Server) DeactivatePolicySet(ctx context.Context, req api.DeactivatePolicySetRequestObject) (api.DeactivatePolicySetResponseObject, error) {
	outboxID, err := inTx(ctx, s, func(tx *store.Tx) (string, error) {
		return tx.DeactivatePolicySet(ctx, req.ZoneID, req.ID)
	})
	if err != nil {
		return nil, err
	}
	return api.DeactivatePolicySet202JSONResponse{OutboxID: outboxID, Status: api.PolicySetDeactivationStatusDeactivated}, nil
}

// ListPolicyActivations handles GET /v1/zones/{zoneId}/policy-activations.
func (s *Server) ListPolicyActivations(ctx context.Context, req api.ListPolicyActivationsRequestObject) (api.ListPolicyActivationsResponseObject, error) {
	scope := "policy activations of " + req.ZoneID
	page, before, err := parseNumberPage[int64](ctx, req.Params.Cursor, req.Params.Limit, scope, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	changes, err := s.storeFor(ctx).PolicyActivations(ctx, req.ZoneID, before, page.Limit)
	if err != nil {
		return nil, err
	}
	changes, link := paginate(ctx, changes, page, scope, func(a db.PolicyActivation) store.Position { return numberPosition(a.Number) })
	return api.ListPolicyActivations200JSONResponse{Body: mapSlice(changes, toPolicyActivation), Headers: api.ListPolicyActivations200ResponseHeaders{Link: link}}, nil
}

// compileBinding checks and compiles the policies of the versions of a binding. It
// returns version_not_found, shadow_version_not_found, invalid_policy_contract or
// invalid_shadow_policy_contract.
func (s *Server) compileBinding(ctx context.Context, zone string, b store.PolicyBinding) error {
	sources, err := s.storeFor(ctx).PolicySetSources(ctx, zone, b.PolicySetID, b.Versions()...)
	if err != nil {
		return err
	}
	compile := func(id string, notFound, invalid code.Code) error {
		source, found := sources[id]
		if !found {
			return notFound
		}
		manifest := mapSlice(source.Policies, func(p store.PolicySource) string { return p.ID })
		_, err := s.compileManifest(ctx, zone, invalid, source.SchemaVersion, manifest, source.Policies)
		return err
	}
	if err := compile(b.VersionID, code.VersionNotFound, code.InvalidPolicyContract); err != nil {
		return err
	}
	if b.ShadowVersionID == nil || *b.ShadowVersionID == b.VersionID {
		return nil
	}
	return compile(*b.ShadowVersionID, code.ShadowVersionNotFound, code.InvalidShadowPolicyContract)
}

func toPolicySetActivation(zone string, a store.PolicyActivation) api.PolicySetActivation {
	activation := api.PolicySetActivation{
		Activated: true, PolicySetID: a.PolicySetID, VersionID: a.VersionID, ShadowVersionID: a.ShadowVersionID, OutboxID: a.OutboxID,
		StatusURL: "/v1/zones/" + url.PathEscape(zone) + "/policy-sets/" + url.PathEscape(a.PolicySetID) +
			"/activation-status?version_id=" + url.QueryEscape(a.VersionID) + "&outbox_id=" + url.QueryEscape(a.OutboxID),
	}
	if r := a.Replaced; r != nil {
		activation.Replaced = &api.ActivePolicySetVersion{PolicySetID: r.PolicySetID, VersionID: r.VersionID, ShadowVersionID: r.ShadowVersionID}
	}
	return activation
}

func toPolicyActivation(a db.PolicyActivation) api.PolicyActivation {
	return api.PolicyActivation{
		Number: a.Number, Action: api.PolicyActivationAction(a.Action), PolicySetID: a.PolicySetID, VersionID: a.VersionID, ShadowVersionID: a.ShadowVersionID,
		PreviousPolicySetID: a.PreviousPolicySetID, PreviousVersionID: a.PreviousVersionID, PreviousShadowVersionID: a.PreviousShadowVersionID,
		OutboxID: a.OutboxID, ActivatedBy: a.ActivatedBy, CreatedAt: timestamp.Time(a.CreatedAt),
	}
}
