package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// GetAuditRetention handles GET /v1/audit-retention.
func (s *Server) GetAuditRetention(ctx context.Context, _ api.GetAuditRetentionRequestObject) (api.GetAuditRetentionResponseObject, error) {
	retention, err := s.storeFor(ctx).AuditRetention(ctx, s.config.AuditRetentionDays)
	if err != nil {
		return nil, err
	}
	return api.GetAuditRetention200JSONResponse{Body: toAuditRetention(retention), Headers: api.GetAuditRetention200ResponseHeaders{ETag: etag(retention.Version)}}, nil
}

// UpdateAuditRetention handles PUT /v1/audit-retention.
func (s *Server) UpdateAuditRetention(ctx context.Context, req api.UpdateAuditRetentionRequestObject) (api.UpdateAuditRetentionResponseObject, error) {
	var retention store.AuditRetention
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		retention, err = tx.SetAuditRetention(ctx, precondition(ctx), req.Body.RetentionDays, s.config.AuditRetentionDays)
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.UpdateAuditRetention200JSONResponse{Body: toAuditRetention(retention), Headers: api.UpdateAuditRetention200ResponseHeaders{ETag: etag(retention.Version)}}, nil
}

func toAuditRetention(r store.AuditRetention) api.AuditRetention {
	return api.AuditRetention{RetentionDays: r.Days, MaxDays: r.MaxDays, UpdatedAt: timestamp.Optional(r.UpdatedAt)}
}
