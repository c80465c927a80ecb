package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/server"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// The benchmarks send HTTP requests to a service that uses a real Postgres and
// Redis. Bytes and allocations are those of the whole process, client included.

// A caller sends prepared requests, and reads and discards the responses. It
// accepts compressed ones only if accepts says so, and never decompresses them.
type caller struct {
	client  *http.Client
	url     string
	accepts string // Accept-Encoding; "": not sent
	key     string // Idempotency-Key; "": not sent
}

func newCaller(url string) caller {
	return caller{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}, url: url}
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
	if c.accepts != "" {
		r.Header.Set("Accept-Encoding", c.accepts)
	}
	if c.key != "" {
		r.Header.Set("Idempotency-Key", c.key)
	}
	c.send(b, r, want)
}

func (c caller) send(b *testing.B, r *http.Request, want int) {
	resp, err := c.client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != want {
		b.Fatalf("%s %s got %d, want %d", r.Method, r.URL.Path, resp.StatusCode, want)
	}
}

// A bench is a service with a zone that has 50 applications, and with rate limits
// that are too high to be reached.
type bench struct {
	*servertest.API
	direct  caller
	counted caller // a client of a second service, whose round trips to Postgres are counted
	counter *roundTripCounter
	zone    string // the zone's path
	callers int    // how many call at once
	n       atomic.Int64
}

