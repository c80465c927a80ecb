package server

import (
	"context"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
	"caracal.run/management/store/controlkey"
)

// ListControlKeys handles GET /v1/zones/{zoneId}/control-keys.
func (s *Server) ListControlKeys(ctx context.Context, req api.ListControlKeysRequestObject) (api.ListControlKeysResponseObject, error) {
	scope := "control keys of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	keys, err := s.storeFor(ctx).ControlKeys(ctx, req.ZoneID, page)
	if err != nil {
		return nil, err
	}
	keys, link := paginate(ctx, keys, page, scope, func(k db.ListControlKeysRow) store.Position { return store.Position{Time: k.CreatedAt, ID: k.ID} })
	body := make([]api.ControlKey, len(keys))
	for i := range keys {
		body[i] = s.toControlKey(keys[i])
	}
	return api.ListControlKeys200JSONResponse{Body: body, Headers: api.ListControlKeys200ResponseHeaders{Link: link}}, nil
}

// CreateControlKey handles POST /v1/zones/{zoneId}/control-keys.
func (s *Server) CreateControlKey(ctx context.Context, req api.CreateControlKeyRequestObject) (api.CreateControlKeyResponseObject, error) {
	key := controlkey.Key{MaxTTL: controlkey.MaxTTL}
	for _, scope := range req.Body.AllowedScopes {
		key.Scopes = append(key.Scopes, string(scope))
	}
	if seconds := req.Body.MaxTTLSeconds; seconds != nil {
		key.MaxTTL = time.Duration(*seconds) * time.Second
	}
	if expires := req.Body.ExpiresAt; expires != nil {
		at := time.Time(*expires)
		if key.ExpiresAt = &at; key.Expired(time.Now()) {
			return nil, code.InvalidControlKey.At("must be in the future", "expires_at")
		}
	}
	if req.Body.Jwks != nil {
		if problem := publicKeysProblem(req.Body.Jwks); problem != "" {
			return nil, code.InvalidControlKey.At(problem, "jwks")
		}
	}
	var a db.Application
	var secret string
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		a, secret, err = tx.CreateControlKey(ctx, req.ZoneID, req.Body.Name, key, req.Body.Jwks)
		return err
	})
	if err != nil {
		return nil, err
	}
	k := s.controlKeyOf(a)
	return api.CreateControlKey201JSONResponse{
		Body: api.CreatedControlKey{
			ID: k.ID, ZoneID: k.ZoneID, Name: k.Name, Resource: k.Resource, AllowedScopes: k.AllowedScopes, MaxTTLSeconds: k.MaxTTLSeconds,
			ExpiresAt: k.ExpiresAt, Restrictions: k.Restrictions, CreatedAt: k.CreatedAt, ClientSecret: secret,
		},
		Headers: api.CreateControlKey201ResponseHeaders{ETag: etag(a.Version)},
	}, nil
}

// GetControlKey handles GET /v1/zones/{zoneId}/control-keys/{id}.
func (s *Server) GetControlKey(ctx context.Context, req api.GetControlKeyRequestObject) (api.GetControlKeyResponseObject, error) {
	a, err := s.storeFor(ctx).ControlKey(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetControlKey200JSONResponse{Body: s.controlKeyOf(a), Headers: api.GetControlKey200ResponseHeaders{ETag: etag(a.Version)}}, nil
}

// DeleteControlKey handles DELETE /v1/zones/{zoneId}/control-keys/{id}.
func (s *Server) DeleteControlKey(ctx context.Context, req api.DeleteControlKeyRequestObject) (api.DeleteControlKeyResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		return tx.DeleteControlKey(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	return api.DeleteControlKey204Response{}, nil
}

func (s *Server) controlKeyOf(a db.Application) api.ControlKey {
	return s.toControlKey(db.ListControlKeysRow{ZoneID: a.ZoneID, ID: a.ID, Name: a.Name, Traits: a.Traits, CreatedAt: a.CreatedAt})
}

func (s *Server) toControlKey(row db.ListControlKeysRow) api.ControlKey {
	key, _, err := controlkey.Parse(row.Traits)
	if err != nil { // it gets no tokens
		key = controlkey.Key{MaxTTL: controlkey.MaxTTL}
	}
	result := api.ControlKey{
		ID: row.ID, ZoneID: row.ZoneID, Name: row.Name, Resource: s.config.ControlAudience,
		AllowedScopes: make([]api.ControlScope, len(key.Scopes)), MaxTTLSeconds: int64(key.MaxTTL / time.Second),
		ExpiresAt: timestamp.Optional(key.ExpiresAt), CreatedAt: timestamp.Time(row.CreatedAt),
		Restrictions: []api.ControlKeyRestriction{
			api.ControlKeyRestrictionZoneBound, api.ControlKeyRestrictionApplicationOnly,
			api.ControlKeyRestrictionNoSubjectToken, api.ControlKeyRestrictionNoDelegation,
		},
	}
	for i, scope := range key.Scopes {
		result.AllowedScopes[i] = api.ControlScope(scope)
	}
	return result
}
