//go:build faults

package faults_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/code"
	"caracal.run/management/store/private"
)

func TestPostgresFailureLosesNothing(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		inject   func(*testing.T, *backends)
		duration time.Duration
		restore  func(*testing.T, *backends)
		canRead  bool // reads succeed during the fault
	}{
		{"killed", func(t *testing.T, b *backends) {
			if err := b.servers.Postgres().Kill(); err != nil {
				t.Fatal(err)
			}
		}, time.Second, restartPostgres, false},
		{"paused", func(t *testing.T, b *backends) {
			if err := b.servers.Postgres().Pause(); err != nil {
				t.Fatal(err)
			}
		}, maxRequestTime + time.Second, func(_ *testing.T, b *backends) { b.servers.Postgres().Resume() }, false},
		{"restarted", restartPostgres, 0, func(*testing.T, *backends) {}, false},
		{"out of connections", outOfConnections, 2 * time.Second, func(_ *testing.T, b *backends) {
			b.superuser("ALTER ROLE "+private.Service+" CONNECTION LIMIT -1",
				"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'other-client'")
		}, false},
		{"read-only", func(_ *testing.T, b *backends) {
			b.superuser("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
		}, 2 * time.Second, func(_ *testing.T, b *backends) {
			b.superuser("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBackends(t)
			s := b.start("api")
			l := b.startLoadOn(s)
			before := l.runFor(300 * time.Millisecond)
			l.allowFailures()
			tt.inject(t, b)
			time.Sleep(tt.duration)
			during := l.takeCounts()
			if tt.duration > 0 {
				if during.unavailable == 0 {
					t.Error("during the fault, no request got status 503")
				}
				if status, body := s.get("/health"); status != http.StatusOK {
					t.Errorf("during the fault, /health returned %d %s, want %d", status, body, http.StatusOK)
				}
			}
			if tt.canRead && during.reads == 0 {
				t.Error("during the fault, no read succeeded")
			}
			tt.restore(t, b)
			took := l.waitRecovered(5 * time.Second)
			after := l.runFor(300 * time.Millisecond)
			l.stop()
			if status, body := s.get("/ready"); status != http.StatusOK {
				t.Errorf("after the fault, /ready returned %d %s, want %d", status, body, http.StatusOK)
			}
			b.waitIdle(s)
			// The publisher must not publish the same event over and over while it
			// cannot mark it as dispatched. Streams have a maximum length, so the
			// duplicates would evict entries that consumers have not read.
			if n := b.checkInvariants(l); n > 2 {
				t.Errorf("an event was published %d times, want at most 2", n)
			}
			s.terminate()
			t.Logf("before: %v\nduring: %v\nrecovered after %v\nafter: %v", before, during, took.Round(time.Millisecond), after)
		})
	}
}

func restartPostgres(t *testing.T, b *backends) {
	if err := b.servers.Postgres().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// outOfConnections limits the number of connections of the service role, opens
// that many itself, and terminates those of the service.
func outOfConnections(t *testing.T, b *backends) {
	const limit = 4
	config, err := pgx.ParseConfig(b.servers.PostgresURL(private.Service, "caracal"))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = "other-client"
	for range limit {
		conn, err := pgx.ConnectConfig(context.Background(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	b.superuser(fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", private.Service, limit),
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+private.Service+"' AND application_name <> 'other-client'")
}

func TestRequestsFailFastWhilePostgresIsDown(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	s := b.start("api")
	if err := b.servers.Postgres().Kill(); err != nil {
		t.Fatal(err)
	}
	if status, body := s.get("/ready"); status != http.StatusServiceUnavailable || codeOf(body) != "postgres_unreachable" {
		t.Errorf("/ready returned %d %s, want %d %q", status, body, http.StatusServiceUnavailable, "postgres_unreachable")
	}
	began := time.Now()
	if status, body := s.get("/v1/zones"); status != http.StatusServiceUnavailable || codeOf(body) != code.ServiceUnavailable {
		t.Errorf("a read returned %d %s, want %d %q", status, body, http.StatusServiceUnavailable, code.ServiceUnavailable)
	}
	if took := time.Since(began); took > connectTimeout+time.Second {
		t.Errorf("the read returned after %v, want at most %v", took, connectTimeout+time.Second)
	}
	restartPostgres(t, b)
	eventually(t, 5*time.Second, "the service serves again", func() bool { status, _ := s.get("/v1/zones"); return status == http.StatusOK })
	s.terminate()
}
