package ingest_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/store/ingest"
	"caracal.run/management/store/storetest"
)

// receiveAs reads all new entries as another process, which does not acknowledge them.
func (s setup) receiveAs(consumer string) {
	s.Helper()
	if err := s.redis.XGroupCreateMkStream(s.Context(), ingest.Stream, ingest.Group, "0").Err(); err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		s.Fatal(err)
	}
	args := &redis.XReadGroupArgs{Group: ingest.Group, Consumer: consumer, Streams: []string{ingest.Stream, ">"}, Count: 1000, Block: -1}
	if err := s.redis.XReadGroup(s.Context(), args).Err(); err != nil {
		s.Fatal(err)
	}
}

func (s setup) addEvents(zone string, n int) {
	s.Helper()
	var events []ingest.Event
	for range n {
		events = append(events, ingest.Event{ID: fmt.Sprintf("e%d", len(events)), ZoneID: zone, Decision: "allow", OccurredAt: time.Now()})
	}
	if err := ingest.Publish(s.Context(), s.redis, key, events...); err != nil {
		s.Fatal(err)
	}
}

func TestIngestersShareTheWork(t *testing.T) {
	t.Parallel()
	const perZone = 2000
	s := newSetup(t)
	zones := []string{"z1", "z2", "z3"}
	for _, zone := range zones {
		s.addEvents(zone, perZone)
	}
	one, _ := s.start(func(c *ingest.Config) { c.Batch = 50 })
	two, _ := s.start(func(c *ingest.Config) { c.Batch, c.Consumer = 50, "two" })
	s.acknowledged()
	for _, zone := range zones {
		if n := s.stored(zone); n != perZone {
			t.Errorf("%s has %d events, want %d", zone, n, perZone)
		}
		s.checkChain(zone)
	}
	if a, b := one.Stat().Inserts, two.Stat().Inserts; a == 0 || b == 0 || a+b != 3*perZone {
		t.Errorf("the ingesters stored %d and %d events", a, b)
	}
	if n := storetest.Value[int](s.db, "SELECT sum(count) FROM audit_decision_counts"); n != 3*perZone {
		t.Errorf("counted %d decisions", n)
	}
}

// Events that a process has received, and perhaps stored, before it was killed are
// stored once: by a process with the same name at its start, and by others after a time.
func TestTakesOverPendingEvents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, killed string
		claimIdle    time.Duration
	}{{"same name", "one", time.Hour}, {"another name", "killed", 100 * time.Millisecond}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t)
			s.addEvents("z", 700)
			s.receiveAs(tt.killed)
			s.addEvents("z2", 10)
			i, _ := s.start(func(c *ingest.Config) { c.ClaimIdle = tt.claimIdle })
			s.acknowledged()
			if n, m := s.stored("z"), s.stored("z2"); n != 700 || m != 10 || i.Stat().Inserts != 710 {
				t.Errorf("stored %d and %d events, counted %d", n, m, i.Stat().Inserts)
			}
		})
	}
}

func TestPostgresOutageDelaysEvents(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.addEvents("z", 10)
	// The claim time is so short that each event would be delivered too often if the
	// outage counted.
	i, _ := s.start(func(c *ingest.Config) { c.ClaimIdle, c.MaxDeliveries = 10*time.Millisecond, 2 })
	s.acknowledged()
	s.db.Disable()
	s.addEvents("z2", 10)
	s.eventually("a transaction has failed", func() bool { return i.Stat().Retries > 0 })
	s.db.Enable()
	s.acknowledged()
	if n, dead := s.stored("z2"), s.deadLetters(); n != 10 || len(dead) > 0 {
		t.Errorf("stored %d events, dead letters %v", n, dead)
	}
}

// A Redis that lost its data, and so the group, is used again once it is back.
func TestRedisOutage(t *testing.T) {
	t.Parallel()
	r := storetest.StartRedis(t)
	s := newSetupOn(t, "redis://"+r.Addr)
	allowed := func(rule string) {
		t.Helper()
		if err := r.Admin.ACLSetUser(t.Context(), "default", rule).Err(); err != nil {
			t.Fatal(err)
		}
		if err := r.Admin.ClientKillByFilter(t.Context(), "USER", "default").Err(); err != nil {
			t.Fatal(err)
		}
	}
	s.addEvents("z", 10)
	_, stop := s.start()
	s.acknowledged()
	allowed("off")
	s.eventually("Redis rejects connections", func() bool { return s.redis.Ping(t.Context()).Err() != nil })
	if err := r.Admin.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	allowed("on")
	s.eventually("Redis accepts connections", func() bool { return s.redis.Ping(t.Context()).Err() == nil })
	s.addEvents("z2", 10)
	s.acknowledged()
	if n := s.stored("z2"); n != 10 {
		t.Errorf("stored %d events", n)
	}
	allowed("off")
	stop() // while Redis is unreachable
}

