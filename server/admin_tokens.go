package server

import (
	"context"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// CreateAdminToken handles POST /v1/admin-tokens.
func (s *Server) CreateAdminToken(ctx context.Context, req api.CreateAdminTokenRequestObject) (api.CreateAdminTokenResponseObject, error) {
	if err := authorizeTokenManagement(ctx); err != nil {
		return nil, err
	}
	switch zone := req.Body.ZoneID; {
	case req.Body.Scope == api.AdminTokenScopeZone && zone == nil:
		return nil, code.ZoneIDRequired
	case req.Body.Scope == api.AdminTokenScopeGlobal && zone != nil:
		return nil, code.ZoneIDNotAllowedForGlobal
	}
	newToken := store.NewAdminToken{
		Name: req.Body.Name, Zone: req.Body.ZoneID, ExpiresIn: req.Body.ExpiresIn,
		Capability: string(valueOr(req.Body.Capability, api.AdminTokenCapabilityWrite)), CanApprove: valueOr(req.Body.CanApprove, false),
	}
	var token store.AdminToken
	var secret string
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		token, secret, err = tx.CreateAdminToken(ctx, newToken)
		return err
	})
	if err != nil {
		return nil, err
	}
	body := api.MintedAdminToken{
		ID: token.ID, Name: token.Name, Scope: req.Body.Scope, Capability: api.AdminTokenCapability(token.Capability), CanApprove: token.CanApprove,
		ZoneID: token.OfZone, CreatedBy: token.CreatedBy,
		CreatedAt: timestamp.Time(token.CreatedAt), ExpiresAt: timestamp.Optional(token.ExpiresAt), Token: secret,
	}
	return api.CreateAdminToken201JSONResponse{Body: body, Headers: api.CreateAdminToken201ResponseHeaders{ETag: etag(token.Version)}}, nil
}

// ListAdminTokens handles GET /v1/admin-tokens.
func (s *Server) ListAdminTokens(ctx context.Context, req api.ListAdminTokensRequestObject) (api.ListAdminTokensResponseObject, error) {
	if err := authorizeTokenManagement(ctx); err != nil {
		return nil, err
	}
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, "admin-tokens")
	if err != nil {
		return nil, err
	}
	tokens, err := s.storeFor(ctx).AdminTokens(ctx, req.Params.Name, page)
	if err != nil {
		return nil, err
	}
	tokens, link := paginate(ctx, tokens, page, "admin-tokens", func(t db.AdminToken) store.Position { return store.Position{Time: t.CreatedAt, ID: t.ID} })
	return api.ListAdminTokens200JSONResponse{Body: mapSlice(tokens, toAdminToken), Headers: api.ListAdminTokens200ResponseHeaders{Link: link}}, nil
}

// GetAdminToken handles GET /v1/admin-tokens/{id}.
func (s *Server) GetAdminToken(ctx context.Context, req api.GetAdminTokenRequestObject) (api.GetAdminTokenResponseObject, error) {
	if err := authorizeTokenManagement(ctx); err != nil {
		return nil, err
	}
	t, err := s.storeFor(ctx).AdminToken(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetAdminToken200JSONResponse{Body: toAdminToken(t), Headers: api.GetAdminToken200ResponseHeaders{ETag: etag(t.Version)}}, nil
}

// GetOwnAdminToken handles GET /v1/admin-tokens/self.
func (s *Server) GetOwnAdminToken(ctx context.Context, _ api.GetOwnAdminTokenRequestObject) (api.GetOwnAdminTokenResponseObject, error) {
	t, err := s.storeFor(ctx).AdminToken(ctx, middleware.RequestInfoFrom(ctx).Token.ID)
	if err != nil {
		return nil, err
	}
	return api.GetOwnAdminToken200JSONResponse{Body: toAdminToken(t), Headers: api.GetOwnAdminToken200ResponseHeaders{ETag: etag(t.Version)}}, nil
}

// UpdateAdminToken handles PATCH /v1/admin-tokens/{id}.
func (s *Server) UpdateAdminToken(ctx context.Context, req api.UpdateAdminTokenRequestObject) (api.UpdateAdminTokenResponseObject, error) {
	if err := authorizeTokenManagement(ctx); err != nil {
		return nil, err
	}
	var version int64 // before the update
	patch := store.AdminTokenPatch{
		Name: req.Body.Name, CanApprove: req.Body.CanApprove,
		Verify: func(present db.AdminToken) error {
			version = present.Version
			return checkReadOnly(ctx, toAdminToken(present))
		},
	}
	if sent := fromNullable(req.Body.ExpiresAt); sent != nil {
		expiry, err := parseTime(*sent)
		if err != nil {
			return nil, code.InvalidAdminTokenRequest.At("must be a valid date-time", "expires_at")
		}
		patch.ExpiresAt = &expiry
	}
	t, err := inTx(ctx, s, func(tx *store.Tx) (db.AdminToken, error) {
		return tx.UpdateAdminToken(ctx, req.ID, precondition(ctx), patch)
	})
	if err != nil {
		return nil, err
	}
	if t.Version != version {
		afterCommit(ctx, func(error) { s.verifier.InvalidateCache() }) // other replicas are notified
	}
	return api.UpdateAdminToken200JSONResponse{Body: toAdminToken(t), Headers: api.UpdateAdminToken200ResponseHeaders{ETag: etag(t.Version)}}, nil
}

// parseTime parses a time, or returns nil for nil. The pattern in the spec accepts
// days that do not exist.
func parseTime(text *string) (*time.Time, error) {
	if text == nil {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, *text)
	return &at, err
}

// DeleteAdminToken handles DELETE /v1/admin-tokens/{id}.
func (s *Server) DeleteAdminToken(ctx context.Context, req api.DeleteAdminTokenRequestObject) (api.DeleteAdminTokenResponseObject, error) {
	if err := authorizeTokenManagement(ctx); err != nil {
		return nil, err
	}
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error { return tx.DeleteAdminToken(ctx, req.ID, precondition(ctx)) })
	if err != nil {
		return nil, err
	}
	s.verifier.InvalidateCache() // other replicas are notified
	return api.DeleteAdminToken204Response{}, nil
}

func toAdminToken(t db.AdminToken) api.AdminToken {
	scope := api.AdminTokenScopeGlobal
	if t.OfZone != nil {
		scope = api.AdminTokenScopeZone
	}
	return api.AdminToken{
		ID: t.ID, Name: t.Name, Scope: scope, Capability: api.AdminTokenCapability(t.Capability), CanApprove: t.CanApprove, ZoneID: t.OfZone,
		CreatedBy: t.CreatedBy, CreatedAt: timestamp.Time(t.CreatedAt), ExpiresAt: timestamp.Optional(t.ExpiresAt),
		LastUsedAt: timestamp.Optional(t.LastUsedAt), RevokedAt: timestamp.Optional(t.RevokedAt),
	}
}

// authorizeTokenManagement returns an error for tokens that are derived from the
// bootstrap token: the Console must not be able to create a token that outlives its
// own.
func authorizeTokenManagement(ctx context.Context) error {
	if middleware.RequestInfoFrom(ctx).Token.Derived() {
		return code.AdminTokenManagementForbiddenForDerivedToken
	}
	return nil
}
