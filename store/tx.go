package store

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/trace"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A Cause is why a transaction runs. A handler takes it from the request; a job
// makes its own.
type Cause struct {
	Actor        Actor
	RequestID    string
	Operation    string // operationId, command or job
	Method, Path string
	Status       int // what the request answers if the transaction commits; 0 for a job
}

// A Tx is a transaction. Its methods are the only way to change a thing: each
// locks it, compares its version if one was given, changes it, and records what
// changed.
type Tx struct {
	*core
	cause   Cause
	q       *db.Queries
	conn    *batcher
	entries []entry
	events  []event
	rearmed bool // an event that was there is pending again
}

// InTx runs fn in a transaction and commits when fn returns nil. After a
// deadlock or a serialization failure it runs fn again, three times in all, so
// fn must be repeatable and touch nothing outside the transaction.
func (s *Store) InTx(ctx context.Context, cause Cause, fn func(*Tx) error) error {
	const maxAttempts = 3
	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("caracal.run/management/store").Start(ctx, "transaction")
	defer span.End()
	for n := 1; ; n++ {
		err := s.attempt(ctx, cause, fn)
		if n == maxAttempts || !isRetryable(err) {
			return mapError(err)
		}
		delay := 10*time.Millisecond<<(n-1) + rand.N(10*time.Millisecond)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return mapError(ctx.Err())
		}
	}
}

func (s *Store) attempt(ctx context.Context, cause Cause, fn func(*Tx) error) error {
	waitCtx, cancel := context.WithTimeout(ctx, s.pool.acquireTimeout)
	defer cancel()
	select {
	case s.pool.writers <- struct{}{}:
		defer func() { <-s.pool.writers }()
	case <-waitCtx.Done():
		return waitCtx.Err()
	}
	conn, err := s.pool.acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	zone, err := conn.Conn().PgConn().EscapeString(cause.Actor.Zone)
	if err != nil {
		return err
	}
	// The scope travels with BEGIN: one round trip for both.
	begin := pgx.TxOptions{BeginQuery: "BEGIN; SELECT set_config('caracal.zone_id', '" + zone + "', true)"}
	pgtx, err := conn.BeginTx(ctx, begin)
	if err != nil {
		return err
	}
	defer func() { // does nothing after a commit
		rollbackCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pool.acquireTimeout)
		defer cancel()
		_ = pgtx.Rollback(rollbackCtx)
	}()

	tx := &Tx{core: s.core, cause: cause, conn: &batcher{tx: pgtx}}
	tx.q = db.New(tx.conn)
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.flush(ctx); err != nil { // the context names the trace that events belong to
		return err
	}
	if err := tx.conn.sendDeferred(ctx); err != nil {
		return err
	}
	if err := pgtx.Commit(ctx); err != nil {
		return err
	}
	if len(tx.events) > 0 || tx.rearmed {
		select {
		case s.committed <- struct{}{}:
		default: // the publisher has been woken and not yet looked
		}
	}
	return nil
}

// A lockMode is how a transaction holds the zone that it writes below.
type lockMode bool

const (
	shared    lockMode = false // with others that emit no event
	exclusive lockMode = true  // and nobody else writes below it: the order of events must be the order of commits
)

// lockZone holds a live zone: nobody changes it until the transaction ends.
// The locks are sent together with the read that relies on them, but before it
// and as statements of their own: a statement sees what was committed before it
// began, and it began before it waited.
func (tx *Tx) lockZone(ctx context.Context, id string, mode lockMode) (db.Zone, error) {
	if err := tx.lockZoneID(ctx, id, mode); err != nil {
		return db.Zone{}, err
	}
	zone, err := tx.q.LockZone(ctx, id)
	return tx.checkZoneWritable(zone, err)
}

// requireZone lets a transaction write below a live zone.
func (tx *Tx) requireZone(ctx context.Context, id string, mode lockMode) (db.Zone, error) {
	if err := tx.lockZoneID(ctx, id, mode); err != nil {
		return db.Zone{}, err
	}
	zone, err := tx.q.GetZone(ctx, id)
	return tx.checkZoneWritable(zone, err)
}

func (tx *Tx) checkZoneWritable(zone db.Zone, err error) (db.Zone, error) {
	if err != nil {
		return zone, notFoundAs(err, code.ZoneNotFound)
	}
	if zone.Reserved && !tx.cause.Actor.Bootstrap {
		return zone, code.SystemZoneReadOnly
	}
	return zone, nil
}

func (tx *Tx) lockZoneID(ctx context.Context, zone string, mode lockMode) error {
	deferred := db.New(deferredConn{tx.conn})
	if mode == exclusive {
		return deferred.LockZoneExclusive(ctx, zone)
	}
	return deferred.LockZoneShared(ctx, zone)
}

// A batcher stands where sqlc expects a connection. What was put into it goes out
// with the next statement, in one round trip.
type batcher struct {
	tx       pgx.Tx
	deferred pgx.Batch
}

func (q *batcher) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if q.deferred.Len() == 0 {
		return q.tx.Exec(ctx, sql, args...)
	}
	results := q.send(ctx, sql, args)
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, err
}

func (q *batcher) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if q.deferred.Len() == 0 {
		return q.tx.Query(ctx, sql, args...)
	}
	results := q.send(ctx, sql, args)
	rows, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	return scopedRows{Rows: rows, batch: results}, nil
}

func (q *batcher) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if q.deferred.Len() == 0 {
		return q.tx.QueryRow(ctx, sql, args...)
	}
	return scopedRow{q.send(ctx, sql, args)}
}

func (q *batcher) send(ctx context.Context, sql string, args []any) pgx.BatchResults {
	batch := q.deferred
	q.deferred = pgx.Batch{}
	before := batch.Len()
	batch.Queue(sql, args...)
	results := q.tx.SendBatch(ctx, &batch)
	for range before {
		_, _ = results.Exec() // an error comes again with what is read next
	}
	return results
}

// sendDeferred sends the deferred statements that no other statement followed.
func (q *batcher) sendDeferred(ctx context.Context) error {
	if q.deferred.Len() == 0 {
		return nil
	}
	batch := q.deferred
	q.deferred = pgx.Batch{}
	return q.tx.SendBatch(ctx, &batch).Close() // returns the first error of any statement
}

// deferredConn puts statements into a queue instead of sending them.
type deferredConn struct{ *batcher }

func (q deferredConn) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	q.deferred.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}
