package store

import (
	"context"
	"time"

	"caracal.run/management/gen/db"
)

// An Event is one that is to be published. Its fields are an object of strings.
type Event = db.ListPendingOutboxRow

// PendingEvents is what is to be published next, in order, but for zones that
// wait.
func (s *Store) PendingEvents(ctx context.Context, limit int, pausedZones []string) ([]Event, error) {
	return s.q.ListPendingOutbox(ctx, db.ListPendingOutboxParams{PausedZones: pausedZones, RowLimit: int32(limit)})
}

// MarkDispatched notes that events are in their streams.
func (s *Store) MarkDispatched(ctx context.Context, seqs []int64) error {
	return s.q.DispatchOutbox(ctx, seqs)
}

// MarkRejected counts that Redis refused events, and why. After most times they
// are dead.
func (s *Store) MarkRejected(ctx context.Context, seqs []int64, reason string, limit int) error {
	return s.q.RejectOutbox(ctx, db.RejectOutboxParams{Seqs: seqs, LastError: reason, MaxAttempts: int32(limit)})
}

// PurgeEvents deletes a batch of events that were dispatched before a moment,
// and says how many.
func (s *Store) PurgeEvents(ctx context.Context, before time.Time, limit int) (int64, error) {
	return s.q.PurgeOutbox(ctx, db.PurgeOutboxParams{Before: before, RowLimit: int32(limit)})
}

// OutboxStat is how much waits and how much is dead.
func (s *Store) OutboxStat(ctx context.Context) (db.GetOutboxStatRow, error) {
	return s.For(System).q.GetOutboxStat(ctx)
}

// NotifyPublisher wakes the replica that publishes.
func (s *Store) NotifyPublisher(ctx context.Context) error { return s.q.NotifyOutbox(ctx) }
