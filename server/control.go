package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/control"
	"caracal.run/management/server/issuer"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
	"caracal.run/management/store/onetime"
)

// controlTokenPrefix is the prefix of the keys in Redis of the used Control tokens.
const controlTokenPrefix = "caracal:control:jti:"

// controlTokenLeeway is how long a token is accepted after it expired, because clocks
// differ.
const controlTokenLeeway = time.Minute

// authenticateControl returns the Control key that makes a request. It returns not_found
// if the Control API is not enabled, control_disabled, rate_limited,
// control_unauthenticated or service_unavailable.
func (s *Server) authenticateControl(ctx context.Context, info *middleware.RequestInfo) (*middleware.ControlCaller, error) {
	if !s.config.ControlEnabled {
		return nil, code.NotFound
	}
	caller, reason, err := s.controlCaller(ctx, info)
	if err != nil && reason != "" {
		s.auditEvents.add(controlEvent(info, caller, control.Invocation{}, outcomeDenied, reason, nil))
	}
	if err != nil {
		return nil, err
	}
	return caller, nil
}

// controlCaller returns the caller of authenticateControl, or the reason of the audit
// event and the error of the response. With an error, the caller is what is known of it.
// Requests above the limit of an address have no reason, and are not recorded: they could
// fill the audit log.
func (s *Server) controlCaller(ctx context.Context, info *middleware.RequestInfo) (caller *middleware.ControlCaller, reason string, err error) {
	if !s.limits.control.Allow(info.Address) {
		return nil, "", code.RateLimited
	}
	if _, err := os.Stat(s.config.ControlGateFile); err != nil {
		return nil, "control disabled", code.ControlDisabled
	}
	claims, err := s.issuer.Verify(ctx, info.Bearer)
	switch {
	case errors.Is(err, issuer.ErrUnavailable):
		return nil, "auth: " + err.Error(), code.ServiceUnavailable.Because(err)
	case err != nil:
		return nil, "auth: " + err.Error(), code.ControlUnauthenticated.Because(err)
	}
	caller = &middleware.ControlCaller{TokenID: claims.ID, KeyID: claims.ClientID, ZoneID: claims.ZoneID, ExpiresAt: claims.ExpiresAt}
	name, key, err := s.store.For(store.System).UsableControlKey(ctx, claims.ZoneID, claims.ClientID)
	switch {
	case errors.Is(err, code.ControlKeyNotFound):
		return caller, "auth: the key is revoked or expired", code.ControlUnauthenticated
	case err != nil:
		return caller, "auth: the key cannot be read", err
	case !info.Allow(s.controlKeyLimit, claims.ZoneID+":"+claims.ClientID):
		return caller, "rate limited", code.RateLimited
	}
	caller.KeyName = name
	caller.Scopes = slices.DeleteFunc(slices.Clone(claims.Scopes), func(scope string) bool { return !slices.Contains(key.Scopes, scope) })
	return caller, "", nil
}

// InvokeControl handles POST /v1/control/invoke.
func (s *Server) InvokeControl(ctx context.Context, _ api.InvokeControlRequestObject) (api.InvokeControlResponseObject, error) {
	info := middleware.RequestInfoFrom(ctx)
	if len(info.Body) > control.MaxBodyBytes {
		return nil, code.PayloadTooLarge
	}
	invocation, err := control.ParseInvocation(info.Body)
	if err != nil {
		return nil, code.InvalidJSON.Because(err)
	}
	result, err := s.invoke(ctx, info.Control, invocation)
	publish := func(err error) {
		outcome, reason := outcomeOf(result, err)
		s.recordInvocation(info, invocation, outcome, reason, result.objects)
	}
	if err != nil {
		publish(err)
		return nil, err
	}
	afterCommit(ctx, publish)
	return api.InvokeControl200JSONResponse{Ok: true, Result: result.body, NextCursor: result.nextCursor}, nil
}

// useControlToken uses up the token of a caller, unless the same request has. It returns
// control_token_replayed or service_unavailable.
func (s *Server) useControlToken(ctx context.Context, caller *middleware.ControlCaller) error {
	if caller.Used {
		return nil
	}
	err := s.usedTokens.Use(ctx, caller.TokenID, caller.ExpiresAt.Add(controlTokenLeeway))
	if errors.Is(err, onetime.ErrUsed) {
		return code.ControlTokenReplayed
	}
	caller.Used = err == nil
	return err
}

// beforeReplay uses up the token of an invocation whose response is a stored one, and publishes its audit event. It returns the errors of useControlToken.
func (s *Server) beforeReplay(ctx context.Context, info *middleware.RequestInfo) error {
	if info.Control == nil {
		return nil
	}
	invocation, err := control.ParseInvocation(info.Body)
	if err != nil {
		return code.InvalidJSON.Because(err)
	}
	outcome, reason := outcomeReplayed, ""
	if err = s.useControlToken(ctx, info.Control); err != nil {
		outcome, reason = outcomeOf(controlResult{}, err)
	}
	s.recordInvocation(info, invocation, outcome, reason, nil)
	return err
}

// invoke runs a command. It returns the errors of [control.Invocation.Resolve],
// control_token_replayed, service_unavailable, or the error of the operation as
// [controlError] maps it.
func (s *Server) invoke(ctx context.Context, caller *middleware.ControlCaller, invocation control.Invocation) (controlResult, error) {
	call, err := invocation.Resolve(caller.ZoneID, caller.Scopes)
	if err != nil {
		return controlResult{}, err
	}
	if err := s.useControlToken(ctx, caller); err != nil {
		return controlResult{}, err
	}
	if call.Operation == "" {
		text, err := jsonresponse.Marshal(control.Describe())
		return controlResult{body: text}, err
	}
	resp, err := s.operations.call(ctx, caller, call)
	if err != nil {
		return controlResult{changes: call.Changes}, controlError(err)
	}
	result, err := resultOf(resp)
	result.changes = call.Changes
	if err != nil {
		return result, fmt.Errorf("result of %s: %w", call.Operation, err)
	}
	if id := call.Path["id"]; id != "" && call.Changes {
		result.objects = []string{id}
	}
	return result, nil
}
