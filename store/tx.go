package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/trace"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A Cause identifies what caused a transaction, for its audit entries. A handler
// takes it from the request; a job creates its own.
type Cause struct {
	Actor        Actor
	RequestID    string
	Operation    string // operationId, command or job
	Method, Path string
	Status       int                // the response's status if the transaction commits; 0 for a job
	Idempotent   *IdempotentRequest // not nil: [IdempotentRequest.Commit] commits the transaction
}

// A Tx is a transaction. Its methods are the only way to write: each locks a
// row, compares its version if one was given, changes it and records the change.
type Tx struct {
	*core
	cause   Cause
	q       *db.Queries
	conn    *batcher
	entries []entry
	events  []event
	rearmed bool   // a dead event became pending again
	revoked bool   // admin tokens were revoked
	release func() // releases the connection
}

// InTx runs fn in a transaction and commits if fn returns nil. After a deadlock
// or serialization failure it retries, up to three attempts in total, so fn must
// be repeatable and have no effect outside the transaction. The transaction of an
// [IdempotentRequest] remains open; after it, the request must not begin another. A
// deadlock or serialization failure of its commit is not retried: the client repeats the
// request.
func (s *Store) InTx(ctx context.Context, cause Cause, fn func(*Tx) error) error {
	const maxAttempts = 3
	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("caracal.run/management/store").Start(ctx, "transaction")
	defer span.End()
	for attempt := 1; ; attempt++ {
		err := s.attempt(ctx, cause, fn)
		if attempt == maxAttempts || !isRetryable(err) {
			return mapError(err)
		}
		delay := 10*time.Millisecond<<(attempt-1) + rand.N(10*time.Millisecond)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return mapError(ctx.Err())
		}
	}
}

func (s *Store) attempt(ctx context.Context, cause Cause, fn func(*Tx) error) error {
	tx, err := s.begin(ctx, cause)
	if err != nil {
		return err
	}
	open := false // it remains open
	defer func() {
		if !open {
			tx.close(ctx)
		}
	}()
	if request := cause.Idempotent; request != nil {
		if err := request.insert(ctx, tx); err != nil {
			return err
		}
	}
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.flush(ctx); err != nil { // events get the trace context of ctx
		return err
	}
	if request := cause.Idempotent; request != nil {
		request.tx, open = tx, true
		return nil
	}
	return tx.commit(ctx)
}

// begin returns a transaction whose first statement begins it. The caller must close it.
func (s *Store) begin(ctx context.Context, cause Cause) (*Tx, error) {
	waitCtx, cancel := context.WithTimeout(ctx, s.pool.acquireTimeout)
	defer cancel()
	select {
	case s.pool.writers <- struct{}{}:
	case <-waitCtx.Done():
		return nil, waitCtx.Err()
	}
	conn, err := s.pool.acquire(ctx)
	if err != nil {
		<-s.pool.writers
		return nil, err
	}
	tx := &Tx{core: s.core, cause: cause, conn: &batcher{conn: conn.Conn()}}
	tx.release = func() {
		conn.Release()
		<-s.pool.writers
	}
	tx.q = db.New(tx.conn)
	tx.conn.begin(cause.Actor.Zone, s.timeouts.settings)
	return tx, nil
}

// commit commits, and wakes those who wait for what was committed.
func (tx *Tx) commit(ctx context.Context) error {
	if err := tx.conn.commit(ctx); err != nil {
		return err
	}
	if len(tx.events) > 0 || tx.rearmed {
		wake(tx.committed)
	}
	if len(tx.entries) > 0 {
		wake(tx.recorded)
	}
	return nil
}

// close rolls back unless the transaction is committed, and releases the connection.
func (tx *Tx) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tx.pool.acquireTimeout)
	defer cancel()
	tx.conn.rollback(ctx)
	tx.release()
}

// A lockMode is the mode of the zone lock, a transaction-level advisory lock that
// every write to a zone or its rows takes.
type lockMode bool

const (
	shared    lockMode = false // for writes that publish no events; they can run concurrently
	exclusive lockMode = true  // for writes that publish events, whose order must be the order of commits
)

// lockZone takes the zone lock, locks the row of an active zone and returns it.
// It fails with zone_not_found or system_zone_read_only.
//
// The zone lock and the read that relies on it are two statements of one batch:
// a single statement would use a snapshot taken before it waited for the lock.
func (tx *Tx) lockZone(ctx context.Context, id string, mode lockMode) (db.Zone, error) {
	if err := tx.lockZoneID(ctx, id, mode); err != nil {
		return db.Zone{}, err
	}
	zone, err := tx.q.LockZone(ctx, id)
	return tx.checkZoneWritable(zone, err)
}

