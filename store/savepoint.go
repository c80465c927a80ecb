package store

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Savepoint runs fn, a part of a transaction. If fn fails, what it has changed is rolled
// back, with its audit entries and events, and the rest of the transaction can be committed.
func (tx *Tx) Savepoint(ctx context.Context, fn func() error) error {
	if _, err := tx.conn.Exec(ctx, "SAVEPOINT part"); err != nil {
		return err
	}
	entries, events, rearmed, revoked := len(tx.entries), len(tx.events), tx.rearmed, tx.revoked
	err := fn()
	if err == nil {
		_, err = tx.conn.Exec(ctx, "RELEASE SAVEPOINT part") // with the deferred statements of fn, which can fail, too
	}
	if err == nil {
		return nil
	}
	tx.entries, tx.events, tx.rearmed, tx.revoked = tx.entries[:entries], tx.events[:events], rearmed, revoked
	tx.conn.deferred = pgx.Batch{}
	if _, rollbackErr := tx.conn.Exec(ctx, "ROLLBACK TO SAVEPOINT part"); rollbackErr != nil {
		return rollbackErr
	}
	return err
}
