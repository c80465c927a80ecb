package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// shared runs a query with one column on a connection that reads share.
func shared[T any](ctx context.Context, s *store.Store, sql string, args ...any) ([]T, error) {
	rows, err := s.SharedQuery(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// Requests of many zones that share connections never see each other's rows, whatever
// happens to their neighbors: errors, cancellations, lost connections.
func TestSharedReadsAreIsolated(t *testing.T) {
	t.Parallel()
	const zones, readers, reads = 8, 32, 60
	d := storetest.New(t)
	s := d.Store()
	s.ConnectShared()
	for n := range zones {
		d.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, 'Zone', $1, false)", fmt.Sprint("zone-", n))
	}
	stop := make(chan struct{})
	var killer, all sync.WaitGroup
	killer.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				d.EndActiveConnections()
			}
		}
	})
	for n := range readers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			for range reads {
				own := fmt.Sprint("zone-", r.IntN(zones))
				scoped := s.For(store.Actor{Zone: own})
				switch r.IntN(5) {
				case 0:
					if _, err := shared[int](t.Context(), scoped, "SELECT 1 / (random() * 0)::integer"); err == nil {
						t.Error("a division by zero succeeded")
					}
				case 1:
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(2000))*time.Microsecond)
					ids, err := shared[string](ctx, scoped, "SELECT id FROM zones")
					cancel()
					if err == nil && (len(ids) != 1 || ids[0] != own) {
						t.Errorf("%s sees %v", own, ids)
					}
				default:
					ids, err := shared[string](t.Context(), scoped, "SELECT id FROM zones")
					if err != nil { // a pooled connection was lost too
						continue
					}
					if len(ids) != 1 || ids[0] != own {
						t.Errorf("%s sees %v", own, ids)
					}
				}
			}
		})
	}
	all.Wait()
	close(stop)
	killer.Wait()
	if ids, err := shared[string](t.Context(), s.For(store.Actor{}), "SELECT id FROM zones"); err != nil || len(ids) > 0 {
		t.Errorf("without a zone: %v, %v", ids, err)
	}
}

// Slow statements delay their neighbors for a limited time, whether one is slow or many
// are, and are not canceled for their sake.
func TestSlowReadsDelayOthersForLimitedTime(t *testing.T) {
	t.Parallel()
	// Waiting to be taken and for the neighbors, a margin for a busy machine, and then
	// the read itself on a pooled connection.
	const bound = 4 * time.Second
	for _, tt := range []struct {
		name  string
		slow  int
		sleep float64 // seconds
	}{
		{"a few", 3, 2.5}, {"many, each within the limit of a statement", 24, 0.7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := storetest.New(t).StoreWith(40).For(store.System)
			s.ConnectShared()
			var slow, others sync.WaitGroup
			for range tt.slow {
				slow.Go(func() {
					began := time.Now()
					if got, err := shared[string](t.Context(), s, "SELECT 'slow' FROM pg_sleep($1)", tt.sleep); err != nil || len(got) != 1 {
						t.Errorf("the slow read: %v, %v", got, err)
					}
					if took := time.Since(began); took.Seconds() < tt.sleep {
						t.Errorf("the slow read took %v", took)
					}
				})
			}
			time.Sleep(100 * time.Millisecond)
			for range 20 {
				others.Go(func() {
					began := time.Now()
					if _, err := shared[int](t.Context(), s, "SELECT 1"); err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > bound {
						t.Errorf("a read took %v", took)
					}
				})
			}
			others.Wait()
			slow.Wait()
		})
	}
}

// While Postgres does not answer, reads wait no longer than for a pooled connection.
func TestSharedReadsFailAsFastAsPooledOnes(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	s.ConnectShared()
	d.Disable()
	defer d.Enable()
	began := time.Now()
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if _, err := shared[int](t.Context(), s, "SELECT 1"); !errors.Is(err, code.ServiceUnavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("200 reads took %v", took)
	}
}

