// Package store reads and writes the database: rows, their audit entries and
// the events to publish.
//
// Reads are methods of [Store], scoped to one actor ([Store.For]). Writes are
// methods of [Tx]: each changes a row and records the change in the same
// transaction ([Store.InTx]). The generated queries are unexported, so no row
// can change without an audit entry.
//
// The package does not depend on HTTP. Its errors are [code.Code] values.
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

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// AllZones is the scope of an actor that can access every zone. NoZone is the
// zone_id of rows that belong to no zone.
const (
	AllZones = "*"
	NoZone   = "-"
)

// An Actor identifies who reads or writes. The zero Actor can access no zone.
type Actor struct {
	ID         string // the admin token's id; empty for the service itself
	Name       string
	Zone       string // AllZones, or the only zone that this actor can access
	Bootstrap  bool   // can change reserved objects, which belong to Caracal itself
	CanApprove bool   // has approval permission, and can give it to admin tokens
}

// System is the service itself, acting without a request.
var System = Actor{Name: "caracald", Zone: AllZones, Bootstrap: true}

// Global reports whether the actor can access all zones.
func (a Actor) Global() bool { return a.Zone == AllZones }

// A Store reads within one actor's scope and opens transactions.
type Store struct {
	*core
	actor  Actor
	q      *db.Queries // each query on a connection of its own
	shared *db.Queries // reads of a bounded size, which share connections
	frozen db.DBTX     // not nil: every read sees the same snapshot; see InSnapshot
}

// A core contains what the stores of all actors share.
type core struct {
	pool            *pool
	pipelines       *pipelines
	modes           *modeChooser
	timeouts        timeouts
	committed       chan struct{} // see Store.Committed
	recorded        chan struct{} // see Store.Recorded
	keys            *seal.Keys
	controlAudience string
	maxResources    int64
}

// A pool is a connection pool with an acquire timeout. Transactions can wait
// for each other's locks, so they are limited in number: some connections stay
// free for reads.
type pool struct {
	*pgxpool.Pool
	acquireTimeout time.Duration // also the connect timeout
	writers        chan struct{} // semaphore that limits the open transactions
	exports        chan struct{} // semaphore that limits the open snapshots
}

func (p *pool) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.acquireTimeout)
	defer cancel()
	return p.Acquire(ctx)
}

// SendBatch sends a batch on a pooled connection, which is released when the
// batch is closed.
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

// failedBatch is the result of a batch that could not be sent.
type failedBatch struct{ error }

func (b failedBatch) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, b.error }
func (b failedBatch) Query() (pgx.Rows, error)         { return nil, b.error }
func (b failedBatch) QueryRow() pgx.Row                { return b }
func (b failedBatch) Scan(...any) error                { return b.error }
func (b failedBatch) Tx() pgx.Tx                       { return nil }
func (b failedBatch) Close() error                     { return b.error }

// Config configures a store.
type Config struct {
	URL              string // connects as the service role
	Name             string // application_name, shown in pg_stat_activity
	PoolMax          int
	ConnectTimeout   time.Duration
	IdleTimeout      time.Duration // idle connections are closed after this time
	StatementTimeout time.Duration
	IdleInTxTimeout  time.Duration

	Keys            *seal.Keys // key-encryption keys; nil if the store never seals or opens secrets
	ControlAudience string     // identifier of the control resource, which represents the Control API
	MaxResources    int        // per zone; 0 is no limit
}

// Open returns a store, or an error if the URL is malformed. It does not wait for
// Postgres: while the database is unreachable, the store's methods return
// service_unavailable.
func Open(ctx context.Context, c Config) (*Store, error) {
	config, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, errors.New("database URL: malformed") // pgx's error quotes the URL, which can contain the password
	}
	config.MaxConns = int32(c.PoolMax)
	config.MaxConnIdleTime = c.IdleTimeout
	config.HealthCheckPeriod = max(time.Second, c.IdleTimeout/2) // how often idle connections are closed
	config.ConnConfig.ConnectTimeout = c.ConnectTimeout
	// Connection poolers accept these two. They refuse timeouts, which are set in each
	// transaction instead (scopeSettings).
	config.ConnConfig.RuntimeParams["application_name"] = c.Name
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	modes, err := newModeChooser(c.URL, config.ConnConfig)
	if err != nil {
		return nil, err
	}
	config.BeforeConnect = modes.choose
	connections, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	writers, exports := max(1, c.PoolMax-max(1, c.PoolMax/4)), max(1, c.PoolMax/8)
	s := &Store{core: &core{
		pool:      &pool{Pool: connections, acquireTimeout: c.ConnectTimeout, writers: make(chan struct{}, writers), exports: make(chan struct{}, exports)},
		modes:     modes,
		timeouts:  newTimeouts(c),
		committed: make(chan struct{}, 1),
		recorded:  make(chan struct{}, 1),
		keys:      c.Keys, controlAudience: c.ControlAudience, maxResources: int64(c.MaxResources),
	}}
	if c.MaxResources == 0 {
		s.maxResources = math.MaxInt64
	}
	s.pipelines = newPipelines(s)
	return s.For(Actor{}), nil
}

