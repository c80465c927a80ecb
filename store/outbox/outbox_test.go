package outbox_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace/noop"

	"caracal.run/management/store"
	"caracal.run/management/store/outbox"
	"caracal.run/management/store/private"
	"caracal.run/management/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const stream = "caracal.sessions.revoke"

// The two examples have known signatures.
func TestSignTestVectors(t *testing.T) {
	t.Parallel()
	key, err := hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		stream string
		fields map[string]string
		want   string
	}{
		{"caracal.sessions.revoke", map[string]string{
			"outbox_id": "0198c0de-0000-7000-8000-000000000001", "zone_id": "zone-1", "session_id": "sess-1", "reason": "grant_revoked", "grant_id": "grant-9",
		}, "543fcbd4a5aaf513ec105756fb47d4b2dd8b53cbd03b9019d334fde0bd319ed8"},
		{"caracal.policy.invalidate", map[string]string{
			"outbox_id": "0198c0de-0000-7000-8000-000000000002", "zone_id": "zone-1", "policy_set_id": "ps-1", "policy_set_version_id": "psv-3",
		}, "0146cb6466a732ed64319fc9523c6c929ec6208f33eda73305f434b058fde4ad"},
	} {
		if got := outbox.Sign(key, tt.stream, tt.fields); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.stream, got, tt.want)
		}
	}
}

// A bench is a publisher on a database and a Redis of its own.
type bench struct {
	*storetest.DB
	t     *testing.T
	store *store.Store
	redis *redis.Client
	log   *logBuffer
	*outbox.Publisher
}

func newBench(t *testing.T, change ...func(*outbox.Config)) *bench {
	t.Helper()
	db := storetest.New(t)
	return newReplica(t, db, storetest.RedisURL(t), change...)
}

func newReplica(t *testing.T, db *storetest.DB, redisURL string, change ...func(*outbox.Config)) *bench {
	t.Helper()
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		t.Fatal(err)
	}
	options.MaxRetries = -1
	options.ContextTimeoutEnabled = true
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	config := outbox.Config{Traces: noop.NewTracerProvider(), Key: []byte("key"), Batch: 10, PollInterval: 20 * time.Millisecond, MaxLen: 100_000, MaxAttempts: 3, Retention: time.Hour}
	for _, f := range change {
		f(&config)
	}
	s := db.Store().For(store.System)
	log := &logBuffer{}
	return &bench{db, t, s, client, log, outbox.New(s, client, slog.New(slog.NewTextHandler(log, nil)), config)}
}

// A logBuffer keeps what several goroutines log.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// tryPublish publishes one batch as the leader.
func (b *bench) tryPublish() (n int, err error) {
	err = b.store.LeadOutbox(b.t.Context(), func(ctx context.Context, leader *store.Leader) error {
		n, err = b.Publish(ctx, leader)
		return err
	})
	return n, err
}

func (b *bench) publish() int {
	b.t.Helper()
	n, err := b.tryPublish()
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// arrived is the outbox ids in a stream, in order.
func (b *bench) arrived(name string) (ids []string) {
	b.t.Helper()
	entries, err := b.redis.XRange(b.t.Context(), name, "-", "+").Result()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, e := range entries {
		ids = append(ids, e.Values["outbox_id"].(string))
	}
	return ids
}

func (b *bench) leads() bool { return b.Stat().Term > 0 }

func (b *bench) dead() []string {
	b.t.Helper()
	return storetest.Column[string](b.DB, "SELECT id FROM outbox WHERE dead_at IS NOT NULL ORDER BY seq")
}

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	eventuallyIn(t, 15*time.Second, what, happened)
}

