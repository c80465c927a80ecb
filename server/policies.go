package server

import (
	"context"
	"math"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/policy"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// defaultOwnerType is the owner type of a policy if the request sets none.
const defaultOwnerType = "customer"

// ListPolicies handles GET /v1/zones/{zoneId}/policies.
func (s *Server) ListPolicies(ctx context.Context, req api.ListPoliciesRequestObject) (api.ListPoliciesResponseObject, error) {
	scope := "policies of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	policies, err := s.storeFor(ctx).Policies(ctx, req.ZoneID, req.Params.Name, page)
	if err != nil {
		return nil, err
	}
	policies, link := paginate(ctx, policies, page, scope, func(p db.Policy) store.Position { return store.Position{Time: p.CreatedAt, ID: p.ID} })
	return api.ListPolicies200JSONResponse{Body: mapSlice(policies, toPolicy), Headers: api.ListPolicies200ResponseHeaders{Link: link}}, nil
}

// CreatePolicy handles POST /v1/zones/{zoneId}/policies.
func (s *Server) CreatePolicy(ctx context.Context, req api.CreatePolicyRequestObject) (api.CreatePolicyResponseObject, error) {
	n := store.NewPolicy{
		Name: req.Body.Name, Description: req.Body.Description, OwnerType: valueOr(req.Body.OwnerType, defaultOwnerType),
		FirstVersion: toNewPolicyVersion(req.Body.Content, req.Body.SchemaVersion),
	}
	if _, err := validatePolicy(ctx, n.FirstVersion.Content, n.FirstVersion.SchemaVersion); err != nil {
		return nil, err
	}
	var p db.Policy
	var v db.PolicyVersion
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		p, v, err = tx.CreatePolicy(ctx, req.ZoneID, n)
		return err
	})
	if err != nil {
		return nil, err
	}
	body := api.CreatedPolicy{
		ID: p.ID, VersionID: v.ID, ZoneID: p.ZoneID, Name: p.Name, Description: p.Description, OwnerType: p.OwnerType,
		CreatedBy: p.CreatedBy, CreatedAt: timestamp.Time(p.CreatedAt),
		Version: api.PolicyVersionSummary{
			ID: v.ID, PolicyID: v.PolicyID, Version: v.Version, ContentSHA256: v.ContentSHA256, SchemaVersion: v.SchemaVersion,
			CreatedAt: timestamp.Time(v.CreatedAt),
		},
	}
	return api.CreatePolicy201JSONResponse{Body: body, Headers: api.CreatePolicy201ResponseHeaders{ETag: etag(p.Version)}}, nil
}

// GetPolicy handles GET /v1/zones/{zoneId}/policies/{id}.
func (s *Server) GetPolicy(ctx context.Context, req api.GetPolicyRequestObject) (api.GetPolicyResponseObject, error) {
	onlyLatest := valueOr(req.Params.Content, api.GetPolicyParamsContentAll) == api.GetPolicyParamsContentLatest
	p, versions, err := s.storeFor(ctx).Policy(ctx, req.ZoneID, req.ID, onlyLatest)
	if err != nil {
		return nil, err
	}
	body := api.PolicyWithVersions{
		ID: p.ID, ZoneID: p.ZoneID, Name: p.Name, Description: p.Description, OwnerType: p.OwnerType,
		CreatedBy: p.CreatedBy, CreatedAt: timestamp.Time(p.CreatedAt), Versions: mapSlice(versions, toPolicyVersion),
	}
	return api.GetPolicy200JSONResponse{Body: body, Headers: api.GetPolicy200ResponseHeaders{ETag: etag(p.Version)}}, nil
}

