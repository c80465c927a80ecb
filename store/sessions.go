package store

import (
	"context"
	"errors"
	"time"

	"caracal.run/management/gen/audit"
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

// CreateApplicationSession creates a session of an application for itself, with an ID that
// the caller has chosen. It waits for no result, so that the whole transaction is one round
// trip: if the application or its zone is not active, the commit returns
// application_not_found. An application that is archived at the same time has no active
// session afterwards.
func (tx *Tx) CreateApplicationSession(ctx context.Context, zone, application, id string, expiresAt time.Time) error {
	tx.record(zone, audit.Sessions, id, diff(nil, auditFields{"status": "active"}))
	return errors.Join(
		tx.lockZoneID(ctx, zone, shared),
		db.New(deferredConn{tx.conn}).InsertApplicationSession(ctx, db.InsertApplicationSessionParams{ZoneID: zone, ApplicationID: application, ID: id, ExpiresAt: expiresAt}),
	)
}
