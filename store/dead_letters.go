package store

import (
	"context"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// DeadLetters is a page of events that Redis refused for good, newest first.
func (s *Store) DeadLetters(ctx context.Context, p Page) ([]db.Outbox, error) {
	return s.q.ListDeadLetters(ctx, db.ListDeadLettersParams{BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// RearmDeadLetter makes a dead event pending again.
func (tx *Tx) RearmDeadLetter(ctx context.Context, id string) error {
	e, err := tx.q.RearmDeadLetter(ctx, id)
	if err != nil {
		return notFoundAs(err, code.DeadLetterNotFound)
	}
	tx.rearmed = true
	tx.record(e.ZoneID, audit.DeadLetters, id, diff(auditFields{"status": "dead"}, auditFields{"status": "pending"}))
	return nil
}

// DiscardDeadLetter deletes a dead event.
func (tx *Tx) DiscardDeadLetter(ctx context.Context, id string) error {
	e, err := tx.q.DeleteDeadLetter(ctx, id)
	if err != nil {
		return notFoundAs(err, code.DeadLetterNotFound)
	}
	tx.record(e.ZoneID, audit.DeadLetters, id, noFields)
	return nil
}
