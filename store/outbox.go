package store

import (
	"context"
	"time"

	"caracal.run/management/gen/db"
)

// An Event is an outbox row to publish. Its fields are a JSON object of strings.
type Event = db.ListPendingOutboxRow

// PendingEvents returns the next events to publish, in the commit order of their
// zone, without those of paused zones.
func (s *Store) PendingEvents(ctx context.Context, limit int, pausedZones []string) ([]Event, error) {
	return s.q.ListPendingOutbox(ctx, db.ListPendingOutboxParams{PausedZones: pausedZones, RowLimit: int32(limit)})
}

// MarkDispatched records that events are in their streams.
func (s *Store) MarkDispatched(ctx context.Context, seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
	return s.q.DispatchOutbox(ctx, seqs)
}

// A Rejection is a failed attempt to publish one event, and its error.
type Rejection struct {
	Seq   int64
	Error string
}

// MarkRejected adds a failed attempt to each rejected event and stores its error.
// After maxAttempts attempts an event becomes a dead letter.
func (s *Store) MarkRejected(ctx context.Context, rejections []Rejection, maxAttempts int) error {
	if len(rejections) == 0 {
		return nil
	}
	p := db.RejectOutboxParams{MaxAttempts: int32(maxAttempts)}
	for _, r := range rejections {
		p.Seqs, p.Errors = append(p.Seqs, r.Seq), append(p.Errors, r.Error)
	}
	return s.q.RejectOutbox(ctx, p)
}

// PurgeEvents deletes at most limit events that were dispatched before a time,
// oldest first, and returns how many.
func (s *Store) PurgeEvents(ctx context.Context, before time.Time, limit int) (int64, error) {
	return s.q.PurgeOutbox(ctx, db.PurgeOutboxParams{Before: before, RowLimit: int32(limit)})
}

// OutboxStat returns the number and age of pending events and dead letters.
func (s *Store) OutboxStat(ctx context.Context) (db.GetOutboxStatRow, error) {
	return s.For(System).q.GetOutboxStat(ctx)
}

// NotifyPublisher wakes the replica that publishes.
func (s *Store) NotifyPublisher(ctx context.Context) error { return s.q.NotifyOutbox(ctx) }
