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
func (s *Store) PendingEvents(ctx context.Context, most int, parked []string) ([]Event, error) {
	return s.q.ListPendingOutbox(ctx, db.ListPendingOutboxParams{Parked: parked, RowLimit: int32(most)})
}

// MarkDispatched notes that events are in their streams.
func (s *Store) MarkDispatched(ctx context.Context, seqs []int64) error {
	return s.q.DispatchOutbox(ctx, seqs)
}

// MarkRefused counts that Redis refused events, and why. After most times they
// are dead.
func (s *Store) MarkRefused(ctx context.Context, seqs []int64, why string, most int) error {
	return s.q.RefuseOutbox(ctx, db.RefuseOutboxParams{Seqs: seqs, LastError: why, Most: int32(most)})
}

// PurgeEvents deletes a batch of events that were dispatched before a moment,
// and says how many.
func (s *Store) PurgeEvents(ctx context.Context, before time.Time, most int) (int64, error) {
	return s.q.PurgeOutbox(ctx, db.PurgeOutboxParams{Before: before, RowLimit: int32(most)})
}

// OutboxStat is how much waits and how much is dead.
func (s *Store) OutboxStat(ctx context.Context) (db.GetOutboxStatRow, error) {
	return s.For(System).q.GetOutboxStat(ctx)
}

// TellPublisher wakes the replica that publishes.
func (s *Store) TellPublisher(ctx context.Context) error { return s.q.NotifyOutbox(ctx) }
