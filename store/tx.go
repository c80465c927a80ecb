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
	*house
	cause   Cause
	q       *db.Queries
	first   *queue
	entries []entry
	events  []event
	rearmed bool // an event that was there is pending again
}

// InTx runs fn in a transaction and commits when fn returns nil. After a
// deadlock or a serialization failure it runs fn again, three times in all, so
// fn must be repeatable and touch nothing outside the transaction.
func (s *Store) InTx(ctx context.Context, cause Cause, fn func(*Tx) error) error {
	const tries = 3
	ctx, span := trace.SpanFromContext(ctx).TracerProvider().Tracer("caracal.run/management/store").Start(ctx, "transaction")
	defer span.End()
	for n := 1; ; n++ {
		err := s.try(ctx, cause, fn)
		if n == tries || !again(err) {
			return translate(err)
		}
		pause := 10*time.Millisecond<<(n-1) + rand.N(10*time.Millisecond)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return translate(ctx.Err())
		}
	}
}

func (s *Store) try(ctx context.Context, cause Cause, fn func(*Tx) error) error {
	turn, cancel := context.WithTimeout(ctx, s.pool.patience)
	defer cancel()
	select {
	case s.pool.writers <- struct{}{}:
		defer func() { <-s.pool.writers }()
	case <-turn.Done():
		return turn.Err()
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
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.pool.patience)
		defer cancel()
		_ = pgtx.Rollback(undo)
	}()

	tx := &Tx{house: s.house, cause: cause, first: &queue{tx: pgtx}}
	tx.q = db.New(tx.first)
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.writeRecords(ctx); err != nil { // the context names the trace that events belong to
		return err
	}
	if err := pgtx.Commit(ctx); err != nil {
		return err
	}
	if len(tx.events) > 0 || tx.rearmed {
		select {
		case s.emitted <- struct{}{}:
		default: // the publisher has been woken and not yet looked
		}
	}
	return nil
}

// A guard is how a transaction holds the zone that it writes below.
type guard bool

const (
	together guard = false // with others that emit no event
	alone    guard = true  // and nobody else writes below it: the order of events must be the order of commits
)

// lockZone holds a live zone: nobody changes it until the transaction ends.
// The locks are sent together with the read that relies on them, but before it
// and as statements of their own: a statement sees what was committed before it
// began, and it began before it waited.
func (tx *Tx) lockZone(ctx context.Context, id string, how guard) (db.Zone, error) {
	if err := tx.guard(ctx, id, how); err != nil {
		return db.Zone{}, err
	}
	zone, err := tx.q.LockZone(ctx, id)
	return tx.mayChange(zone, err)
}

// withinZone lets a transaction write below a live zone.
func (tx *Tx) withinZone(ctx context.Context, id string, how guard) (db.Zone, error) {
	if err := tx.guard(ctx, id, how); err != nil {
		return db.Zone{}, err
	}
	zone, err := tx.q.GetZone(ctx, id)
	return tx.mayChange(zone, err)
}

func (tx *Tx) mayChange(zone db.Zone, err error) (db.Zone, error) {
	if err != nil {
		return zone, missing(err, code.ZoneNotFound)
	}
	if zone.Reserved && !tx.cause.Actor.Bootstrap {
		return zone, code.SystemZoneReadOnly
	}
	return zone, nil
}

func (tx *Tx) guard(ctx context.Context, zone string, how guard) error {
	later := db.New(queued{tx.first})
	if how == alone {
		return later.GuardZoneAlone(ctx, zone)
	}
	return later.GuardZone(ctx, zone)
}

// A queue stands where sqlc expects a connection. What was put into it goes out
// with the next statement, in one round trip.
type queue struct {
	tx      pgx.Tx
	waiting pgx.Batch
}

func (q *queue) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if q.waiting.Len() == 0 {
		return q.tx.Exec(ctx, sql, args...)
	}
	results := q.send(ctx, sql, args)
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, err
}

func (q *queue) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if q.waiting.Len() == 0 {
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

func (q *queue) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if q.waiting.Len() == 0 {
		return q.tx.QueryRow(ctx, sql, args...)
	}
	return scopedRow{q.send(ctx, sql, args)}
}

func (q *queue) send(ctx context.Context, sql string, args []any) pgx.BatchResults {
	batch := q.waiting
	q.waiting = pgx.Batch{}
	before := batch.Len()
	batch.Queue(sql, args...)
	results := q.tx.SendBatch(ctx, &batch)
	for range before {
		_, _ = results.Exec() // an error comes again with what is read next
	}
	return results
}

// queued puts statements into a queue instead of sending them.
type queued struct{ *queue }

func (q queued) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	q.waiting.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}
