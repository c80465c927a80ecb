package server

import (
	"context"
	"errors"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
)

// ListProviderGrants handles GET /v1/zones/{zoneId}/provider-grants.
func (s *Server) ListProviderGrants(ctx context.Context, req api.ListProviderGrantsRequestObject) (api.ListProviderGrantsResponseObject, error) {
	scope := "provider grants of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	filter := store.ProviderGrantFilter{
		UserID: req.Params.UserID, ResourceID: req.Params.ResourceID, ProviderID: req.Params.ProviderID, Status: (*string)(req.Params.Status),
	}
	grants, err := s.storeFor(ctx).ProviderGrants(ctx, req.ZoneID, filter, page)
	if err != nil {
		return nil, err
	}
	grants, link := paginate(ctx, grants, page, scope, func(g store.ProviderGrant) store.Position { return store.Position{Time: g.CreatedAt, ID: g.ID} })
	return api.ListProviderGrants200JSONResponse{Body: mapSlice(grants, toProviderGrant), Headers: api.ListProviderGrants200ResponseHeaders{Link: link}}, nil
}

// CreateProviderGrant handles POST /v1/zones/{zoneId}/provider-grants.
func (s *Server) CreateProviderGrant(ctx context.Context, req api.CreateProviderGrantRequestObject) (api.CreateProviderGrantResponseObject, error) {
	expiresAt, err := parseExpiry(req.Body.ExpiresAt)
	if err != nil {
		return nil, code.InvalidProviderGrant.At("must be a valid date-time", "expires_at")
	}
	g, err := s.store.CreateProviderGrant(ctx, cause(ctx), req.ZoneID, store.NewProviderGrant{
		ProviderGrantRequest: store.ProviderGrantRequest{
			ProviderGrantKey: store.ProviderGrantKey{UserID: req.Body.UserID, ResourceID: req.Body.ResourceID, ProviderID: req.Body.ProviderID},
			Scopes:           req.Body.Scopes,
		},
		ExpiresAt: expiresAt, AccessToken: seal.Plaintext(req.Body.AccessToken), RefreshToken: seal.Plaintext(valueOr(req.Body.RefreshToken, "")),
	})
	if err != nil {
		return nil, withDetail(err, code.ProviderGrantUnsupported, "only oauth2_authorization_code providers use delegated provider grants")
	}
	return api.CreateProviderGrant201JSONResponse{Body: toProviderGrant(g), Headers: api.CreateProviderGrant201ResponseHeaders{ETag: etag(g.Version)}}, nil
}

// GetProviderGrant handles GET /v1/zones/{zoneId}/provider-grants/{id}.
func (s *Server) GetProviderGrant(ctx context.Context, req api.GetProviderGrantRequestObject) (api.GetProviderGrantResponseObject, error) {
	g, err := s.storeFor(ctx).ProviderGrant(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetProviderGrant200JSONResponse{Body: toProviderGrant(g), Headers: api.GetProviderGrant200ResponseHeaders{ETag: etag(g.Version)}}, nil
}

// RevokeProviderGrant handles POST /v1/zones/{zoneId}/provider-grants/revoke.
func (s *Server) RevokeProviderGrant(ctx context.Context, req api.RevokeProviderGrantRequestObject) (api.RevokeProviderGrantResponseObject, error) {
	key := store.ProviderGrantKey{UserID: req.Body.UserID, ResourceID: req.Body.ResourceID, ProviderID: req.Body.ProviderID}
	g, err := inTx(ctx, s, func(tx *store.Tx) (store.ProviderGrant, error) {
		return tx.RevokeProviderGrant(ctx, req.ZoneID, key)
	})
	if err != nil {
		return nil, err
	}
	return api.RevokeProviderGrant200JSONResponse{Body: toProviderGrant(g), Headers: api.RevokeProviderGrant200ResponseHeaders{ETag: etag(g.Version)}}, nil
}

// parseExpiry parses a time in UTC whose seconds can be omitted.
func parseExpiry(text *string) (*time.Time, error) {
	const withoutSeconds = "2006-01-02T15:04Z"
	if text == nil {
		return nil, nil
	}
	at, err := time.Parse(withoutSeconds, *text)
	if err != nil {
		at, err = time.Parse(time.RFC3339, *text)
	}
	return &at, err
}

// withDetail adds a detail to an error if it has the code.
func withDetail(err error, errCode code.Code, detail string) error {
	if errors.Is(err, errCode) {
		return errCode.With("detail", detail)
	}
	return err
}

func toProviderGrant(g store.ProviderGrant) api.ProviderGrant {
	tokens := []api.StoredToken{}
	if g.HasAccessToken {
		tokens = append(tokens, api.StoredTokenAccessToken)
	}
	if g.HasRefreshToken {
		tokens = append(tokens, api.StoredTokenRefreshToken)
	}
	return api.ProviderGrant{
		ID: g.ID, ZoneID: g.ZoneID, UserID: g.UserID, ResourceID: g.ResourceID, ProviderID: g.ProviderID, Scopes: g.Scopes,
		Status: api.ProviderGrantStatus(g.Status), StoredTokens: tokens, ExpiresAt: timestamp.Optional(g.ExpiresAt), RefreshedAt: timestamp.Optional(g.RefreshedAt),
		CreatedAt: timestamp.Time(g.CreatedAt), UpdatedAt: timestamp.Time(g.UpdatedAt),
	}
}