func newBench(b *testing.B, prepare ...func(*storetest.DB)) *bench {
	b.Helper()
	db := storetest.New(b)
	for _, f := range prepare {
		f(db)
	}
	counter, gated := newRoundTripCounter(b, db)
	discardLogger := []string{"OUTBOX_POLL_MS=60000", "DB_POOL_MAX=20", "LOG_LEVEL=info", "API_V1_RATE_LIMIT_PER_MIN=1000000000"}
	a := servertest.NewReplica(b, db, storetest.RedisURL(b), discardLogger...)
	counted := servertest.NewReplica(b, db, storetest.RedisURL(b), append(discardLogger, "DATABASE_URL="+gated)...)
	zone := a.Zone()
	db.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, traits)
		SELECT $1, 'application-' || n, 'Application ' || n, 'managed', '{team:payments}' FROM generate_series(1, 50) AS n`, zone.ID)
	return &bench{API: a, direct: newCaller(a.URL), counted: newCaller(counted.URL), counter: counter, zone: "/v1/zones/" + zone.ID, callers: 8}
}

// runWithManyCallers runs f also with so many callers that reads wait for each other, and
// travel to Postgres together.
func (x *bench) runWithManyCallers(b *testing.B, f func(c caller, n int64)) {
	for _, callers := range []int{8, 64} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			x.callers = callers
			x.run(b, f)
		})
	}
}

// run calls f b.N times, several at once, each time with another number. The round
// trips are those of calls before the timer starts.
func (x *bench) run(b *testing.B, f func(c caller, n int64)) {
	b.Helper()
	const few = 20
	for range few { // statements get prepared, the token gets cached
		f(x.direct, x.n.Add(1))
		f(x.counted, x.n.Add(1))
	}
	before := x.counter.trips.Load()
	for range few {
		f(x.counted, x.n.Add(1))
	}
	trips := x.counter.trips.Load() - before
	b.ReportAllocs()
	b.SetParallelism(max(1, x.callers/runtime.GOMAXPROCS(0)))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			f(x.direct, x.n.Add(1))
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(trips)/few, "trips/op")
}

func BenchmarkGetHealth(b *testing.B) {
	x := newBench(b)
	x.run(b, func(c caller, _ int64) { c.call(b, "GET", "/health", "", 200) })
}

func BenchmarkGetZone(b *testing.B) {
	x := newBench(b)
	x.runWithManyCallers(b, func(c caller, _ int64) { c.call(b, "GET", x.zone, "", 200) })
}

// BenchmarkMiddleware measures the cost of authentication, rate limits, validation,
// metrics and logs: the same read with and without them.
func BenchmarkMiddleware(b *testing.B) {
	x := newBench(b)
	for _, way := range []struct {
		name    string
		handler http.Handler
	}{{"bare", x.Service.Server.Bare()}, {"whole", x.Service.Server.Handler()}} {
		b.Run(way.name, func(b *testing.B) {
			served := httptest.NewServer(way.handler)
			defer served.Close()
			x.direct = newCaller(served.URL)
			x.run(b, func(c caller, _ int64) { c.call(b, "GET", x.zone+"/applications/application-7", "", 200) })
		})
	}
}

func BenchmarkListApplications(b *testing.B) {
	x := newBench(b)
	x.runWithManyCallers(b, func(c caller, _ int64) { c.call(b, "GET", x.zone+"/applications?limit=50", "", 200) })
}

// BenchmarkListAuditEntries lists 100 of 100,000 audit entries with their seals.
func BenchmarkListAuditEntries(b *testing.B) {
	x := newBench(b)
	x.DB.Exec(`WITH e AS (INSERT INTO audit_entries (zone_id, id, request_id, actor_id, actor_name, actor_scope, operation, action, method, path, entity_type, entity_id, status_code, payload, occurred_at)
		SELECT $1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'bootstrap', 'global', 'updateApplication', 'PATCH ' || path, 'PATCH', path, 'applications', gen_random_uuid(), 200,
			'{"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["name"],"changes":{"name":{"from":"Billing","to":"Invoices"}}}', now() - n * interval '1 second'
		FROM generate_series(1, 100000) AS n, concat('/v1/zones/', $1::text, '/applications/', gen_random_uuid()) AS path RETURNING zone_id, id, occurred_at)
		INSERT INTO audit_seals (zone_id, seq, entry_id, previous, hash, mac, occurred_at)
		SELECT zone_id, 100000 + row_number() OVER (ORDER BY occurred_at), id, sha256('1'), sha256('2'), sha256('3'), occurred_at FROM e`, strings.TrimPrefix(x.zone, "/v1/zones/"))
	x.DB.Exec("VACUUM ANALYZE")
	b.Run("admin-audit", func(b *testing.B) {
		x.run(b, func(c caller, _ int64) { c.call(b, "GET", x.zone+"/admin-audit", "", 200) })
	})
}

func BenchmarkListApplicationsCompressed(b *testing.B) {
	x := newBench(b)
	x.direct.accepts, x.counted.accepts = "gzip", "gzip"
	x.run(b, func(c caller, _ int64) { c.call(b, "GET", x.zone+"/applications?limit=50", "", 200) })
}

// BenchmarkCreateZone creates zones in an empty database, and in one with the rows
// of years.
func BenchmarkCreateZone(b *testing.B) {
	for _, in := range []struct {
		name    string
		prepare func(*storetest.DB)
	}{{"empty", func(*storetest.DB) {}}, {"piled", addHistory}} {
		x := newBench(b, in.prepare)
		b.Run("zone/"+in.name, func(b *testing.B) {
			x.run(b, func(c caller, n int64) {
				c.call(b, "POST", "/v1/zones", fmt.Sprintf(`{"name":"Zone","slug":"bench-%d"}`, n), 201)
			})
		})
		b.Run("application/"+in.name, func(b *testing.B) {
			x.run(b, func(c caller, _ int64) {
				c.call(b, "POST", x.zone+"/applications", `{"name":"Billing","registration_method":"managed"}`, 201)
			})
		})
	}
}

// BenchmarkIdempotencyKey creates applications without a key, with one, and with one that was
// used before by most requests, so that the stored response is returned.
func BenchmarkIdempotencyKey(b *testing.B) {
	x := newBench(b)
	for _, with := range []struct {
		name string
		key  func(n int64) string
	}{
		{"without", func(int64) string { return "" }},
		{"new", func(n int64) string { return fmt.Sprint("new-", n) }},
		{"used", func(n int64) string { return fmt.Sprint("used-", n%10) }},
	} {
		b.Run(with.name, func(b *testing.B) {
			x.run(b, func(c caller, n int64) {
				c.key = with.key(n)
				c.call(b, "POST", x.zone+"/applications", `{"name":"Billing","registration_method":"managed"}`, 201)
			})
		})
	}
}

// BenchmarkCreatePolicy creates policies, each with a version that is checked first.
func BenchmarkCreatePolicy(b *testing.B) {
	x := newBench(b)
	content := strconv.Quote(documentOf("billing"))
	x.run(b, func(c caller, n int64) {
		c.call(b, "POST", x.zone+"/policies", fmt.Sprintf(`{"name":"Policy %d","content":%s}`, n, content), 201)
	})
}

func BenchmarkValidatePolicy(b *testing.B) {
	x := newBench(b)
	body := `{"content":` + strconv.Quote(documentOf("billing")) + `}`
	x.run(b, func(c caller, _ int64) { c.call(b, "POST", "/v1/policies/validate", body, 200) })
}

// BenchmarkSimulatePolicySet decides one request, and 1000 in one request.
func BenchmarkSimulatePolicySet(b *testing.B) {
	x := newBench(b)
	id := strings.TrimPrefix(x.zone, "/v1/zones/")
	set, version := x.DB.PolicySet(id, insertPolicyVersion(x.DB, id))
	input := `{"principal":{"id":"x","labels":["clerk"]},"resource":{"identifier":"resource://invoices"},"action":{"id":"TokenExchange"},
		"delegation_edge":{"id":"edge","scopes":["read"]},"context":{"agent_session_id":"agent","requested_scopes":["read"]}}`
	for _, bb := range []struct {
		name, operation, body string
		decisions             int
	}{
		{"one", "simulate", `{"version_id":"` + version + `","input":` + input + `}`, 1},
		{"1000", "simulate-batch", `{"version_id":"` + version + `","inputs":[` + strings.Repeat(input+",", 999) + input + `]}`, 1000},
	} {
		b.Run(bb.name, func(b *testing.B) {
			x.run(b, func(c caller, _ int64) { c.call(b, "POST", x.zone+"/policy-sets/"+set+"/"+bb.operation, bb.body, 200) })
			b.ReportMetric(float64(b.N*bb.decisions)/b.Elapsed().Seconds(), "decisions/s")
		})
	}
}

func BenchmarkCreateProvider(b *testing.B) {
	x := newBench(b)
	x.run(b, func(c caller, n int64) {
		c.call(b, "POST", x.zone+"/providers", fmt.Sprintf(`{"identifier":"provider://p%d"`, n)+`,"kind":"api_key","config_json":{"header_name":"X-Api-Key","api_key":"secret"}}`, 201)
	})
}

func BenchmarkCreateResource(b *testing.B) {
	x := newBench(b)
	id := strings.TrimPrefix(x.zone, "/v1/zones/")
	body := `","upstream_url":"https://upstream.example.com","scopes":["read"],"credential_provider_id":"` + x.DB.Provider(id) + `","gateway_application_id":"application-7"}`
	x.run(b, func(c caller, n int64) {
		c.call(b, "POST", x.zone+"/resources", fmt.Sprintf(`{"identifier":"https://r%d.example.com%s`, n, body), 201)
	})
}

