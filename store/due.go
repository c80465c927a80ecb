package store

import (
	"context"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
)

// Due lists the objects of one zone that a periodic job is to change. A method of [Tx]
// changes those that are still due when it has locked them, so that of the replicas that
// run a job at the same time, one changes each object.
type Due struct {
	Zone string
	IDs  []string
}

type dueRow = db.ListLapsedSessionsRow

// dueIn groups rows by zone.
func dueIn[T any](rows []T, err error, convert func(T) dueRow) ([]Due, error) {
	var all []Due
	position := map[string]int{} // zone -> its position in all
	for _, r := range rows {
		row := convert(r)
		i, found := position[row.ZoneID]
		if !found {
			i = len(all)
			position[row.ZoneID] = i
			all = append(all, Due{Zone: row.ZoneID})
		}
		all[i].IDs = append(all[i].IDs, row.ID)
	}
	return all, err
}

// LapsedSessions returns at most limit active sessions that have lapsed, without those
// of excluded zones.
func (s *Store) LapsedSessions(ctx context.Context, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListLapsedSessions(ctx, db.ListLapsedSessionsParams{ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListLapsedSessionsRow) dueRow { return r })
}

// ExpireSessions marks lapsed sessions as expired and returns how many. There is no event
// for it: consumers know when a session lapses.
func (tx *Tx) ExpireSessions(ctx context.Context, due Due) (int, error) {
	if err := tx.lockZoneID(ctx, due.Zone, shared); err != nil {
		return 0, err
	}
	expired, err := tx.q.ExpireSessions(ctx, db.ExpireSessionsParams{ZoneID: due.Zone, Ids: due.IDs})
	for _, id := range expired {
		tx.record(due.Zone, audit.Sessions, id, diff(auditFields{"status": "active"}, auditFields{"status": "expired"}))
	}
	return len(expired), err
}

// LapsedAgentSessions returns at most limit agent sessions whose time to live has ended,
// without those of excluded zones.
func (s *Store) LapsedAgentSessions(ctx context.Context, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListLapsedAgentSessions(ctx, db.ListLapsedAgentSessionsParams{ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListLapsedAgentSessionsRow) dueRow { return dueRow(r) })
}

// TerminateAgentSessions terminates lapsed agent sessions with all descendants, revokes
// their delegation edges, and returns how many agent sessions it terminated. The Agent
// Coordinator may do the same at the same time.
func (tx *Tx) TerminateAgentSessions(ctx context.Context, due Due) (int, error) {
	if err := tx.lockZoneID(ctx, due.Zone, exclusive); err != nil {
		return 0, err
	}
	agents, err := tx.q.TerminateLapsedAgentSessions(ctx, db.TerminateLapsedAgentSessionsParams{ZoneID: due.Zone, Ids: due.IDs})
	if err != nil || len(agents) == 0 {
		return 0, err
	}
	var r revoked
	for _, a := range agents {
		r.agents = append(r.agents, terminatedAgent(a))
	}
	if r.edges, err = tx.revokeEdgesOf(ctx, due.Zone, r.agents); err != nil {
		return 0, err
	}
	return len(agents), tx.recordRevocations(ctx, due.Zone, r, "ttl")
}

// ExpiredDCRApplications returns at most limit registered applications that expired more
// than 24 hours ago, without those of excluded zones.
func (s *Store) ExpiredDCRApplications(ctx context.Context, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListExpiredDCRApplications(ctx, db.ListExpiredDCRApplicationsParams{ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListExpiredDCRApplicationsRow) dueRow { return dueRow(r) })
}

// ArchiveExpiredApplications archives expired applications, with all that
// [Tx.DeleteApplication] does, and returns how many.
func (tx *Tx) ArchiveExpiredApplications(ctx context.Context, due Due) (int, error) {
	if err := tx.lockZoneID(ctx, due.Zone, exclusive); err != nil {
		return 0, err
	}
	expired, err := tx.q.LockExpiredDCRApplications(ctx, db.LockExpiredDCRApplicationsParams{ZoneID: due.Zone, Ids: due.IDs})
	if err != nil || len(expired) == 0 {
		return 0, err
	}
	return len(expired), tx.endApplications(ctx, due.Zone, expired)
}
