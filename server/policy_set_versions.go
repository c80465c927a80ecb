package server

import (
	"context"
	"math"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/policy"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListPolicySetVersions handles GET /v1/zones/{zoneId}/policy-sets/{id}/versions.
func (s *Server) ListPolicySetVersions(ctx context.Context, req api.ListPolicySetVersionsRequestObject) (api.ListPolicySetVersionsResponseObject, error) {
	scope := "versions of " + req.ID + " in " + req.ZoneID
	page, before, err := parseNumberPage[int32](ctx, req.Params.Cursor, req.Params.Limit, scope, math.MaxInt32)
	if err != nil {
		return nil, err
	}
	versions, err := s.storeFor(ctx).PolicySetVersions(ctx, req.ZoneID, req.ID, before, page.Limit)
	if err != nil {
		return nil, err
	}
	versions, link := paginate(ctx, versions, page, scope, func(v db.PolicySetVersion) store.Position { return numberPosition(v.Version) })
	return api.ListPolicySetVersions200JSONResponse{Body: mapSlice(versions, toPolicySetVersion), Headers: api.ListPolicySetVersions200ResponseHeaders{Link: link}}, nil
}

// AddPolicySetVersion handles POST /v1/zones/{zoneId}/policy-sets/{id}/versions.
func (s *Server) AddPolicySetVersion(ctx context.Context, req api.AddPolicySetVersionRequestObject) (api.AddPolicySetVersionResponseObject, error) {
	n := store.NewPolicySetVersion{
		Manifest:      mapSlice(req.Body.Manifest, func(e api.NewManifestEntry) string { return e.PolicyVersionID }),
		SchemaVersion: valueOr(req.Body.SchemaVersion, policy.InputSchemaVersion),
	}
	n.ManifestSHA256 = store.ManifestSHA256(n.Manifest)
	if !policy.SupportedSchemaVersion(n.SchemaVersion) {
		return nil, code.InvalidSchemaVersion.With("detail", unsupportedSchemaVersion(n.SchemaVersion))
	}
	sources, err := s.storeFor(ctx).ManifestCandidates(ctx, req.ZoneID, req.ID, n.Manifest)
	if err != nil {
		return nil, err
	}
	if _, err := s.compileManifest(ctx, req.ZoneID, code.InvalidPolicyContract, n.SchemaVersion, n.Manifest, sources); err != nil {
		return nil, err
	}
	v, err := inTx(ctx, s, func(tx *store.Tx) (db.PolicySetVersion, error) {
		return tx.AddPolicySetVersion(ctx, req.ZoneID, req.ID, n)
	})
	if err != nil {
		return nil, err
	}
	return api.AddPolicySetVersion201JSONResponse{
		VersionID: v.ID, ID: v.ID, PolicySetID: v.PolicySetID, Version: v.Version, ManifestSHA256: v.ManifestSHA256,
		SchemaVersion: v.SchemaVersion, CreatedAt: timestamp.Time(v.CreatedAt),
	}, nil
}

// GetPolicySetVersion handles GET /v1/zones/{zoneId}/policy-sets/{id}/versions/{versionId}.
func (s *Server) GetPolicySetVersion(ctx context.Context, req api.GetPolicySetVersionRequestObject) (api.GetPolicySetVersionResponseObject, error) {
	v, policies, err := s.storeFor(ctx).PolicySetVersion(ctx, req.ZoneID, req.ID, req.VersionID)
	if err != nil {
		return nil, err
	}
	return api.GetPolicySetVersion200JSONResponse{
		ID: v.ID, PolicySetID: v.PolicySetID, Version: v.Version,
		ManifestJSON:   mapSlice(policies, func(id string) api.ManifestEntry { return api.ManifestEntry{PolicyVersionID: id} }),
		ManifestSHA256: v.ManifestSHA256, SchemaVersion: v.SchemaVersion, CreatedAt: timestamp.Time(v.CreatedAt), Policies: policies,
	}, nil
}

func toPolicySetVersion(v db.PolicySetVersion) api.PolicySetVersion {
	return api.PolicySetVersion{
		ID: v.ID, PolicySetID: v.PolicySetID, Version: v.Version, ManifestSHA256: v.ManifestSHA256,
		SchemaVersion: v.SchemaVersion, CreatedAt: timestamp.Time(v.CreatedAt),
	}
}
