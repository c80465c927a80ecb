package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListPolicySets handles GET /v1/zones/{zoneId}/policy-sets.
func (s *Server) ListPolicySets(ctx context.Context, req api.ListPolicySetsRequestObject) (api.ListPolicySetsResponseObject, error) {
	scope := "policy sets of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	sets, err := s.storeFor(ctx).PolicySets(ctx, req.ZoneID, req.Params.Name, page)
	if err != nil {
		return nil, err
	}
	sets, link := paginate(ctx, sets, page, scope, func(set db.PolicySet) store.Position { return store.Position{Time: set.CreatedAt, ID: set.ID} })
	return api.ListPolicySets200JSONResponse{Body: mapSlice(sets, toPolicySet), Headers: api.ListPolicySets200ResponseHeaders{Link: link}}, nil
}

// CreatePolicySet handles POST /v1/zones/{zoneId}/policy-sets.
func (s *Server) CreatePolicySet(ctx context.Context, req api.CreatePolicySetRequestObject) (api.CreatePolicySetResponseObject, error) {
	set, err := inTx(ctx, s, func(tx *store.Tx) (db.PolicySet, error) {
		return tx.CreatePolicySet(ctx, req.ZoneID, store.NewPolicySet{Name: req.Body.Name, Description: req.Body.Description})
	})
	if err != nil {
		return nil, err
	}
	return api.CreatePolicySet201JSONResponse{Body: toPolicySet(set), Headers: api.CreatePolicySet201ResponseHeaders{ETag: etag(set.Version)}}, nil
}

// GetPolicySet handles GET /v1/zones/{zoneId}/policy-sets/{id}.
func (s *Server) GetPolicySet(ctx context.Context, req api.GetPolicySetRequestObject) (api.GetPolicySetResponseObject, error) {
	set, err := s.storeFor(ctx).PolicySet(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetPolicySet200JSONResponse{Body: toPolicySet(set), Headers: api.GetPolicySet200ResponseHeaders{ETag: etag(set.Version)}}, nil
}

// DeletePolicySet handles DELETE /v1/zones/{zoneId}/policy-sets/{id}.
func (s *Server) DeletePolicySet(ctx context.Context, req api.DeletePolicySetRequestObject) (api.DeletePolicySetResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		return tx.DeletePolicySet(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	return api.DeletePolicySet204Response{}, nil
}

func toPolicySet(set db.PolicySet) api.PolicySet {
	return api.PolicySet{
		ID: set.ID, ZoneID: set.ZoneID, Name: set.Name, Description: set.Description, ActiveVersionID: set.ActiveVersionID,
		CreatedBy: set.CreatedBy, CreatedAt: timestamp.Time(set.CreatedAt),
	}
}
