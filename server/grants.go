package server

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListGrants handles GET /v1/zones/{zoneId}/grants.
func (s *Server) ListGrants(ctx context.Context, req api.ListGrantsRequestObject) (api.ListGrantsResponseObject, error) {
	scope := "grants of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	scopes, err := parseScopes(req.Params.Scopes)
	if err != nil {
		return nil, err
	}
	filter := store.GrantFilter{
		UserID: req.Params.UserID, ApplicationID: req.Params.ApplicationID, ResourceID: req.Params.ResourceID,
		ProviderID: req.Params.ProviderID, Status: req.Params.Status, Scopes: scopes,
	}
	if filter.UserID == nil {
		filter.UserID = req.Params.SubjectID
	}
	grants, err := s.storeFor(ctx).Grants(ctx, req.ZoneID, filter, page)
	if err != nil {
		return nil, err
	}
	grants, link := paginate(ctx, grants, page, scope, func(g db.ListedGrant) store.Position { return store.Position{Time: g.CreatedAt, ID: g.ID} })
	return api.ListGrants200JSONResponse{Body: mapSlice(grants, toListedGrant), Headers: api.ListGrants200ResponseHeaders{Link: link}}, nil
}

// CreateGrant handles POST /v1/zones/{zoneId}/grants.
func (s *Server) CreateGrant(ctx context.Context, req api.CreateGrantRequestObject) (api.CreateGrantResponseObject, error) {
	n := store.NewGrant{ApplicationID: req.Body.ApplicationID, UserID: req.Body.UserID, ResourceID: req.Body.ResourceID, Scopes: req.Body.Scopes}
	g, err := inTx(ctx, s, func(tx *store.Tx) (db.Grant, error) {
		return tx.CreateGrant(ctx, req.ZoneID, n)
	})
	if err != nil {
		return nil, err
	}
	return api.CreateGrant201JSONResponse{Body: toGrant(g), Headers: api.CreateGrant201ResponseHeaders{ETag: etag(g.Version)}}, nil
}

// GetGrant handles GET /v1/zones/{zoneId}/grants/{id}.
func (s *Server) GetGrant(ctx context.Context, req api.GetGrantRequestObject) (api.GetGrantResponseObject, error) {
	g, err := s.storeFor(ctx).Grant(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetGrant200JSONResponse{Body: toGrant(g), Headers: api.GetGrant200ResponseHeaders{ETag: etag(g.Version)}}, nil
}

// RevokeGrant handles DELETE /v1/zones/{zoneId}/grants/{id}.
func (s *Server) RevokeGrant(ctx context.Context, req api.RevokeGrantRequestObject) (api.RevokeGrantResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		return tx.RevokeGrant(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	return api.RevokeGrant204Response{}, nil
}

// grantScope matches a scope of a grant, like the schema GrantScopes.
var grantScope = regexp.MustCompile(`^[a-z0-9:_./-]{1,200}$`)

// parseScopes splits the lists of scopes in a query at the commas. It returns
// invalid_query if a scope is invalid, or if there are none or more than 64.
func parseScopes(lists []string) (scopes []string, err error) {
	const maxScopes = 64
	for _, list := range lists {
		for scope := range strings.SplitSeq(list, ",") {
			scope = strings.TrimFunc(scope, store.IsSpace)
			switch {
			case scope == "":
				continue
			case !grantScope.MatchString(scope):
				return nil, code.InvalidQuery.At("must be scopes: 1 to 200 lowercase letters, digits and :_./- each", "scopes")
			}
			scopes = append(scopes, scope)
		}
	}
	switch {
	case len(lists) > 0 && len(scopes) == 0:
		return nil, code.InvalidQuery.At("must not be empty", "scopes")
	case len(scopes) > maxScopes:
		return nil, code.InvalidQuery.At(fmt.Sprintf("must have at most %d scopes", maxScopes), "scopes")
	}
	return scopes, nil
}

func toGrant(g db.Grant) api.Grant {
	return api.Grant{
		ID: g.ID, ZoneID: g.ZoneID, ApplicationID: g.ApplicationID, UserID: g.UserID, ResourceID: g.ResourceID, Scopes: g.Scopes,
		Status: api.GrantStatus(g.Status), CreatedAt: timestamp.Time(g.CreatedAt), UpdatedAt: timestamp.Time(g.UpdatedAt),
	}
}

func toListedGrant(g db.ListedGrant) api.ListedGrant {
	return api.ListedGrant{
		ID: g.ID, ZoneID: g.ZoneID, ApplicationID: g.ApplicationID, UserID: g.UserID, ResourceID: g.ResourceID, Scopes: g.Scopes,
		Status: api.GrantStatus(g.Status), CreatedAt: timestamp.Time(g.CreatedAt), UpdatedAt: timestamp.Time(g.UpdatedAt),
		ProviderID: g.ProviderID, ApplicationName: g.ApplicationName, ResourceName: g.ResourceName,
		ProviderName: g.ProviderName, ProviderKind: api.ProviderKind(g.ProviderKind),
	}
}
