package server

import (
	"context"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListRegistrationTokens handles GET /v1/zones/{zoneId}/registration-tokens.
func (s *Server) ListRegistrationTokens(ctx context.Context, req api.ListRegistrationTokensRequestObject) (api.ListRegistrationTokensResponseObject, error) {
	scope := "registration-tokens of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	tokens, err := s.storeFor(ctx).RegistrationTokens(ctx, req.ZoneID, page)
	if err != nil {
		return nil, err
	}
	tokens, link := paginate(ctx, tokens, page, scope, func(t db.RegistrationToken) store.Position { return store.Position{Time: t.CreatedAt, ID: t.ID} })
	return api.ListRegistrationTokens200JSONResponse{Body: mapSlice(tokens, toRegistrationToken), Headers: api.ListRegistrationTokens200ResponseHeaders{Link: link}}, nil
}

// CreateRegistrationToken handles POST /v1/zones/{zoneId}/registration-tokens.
func (s *Server) CreateRegistrationToken(ctx context.Context, req api.CreateRegistrationTokenRequestObject) (api.CreateRegistrationTokenResponseObject, error) {
	n := store.NewRegistrationToken{Name: req.Body.Name}
	if req.Body.MaxUses != nil {
		n.MaxUses = new(int32(*req.Body.MaxUses))
	}
	expires, err := parseTime(req.Body.ExpiresAt)
	switch {
	case err != nil:
		return nil, code.InvalidRegistrationTokenRequest.At("must be a valid date-time", "expires_at")
	case expires != nil && !expires.After(time.Now()):
		return nil, code.InvalidRegistrationTokenRequest.At("must be in the future", "expires_at")
	}
	n.ExpiresAt = expires
	var t db.RegistrationToken
	var token string
	err = s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		t, token, err = tx.CreateRegistrationToken(ctx, req.ZoneID, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := toRegistrationToken(t)
	return api.CreateRegistrationToken201JSONResponse{
		ID: r.ID, ZoneID: r.ZoneID, Name: r.Name, MaxUses: r.MaxUses, Uses: r.Uses, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, Token: token,
	}, nil
}

// DeleteRegistrationToken handles DELETE /v1/zones/{zoneId}/registration-tokens/{id}.
func (s *Server) DeleteRegistrationToken(ctx context.Context, req api.DeleteRegistrationTokenRequestObject) (api.DeleteRegistrationTokenResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error { return tx.DeleteRegistrationToken(ctx, req.ZoneID, req.ID) })
	if err != nil {
		return nil, err
	}
	return api.DeleteRegistrationToken204Response{}, nil
}

func toRegistrationToken(t db.RegistrationToken) api.RegistrationToken {
	r := api.RegistrationToken{
		ID: t.ID, ZoneID: t.ZoneID, Name: t.Name, Uses: int(t.Uses),
		CreatedAt: timestamp.Time(t.CreatedAt), ExpiresAt: timestamp.Optional(t.ExpiresAt),
	}
	if t.MaxUses != nil {
		r.MaxUses = new(int(*t.MaxUses))
	}
	return r
}
