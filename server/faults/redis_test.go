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

// unhurried is how long a request may take that waits for nothing, on a machine
// that has other things to do. It is less than any time-out of the client of
// Redis.
const unhurried = 2 * time.Second

// longestPause is the longest that the publisher waits before it tries Redis
// once more.
const longestPause = 2 * time.Second

func TestNobodyWaitsForRedisAndEveryEventArrivesWhenItIs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		keeps bool // what it has taken, though it dies
		hurt  func(*testing.T, *world, *redis.Client)
		lasts time.Duration
		mend  func(*testing.T, *world, *redis.Client)
		ready client.ReadinessRedis
	}{
		{
			"stopped for longer than the longest pause", true,
			func(t *testing.T, w *world, _ *redis.Client) {
				if err := w.servers.Redis().Kill(); err != nil {
					t.Fatal(err)
				}
			}, longestPause + time.Second, restartRedis, client.ReadinessRedisUnreachable,
		},
		{
			"paused", false,
			func(t *testing.T, w *world, _ *redis.Client) {
				if err := w.servers.Redis().Pause(); err != nil {
					t.Fatal(err)
				}
			}, 5 * time.Second, func(_ *testing.T, w *world, _ *redis.Client) { w.servers.Redis().Resume() }, client.ReadinessRedisUnreachable,
		},
		{
			"out of memory", false,
			func(t *testing.T, _ *world, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
					t.Fatal(err)
				}
			}, 2 * time.Second,
			func(t *testing.T, _ *world, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
					t.Fatal(err)
				}
			}, client.ReadinessRedisReachable,
		},
		{
			"out of clients", false,
			func(t *testing.T, _ *world, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxclients", "1").Err(); err != nil {
					t.Fatal(err)
				}
				if err := r.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
					t.Fatal(err)
				}
			}, 2 * time.Second,
			func(t *testing.T, _ *world, r *redis.Client) {
				if err := r.ConfigSet(t.Context(), "maxclients", "10000").Err(); err != nil {
					t.Fatal(err)
				}
			}, client.ReadinessRedisUnreachable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if tt.keeps {
				w = worldIn(t, private.Options{Dir: inRAM(t)})
			}
			r := w.redis()
			if tt.keeps {
				// A throw-away Redis keeps nothing. This one has written what it has taken.
				if err := r.ConfigSet(t.Context(), "appendfsync", "always").Err(); err != nil {
					t.Fatal(err)
				}
			}
			s := w.start("api")
			l := w.on(s)
			before := l.lasts(300 * time.Millisecond)
			tt.hurt(t, w, r)
			during := l.lasts(tt.lasts)
			status, body := s.get("/ready")
			tt.mend(t, w, r)
			mended := time.Now()
			after := l.lasts(300 * time.Millisecond)
			l.stop()
			w.settles()
			settled := time.Since(mended)
			w.settles(s)
			w.keeps(l)
			if during.slowest > unhurried {
				t.Errorf("while it was away, a request took %v", during.slowest)
			}
			if status != http.StatusOK || redisOf(body) != tt.ready {
				t.Errorf("while it was away, /ready answered %d %s", status, body)
			}
			if away := s.metric("caracal_api_outbox_away_total"); away < 1 {
				t.Errorf("it was away %v times, as the service saw it", away)
			}
			s.terminate()
			t.Logf("before: %v\nduring: %v\nafter: %v\nall had left %v after its return", before, during, after, settled.Round(time.Millisecond))
		})
	}
}

// What Redis had taken is gone with it, and all else arrives.
func TestRedisThatIsEmptyAfterARestartGetsAllThatItHadNotTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.start("api")
	l := w.on(s)
	eventually(t, 10*time.Second, "Redis takes something", func() bool { return s.metric("caracal_api_outbox_published_total") > 0 })
	// Frozen, it takes nothing more. Once the service has noticed, all that it
	// took is marked.
	if err := w.servers.Redis().Pause(); err != nil {
		t.Fatal(err)
	}
	away := s.metric("caracal_api_outbox_away_total")
	eventually(t, 10*time.Second, "the service notices", func() bool { return s.metric("caracal_api_outbox_away_total") > away })
	lost := column[string](w, "SELECT id FROM outbox WHERE dispatched_at IS NOT NULL")
	if err := w.servers.Redis().Kill(); err != nil {
		t.Fatal(err)
	}
	restartRedis(t, w, nil)
	during := l.lasts(time.Second)
	l.stop()
	w.settles(s)
	w.keeps(l, lost...)
	if len(lost) == 0 {
		t.Error("it had taken nothing")
	}
	s.terminate()
	t.Logf("after: %v", during)
}

func restartRedis(t *testing.T, w *world, _ *redis.Client) {
	if err := w.servers.Redis().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// redis is a client that keeps one connection.
func (w *world) redis() *redis.Client {
	w.t.Helper()
	options, err := redis.ParseURL(w.servers.RedisURL())
	if err != nil {
		w.t.Fatal(err)
	}
	options.PoolSize, options.MinIdleConns, options.MaxRetries = 1, 1, -1
	r := redis.NewClient(options)
	w.t.Cleanup(func() { _ = r.Close() })
	if err := r.Ping(context.Background()).Err(); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// inRAM is a folder for a world that keeps what it is told.
func inRAM(t *testing.T) string {
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
	if err := os.Chmod(dir, 0o711); err != nil { // Postgres has an account of its own
		t.Fatal(err)
	}
	return dir + "/world"
}
