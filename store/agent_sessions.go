package store

import (
	"context"

	"caracal.run/management/gen/db"
)

// An AgentSessionFilter selects agent sessions. A nil field selects all.
type AgentSessionFilter struct {
	ParentID, ApplicationID, Label, Status, Lifecycle *string
}

// AgentSessions returns a page of a zone's agent sessions that match a filter, newest
// first. It is empty if the zone does not exist.
//
// It scans the index of the field of the filter that usually selects the fewest agent
// sessions: a parent has few children, a status many.
func (s *Store) AgentSessions(ctx context.Context, zone string, f AgentSessionFilter, p Page) ([]db.AgentSession, error) {
	q := s.inOrder()
	switch {
	case f.ParentID != nil:
		return q.ListAgentSessionsByParent(ctx, db.ListAgentSessionsByParentParams{
			ZoneID: zone, ParentID: f.ParentID, ApplicationID: f.ApplicationID, Label: f.Label, Status: f.Status, Lifecycle: f.Lifecycle,
			BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.ApplicationID != nil && f.Status != nil:
		return q.ListAgentSessionsByApplicationAndStatus(ctx, db.ListAgentSessionsByApplicationAndStatusParams{
			ZoneID: zone, ApplicationID: *f.ApplicationID, Status: *f.Status, Label: f.Label, Lifecycle: f.Lifecycle,
			BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.ApplicationID != nil:
		return q.ListAgentSessionsByApplication(ctx, db.ListAgentSessionsByApplicationParams{
			ZoneID: zone, ApplicationID: *f.ApplicationID, Label: f.Label, Lifecycle: f.Lifecycle,
			BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.Label != nil:
		return q.ListAgentSessionsByLabel(ctx, db.ListAgentSessionsByLabelParams{
			ZoneID: zone, Label: *f.Label, Status: f.Status, Lifecycle: f.Lifecycle,
			BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.Status != nil:
		return q.ListAgentSessionsByStatus(ctx, db.ListAgentSessionsByStatusParams{
			ZoneID: zone, Status: *f.Status, Lifecycle: f.Lifecycle, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.Lifecycle != nil:
		return q.ListAgentSessionsByLifecycle(ctx, db.ListAgentSessionsByLifecycleParams{
			ZoneID: zone, Lifecycle: *f.Lifecycle, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	}
	return q.ListAgentSessions(ctx, db.ListAgentSessionsParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}
