package store

import (
	"context"

	"caracal.run/management/gen/audit"
)

// Defer adds a statement to the batch that is sent with the transaction's next
// statement.
func (tx *Tx) Defer(ctx context.Context, sql string, args ...any) error {
	_, err := deferredConn{tx.conn}.Exec(ctx, sql, args...)
	return err
}

// RecordField records a change of one field of an object.
func RecordField(tx *Tx, kind, field string) {
	tx.record(NoZone, audit.Kind(kind), "id", diff(nil, auditFields{field: "value"}))
}

// ProviderBase returns the identifier that is generated from a provider's name.
func ProviderBase(name string) string { return providerBase(name) }
