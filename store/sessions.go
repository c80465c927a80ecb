package store

import (
	"context"

	"caracal.run/management/gen/db"
)

// A SessionFilter selects sessions. A nil field selects all.
type SessionFilter struct{ SubjectID, Status *string }

// Sessions returns a page of a zone's sessions that match a filter, newest first. It is
// empty if the zone does not exist. A session that has lapsed has the status expired.
func (s *Store) Sessions(ctx context.Context, zone string, f SessionFilter, p Page) ([]db.ListedSession, error) {
	const expired = "expired"
	q := s.inOrder()
	switch {
	case f.SubjectID == nil && f.Status == nil:
		return q.ListSessions(ctx, db.ListSessionsParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
	case f.Status == nil:
		return q.ListSessionsBySubject(ctx, db.ListSessionsBySubjectParams{
			ZoneID: zone, SubjectID: f.SubjectID, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.SubjectID == nil && *f.Status == expired:
		return q.ListExpiredSessions(ctx, db.ListExpiredSessionsParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
	case f.SubjectID == nil:
		return q.ListSessionsByStatus(ctx, db.ListSessionsByStatusParams{
			ZoneID: zone, Status: *f.Status, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case *f.Status == expired:
		return q.ListExpiredSessionsBySubject(ctx, db.ListExpiredSessionsBySubjectParams{
			ZoneID: zone, SubjectID: f.SubjectID, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	}
	return q.ListSessionsBySubjectAndStatus(ctx, db.ListSessionsBySubjectAndStatusParams{
		ZoneID: zone, SubjectID: f.SubjectID, Status: *f.Status, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
	})
}