// Timeouts of Postgres. They are set in each transaction, and so hold on any connection
// that a pooler assigns to it.
type timeouts struct {
	statement any    // a string, in milliseconds: a parameter of the settings of a read
	search    any    // the same for a search
	settings  string // a statement that sets a transaction's scope, its parameter, and its timeouts
}

func newTimeouts(c Config) timeouts {
	const lock = 3 * time.Second   // a transaction that waits for a zone lock occupies a connection
	const search = 5 * time.Second // of the rows that match several filters
	text := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return timeouts{text(c.StatementTimeout), text(min(c.StatementTimeout, search)), "SELECT set_config('caracal.zone_id', $1, true), " +
		"set_config('statement_timeout', '" + text(c.StatementTimeout) + "', true), " +
		"set_config('lock_timeout', '" + text(lock) + "', true), " +
		"set_config('idle_in_transaction_session_timeout', '" + text(c.IdleInTxTimeout) + "', true)"}
}

// Close waits until every connection is released, and closes all of them.
func (s *Store) Close() {
	s.pipelines.close()
	s.pool.Close()
}

// Stat returns the pool's statistics.
func (s *Store) Stat() *pgxpool.Stat { return s.pool.Stat() }

// Ping returns service_unavailable if Postgres does not respond.
func (s *Store) Ping(ctx context.Context) error {
	conn, err := s.pool.acquire(ctx)
	if err != nil {
		return mapError(err)
	}
	defer conn.Release()
	return mapError(conn.Ping(ctx))
}

// Committed returns a channel that receives a value after a transaction of this
// process has committed events. It has one receiver.
func (s *Store) Committed() <-chan struct{} { return s.committed }

// For returns the store scoped to an actor.
func (s *Store) For(actor Actor) *Store {
	pooled := s.scoped(s.pool, actor.Zone)
	return &Store{core: s.core, actor: actor, q: db.New(pooled), shared: db.New(sharedReads{pipelines: s.pipelines, pooled: pooled})}
}

// inOrder returns the queries for pages of lists, which share connections like others of
// a bounded size, with setListScope.
func (s *Store) inOrder() *db.Queries { return db.New(s.listReads(s.actor.Zone)) }

// listReads returns the connection of inOrder for the rows of a zone, which are the only
// ones that a global actor can see through it.
func (s *Store) listReads(zone string) db.DBTX {
	if s.frozen != nil {
		return s.frozen
	}
	return sharedReads{pipelines: s.pipelines, pooled: s.listScope(zone)}
}

// searchReads is like listReads, for pages of lists whose rows match several filters. No
// index has all of the filters, so that Postgres can read any number of rows: they have a
// connection of their own, and less time.
func (s *Store) searchReads(zone string) db.DBTX {
	if s.frozen != nil {
		return s.frozen
	}
	pooled := s.listScope(zone)
	pooled.statementTimeout = s.timeouts.search
	return pooled
}

func (s *Store) listScope(zone string) scoped {
	if !s.actor.Global() {
		zone = s.actor.Zone
	}
	pooled := s.scoped(s.pool, zone)
	pooled.settings = setListScope
	return pooled
}

// filtersTooBroad returns filters_too_broad in place of the error of a search that took
// too long.
func filtersTooBroad(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == queryCanceled {
		return code.FiltersTooBroad.Because(err)
	}
	return err
}

// scoped implements sqlc's DBTX. It sends each read together with the setting
// that row-level security requires and the timeout, in one batch: one round trip,
// one implicit transaction, no session state left on the connection.
type scoped struct {
	conn             batchSender
	settings         string // setScope or setListScope
	zone             string
	statementTimeout any // a string; converted once, not for each read
}

type batchSender interface {
	SendBatch(context.Context, *pgx.Batch) pgx.BatchResults
}

func (c *core) scoped(conn batchSender, zone string) scoped {
	return scoped{conn, setScope, zone, c.timeouts.statement}
}

const setScope = "SELECT set_config('caracal.zone_id', $1, true), set_config('statement_timeout', $2, true)"

// setListScope also makes Postgres read a page from an index that has the order of the
// list, with a plan for any parameters. With such a plan, it underestimates how many rows
// pass the filters and row-level security, and would collect and sort all rows of the list
// instead, or make a plan for each page.
const setListScope = setScope + ", " + listPlans

const listPlans = "set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true)"

func (s scoped) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	results := s.send(ctx, sql, args)
	tag, err := results.Exec()
	if closeErr := results.Close(); err == nil {
		err = closeErr
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

// send sends the batch and reads the result of the first statement, the settings.
// It ignores an error: the next read from the batch returns the same error.
func (s scoped) send(ctx context.Context, sql string, args []any) pgx.BatchResults {
	var batch pgx.Batch
	batch.Queue(s.settings, s.zone, s.statementTimeout)
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

func (r scopedRow) Scan(dest ...any) error {
	err := r.batch.QueryRow().Scan(dest...)
	if closeErr := r.batch.Close(); err == nil {
		err = closeErr
	}
	return mapError(err)
}