// requireZone takes the zone lock and returns an active zone without locking its
// row, for writes to the zone's other rows. It fails like lockZone.
func (tx *Tx) requireZone(ctx context.Context, id string, mode lockMode) (db.Zone, error) {
	if err := tx.lockZoneID(ctx, id, mode); err != nil {
		return db.Zone{}, err
	}
	zone, err := tx.q.GetZone(ctx, id)
	return tx.checkZoneWritable(zone, err)
}

// checkZoneWritable maps a missing row to zone_not_found. It returns
// system_zone_read_only if the zone is reserved and the actor is not allowed to
// change reserved objects.
func (tx *Tx) checkZoneWritable(zone db.Zone, err error) (db.Zone, error) {
	if err != nil {
		return zone, notFoundAs(err, code.ZoneNotFound)
	}
	if zone.Reserved && !tx.cause.Actor.Bootstrap {
		return zone, code.SystemZoneReadOnly
	}
	return zone, nil
}

// lockZoneID queues the statement that takes the zone lock. It is sent with the
// next statement.
func (tx *Tx) lockZoneID(ctx context.Context, zone string, mode lockMode) error {
	deferred := db.New(deferredConn{tx.conn})
	if mode == exclusive {
		return deferred.LockZoneExclusive(ctx, zone)
	}
	return deferred.LockZoneShared(ctx, zone)
}

// A batcher is an open transaction and implements sqlc's DBTX. It sends deferred
// statements together with the next statement, in one round trip: BEGIN with the
// first statement, COMMIT with the last.
type batcher struct {
	conn     *pgx.Conn
	deferred pgx.Batch
	began    bool // BEGIN was sent
}

var errNotBegun = errors.New("the transaction could not be begun")

// begin queues the statements that begin the transaction and set its scope and its
// timeouts.
func (b *batcher) begin(zone, settings string) {
	b.deferred.Queue("BEGIN")
	b.deferred.Queue(settings, zone)
}

// commit sends the remaining deferred statements and commits.
func (b *batcher) commit(ctx context.Context) error {
	results := b.send(ctx, "COMMIT", nil)
	tag, err := results.Exec()
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	if err == nil && tag.String() == "ROLLBACK" {
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// rollback ends the transaction. It does nothing after a commit, or if the
// transaction has not begun.
func (b *batcher) rollback(ctx context.Context) {
	if !b.conn.IsClosed() && b.open() {
		_, _ = b.conn.Exec(ctx, "ROLLBACK") // the pool closes a connection with an open transaction
	}
}

func (b *batcher) open() bool {
	const idle = 'I'
	return b.conn.PgConn().TxStatus() != idle
}

func (b *batcher) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if b.deferred.Len() == 0 && b.open() {
		return b.conn.Exec(ctx, sql, args...)
	}
	results := b.send(ctx, sql, args)
	tag, err := results.Exec()
	if closeErr := results.Close(); err == nil {
		err = closeErr
	}
	return tag, err
}

func (b *batcher) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if b.deferred.Len() == 0 && b.open() {
		return b.conn.Query(ctx, sql, args...)
	}
	results := b.send(ctx, sql, args)
	rows, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, err
	}
	return scopedRows{Rows: rows, batch: results}, nil
}

func (b *batcher) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if b.deferred.Len() == 0 && b.open() {
		return b.conn.QueryRow(ctx, sql, args...)
	}
	return scopedRow{b.send(ctx, sql, args)}
}

func (b *batcher) send(ctx context.Context, sql string, args []any) pgx.BatchResults {
	if b.began && !b.open() { // BEGIN failed: without it, each statement would commit
		return failedBatch{errNotBegun}
	}
	b.began = true
	batch := b.deferred
	b.deferred = pgx.Batch{}
	deferred := batch.Len()
	batch.Queue(sql, args...)
	results := b.conn.SendBatch(ctx, &batch)
	for range deferred {
		_, _ = results.Exec() // the next read from the batch returns the same error
	}
	return results
}

// deferredConn implements sqlc's DBTX for statements without a result. It queues
// them, to be sent with the next statement.
type deferredConn struct{ *batcher }

func (c deferredConn) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	c.deferred.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}