// DeletePolicy handles DELETE /v1/zones/{zoneId}/policies/{id}.
func (s *Server) DeletePolicy(ctx context.Context, req api.DeletePolicyRequestObject) (api.DeletePolicyResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		return tx.DeletePolicy(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	return api.DeletePolicy204Response{}, nil
}

// ListPolicyVersions handles GET /v1/zones/{zoneId}/policies/{id}/versions.
func (s *Server) ListPolicyVersions(ctx context.Context, req api.ListPolicyVersionsRequestObject) (api.ListPolicyVersionsResponseObject, error) {
	scope := "versions of policy " + req.ID + " of " + req.ZoneID
	page, before, err := parseNumberPage[int32](ctx, req.Params.Cursor, req.Params.Limit, scope, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	versions, err := s.storeFor(ctx).PolicyVersions(ctx, req.ZoneID, req.ID, before, page.Limit)
	if err != nil {
		return nil, err
	}
	versions, link := paginate(ctx, versions, page, scope, func(v db.ListPolicyVersionsRow) store.Position { return numberPosition(v.Version) })
	return api.ListPolicyVersions200JSONResponse{Body: mapSlice(versions, toPolicyVersionSummary), Headers: api.ListPolicyVersions200ResponseHeaders{Link: link}}, nil
}

// AddPolicyVersion handles POST /v1/zones/{zoneId}/policies/{id}/versions.
func (s *Server) AddPolicyVersion(ctx context.Context, req api.AddPolicyVersionRequestObject) (api.AddPolicyVersionResponseObject, error) {
	n := toNewPolicyVersion(req.Body.Content, req.Body.SchemaVersion)
	if _, err := validatePolicy(ctx, n.Content, n.SchemaVersion); err != nil {
		return nil, err
	}
	v, err := inTx(ctx, s, func(tx *store.Tx) (db.PolicyVersion, error) {
		return tx.AddPolicyVersion(ctx, req.ZoneID, req.ID, n)
	})
	if err != nil {
		return nil, err
	}
	return api.AddPolicyVersion201JSONResponse{
		VersionID: v.ID, ID: v.ID, PolicyID: v.PolicyID, Version: v.Version, ContentSHA256: v.ContentSHA256,
		SchemaVersion: v.SchemaVersion, CreatedAt: timestamp.Time(v.CreatedAt),
	}, nil
}

// GetPolicyVersion handles GET /v1/zones/{zoneId}/policies/{id}/versions/{versionId}.
func (s *Server) GetPolicyVersion(ctx context.Context, req api.GetPolicyVersionRequestObject) (api.GetPolicyVersionResponseObject, error) {
	v, err := s.storeFor(ctx).PolicyVersion(ctx, req.ZoneID, req.ID, req.VersionID)
	if err != nil {
		return nil, err
	}
	return api.GetPolicyVersion200JSONResponse(toPolicyVersion(v)), nil
}

func toNewPolicyVersion(content string, schemaVersion *string) store.NewPolicyVersion {
	return store.NewPolicyVersion{Content: content, SchemaVersion: valueOr(schemaVersion, policy.InputSchemaVersion)}
}

func toPolicy(p db.Policy) api.Policy {
	return api.Policy{
		ID: p.ID, ZoneID: p.ZoneID, Name: p.Name, Description: p.Description, OwnerType: p.OwnerType,
		CreatedBy: p.CreatedBy, CreatedAt: timestamp.Time(p.CreatedAt),
	}
}

func toPolicyVersion(v db.PolicyVersion) api.PolicyVersion {
	return api.PolicyVersion{
		ID: v.ID, PolicyID: v.PolicyID, Version: v.Version, Content: v.Content, ContentSHA256: v.ContentSHA256,
		SchemaVersion: v.SchemaVersion, CreatedBy: v.CreatedBy, CreatedAt: timestamp.Time(v.CreatedAt),
	}
}

func toPolicyVersionSummary(v db.ListPolicyVersionsRow) api.PolicyVersionSummary {
	return api.PolicyVersionSummary{
		ID: v.ID, PolicyID: v.PolicyID, Version: v.Version, ContentSHA256: v.ContentSHA256, SchemaVersion: v.SchemaVersion,
		CreatedAt: timestamp.Time(v.CreatedAt),
	}
}
