// Package store keeps what is true: rows, their audit entries and the events
// that others must hear.
//
// Reads are methods of [Store], as seen by one actor ([Store.For]). Writes are
// methods of [Tx]: each changes a row and records what changed, in one
// transaction ([Store.InTx]). The generated queries stay unexported: no row
// changes untraced.
//
// The package knows nothing of HTTP. What it refuses, it refuses with a
// [code.Code].
package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// AllZones is the scope of who may see every zone. NoZone is the zone of rows
// that belong to none.
const (
	AllZones = "*"
	NoZone   = "-"
)

// An Actor is who reads or writes. The zero Actor sees nothing.
type Actor struct {
	ID        string // of the admin token; empty for the service itself
	Name      string
	Zone      string // AllZones, or the only zone that this actor may see
	Bootstrap bool   // may change what belongs to Caracal itself
}

// System is the service itself, when it acts without having been asked.
var System = Actor{Name: "caracald", Zone: AllZones, Bootstrap: true}

// Global says whether the actor is for all zones.
func (a Actor) Global() bool { return a.Zone == AllZones }

// A Store reads as one actor sees, and opens transactions.
type Store struct {
	*core
	actor Actor
	q     *db.Queries
}

// A core is what the stores of all actors share.
type core struct {
	pool            *pool
	committed       chan struct{}
	keys            *seal.Keys
	controlAudience string
	maxResources    int64
}

// A pool gives out connections, and waits for one no longer than it may take to
// make one. Transactions leave some for reads: they may wait for each other's
// locks, and nobody else should have to wait with them.
type pool struct {
	*pgxpool.Pool
	acquireTimeout time.Duration
	writers        chan struct{}
}

func (p *pool) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.acquireTimeout)
	defer cancel()
	return p.Acquire(ctx)
}

// SendBatch sends a batch on a connection that goes back when the batch is
// closed.
func (p *pool) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	conn, err := p.acquire(ctx)
	if err != nil {
		return failedBatch{err}
	}
	return pooledBatch{conn.SendBatch(ctx, batch), conn}
}

type pooledBatch struct {
	pgx.BatchResults
	conn *pgxpool.Conn
}

func (b pooledBatch) Close() error {
	defer b.conn.Release()
	return b.BatchResults.Close()
}

// failedBatch is a batch that could not be sent.
type failedBatch struct{ error }

func (n failedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, n.error }
func (n failedBatch) Query() (pgx.Rows, error)         { return nil, n.error }
func (n failedBatch) QueryRow() pgx.Row                { return n }
func (n failedBatch) Scan(...any) error                { return n.error }
func (n failedBatch) Tx() pgx.Tx                       { return nil }
func (n failedBatch) Close() error                     { return n.error }

// Config says how to reach Postgres.
type Config struct {
	URL              string // in the service's role
	Name             string // application_name, by which the database's administrator knows us
	PoolMax          int
	ConnectTimeout   time.Duration
	IdleTimeout      time.Duration // after which a connection that nobody uses is closed
	StatementTimeout time.Duration
	IdleInTxTimeout  time.Duration

	Keys            *seal.Keys // wrap the keys that seal secrets; nil: there are no secrets to seal
	ControlAudience string     // the identifier of the control resource (contract: resources.md)
	MaxResources    int        // in a zone; 0 is no limit
}

// Open makes a store. It does not wait for Postgres: a store whose database is
// away refuses with service_unavailable until it is back.
func Open(ctx context.Context, c Config) (*Store, error) {
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, errors.New("database URL: it cannot be read") // pgx quotes it, and with it perhaps the password
	}
	config.MaxConns = int32(c.PoolMax)
	config.MaxConnIdleTime = c.IdleTimeout
	config.ConnConfig.ConnectTimeout = c.ConnectTimeout
	for name, value := range map[string]string{
		"application_name":                    c.Name,
		"timezone":                            "UTC",
		"statement_timeout":                   strconv.FormatInt(c.StatementTimeout.Milliseconds(), 10),
		"idle_in_transaction_session_timeout": strconv.FormatInt(c.IdleInTxTimeout.Milliseconds(), 10),
		"lock_timeout":                        "3s", // who waits for a busy zone holds a connection
	} {
		config.ConnConfig.RuntimeParams[name] = value
	}
	connections, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	writers := max(1, c.PoolMax-max(1, c.PoolMax/4))
	s := &Store{core: &core{
		pool:      &pool{Pool: connections, acquireTimeout: c.ConnectTimeout, writers: make(chan struct{}, writers)},
		committed: make(chan struct{}, 1),
		keys:      c.Keys, controlAudience: c.ControlAudience, maxResources: int64(c.MaxResources),
	}}
	if c.MaxResources == 0 {
		s.maxResources = math.MaxInt64
	}
	return s.For(Actor{}), nil
}

// Close waits until every connection is given back, and closes them.
func (s *Store) Close() { s.pool.Close() }

// Stat is the pool's state, for metrics.
func (s *Store) Stat() *pgxpool.Stat { return s.pool.Stat() }

// Ping says whether Postgres answers.
func (s *Store) Ping(ctx context.Context) error {
	conn, err := s.pool.acquire(ctx)
	if err != nil {
		return mapError(err)
	}
	defer conn.Release()
	return mapError(conn.Ping(ctx))
}

// Committed has a token after a transaction of this process has committed events.
func (s *Store) Committed() <-chan struct{} { return s.committed }

// For is the store as the actor may see it.
func (s *Store) For(actor Actor) *Store {
	return &Store{core: s.core, actor: actor, q: db.New(scoped{conn: s.pool, zone: actor.Zone})}
}

// scoped stands where sqlc expects a connection. It sends each read together
// with the setting that row-level security asks for, in one batch: one round
// trip, one implicit transaction, and nothing left behind on the connection.
type scoped struct {
	conn interface {
		SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
	}
	zone string
}

const setZone = "SELECT set_config('caracal.zone_id', $1, true)"

func (s scoped) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	results := s.send(ctx, sql, args)
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, mapError(err)
}

func (s scoped) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	results := s.send(ctx, sql, args)
	rows, err := results.Query()
	if err != nil {
		_ = results.Close()
		return nil, mapError(err)
	}
	return scopedRows{Rows: rows, batch: results}, nil
}

func (s scoped) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return scopedRow{s.send(ctx, sql, args)}
}

// send starts the batch and reads past the setting. If that fails, so does
// whatever is read next.
func (s scoped) send(ctx context.Context, sql string, args []any) pgx.BatchResults {
	var batch pgx.Batch
	batch.Queue(setZone, s.zone)
	batch.Queue(sql, args...)
	results := s.conn.SendBatch(ctx, &batch)
	_, _ = results.Exec()
	return results
}

type scopedRows struct {
	pgx.Rows
	batch pgx.BatchResults
}

func (r scopedRows) Close() {
	r.Rows.Close()
	_ = r.batch.Close()
}

func (r scopedRows) Err() error { return mapError(r.Rows.Err()) }

type scopedRow struct{ batch pgx.BatchResults }

func (r scopedRow) Scan(into ...any) error {
	err := r.batch.QueryRow().Scan(into...)
	if closed := r.batch.Close(); err == nil {
		err = closed
	}
	return mapError(err)
}
