package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/server"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// The benchmarks go through HTTP to a service on real servers, like its users.
// Bytes and allocations are those of the whole process, caller included.

// A caller sends prepared requests and reads the answers, and does nothing else
// with them.
type caller struct {
	client *http.Client
	url    string
}

func newCaller(url string) caller {
	return caller{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, url}
}

func (c caller) call(b *testing.B, method, path, body string, want int) {
	r, err := http.NewRequestWithContext(context.Background(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+servertest.Bootstrap)
	if body != "" {
		r.Header.Set("Content-Type", jsonType)
	}
	resp, err := c.client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != want {
		b.Fatalf("%s %s answered %d, want %d", method, path, resp.StatusCode, want)
	}
}

// measured runs f as often as asked, many at once, and reports the round trips
// to Postgres that each took.
func measured(b *testing.B, gate *tollgate, f func(n int64)) {
	b.Helper()
	const atOnce = 4 // for each processor
	var n atomic.Int64
	for range 50 { // statements are prepared, the token is remembered
		f(n.Add(1))
	}
	before := gate.trips.Load()
	b.ReportAllocs()
	b.SetParallelism(atOnce)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f(n.Add(1))
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(gate.trips.Load()-before)/float64(b.N), "trips/op")
}

// benched is a service with a zone that has 50 applications.
func benched(b *testing.B) (*servertest.API, *tollgate, caller, string) {
	b.Helper()
	db := storetest.New(b)
	gate, databaseURL := newTollgate(b, db)
	a := servertest.Beside(b, db, storetest.RedisURL(b), "DATABASE_URL="+databaseURL, "OUTBOX_POLL_MS=60000", "DB_POOL_MAX=20")
	zone := a.Zone()
	db.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, client_secret_hash, traits)
		SELECT $1, 'application-' || n, 'Application ' || n, 'managed', 'sha256$', '{team:payments}' FROM generate_series(1, 50) AS n`, zone.ID)
	return a, gate, newCaller(a.URL), "/v1/zones/" + zone.ID
}

func BenchmarkHealth(b *testing.B) {
	_, gate, c, _ := benched(b)
	measured(b, gate, func(int64) { c.call(b, "GET", "/health", "", 200) })
}

func BenchmarkGetZone(b *testing.B) {
	_, gate, c, zone := benched(b)
	measured(b, gate, func(int64) { c.call(b, "GET", zone, "", 200) })
}

func BenchmarkGetApplication(b *testing.B) {
	_, gate, c, zone := benched(b)
	measured(b, gate, func(int64) { c.call(b, "GET", zone+"/applications/application-7", "", 200) })
}

func BenchmarkListApplications(b *testing.B) {
	_, gate, c, zone := benched(b)
	measured(b, gate, func(int64) { c.call(b, "GET", zone+"/applications?limit=50", "", 200) })
}

func BenchmarkCreateZone(b *testing.B) {
	_, gate, c, _ := benched(b)
	measured(b, gate, func(n int64) {
		c.call(b, "POST", "/v1/zones", fmt.Sprintf(`{"name":"Zone","slug":"bench-%d"}`, n), 201)
	})
}

func BenchmarkCreateApplication(b *testing.B) {
	_, gate, c, zone := benched(b)
	measured(b, gate, func(int64) {
		c.call(b, "POST", zone+"/applications", `{"name":"Billing","registration_method":"managed"}`, 201)
	})
}

func BenchmarkPatchApplication(b *testing.B) {
	_, gate, c, zone := benched(b)
	measured(b, gate, func(n int64) {
		c.call(b, "PATCH", fmt.Sprintf("%s/applications/application-%d", zone, n%50+1), `{"name":"Invoicing"}`, 200)
	})
}

// BenchmarkOutboxDrain takes 10,000 events to their stream.
func BenchmarkOutboxDrain(b *testing.B) {
	const events = 10_000
	for b.Loop() {
		b.StopTimer()
		db := storetest.New(b)
		db.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id)
			SELECT 'z' || n % 10, 'e' || n, 'caracal.sessions.revoke', jsonb_build_object('zone_id', 'z' || n % 10, 'session_id', 's' || n, 'reason', 'zone_archived'), 'bench'
			FROM generate_series(1, $1) AS n`, events)
		b.StartTimer()
		a := servertest.Beside(b, db, storetest.RedisURL(b))
		for a.Running.Server.Published() < events {
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		if err := a.Running.Stop(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkCommitToStream is from a committed change to its event in the stream.
func BenchmarkCommitToStream(b *testing.B) {
	a, _, c, _ := benched(b)
	last := "$"
	for b.Loop() {
		b.StopTimer()
		zone := a.Zone()
		arrived := make(chan time.Time, 1)
		go func() {
			streams, err := a.Redis.XRead(context.Background(), &redis.XReadArgs{Streams: []string{"caracal.policy.invalidate", last}, Count: 1, Block: 5 * time.Second}).Result()
			if err == nil {
				last = streams[0].Messages[0].ID
			}
			arrived <- time.Now()
		}()
		time.Sleep(2 * time.Millisecond) // the reader is there, and the service idle
		b.StartTimer()
		c.call(b, "DELETE", "/v1/zones/"+zone.ID, "", 204)
		<-arrived
	}
}

// BenchmarkColdStart is from nothing to the first answer of /ready.
func BenchmarkColdStart(b *testing.B) {
	a, _, _, _ := benched(b)
	for b.Loop() {
		running, err := server.Start(b.Context(), a.Config, slog.New(slog.DiscardHandler))
		if err != nil {
			b.Fatal(err)
		}
		newCaller(running.URL).call(b, "GET", "/ready", "", 200)
		b.StopTimer()
		if err := running.Stop(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
