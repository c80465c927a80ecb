package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
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

// VerifySecret compares a secret with hashes while no other secret can be hashed.
func VerifySecret(ctx context.Context, hashes []string, secret string) error {
	for range argonConcurrency {
		argonSlots <- struct{}{}
		defer func() { <-argonSlots }()
	}
	return Client{secretHashes: hashes}.VerifySecret(ctx, secret, nil)
}

// ProviderBase returns the identifier that is generated from a provider's name.
func ProviderBase(name string) string { return providerBase(name) }

// SharedQuery runs a query as the reads of a store that share connections.
func (s *Store) SharedQuery(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return sharedReads{pipelines: s.pipelines, pooled: s.scoped(s.pool, s.actor.Zone)}.Query(ctx, sql, args...)
}

// PooledQuery runs a query on a connection of its own.
func (s *Store) PooledQuery(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	return s.scoped(s.pool, s.actor.Zone).Query(ctx, sql, args...)
}

// ConnectShared returns when reads of the store share connections.
func (s *Store) ConnectShared() {
	for s.pipelines.connected.Load() < maxPipelines {
		if rows, err := s.SharedQuery(context.Background(), "SELECT 1"); err == nil {
			rows.Close()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// SetListScope sets the scope and the settings of a page of a list.
const SetListScope = setListScope

// MostSelective returns the field of a filter whose index a list scans, with its scope.
func MostSelective(ctx context.Context, s *Store, zone string, f GrantFilter) (string, error) {
	by, scope, err := f.mostSelective(ctx, s.inOrder(), zone)
	return strings.TrimSpace(by + " " + scope), err
}

// MostSelectiveOfEvents returns the field of a filter whose index a list scans.
func MostSelectiveOfEvents(ctx context.Context, s *Store, zone string, f AuditEventFilter) (string, error) {
	field, _, err := f.mostSelective(ctx, s.inOrder(), zone, FirstPosition.Time, time.Time{})
	return field, err
}

// ListConnections returns the connections for lists of a zone.
func (s *Store) ListConnections(zone string) []db.DBTX {
	return []db.DBTX{s.listReads(zone), s.searchReads(zone)}
}