func eventuallyIn(t *testing.T, limit time.Duration, what string, happened func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !happened() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestEntriesAreSignedOverTheirFields(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	id := b.Event("z", stream)
	b.publish()
	entries, err := b.redis.XRange(t.Context(), stream, "-", "+").Result()
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	fields := map[string]string{}
	for name, value := range entries[0].Values {
		fields[name] = value.(string)
	}
	if fields["outbox_id"] != id || fields["zone_id"] != "z" || fields["_sig"] != outbox.Sign([]byte("key"), stream, fields) {
		t.Errorf("the entry is %v", fields)
	}
}

func TestEntriesAreUnsignedWithoutKey(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *outbox.Config) { c.Key = nil })
	b.Event("z", stream)
	b.publish()
	entries, err := b.redis.XRange(t.Context(), stream, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	if _, signed := entries[0].Values["_sig"]; signed {
		t.Errorf("the entry is %v", entries[0].Values)
	}
}

func TestEventsArriveOnceInSeqOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var want []string
	for i := range 25 {
		want = append(want, b.Event(fmt.Sprint("z", i%3), stream))
	}
	for b.publish() > 0 {
	}
	if got := b.arrived(stream); !slices.Equal(got, want) {
		t.Errorf("arrived\n%v\nwant\n%v", got, want)
	}
	if left := storetest.Value[int](b.DB, "SELECT count(*) FROM outbox WHERE dispatched_at IS NULL"); left != 0 {
		t.Errorf("%d are not marked", left)
	}
}

func TestRejectedEventPausesZoneUntilDeadLettered(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.redis.Set(t.Context(), "no.stream", "a string", 0)
	bad := b.Event("sick", "no.stream")
	well := b.Event("well", stream)
	for b.publish() > 0 {
	}
	behind := b.Event("sick", stream)
	if got := b.arrived(stream); !slices.Equal(got, []string{well}) {
		t.Errorf("before the last attempt, %v arrived", got)
	}
	eventually(t, "the rejected event is a dead letter", func() bool { b.publish(); return slices.Equal(b.dead(), []string{bad}) })
	eventually(t, "its zone goes on", func() bool { b.publish(); return slices.Equal(b.arrived(stream), []string{well, behind}) })
	if n, why := storetest.Value[int](b.DB, "SELECT attempts FROM outbox WHERE id = $1", bad), storetest.Value[string](b.DB, "SELECT last_error FROM outbox WHERE id = $1", bad); n != 3 || why == "" {
		t.Errorf("it was tried %d times: %q", n, why)
	}
}

func TestUnavailableRedisCountsNoAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	// A Redis of our own, to be stopped.
	servers, err := private.Start(t.Context(), private.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = servers.Stop() })
	own := newReplica(t, b.DB, servers.RedisURL())
	var want []string
	for range 5 {
		want = append(want, own.Event("z", stream))
	}
	if err := servers.Redis().Kill(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := own.tryPublish(); err == nil {
			t.Fatal("Publish succeeded without a Redis")
		}
	}
	if n := storetest.Value[int](b.DB, "SELECT sum(attempts) FROM outbox"); n != 0 {
		t.Errorf("%d attempts were counted, want 0", n)
	}
	if err := servers.Redis().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it publishes again", func() bool { _, err := own.tryPublish(); return err == nil })
	if got := own.arrived(stream); !slices.Equal(got, want) {
		t.Errorf("arrived %v, want %v", got, want)
	}
}

func TestFullRedisCountsNoAttempt(t *testing.T) {
	t.Parallel()
	servers, err := private.Start(t.Context(), private.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = servers.Stop() })
	b := newReplica(t, storetest.New(t), servers.RedisURL())
	id := b.Event("z", stream)
	b.redis.ConfigSet(t.Context(), "maxmemory", "1")
	if _, err := b.tryPublish(); err == nil {
		t.Fatal("a full Redis took an event")
	}
	if n := storetest.Value[int](b.DB, "SELECT attempts FROM outbox"); n != 0 {
		t.Errorf("%d attempts were counted, want 0", n)
	}
	b.redis.ConfigSet(t.Context(), "maxmemory", "0")
	b.publish()
	if got := b.arrived(stream); !slices.Equal(got, []string{id}) {
		t.Errorf("arrived %v", got)
	}
}

