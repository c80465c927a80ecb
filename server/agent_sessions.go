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
	{"id", func(a api.AgentSession) string { return a.ID }},
	{"application_id", func(a api.AgentSession) string { return a.ApplicationID }},
	{"parent_id", func(a api.AgentSession) string { return valueOr(a.ParentID, "") }},
	{"status", func(a api.AgentSession) string { return string(a.Status) }},
	{"lifecycle", func(a api.AgentSession) string { return string(a.Lifecycle) }},
	{"labels", func(a api.AgentSession) string { return strings.Join(a.Labels, " ") }},
	{"depth", func(a api.AgentSession) string { return strconv.Itoa(a.Depth) }},
	{"child_count", func(a api.AgentSession) string { return strconv.Itoa(a.ChildCount) }},
	{"spawned_at", func(a api.AgentSession) string { return a.SpawnedAt.String() }},
	{"last_active_at", func(a api.AgentSession) string { return a.LastActiveAt.String() }},
	{"terminated_at", func(a api.AgentSession) string { return timeCell(a.TerminatedAt) }},
	{"termination_reason", func(a api.AgentSession) string { return valueOr(a.TerminationReason, "") }},
	{"ttl_seconds", func(a api.AgentSession) string {
		if a.TTLSeconds == nil {
			return ""
		}
		return strconv.Itoa(*a.TTLSeconds)
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
