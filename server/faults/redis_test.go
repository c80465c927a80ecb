//go:build faults

package faults_test

import (
	"context"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/gen/client"
	"caracal.run/management/store/private"
)

// maxLatency is the maximum duration of a request that waits for nothing, on a
// busy machine. It is less than each timeout of the Redis client, so a request
// that waits for Redis takes longer.
const maxLatency = 2 * time.Second

// maxBackoff is the longest time that the publisher waits before it retries.
const maxBackoff = 2 * time.Second

func TestRedisFailureDelaysOnlyEvents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		durable  bool // Redis keeps its data when it is killed
		inject   func(*testing.T, *backends, *redis.Client)
		duration time.Duration
		restore  func(*testing.T, *backends, *redis.Client)
		ready    client.ReadinessRedis // in the response of /ready during the fault
	}{
		{
			"stopped for longer than the maximum backoff", true,
			func(t *testing.T, b *backends, _ *redis.Client) {
				if err := b.servers.Redis().Kill(); err != nil {
					t.Fatal(err)
				}
			}, maxBackoff + time.Second, restartRedis, client.ReadinessRedisUnreachable,
		},
		{
			"paused", false,
			func(t *testing.T, b *backends, _ *redis.Client) {
				if err := b.servers.Redis().Pause(); err != nil {
					t.Fatal(err)
				}
			}, 5 * time.Second, func(_ *testing.T, b *backends, _ *redis.Client) { b.servers.Redis().Resume() }, client.ReadinessRedisUnreachable,
		},
		{
			"out of memory", false,
			func(t *testing.T, _ *backends, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
					t.Fatal(err)
				}
			}, 2 * time.Second,
			func(t *testing.T, _ *backends, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
					t.Fatal(err)
				}
			}, client.ReadinessRedisDegraded,
		},
		{
			"out of clients", false,
			func(t *testing.T, _ *backends, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxclients", "1").Err(); err != nil {
					t.Fatal(err)
				}
				if err := r.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
					t.Fatal(err)
				}
			}, 2 * time.Second,
			func(t *testing.T, _ *backends, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxclients", "10000").Err(); err != nil {
					t.Fatal(err)
				}
			}, client.ReadinessRedisUnreachable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBackends(t)
			if tt.durable {
				b = newBackendsIn(t, private.Options{Dir: ramDir(t)})
			}
			r := b.redis()
			if tt.durable {
				// This Redis has a directory. It writes each entry to disk before it replies.
				if err := r.ConfigSet(t.Context(), "appendfsync", "always").Err(); err != nil {
					t.Fatal(err)
				}
			}
			s := b.start("api")
			l := b.startLoadOn(s)
			before := l.runFor(300 * time.Millisecond)
			tt.inject(t, b, r)
			during := l.runFor(tt.duration)
			status, body := s.get("/ready")
			tt.restore(t, b, r)
			restored := time.Now()
			after := l.runFor(300 * time.Millisecond)
			l.stop()
			b.waitIdle()
			dispatched := time.Since(restored)
			b.waitIdle(s)
			b.checkInvariants(l)
			if during.slowest > maxLatency {
				t.Errorf("during the fault, a request took %v, want at most %v", during.slowest, maxLatency)
			}
			if status != http.StatusOK || redisOf(body) != tt.ready {
				t.Errorf("during the fault, /ready returned %d %s, want %d with redis %q", status, body, http.StatusOK, tt.ready)
			}
			if failed := s.metric("caracal_api_outbox_away_total"); failed < 1 {
				t.Errorf("the service counted %v failed attempts to publish, want at least 1", failed)
			}
			s.terminate()
			t.Logf("before: %v\nduring: %v\nafter: %v\nall events were dispatched %v after Redis was restored", before, during, after, dispatched.Round(time.Millisecond))
		})
	}
}

// The events that Redis received before it lost its data are lost. All others are
// published once it is back.
func TestRedisThatLostItsDataReceivesAllPendingEvents(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	s := b.start("api")
	l := b.startLoadOn(s)
	eventually(t, 10*time.Second, "an event is published", func() bool { return s.metric("caracal_api_outbox_published_total") > 0 })
	// A paused Redis receives no more events. When an attempt to publish has failed,
	// every event that Redis did receive is marked as dispatched.
	if err := b.servers.Redis().Pause(); err != nil {
		t.Fatal(err)
	}
	failed := s.metric("caracal_api_outbox_away_total")
	eventually(t, 10*time.Second, "an attempt to publish fails", func() bool { return s.metric("caracal_api_outbox_away_total") > failed })
	lost := column[string](b, "SELECT id FROM outbox WHERE dispatched_at IS NOT NULL")
	if err := b.servers.Redis().Kill(); err != nil {
		t.Fatal(err)
	}
	restartRedis(t, b, nil)
	after := l.runFor(time.Second)
	l.stop()
	b.waitIdle(s)
	b.checkInvariants(l, lost...)
	if len(lost) == 0 {
		t.Error("Redis had received no event before it was killed")
	}
	s.terminate()
	t.Logf("after: %v", after)
}

func restartRedis(t *testing.T, b *backends, _ *redis.Client) {
	if err := b.servers.Redis().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// redis returns a client that keeps one connection, and never retries.
func (b *backends) redis() *redis.Client {
	b.t.Helper()
	options, err := redis.ParseURL(b.servers.RedisURL())
	if err != nil {
		b.t.Fatal(err)
	}
	options.PoolSize, options.MinIdleConns, options.MaxRetries = 1, 1, -1
	r := redis.NewClient(options)
	b.t.Cleanup(func() { _ = r.Close() })
	if err := r.Ping(context.Background()).Err(); err != nil {
		b.t.Fatal(err)
	}
	return r
}

// ramDir returns the path of a directory for durable backends, in RAM if the
// machine has /dev/shm.
func ramDir(t *testing.T) string {
	t.Helper()
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "caracal-faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { // Postgres may run as another user
		t.Fatal(err)
	}
	return dir + "/backends"
}
