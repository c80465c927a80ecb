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

func TestNothingIsLostWhenPostgresIs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		hurt  func(*testing.T, *world)
		lasts time.Duration
		mend  func(*testing.T, *world)
		reads bool // go on
	}{
		{"killed", func(t *testing.T, w *world) {
			if err := w.servers.Postgres().Kill(); err != nil {
				t.Fatal(err)
			}
		}, time.Second, restartPostgres, false},
		{"paused", func(t *testing.T, w *world) {
			if err := w.servers.Postgres().Pause(); err != nil {
				t.Fatal(err)
			}
		}, bound + time.Second, func(_ *testing.T, w *world) { w.servers.Postgres().Resume() }, false},
		{"restarted", restartPostgres, 0, func(*testing.T, *world) {}, false},
		{"out of connections", outOfConnections, 2 * time.Second, func(_ *testing.T, w *world) {
			w.superuser("ALTER ROLE "+private.Service+" CONNECTION LIMIT -1",
				"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'greedy'")
		}, false},
		{"read-only", func(_ *testing.T, w *world) {
			w.superuser("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
		}, 2 * time.Second, func(_ *testing.T, w *world) {
			w.superuser("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := w.start("api")
			l := w.on(s)
			before := l.lasts(300 * time.Millisecond)
			l.breaking()
			tt.hurt(t, w)
			time.Sleep(tt.lasts)
			during := l.take()
			if tt.lasts > 0 {
				if during.refused == 0 {
					t.Error("nobody noticed")
				}
				if status, body := s.get("/health"); status != http.StatusOK {
					t.Errorf("/health answers %d %s", status, body)
				}
			}
			if tt.reads && during.read == 0 {
				t.Error("nobody could read")
			}
			tt.mend(t, w)
			took := l.recovers(5 * time.Second)
			after := l.lasts(300 * time.Millisecond)
			l.stop()
			if status, body := s.get("/ready"); status != http.StatusOK {
				t.Errorf("/ready answers %d %s", status, body)
			}
			w.settles(s)
			// A stream has an end: what is sent again and again pushes out what
			// nobody has read yet.
			if most := w.keeps(l); most > 2 {
				t.Errorf("an event was sent %d times, because it could not be marked", most)
			}
			s.terminate()
			t.Logf("before: %v\nduring: %v\nrecovered after %v\nafter: %v", before, during, took.Round(time.Millisecond), after)
		})
	}
}

func restartPostgres(t *testing.T, w *world) {
	if err := w.servers.Postgres().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// outOfConnections has a neighbour take every connection that there is for the
// service's role, those that the service has among them.
func outOfConnections(t *testing.T, w *world) {
	const most = 4
	config, err := pgx.ParseConfig(w.servers.PostgresURL(private.Service, "caracal"))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = "greedy"
	for range most {
		conn, err := pgx.ConnectConfig(context.Background(), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
	}
	w.superuser(fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", private.Service, most),
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+private.Service+"' AND application_name <> 'greedy'")
}

func TestWhileAwayPostgresIsNamedAndRefusalsAreSoon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.start("api")
	if err := w.servers.Postgres().Kill(); err != nil {
		t.Fatal(err)
	}
	if status, body := s.get("/ready"); status != http.StatusServiceUnavailable || codeOf(body) != "postgres_unreachable" {
		t.Errorf("/ready answers %d %s", status, body)
	}
	began := time.Now()
	if status, body := s.get("/v1/zones"); status != http.StatusServiceUnavailable || codeOf(body) != code.ServiceUnavailable {
		t.Errorf("a read is answered %d %s", status, body)
	}
	if took := time.Since(began); took > connectTimeout+time.Second {
		t.Errorf("a refusal took %v", took)
	}
	restartPostgres(t, w)
	eventually(t, 5*time.Second, "it serves again", func() bool { status, _ := s.get("/v1/zones"); return status == http.StatusOK })
	s.terminate()
}
