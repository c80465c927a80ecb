package store

import (
	"context"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
)

// A deletion is the payload of the audit entry that records that old rows of a zone were
// deleted. There is one for each transaction, and not for each row: the entries that
// record how an object ended are kept.
type deletion struct {
	Deleted       int64 `json:"deleted"`
	RetentionDays int   `json:"retention_days"`
}

// deleteOld deletes rows of a zone, with its lock, and records how many.
func (tx *Tx) deleteOld(ctx context.Context, zone string, kind audit.Kind, days int, deleteRows func() (int64, error)) (int, error) {
	if err := tx.lockZoneID(ctx, zone, shared); err != nil {
		return 0, err
	}
	n, err := deleteRows()
	if err != nil || n == 0 {
		return 0, err
	}
	tx.entries = append(tx.entries, entry{zone: zone, kind: kind, payload: deletion{Deleted: n, RetentionDays: days}})
	return int(n), nil
}

// EndedSessions returns at most limit sessions that ended more than a number of days ago
// and that nothing references, without those of excluded zones.
func (s *Store) EndedSessions(ctx context.Context, days, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListEndedSessions(ctx, db.ListEndedSessionsParams{Days: int32(days), ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListEndedSessionsRow) dueRow { return dueRow(r) })
}

// DeleteSessions deletes ended sessions and returns how many.
func (tx *Tx) DeleteSessions(ctx context.Context, days int, due Due) (int, error) {
	return tx.deleteOld(ctx, due.Zone, audit.Sessions, days, func() (int64, error) {
		return tx.q.DeleteEndedSessions(ctx, db.DeleteEndedSessionsParams{ZoneID: due.Zone, Ids: due.IDs, Days: int32(days)})
	})
}

// EndedAgentSessions is like [Store.EndedSessions], for agent sessions.
func (s *Store) EndedAgentSessions(ctx context.Context, days, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListEndedAgentSessions(ctx, db.ListEndedAgentSessionsParams{Days: int32(days), ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListEndedAgentSessionsRow) dueRow { return dueRow(r) })
}

// DeleteAgentSessions deletes ended agent sessions and returns how many.
func (tx *Tx) DeleteAgentSessions(ctx context.Context, days int, due Due) (int, error) {
	return tx.deleteOld(ctx, due.Zone, audit.AgentSessions, days, func() (int64, error) {
		return tx.q.DeleteEndedAgentSessions(ctx, db.DeleteEndedAgentSessionsParams{ZoneID: due.Zone, Ids: due.IDs, Days: int32(days)})
	})
}

// EndedDelegationEdges is like [Store.EndedSessions], for delegation edges.
func (s *Store) EndedDelegationEdges(ctx context.Context, days, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListEndedDelegationEdges(ctx, db.ListEndedDelegationEdgesParams{Days: int32(days), ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListEndedDelegationEdgesRow) dueRow { return dueRow(r) })
}

// DeleteDelegationEdges deletes ended delegation edges and returns how many.
func (tx *Tx) DeleteDelegationEdges(ctx context.Context, days int, due Due) (int, error) {
	return tx.deleteOld(ctx, due.Zone, audit.DelegationEdges, days, func() (int64, error) {
		return tx.q.DeleteEndedDelegationEdges(ctx, db.DeleteEndedDelegationEdgesParams{ZoneID: due.Zone, Ids: due.IDs, Days: int32(days)})
	})
}

// OldStepUpChallenges returns at most limit step-up challenges that expired more than a
// number of days ago, used or not, without those of excluded zones.
func (s *Store) OldStepUpChallenges(ctx context.Context, days, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListOldStepUpChallenges(ctx, db.ListOldStepUpChallengesParams{Days: int32(days), ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListOldStepUpChallengesRow) dueRow { return dueRow(r) })
}

// DeleteStepUpChallenges deletes old step-up challenges and returns how many.
func (tx *Tx) DeleteStepUpChallenges(ctx context.Context, days int, due Due) (int, error) {
	return tx.deleteOld(ctx, due.Zone, audit.StepUpChallenges, days, func() (int64, error) {
		return tx.q.DeleteOldStepUpChallenges(ctx, db.DeleteOldStepUpChallengesParams{ZoneID: due.Zone, Ids: due.IDs, Days: int32(days)})
	})
}
