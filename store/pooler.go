package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A modeChooser chooses how pgx executes statements. Prepared statements are the
// fastest, but a connection pooler that assigns a server connection to each
// transaction, such as PgBouncer in transaction mode, can lose them. So with a
// pooler, statements are described once per connection and not prepared
// (cache_describe), unless the database URL names a mode.
type modeChooser struct {
	mode  pgx.QueryExecMode // without a pooler
	named bool              // the URL names it

	mu     sync.Mutex
	known  bool
	pooled atomic.Bool // there is a connection pooler
}

const modeSetting = "default_query_exec_mode"

// newModeChooser returns an error if the URL names a mode that cannot encode every
// parameter: pgx then guesses its type from the Go type.
func newModeChooser(url string, config *pgx.ConnConfig) (*modeChooser, error) {
	switch config.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec:
	default:
		return nil, fmt.Errorf("database URL: %s must be cache_statement, cache_describe or describe_exec, not %s",
			modeSetting, config.DefaultQueryExecMode)
	}
	raw, err := pgconn.ParseConfig(url) // unlike pgx, it keeps the setting
	if err != nil {
		return nil, errors.New("database URL: malformed")
	}
	_, named := raw.RuntimeParams[modeSetting]
	return &modeChooser{mode: config.DefaultQueryExecMode, named: named}, nil
}

// prepares reports whether statements can be prepared on every connection.
func (m *modeChooser) prepares() bool {
	return m.mode == pgx.QueryExecModeCacheStatement && !m.pooled.Load()
}

// choose sets the mode of a new connection. For the first one, it finds out whether
// there is a pooler.
func (m *modeChooser) choose(ctx context.Context, config *pgx.ConnConfig) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.known {
		pooled, err := detectPooler(ctx, &config.Config)
		if err != nil {
			return err
		}
		m.known = true
		m.pooled.Store(pooled)
	}
	if m.pooled.Load() && !m.named {
		config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	return nil
}

// detectPooler reports whether there is a connection pooler: it gives clients
// process ids of its own, as it must distinguish those that share a server connection.
func detectPooler(ctx context.Context, config *pgconn.Config) (bool, error) {
	if config.ConnectTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, config.ConnectTimeout)
		defer cancel()
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	pid, err := backendPID(ctx, conn)
	return pid != conn.PID(), err
}

// backendPID runs statements, of which the last one selects pg_backend_pid().
func backendPID(ctx context.Context, conn *pgconn.PgConn, before ...string) (uint32, error) {
	sql := ""
	for _, statement := range before {
		sql += statement + "; "
	}
	results, err := conn.Exec(ctx, sql+"SELECT pg_backend_pid()").ReadAll()
	if err != nil {
		return 0, err
	}
	rows := results[len(results)-1].Rows
	pid, err := strconv.ParseUint(string(rows[0][0]), 10, 32)
	return uint32(pid), err
}

// Pooled reports whether there is a connection pooler between this process and
// Postgres. It is known after the first connection.
func (s *Store) Pooled() bool { return s.modes.pooled.Load() }

// CheckPooler returns an error if the database URL asks for prepared statements
// although the connection pooler loses them. If it cannot find that out, because the
// pooler has too few or too many connections, it returns nil.
func (s *Store) CheckPooler(ctx context.Context) error {
	const timeout = 2 * time.Second
	if !s.Pooled() || s.modes.mode != pgx.QueryExecModeCacheStatement || !s.modes.named {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	lost, err := losesPreparedStatements(ctx, &s.pool.Config().ConnConfig.Config)
	if !lost || err != nil {
		return nil
	}
	return fmt.Errorf("database URL: the connection pooler does not keep prepared statements, which %s=cache_statement requires: "+
		"remove the setting, or let the pooler keep them (PgBouncer 1.21 or later: max_prepared_statements)", modeSetting)
}

// losesPreparedStatements prepares a statement and executes it again while other
// transactions occupy the server connection on which it was prepared.
func losesPreparedStatements(ctx context.Context, config *pgconn.Config) (bool, error) {
	const maxOthers = 8 // transactions that are begun to occupy the connection
	name := "probe_" + rand.Text()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx)
	pid, err := backendPID(ctx, conn, "BEGIN")
	if err != nil {
		return false, err
	}
	if _, err := conn.Prepare(ctx, name, "SELECT 1", nil); err != nil {
		return false, err
	}
	if err := conn.Exec(ctx, "COMMIT").Close(); err != nil {
		return false, err
	}
	for range maxOthers {
		other, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			return false, err
		}
		defer other.Close(ctx) // ends the transaction
		occupied, err := backendPID(ctx, other, "BEGIN")
		if err != nil {
			return false, err
		}
		if occupied == pid {
			break
		}
	}
	err = conn.ExecPrepared(ctx, name, nil, nil, nil).Read().Err
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "26000", nil // invalid_sql_statement_name
}

// connect opens a connection that is not from the pool.
func (s *Store) connect(ctx context.Context) (*pgx.Conn, error) {
	config := s.pool.Config().ConnConfig
	if err := s.modes.choose(ctx, config); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}