func BenchmarkCreateProviderGrant(b *testing.B) {
	x := newBench(b)
	id := strings.TrimPrefix(x.zone, "/v1/zones/")
	resource := x.DB.Resource(id)
	x.DB.Exec("UPDATE providers SET kind = 'oauth2_authorization_code' WHERE zone_id = $1", id)
	provider := storetest.Value[string](x.DB, "SELECT credential_provider_id FROM resources WHERE zone_id = $1 AND id = $2", id, resource)
	body := `","resource_id":"` + resource + `","provider_id":"` + provider + `","scopes":["read"],"access_token":"access","refresh_token":"refresh"}`
	x.run(b, func(c caller, n int64) {
		c.call(b, "POST", x.zone+"/provider-grants", fmt.Sprintf(`{"user_id":"u%d%s`, n, body), 201)
	})
}

// BenchmarkCreateGrant creates grants and, to compare, applications, each with 0 and
// with 400,000 audit entries in the zone.
func BenchmarkCreateGrant(b *testing.B) {
	for _, entries := range []int{0, 400_000} {
		x := newBench(b)
		id := strings.TrimPrefix(x.zone, "/v1/zones/")
		x.DB.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload)
			SELECT $1, 'e' || n, 'r', 'a', 'o', 'a', 'POST', '/v1/zones', 201, '{}' FROM generate_series(1, $2) AS n`, id, entries)
		x.DB.Exec("VACUUM ANALYZE")
		x.DB.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement)
			SELECT $1, 'resource-' || n, 'Resource', 'urn:' || n, '{read}', $2, 'enforced' FROM generate_series(1, 50) AS n`, id, x.DB.Provider(id))
		b.Run(fmt.Sprintf("grant/%d", entries), func(b *testing.B) {
			x.run(b, func(c caller, n int64) {
				c.call(b, "POST", x.zone+"/grants", fmt.Sprintf(`{"application_id":"application-%d","user_id":"user-%d","resource_id":"resource-%d","scopes":["read"]}`, n%50+1, n, n/50%50+1), 201)
			})
		})
		b.Run(fmt.Sprintf("application/%d", entries), func(b *testing.B) {
			x.run(b, func(c caller, _ int64) {
				c.call(b, "POST", x.zone+"/applications", `{"name":"Billing","registration_method":"managed"}`, 201)
			})
		})
	}
}