// An event that Postgres rejects does not affect the others of its batch.
func TestPermanentErrorConcernsOneEvent(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.db.Exec(`CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no such thing' USING ERRCODE = '22000'; END $$`)
	s.db.Exec("CREATE TRIGGER reject BEFORE INSERT ON audit_events FOR EACH ROW WHEN (NEW.id = 'e33') EXECUTE FUNCTION reject()")
	s.addEvents("z", 100)
	s.start()
	s.acknowledged()
	dead := s.deadLetters()
	for _, reason := range dead {
		if !strings.HasPrefix(reason, "pg_permanent_error:ERROR: no such thing (SQLSTATE 22000)") {
			t.Errorf("the reason is %q", reason)
		}
	}
	if n := s.stored("z"); n != 99 || len(dead) != 1 {
		t.Errorf("stored %d events, have %d dead letters", n, len(dead))
	}
	s.checkChain("z")
}

// An event that fails for a reason that may pass is tried again, and becomes a dead
// letter after the last delivery.
func TestTransientErrorIsRetried(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		maxDeliveries int64
		repair        bool
	}{{"repaired", 1000, true}, {"not repaired", 2, false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t)
			s.db.Exec(`CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now' USING ERRCODE = '57014'; END $$`)
			s.db.Exec("CREATE TRIGGER reject BEFORE INSERT ON audit_events FOR EACH ROW WHEN (NEW.id = 'e3') EXECUTE FUNCTION reject()")
			s.addEvents("z", 5)
			s.start(func(c *ingest.Config) { c.ClaimIdle, c.MaxDeliveries = 50*time.Millisecond, tt.maxDeliveries })
			s.eventually("the other events are stored", func() bool { return s.stored("z") == 4 })
			if tt.repair {
				s.db.Exec("DROP TRIGGER reject ON audit_events")
			}
			s.acknowledged()
			n, dead := s.stored("z"), s.deadLetters()
			if tt.repair && (n != 5 || len(dead) > 0) {
				t.Errorf("stored %d events, dead letters %v", n, dead)
			}
			if !tt.repair && (n != 4 || len(dead) != 1) {
				t.Errorf("stored %d events, dead letters %v", n, dead)
			}
			for _, reason := range dead {
				if !strings.HasPrefix(reason, "transient_exceeded_max_deliveries:service_unavailable: ERROR: not now (SQLSTATE 57014)") {
					t.Errorf("the reason is %q", reason)
				}
			}
		})
	}
}

// The stream keeps what any group has not acknowledged, and no more.
func TestTrimKeepsWhatIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	const count = 1000
	length := func() int64 { return s.redis.XLen(context.Background(), ingest.Stream).Val() }
	if err := s.redis.XGroupCreateMkStream(t.Context(), ingest.Stream, "siem-export", "0").Err(); err != nil {
		t.Fatal(err)
	}
	s.addEvents("z", count)
	i, _ := s.start()
	s.acknowledged()
	upkeep := func() {
		t.Helper()
		if err := i.Upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if upkeep(); length() != count {
		t.Errorf("the stream has %d entries, want %d: the other group has read none", length(), count)
	}
	args := &redis.XReadGroupArgs{Group: "siem-export", Consumer: "x", Streams: []string{ingest.Stream, ">"}, Count: count - 1, Block: -1}
	read, err := s.redis.XReadGroup(t.Context(), args).Result()
	if err != nil {
		t.Fatal(err)
	}
	if upkeep(); length() != count {
		t.Errorf("the stream has %d entries, want %d: the other group has acknowledged none", length(), count)
	}
	var ids []string
	for _, m := range read[0].Messages {
		ids = append(ids, m.ID)
	}
	if err := s.redis.XAck(t.Context(), ingest.Stream, "siem-export", ids[:500]...).Err(); err != nil {
		t.Fatal(err)
	}
	upkeep()
	if first := s.redis.XRangeN(t.Context(), ingest.Stream, "-", "+", 1).Val(); len(first) != 1 || first[0].ID > ids[500] || length() > 700 || length() < 500 {
		t.Errorf("the stream has %d entries from %v, want about 500 from %s", length(), first, ids[500])
	}
	if err := s.redis.XAck(t.Context(), ingest.Stream, "siem-export", ids[500:]...).Err(); err != nil {
		t.Fatal(err)
	}
	upkeep()
	last := s.redis.XRevRangeN(t.Context(), ingest.Stream, "+", "-", 1).Val()
	if n := length(); n > 200 || len(last) != 1 || last[0].ID <= ids[len(ids)-1] {
		t.Errorf("the stream has %d entries, the last of which is %v: the other group has not read it", n, last)
	}
}

// Consumers of processes that no longer exist are removed, unless they have pending
// events.
func TestRemovesIdleConsumers(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.addEvents("z", 10)
	s.receiveAs("with pending events")
	if err := s.redis.XGroupCreateConsumer(t.Context(), ingest.Stream, ingest.Group, "idle").Err(); err != nil {
		t.Fatal(err)
	}
	i, _ := s.start(func(c *ingest.Config) { c.RemoveIdle = time.Millisecond })
	s.eventually("idle is removed", func() bool {
		if err := i.Upkeep(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(s.redis.XInfoConsumers(t.Context(), ingest.Stream, ingest.Group).Val()) == 2
	})
	stat := i.Stat()
	if stat.Pending != 10 || stat.Lag != 0 {
		t.Errorf("the stream has %+v", stat.StreamStat)
	}
}
