package store

import "context"

// Defer adds a statement to the batch that is sent with the transaction's next
// statement.
func (tx *Tx) Defer(ctx context.Context, sql string, args ...any) error {
	_, err := deferredConn{tx.conn}.Exec(ctx, sql, args...)
	return err
}
