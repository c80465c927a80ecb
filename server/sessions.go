package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListSessions handles GET /v1/zones/{zoneId}/sessions.
func (s *Server) ListSessions(ctx context.Context, req api.ListSessionsRequestObject) (api.ListSessionsResponseObject, error) {
	scope := "sessions of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, new(valueOr(req.Params.Limit, defaultRowLimit)), scope)
	if err != nil {
		return nil, err
	}
	filter := store.SessionFilter{SubjectID: req.Params.SubjectID, Status: (*string)(req.Params.Status)}
	sessions := table[db.ListedSession, api.Session]{
		name: "sessions", zone: req.ZoneID, columns: sessionColumns, convert: toSession,
		position: func(s db.ListedSession) store.Position { return store.Position{Time: s.CreatedAt, ID: s.ID} },
		page: func(ctx context.Context, from *store.Store, p store.Page) ([]db.ListedSession, error) {
			return from.Sessions(ctx, req.ZoneID, filter, p)
		},
	}
	if isExport(req.Params.Format) {
		return exportOf(ctx, s, sessions, *req.Params.Format, page.After), nil
	}
	rows, err := sessions.page(ctx, s.storeFor(ctx), page)
	if err != nil {
		return nil, err
	}
	rows, link, next := paginateRows(ctx, rows, page, scope, sessions.position)
	return api.ListSessions200JSONResponse{
		Body: api.SessionPage{Rows: mapSlice(rows, toSession), NextCursor: next}, Headers: api.ListSessions200ResponseHeaders{Link: link},
	}, nil
}

var sessionColumns = []column[api.Session]{
	{"id", func(b []byte, s api.Session) []byte { return append(b, s.ID...) }},
	{"session_type", func(b []byte, s api.Session) []byte { return append(b, s.SessionType...) }},
	{"subject_id", func(b []byte, s api.Session) []byte { return append(b, valueOr(s.SubjectID, "")...) }},
	{"parent_id", func(b []byte, s api.Session) []byte { return append(b, valueOr(s.ParentID, "")...) }},
	{"status", func(b []byte, s api.Session) []byte { return append(b, s.Status...) }},
	{"authenticated_at", func(b []byte, s api.Session) []byte { return append(b, s.AuthenticatedAt.String()...) }},
	{"created_at", func(b []byte, s api.Session) []byte { return append(b, s.CreatedAt.String()...) }},
	{"expires_at", func(b []byte, s api.Session) []byte { return append(b, s.ExpiresAt.String()...) }},
	{"revoked_at", func(b []byte, s api.Session) []byte { return append(b, timeCell(s.RevokedAt)...) }},
	{"revoked_reason", func(b []byte, s api.Session) []byte { return append(b, valueOr(s.RevokedReason, "")...) }},
}

func toSession(s db.ListedSession) api.Session {
	return api.Session{
		ID: s.ID, ZoneID: s.ZoneID, SessionType: api.SessionType(s.SessionType), SubjectID: s.SubjectID, ParentID: s.ParentID,
		Status: api.SessionStatus(s.Status), ExpiresAt: timestamp.Time(s.ExpiresAt), AuthenticatedAt: timestamp.Time(s.AuthenticatedAt),
		CreatedAt: timestamp.Time(s.CreatedAt), RevokedAt: timestamp.Optional(s.RevokedAt), RevokedReason: s.RevokedReason,
		ApplicationID: s.ApplicationID,
	}
}
