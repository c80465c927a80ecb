package server

import (
	"context"
	"strconv"
	"strings"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListAgentSessions handles GET /v1/zones/{zoneId}/agent-sessions.
func (s *Server) ListAgentSessions(ctx context.Context, req api.ListAgentSessionsRequestObject) (api.ListAgentSessionsResponseObject, error) {
	scope := "agent sessions of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, new(valueOr(req.Params.Limit, defaultRowLimit)), scope)
	if err != nil {
		return nil, err
	}
	filter := store.AgentSessionFilter{
		ParentID: req.Params.ParentID, ApplicationID: req.Params.ApplicationID, Label: req.Params.Label,
		Status: (*string)(req.Params.Status), Lifecycle: (*string)(req.Params.Lifecycle),
	}
	agents := table[db.AgentSession, api.AgentSession]{
		name: "agent-sessions", zone: req.ZoneID, columns: agentSessionColumns, convert: toAgentSession,
		position: func(a db.AgentSession) store.Position { return store.Position{Time: a.SpawnedAt, ID: a.ID} },
		page: func(ctx context.Context, from *store.Store, p store.Page) ([]db.AgentSession, error) {
			return from.AgentSessions(ctx, req.ZoneID, filter, p)
		},
	}
	if isExport(req.Params.Format) {
		return exportOf(ctx, s, agents, *req.Params.Format, page.After), nil
	}
	rows, err := agents.page(ctx, s.storeFor(ctx), page)
	if err != nil {
		return nil, err
	}
	rows, link, next := paginateRows(ctx, rows, page, scope, agents.position)
	return api.ListAgentSessions200JSONResponse{
		Body: api.AgentSessionPage{Rows: mapSlice(rows, toAgentSession), NextCursor: next}, Headers: api.ListAgentSessions200ResponseHeaders{Link: link},
	}, nil
}

var agentSessionColumns = []column[api.AgentSession]{
	{"id", func(b []byte, a api.AgentSession) []byte { return append(b, a.ID...) }},
	{"application_id", func(b []byte, a api.AgentSession) []byte { return append(b, a.ApplicationID...) }},
	{"parent_id", func(b []byte, a api.AgentSession) []byte { return append(b, valueOr(a.ParentID, "")...) }},
	{"status", func(b []byte, a api.AgentSession) []byte { return append(b, a.Status...) }},
	{"lifecycle", func(b []byte, a api.AgentSession) []byte { return append(b, a.Lifecycle...) }},
	{"labels", func(b []byte, a api.AgentSession) []byte { return append(b, strings.Join(a.Labels, " ")...) }},
	{"depth", func(b []byte, a api.AgentSession) []byte { return strconv.AppendInt(b, int64(a.Depth), 10) }},
	{"child_count", func(b []byte, a api.AgentSession) []byte { return strconv.AppendInt(b, int64(a.ChildCount), 10) }},
	{"spawned_at", func(b []byte, a api.AgentSession) []byte { return append(b, a.SpawnedAt.String()...) }},
	{"last_active_at", func(b []byte, a api.AgentSession) []byte { return append(b, a.LastActiveAt.String()...) }},
	{"terminated_at", func(b []byte, a api.AgentSession) []byte { return append(b, timeCell(a.TerminatedAt)...) }},
	{"termination_reason", func(b []byte, a api.AgentSession) []byte { return append(b, valueOr(a.TerminationReason, "")...) }},
	{"ttl_seconds", func(b []byte, a api.AgentSession) []byte {
		if a.TTLSeconds == nil {
			return b
		}
		return strconv.AppendInt(b, int64(*a.TTLSeconds), 10)
	}},
}

func toAgentSession(a db.AgentSession) api.AgentSession {
	agent := api.AgentSession{
		ID: a.ID, ApplicationID: a.ApplicationID, ParentID: a.ParentID, Status: api.AgentSessionStatus(a.Status), Lifecycle: api.AgentLifecycle(a.Lifecycle),
		Labels: a.Labels, Depth: int(a.Depth), ChildCount: int(a.ChildCount), SpawnedAt: timestamp.Time(a.SpawnedAt), LastActiveAt: timestamp.Time(a.LastActiveAt),
		TerminatedAt: timestamp.Optional(a.TerminatedAt), TerminationReason: a.TerminationReason,
	}
	if a.TtlSeconds != nil {
		agent.TTLSeconds = new(int(*a.TtlSeconds))
	}
	return agent
}