// BenchmarkExportSessions exports 1,000,000 sessions. more-MB is how much more memory the
// process, with its client, has at most meanwhile.
func BenchmarkExportSessions(b *testing.B) {
	const rows = 1_000_000
	x := newBench(b)
	x.DB.Exec(`INSERT INTO sessions (zone_id, id, session_type, subject_id, expires_at, created_at)
		SELECT $1, gen_random_uuid(), 'user', 'user-' || n % 1000, now() + interval '1 hour', now() - n * interval '1 millisecond' FROM generate_series(1, $2) AS n`, strings.TrimPrefix(x.zone, "/v1/zones/"), rows)
	x.DB.Exec("VACUUM ANALYZE sessions")
	resident := func() float64 {
		samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		metrics.Read(samples)
		return float64(samples[0].Value.Uint64()-samples[1].Value.Uint64()) / (1 << 20)
	}
	for _, format := range []string{"csv", "ndjson"} {
		b.Run(format, func(b *testing.B) {
			debug.FreeOSMemory()
			before, most := resident(), 0.0
			ended, sampled := make(chan bool), make(chan bool)
			go func() {
				defer close(sampled)
				for {
					select {
					case <-ended:
						return
					case <-time.After(time.Millisecond):
						most = max(most, resident()-before)
					}
				}
			}()
			for b.Loop() {
				x.direct.call(b, "GET", x.zone+"/sessions?format="+format, "", 200)
			}
			close(ended)
			<-sampled
			b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(most, "more-MB")
		})
	}
}

// addHistory fills a database with 500,000 audit entries, 100,000 dispatched events
// and 100,000 archived rows.
func addHistory(db *storetest.DB) {
	db.Exec(`INSERT INTO zones (id, name, slug, reserved, archived_at)
		SELECT 'z' || n, 'Zone', 'z' || n, false, now() FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, archived_at)
		SELECT 'z' || n % 2000 + 1, 'a' || n, 'x', 'managed', now() FROM generate_series(1, 80000) AS n`)
	db.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload)
		SELECT 'z' || n % 2000 + 1, 'e' || n, 'r', 'a', 'o', 'a', 'POST', '/v1/zones', 201, '{}' FROM generate_series(1, 500000) AS n`)
	db.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id, created_at, dispatched_at)
		SELECT 'z' || n % 2000 + 1, 'o' || n, 's', '{}', 'r', now(), now() FROM generate_series(1, 100000) AS n`)
	db.Exec("VACUUM ANALYZE") // as autovacuum would have done
}

// BenchmarkActivatePolicySet activates a version with 50 policies, which it compiles,
// and adds one.
func BenchmarkActivatePolicySet(b *testing.B) {
	x := newBench(b)
	id := strings.TrimPrefix(x.zone, "/v1/zones/")
	set, version := x.DB.PolicySet(id, insertPolicyVersion(x.DB, id))
	var manifest []string
	for n := 2; n <= 50; n++ {
		policyVersion := insertPolicyVersion(x.DB, id)
		x.DB.Exec("INSERT INTO policy_set_manifests (zone_id, policy_set_version_id, position, policy_version_id) VALUES ($1, $2, $3, $4)", id, version, n, policyVersion)
		manifest = append(manifest, `{"policy_version_id":"`+policyVersion+`"}`)
	}
	b.Run("activate", func(b *testing.B) {
		x.run(b, func(c caller, _ int64) {
			c.call(b, "POST", x.zone+"/policy-sets/"+set+"/activate", `{"version_id":"`+version+`"}`, 202)
		})
	})
	b.Run("add version", func(b *testing.B) {
		body := `{"manifest":[` + strings.Join(manifest, ",") + `]}`
		x.run(b, func(c caller, _ int64) { c.call(b, "POST", x.zone+"/policy-sets/"+set+"/versions", body, 201) })
	})
	b.Run("status", func(b *testing.B) {
		x.run(b, func(c caller, _ int64) {
			c.call(b, "GET", x.zone+"/policy-sets/"+set+"/activation-status", "", 200)
		})
	})
}

