package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// CreateAdminToken answers POST /v1/admin-tokens.
func (s *Server) CreateAdminToken(ctx context.Context, req api.CreateAdminTokenRequestObject) (api.CreateAdminTokenResponseObject, error) {
	if err := mayManageTokens(ctx); err != nil {
		return nil, err
	}
	switch zone := req.Body.ZoneID; {
	case req.Body.Scope == api.AdminTokenScopeZone && zone == nil:
		return nil, code.ZoneIDRequired
	case req.Body.Scope == api.AdminTokenScopeGlobal && zone != nil:
		return nil, code.ZoneIDNotAllowedForGlobal
	}
	fresh := store.NewAdminToken{
		Name: req.Body.Name, Zone: req.Body.ZoneID, ExpiresIn: req.Body.ExpiresIn,
		Capability: string(or(req.Body.Capability, api.AdminTokenCapabilityWrite)),
	}
	var token store.AdminToken
	var text string
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		token, text, err = tx.CreateAdminToken(ctx, fresh)
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.CreateAdminToken201JSONResponse{
		ID: token.ID, Name: token.Name, Scope: req.Body.Scope, Capability: api.AdminTokenCapability(token.Capability),
		ZoneID: token.OfZone, CreatedBy: token.CreatedBy,
		CreatedAt: timestamp.Time(token.CreatedAt), ExpiresAt: timestamp.Optional(token.ExpiresAt), Token: text,
	}, nil
}

// mayManageTokens refuses a token that was derived from the bootstrap token:
// whoever holds the Console must not make itself a key that outlives it.
func mayManageTokens(ctx context.Context) error {
	if middleware.FactsOf(ctx).Token.Derived() {
		return code.AdminTokenManagementForbiddenForDerivedToken
	}
	return nil
}