// A reader whose context ends does not wait for a neighbor.
func TestCanceledSharedReadReturnsAtOnce(t *testing.T) {
	t.Parallel()
	s := storetest.New(t).Store().For(store.System)
	s.ConnectShared()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if _, err := shared[string](ctx, s, "SELECT 'x' FROM pg_sleep(0.9)"); err == nil {
				t.Error("it returned no error")
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > 600*time.Millisecond {
		t.Errorf("canceled reads returned after %v", took)
	}
	if got, err := shared[int](t.Context(), s, "SELECT 1"); err != nil || got[0] != 1 {
		t.Errorf("the next read: %v, %v", got, err)
	}
}

// Reads that are in progress when their connection is lost are run again.
func TestSharedReadSurvivesLostConnection(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	for lost := 0; lost < 5; {
		s.ConnectShared()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if got, err := shared[int](t.Context(), s, "SELECT 1 FROM pg_sleep(0.1)"); err != nil || len(got) != 1 {
					t.Errorf("%v, %v", got, err)
				}
			})
		}
		time.Sleep(50 * time.Millisecond)  // all reads together take less than the limit of a pipeline
		if s.Stat().AcquiredConns() == 0 { // a read that has waited for a shared connection for too long has taken one
			d.EndActiveConnections()
			lost++
		}
		all.Wait()
	}
}

// The results and errors of a shared read are those of a pooled one.
func TestSharedReadsReturnWhatPooledReadsReturn(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store().For(store.System)
	s.ConnectShared()
	type row struct {
		Text, Null *string
		Bytes      []byte
		Number     int64
		Time       time.Time
		List       []string
		Raw        []byte
	}
	read := func(query func(context.Context, string, ...any) (pgx.Rows, error), sql string, args ...any) (any, error) {
		rows, err := query(t.Context(), sql, args...)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	}
	const columns = "SELECT $1::text, CASE WHEN n % 2 = 0 THEN n::text END, CASE n % 3 WHEN 0 THEN '\\x00ff'::bytea WHEN 1 THEN '' END, n, " +
		"timestamptz '2026-01-02 03:04:05.678901+00' - n * interval '1.3 years', ARRAY['', 'x'], '{\"a\": [1]}'::jsonb "
	for _, tt := range []struct {
		sql  string
		args []any
	}{
		{columns + "FROM generate_series(1, 300) AS n", []any{"ü"}},
		{columns + "FROM generate_series(1, 3) AS n", []any{""}},
		{columns + "FROM generate_series(1, 0) AS n", []any{""}},
		{"SELECT $1::text, NULL::text, ''::bytea, n, 'infinity'::timestamptz, ARRAY[''], '{}'::jsonb FROM generate_series(1, 1) AS n", []any{""}},
		{columns + "FROM (SELECT 1 / $2::integer AS n) AS n", []any{"", 0}},
		{columns + "FROM generate_series(1, 1) AS n", []any{"", "too many"}},
		{"SELECT no_column", nil},
		{"not SQL", nil},
	} {
		pooled, pooledErr := read(s.PooledQuery, tt.sql, tt.args...)
		for range 2 {
			got, err := read(s.SharedQuery, tt.sql, tt.args...)
			var pg, pooledPg *pgconn.PgError
			if errors.As(pooledErr, &pooledPg) != errors.As(err, &pg) || pg != nil && pg.Code != pooledPg.Code || (err == nil) != (pooledErr == nil) {
				t.Errorf("%s: error %v, want %v", tt.sql, err, pooledErr)
			}
			if pooledErr == nil && !reflect.DeepEqual(got, pooled) {
				t.Errorf("%s: got %v, want %v", tt.sql, got, pooled)
			}
		}
	}
	// The schema can change while statements are prepared.
	d.Exec("CREATE TABLE changing (id text); INSERT INTO changing VALUES ('x'); GRANT SELECT ON changing TO caracal_service")
	for _, change := range []string{"SELECT 1", "ALTER TABLE changing ALTER COLUMN id TYPE varchar(20)"} {
		d.Exec(change)
		if got, err := shared[string](t.Context(), s, "SELECT * FROM changing"); err != nil || len(got) != 1 {
			t.Errorf("after %s: %v, %v", change, got, err)
		}
	}
}