func BenchmarkUpdateApplication(b *testing.B) {
	x := newBench(b)
	x.run(b, func(c caller, n int64) {
		c.call(b, "PATCH", fmt.Sprintf("%s/applications/application-%d", x.zone, n%50+1), fmt.Sprintf(`{"name":"Invoicing %d"}`, n), 200)
	})
}

// BenchmarkOutboxDrain publishes 10,000 pending events.
func BenchmarkOutboxDrain(b *testing.B) {
	const events = 10_000
	for b.Loop() {
		b.StopTimer()
		db := storetest.New(b)
		db.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id)
			SELECT 'z' || n % 10, 'e' || n, 'caracal.sessions.revoke', jsonb_build_object('zone_id', 'z' || n % 10, 'session_id', 's' || n, 'reason', 'zone_archived'), 'bench'
			FROM generate_series(1, $1) AS n`, events)
		b.StartTimer()
		a := servertest.NewReplica(b, db, storetest.RedisURL(b))
		for a.Service.Server.Published() < events {
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		if err := a.Service.Stop(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(events*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkListAuditEvents lists a page of 100 of 100,000 audit events.
func BenchmarkListAuditEvents(b *testing.B) {
	const count = 100_000
	x := newBench(b)
	x.DB.Exec("SELECT create_audit_partitions(now() - interval '91 days', now())")
	x.DB.Exec(`INSERT INTO audit_events (zone_id, id, occurred_at, event_type, request_id, decision, evaluation_status, metadata, chain_seq, content_sha256)
		SELECT substr($1, length('/v1/zones/') + 1), 'e-' || n, now() - n * interval '90 days' / $2::int, 'token_exchange', 'r-' || n / 3, CASE WHEN n % 20 = 0 THEN 'deny' ELSE 'allow' END, 'complete',
			'{"method": "GET", "resource": "resource://bank", "session_id": "s-' || n / 50 || '", "agent_labels": ["payer"], "application_id": "a-' || n % 100 || '", "requested_scopes": ["bank:read"]}', n, ''
		FROM generate_series(1, $2::int) AS n`, x.zone, count)
	x.DB.Exec("ANALYZE audit_events")
	for _, query := range []string{"", "?decision=deny"} {
		b.Run("audit"+query, func(b *testing.B) {
			x.run(b, func(c caller, _ int64) { c.call(b, "GET", x.zone+"/audit"+query, "", 200) })
		})
	}
}

// BenchmarkCommitToStream measures the time from the commit of a change until its
// event is in the stream.
func BenchmarkCommitToStream(b *testing.B) {
	x := newBench(b)
	last := "$"
	for b.Loop() {
		b.StopTimer()
		zone := x.Zone()
		arrived := make(chan time.Time, 1)
		go func() {
			streams, err := x.Redis.XRead(context.Background(), &redis.XReadArgs{Streams: []string{"caracal.policy.invalidate", last}, Count: 1, Block: 5 * time.Second}).Result()
			if err == nil {
				last = streams[0].Messages[0].ID
			}
			arrived <- time.Now()
		}()
		time.Sleep(2 * time.Millisecond) // until the reader waits and the service is idle
		b.StartTimer()
		x.direct.call(b, "DELETE", "/v1/zones/"+zone.ID, "", 204)
		<-arrived
	}
}

// BenchmarkColdStart measures the time from the start of the service until /ready
// returns.
func BenchmarkColdStart(b *testing.B) {
	x := newBench(b)
	for b.Loop() {
		running, err := server.Start(b.Context(), x.Config, slog.New(slog.DiscardHandler))
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
