package server

import (
	"context"
	"encoding/json"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListDeadLetters handles GET /v1/dead-letters.
func (s *Server) ListDeadLetters(ctx context.Context, req api.ListDeadLettersRequestObject) (api.ListDeadLettersResponseObject, error) {
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, "dead-letters")
	if err != nil {
		return nil, err
	}
	letters, err := s.storeFor(ctx).DeadLetters(ctx, page)
	if err != nil {
		return nil, err
	}
	letters, link := paginate(ctx, letters, page, "dead-letters", func(e db.Outbox) store.Position { return store.Position{Time: e.CreatedAt, ID: e.ID} })
	return api.ListDeadLetters200JSONResponse{Body: mapSlice(letters, toDeadLetter), Headers: api.ListDeadLetters200ResponseHeaders{Link: link}}, nil
}

// RearmDeadLetter handles POST /v1/dead-letters/{id}/rearm.
func (s *Server) RearmDeadLetter(ctx context.Context, req api.RearmDeadLetterRequestObject) (api.RearmDeadLetterResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error { return tx.RearmDeadLetter(ctx, req.ID) })
	if err != nil {
		return nil, err
	}
	return api.RearmDeadLetter204Response{}, nil
}

// DiscardDeadLetter handles DELETE /v1/dead-letters/{id}.
func (s *Server) DiscardDeadLetter(ctx context.Context, req api.DiscardDeadLetterRequestObject) (api.DiscardDeadLetterResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error { return tx.DiscardDeadLetter(ctx, req.ID) })
	if err != nil {
		return nil, err
	}
	return api.DiscardDeadLetter204Response{}, nil
}

func toDeadLetter(e db.Outbox) api.DeadLetter {
	fields := map[string]string{}
	_ = json.Unmarshal(e.Fields, &fields) // cannot fail: the store writes an object of strings
	return api.DeadLetter{
		ID: e.ID, ZoneID: e.ZoneID, Stream: e.Stream, Fields: fields, RequestID: e.RequestID,
		Attempts: e.Attempts, LastError: valueOr(e.LastError, ""),
		CreatedAt: timestamp.Time(e.CreatedAt), DeadAt: timestamp.Time(valueOr(e.DeadAt, e.CreatedAt)),
	}
}
