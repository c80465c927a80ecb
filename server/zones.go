package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListZones handles GET /v1/zones.
func (s *Server) ListZones(ctx context.Context, req api.ListZonesRequestObject) (api.ListZonesResponseObject, error) {
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, "zones")
	if err != nil {
		return nil, err
	}
	zones, err := s.storeFor(ctx).Zones(ctx, store.ZoneFilter{Name: req.Params.Name, Slug: req.Params.Slug}, page)
	if err != nil {
		return nil, err
	}
	zones, link := paginate(ctx, zones, page, "zones", func(z db.Zone) store.Position { return store.Position{Time: z.CreatedAt, ID: z.ID} })
	return api.ListZones200JSONResponse{Body: mapSlice(zones, toZone), Headers: api.ListZones200ResponseHeaders{Link: link}}, nil
}

// CreateZone handles POST /v1/zones.
func (s *Server) CreateZone(ctx context.Context, req api.CreateZoneRequestObject) (api.CreateZoneResponseObject, error) {
	zone, err := inTx(ctx, s, func(tx *store.Tx) (db.Zone, error) {
		return tx.CreateZone(ctx, store.NewZone{Name: req.Body.Name, Slug: req.Body.Slug, DCREnabled: valueOr(req.Body.DCREnabled, false)})
	})
	if err != nil {
		return nil, err
	}
	return api.CreateZone201JSONResponse{Body: toZone(zone), Headers: api.CreateZone201ResponseHeaders{ETag: etag(zone.Version)}}, nil
}

// GetZone handles GET /v1/zones/{zoneId}.
func (s *Server) GetZone(ctx context.Context, req api.GetZoneRequestObject) (api.GetZoneResponseObject, error) {
	zone, err := s.storeFor(ctx).Zone(ctx, req.ZoneID)
	if err != nil {
		return nil, err
	}
	return api.GetZone200JSONResponse{Body: toZone(zone), Headers: api.GetZone200ResponseHeaders{ETag: etag(zone.Version)}}, nil
}

// UpdateZone handles PATCH /v1/zones/{zoneId}.
func (s *Server) UpdateZone(ctx context.Context, req api.UpdateZoneRequestObject) (api.UpdateZoneResponseObject, error) {
	patch := store.ZonePatch{
		Name: req.Body.Name, Slug: req.Body.Slug,
		DCREnabled: req.Body.DCREnabled, OperatorCoauthorBadge: req.Body.OperatorCoauthorBadge,
		OpenRegistration: req.Body.OpenRegistration,
		DCRShutdown:      (*string)(req.Body.DCRShutdown),
		Verify:           func(present db.Zone) error { return checkReadOnly(ctx, toZone(present)) },
	}
	zone, err := inTx(ctx, s, func(tx *store.Tx) (db.Zone, error) {
		return tx.UpdateZone(ctx, req.ZoneID, precondition(ctx), patch)
	})
	if err != nil {
		return nil, err
	}
	return api.UpdateZone200JSONResponse{Body: toZone(zone), Headers: api.UpdateZone200ResponseHeaders{ETag: etag(zone.Version)}}, nil
}

// DeleteZone handles DELETE /v1/zones/{zoneId}.
func (s *Server) DeleteZone(ctx context.Context, req api.DeleteZoneRequestObject) (api.DeleteZoneResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error { return tx.DeleteZone(ctx, req.ZoneID, precondition(ctx)) })
	if err != nil {
		return nil, err
	}
	s.verifier.InvalidateCache() // the zone's tokens are revoked; other replicas are notified
	return api.DeleteZone204Response{}, nil
}

// GetDCRStatus handles GET /v1/zones/{zoneId}/dcr-status.
func (s *Server) GetDCRStatus(ctx context.Context, req api.GetDCRStatusRequestObject) (api.GetDCRStatusResponseObject, error) {
	status, err := s.storeFor(ctx).DCRStatus(ctx, req.ZoneID)
	if err != nil {
		return nil, err
	}
	return api.GetDCRStatus200JSONResponse{ID: status.ID, DCREnabled: status.DCREnabled, LiveDCRApplications: status.LiveDCRApplications}, nil
}

func toZone(z db.Zone) api.Zone {
	return api.Zone{
		ID: z.ID, Name: z.Name, Slug: z.Slug, DCREnabled: z.DCREnabled, OperatorCoauthorBadge: z.OperatorCoauthorBadge, OpenRegistration: z.OpenRegistration,
		CreatedAt: timestamp.Time(z.CreatedAt), UpdatedAt: timestamp.Time(z.UpdatedAt),
	}
}
