package store

import (
	"context"
	"time"

	"caracal.run/management/gen/db"
)

// An Event is an outbox row to publish. Its fields are a JSON object of strings.
type Event = db.ListPendingOutboxRow

// A Rejection is a failed attempt to publish one event, and its error.
type Rejection struct {
	Seq   int64
	Error string
}

// PurgeEvents deletes at most limit events that were dispatched before a time,
// oldest first, and returns how many.
func (s *Store) PurgeEvents(ctx context.Context, before time.Time, limit int) (int64, error) {
	return s.For(System).q.PurgeOutbox(ctx, db.PurgeOutboxParams{Before: before, RowLimit: int32(limit)})
}

// OutboxStat returns the number and age of pending events and dead letters.
func (s *Store) OutboxStat(ctx context.Context) (db.GetOutboxStatRow, error) {
	return s.For(System).q.GetOutboxStat(ctx)
}

// OutboxProgress is what changes while events are published.
type OutboxProgress = db.GetOutboxProgressRow

// OutboxProgress returns what changes while events are published.
func (s *Store) OutboxProgress(ctx context.Context) (OutboxProgress, error) {
	return s.For(System).q.GetOutboxProgress(ctx)
}

// NotifyPublisher wakes the replica that publishes.
func (s *Store) NotifyPublisher(ctx context.Context) error { return s.q.NotifyOutbox(ctx) }
