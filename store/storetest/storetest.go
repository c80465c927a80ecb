// Package storetest creates a database for each test, on a private Postgres that
// the test binary starts, and inserts fixtures for rows that no operation writes
// yet.
package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"caracal.run/management/store"
	"caracal.run/management/store/migrations"
	"caracal.run/management/store/private"
)

var servers *private.Servers

// Main starts a private Postgres and Redis, runs the tests, stops the servers and
// exits. Each test binary that uses this package calls it in TestMain.
func Main(m *testing.M) { os.Exit(Run(m.Run)) }

// Run does what Main does but returns the exit code.
func Run(tests func() int) int {
	var err error
	servers, err = private.Start(context.Background(), private.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := tests()
	if err := servers.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// A DB is one test's database.
type DB struct {
	tb   testing.TB
	name string
	pool *pgxpool.Pool // connects as the owner role, scoped to all zones
}

// Numbers that this process has used. Redis databases have their own, because there are
// few of them: two services that run at the same time must not share one.
var serial, redisSerial atomic.Int64

// New returns a clone of the migrated template database. It is dropped when the
// test ends.
func New(tb testing.TB) *DB {
	tb.Helper()
	return create(tb, " TEMPLATE "+template(tb)+" STRATEGY FILE_COPY")
}

// NewEmpty returns a database without a schema. It is dropped when the test ends.
func NewEmpty(tb testing.TB) *DB {
	tb.Helper()
	return create(tb, "")
}

func create(tb testing.TB, options string) *DB {
	tb.Helper()
	d := &DB{tb: tb, name: fmt.Sprintf("test_%d", serial.Add(1))}
	admin(tb, "CREATE DATABASE "+d.name+" OWNER "+private.Owner+options)
	config, err := pgxpool.ParseConfig(servers.PostgresURL(private.Owner, d.name))
	if err != nil {
		tb.Fatal(err)
	}
	config.ConnConfig.RuntimeParams["caracal.zone_id"] = store.AllZones
	config.MaxConns = 2
	config.MaxConnIdleTime, config.HealthCheckPeriod = time.Second, time.Second
	d.pool, err = pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		d.pool.Close()
		admin(tb, "DROP DATABASE "+d.name+" WITH (FORCE)")
	})
	return d
}

// URL returns the URL that connects as the service role.
func (d *DB) URL() string { return servers.PostgresURL(private.Service, d.name) }

// OwnerURL returns the URL that connects as the owner role.
func (d *DB) OwnerURL() string { return servers.PostgresURL(private.Owner, d.name) }

// Store opens a store that connects as the service role.
func (d *DB) Store() *store.Store {
	d.tb.Helper()
	return d.StoreWith(4)
}

// StoreWith opens a store with a number of pooled connections.
func (d *DB) StoreWith(connections int) *store.Store {
	d.tb.Helper()
	s, err := store.Open(context.Background(), store.Config{
		URL: d.URL(), Name: d.tb.Name(), PoolMax: connections, ConnectTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		StatementTimeout: 15 * time.Second, IdleInTxTimeout: 30 * time.Second,
	})
	if err != nil {
		d.tb.Fatal(err)
	}
	d.tb.Cleanup(s.Close)
	return s
}

// Disable makes the database unavailable: it closes all connections and rejects new
// ones.
func (d *DB) Disable() {
	d.tb.Helper()
	admin(d.tb, "ALTER DATABASE "+d.name+" ALLOW_CONNECTIONS false")
	admin(d.tb, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+d.name+"'")
}

// EndActiveConnections ends the connections of the service role on which a statement
// runs or a transaction is open, and waits until they have ended. The service can reconnect.
func (d *DB) EndActiveConnections() {
	d.tb.Helper()
	admin(d.tb, "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = '"+d.name+"' AND state LIKE ANY ('{active,idle in transaction%}') AND usename = '"+private.Service+"'")
}

// Enable makes the database available again.
func (d *DB) Enable() {
	d.tb.Helper()
	admin(d.tb, "ALTER DATABASE "+d.name+" ALLOW_CONNECTIONS true")
}

// Exec runs a statement as the owner role.
func (d *DB) Exec(sql string, args ...any) {
	d.tb.Helper()
	if _, err := d.pool.Exec(context.Background(), sql, args...); err != nil {
		d.tb.Fatalf("%s: %v", sql, err)
	}
}

// Value runs a query as the owner role and returns its only value.
func Value[T any](d *DB, sql string, args ...any) T {
	d.tb.Helper()
	v, err := queryValue[T](d.pool, sql, args...)
	if err != nil {
		d.tb.Fatalf("%s: %v", sql, err)
	}
	return v
}

// Column runs a query with one column as the owner role and returns its values.
func Column[T any](d *DB, sql string, args ...any) []T {
	d.tb.Helper()
	rows, err := d.pool.Query(context.Background(), sql, args...)
	if err != nil {
		d.tb.Fatalf("%s: %v", sql, err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		d.tb.Fatalf("%s: %v", sql, err)
	}
	return values
}

func queryValue[T any](pool *pgxpool.Pool, sql string, args ...any) (T, error) {
	var v T
	err := pool.QueryRow(context.Background(), sql, args...).Scan(&v)
	return v, err
}

// newTemplate creates and migrates the database that the tests of the binary
// clone. Its name contains a hash of the migrations.
var newTemplate = sync.OnceValues(func() (string, error) {
	hash := sha256.New()
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		text, err := migrations.FS.ReadFile(name)
		if err != nil {
			return "", err
		}
		_, _ = hash.Write(text) // never fails (hash.Hash)
	}
	name := "template_" + hex.EncodeToString(hash.Sum(nil)[:6])
	if err := asAdmin("CREATE DATABASE " + name + " OWNER " + private.Owner); err != nil {
		return "", err
	}
	return name, store.Migrate(context.Background(), servers.PostgresURL(private.Owner, name), func(string) {})
})

// template returns the name of the migrated template database.
func template(tb testing.TB) string {
	tb.Helper()
	if servers == nil {
		tb.Fatal("no servers: call storetest.Main in TestMain")
	}
	name, err := newTemplate()
	if err != nil {
		tb.Fatal(err)
	}
	return name
}

// admin runs a statement as the superuser.
func admin(tb testing.TB, sql string) {
	tb.Helper()
	if err := asAdmin(sql); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

var adminPool = sync.OnceValues(func() (*pgxpool.Pool, error) {
	return pgxpool.New(context.Background(), servers.PostgresURL("postgres", "postgres"))
})

func asAdmin(sql string) error {
	pool, err := adminPool()
	if err != nil {
		return err
	}
	_, err = pool.Exec(context.Background(), sql)
	return err
}

// RedisURL returns the URL of a database of the private Redis. Databases are
// reused only after all of them have been returned.
func RedisURL(tb testing.TB) string {
	tb.Helper()
	u, err := url.Parse(servers.RedisURL())
	if err != nil {
		tb.Fatal(err)
	}
	q := u.Query()
	q.Set("db", fmt.Sprint(redisSerial.Add(1)%private.RedisDatabases))
	u.RawQuery = q.Encode()
	return strings.TrimSuffix(u.String(), "?")
}
