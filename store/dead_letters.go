package store

import (
	"context"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// DeadLetters returns a page of dead letters, newest first. A dead letter is an
// event whose publishing failed the maximum number of times.
func (s *Store) DeadLetters(ctx context.Context, p Page) ([]db.Outbox, error) {
	return s.shared.ListDeadLetters(ctx, db.ListDeadLettersParams{BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// RearmDeadLetter makes a dead letter pending again, or returns
// dead_letter_not_found.
func (tx *Tx) RearmDeadLetter(ctx context.Context, id string) error {
	e, err := tx.q.RearmDeadLetter(ctx, id)
	if err != nil {
		return notFoundAs(err, code.DeadLetterNotFound)
	}
	tx.rearmed = true
	tx.record(e.ZoneID, audit.DeadLetters, id, diff(auditFields{"status": "dead"}, auditFields{"status": "pending"}))
	return nil
}

// DiscardDeadLetter deletes a dead letter, or returns dead_letter_not_found.
func (tx *Tx) DiscardDeadLetter(ctx context.Context, id string) error {
	e, err := tx.q.DeleteDeadLetter(ctx, id)
	if err != nil {
		return notFoundAs(err, code.DeadLetterNotFound)
	}
	tx.record(e.ZoneID, audit.DeadLetters, id, deleted)
	return nil
}