// A Redis that rejects the connection sends no reply to any command, which is not the
// same as a reply without an error.
func TestRefusedRedisConnectionPublishesNothing(t *testing.T) {
	t.Parallel()
	servers, err := private.Start(t.Context(), private.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = servers.Stop() })
	b := newReplica(t, storetest.New(t), servers.RedisURL())
	id := b.Event("z", stream)
	b.redis.ConfigSet(t.Context(), "requirepass", "changed")
	for _, url := range []string{servers.RedisURL(), servers.RedisURL() + "?db=99999"} {
		late := newReplica(t, b.DB, url)
		if _, err := late.tryPublish(); err == nil {
			t.Errorf("%s: Publish succeeded without a Redis", url)
		}
	}
	if n := storetest.Value[int](b.DB, "SELECT count(*) FROM outbox WHERE dispatched_at IS NULL AND attempts = 0"); n != 1 {
		t.Fatal("the event is not pending any more")
	}
	b.redis.ConfigSet(t.Context(), "requirepass", "")
	late := newReplica(t, b.DB, servers.RedisURL())
	late.publish()
	if got := late.arrived(stream); !slices.Equal(got, []string{id}) {
		t.Errorf("arrived %v", got)
	}
}

// A stream that Redis refuses holds its zone for a few tries, however many
// events go there.
func TestRejectedEventsAreDeadLetteredTogether(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *outbox.Config) { c.Batch = 100 })
	b.redis.Set(t.Context(), "no.stream", "a string", 0)
	for range 250 {
		b.Event("sick", "no.stream")
	}
	last := b.Event("sick", stream)
	eventually(t, "all are dead and the zone goes on", func() bool {
		b.publish()
		return slices.Equal(b.arrived(stream), []string{last}) && len(b.dead()) == 250
	})
}

func TestDispatchedEventsArePurgedAfterRetention(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id, dispatched_at) SELECT 'z', 'old-' || n, 's', '{}', 'r', now() - interval '2 hours' FROM generate_series(1, 2500) AS n`)
	b.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id, dispatched_at) VALUES ('z', 'young', 's', '{}', 'r', now())`)
	b.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id, created_at, dead_at) VALUES ('z', 'dead', 's', '{}', 'r', now() - interval '2 hours', now() - interval '2 hours')`)
	b.run(t)
	eventually(t, "the old are purged", func() bool {
		return slices.Equal(storetest.Column[string](b.DB, "SELECT id FROM outbox ORDER BY id"), []string{"dead", "young"})
	})
}

// run runs the publisher until the test ends.
func (b *bench) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { b.Run(ctx) })
	done.Go(func() { b.NotifyLoop(ctx) })
	stop = func() { cancel(); done.Wait() }
	t.Cleanup(stop)
	return stop
}

func TestLeaderElectionAndTakeover(t *testing.T) {
	t.Parallel()
	db, url := storetest.New(t), storetest.RedisURL(t)
	one, two := newReplica(t, db, url), newReplica(t, db, url)
	stop := one.run(t)
	eventually(t, "the first leads", one.leads)
	two.run(t)
	first := db.Event("z", stream)
	eventually(t, "the first publishes", func() bool { return len(one.arrived(stream)) == 1 })
	if two.leads() {
		t.Error("both lead")
	}
	stop()
	second := db.Event("z", stream)
	eventually(t, "the second takes over", func() bool { return slices.Equal(one.arrived(stream), []string{first, second}) })
	if !two.leads() || one.leads() {
		t.Errorf("the first leads: %v, the second: %v", one.leads(), two.leads())
	}
}

func TestLeadershipIsReacquired(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(t)
	eventually(t, "it leads", b.leads)
	b.Disable()
	b.Enable()
	b.Event("z", stream)
	eventually(t, "it publishes again", func() bool { return len(b.arrived(stream)) == 1 })
}

func TestPendingEventsArePublishedBeforeShutdown(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *outbox.Config) { c.PollInterval = time.Hour })
	stop := b.run(t)
	eventually(t, "it leads", b.leads)
	for range 35 {
		b.Event("z", stream)
	}
	stop()
	if n := len(b.arrived(stream)); n != 35 {
		t.Errorf("%d of 35 arrived", n)
	}
}
