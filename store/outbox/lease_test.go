package outbox_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/store"
	"caracal.run/management/store/outbox"
	"caracal.run/management/store/storetest"
)

// asLeader runs f as the leader, in the middle of its term.
func (b *bench) asLeader(f func(context.Context, *store.Leader)) {
	b.t.Helper()
	err := b.store.LeadOutbox(b.t.Context(), func(ctx context.Context, leader *store.Leader) error {
		f(ctx, leader)
		return nil
	})
	if err != nil {
		b.t.Error(err)
	}
}

// expire ends the term of the leader by the clock of the database, as if the leader
// had been frozen.
func (b *bench) expire() { b.Exec("UPDATE leases SET expires_at = now() - interval '1 second'") }

// A leader whose term has ended reads no events and rejects none, not even those that it
// has read before.
func TestLeaderWhoseTermHasEndedPublishesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other := newReplica(t, b.DB, storetest.RedisURL(t))
	for range 3 {
		b.Event("z", stream)
	}
	b.asLeader(func(ctx context.Context, frozen *store.Leader) {
		events, err := frozen.PendingEvents(ctx, 10, []string{})
		if err != nil || len(events) != 3 {
			t.Fatalf("%d events, %v", len(events), err)
		}
		b.expire()
		if again, err := frozen.PendingEvents(ctx, 10, []string{}); err != nil || len(again) != 0 {
			t.Errorf("after its term, the leader reads %d events, %v; want none", len(again), err)
		}
		other.asLeader(func(ctx context.Context, leader *store.Leader) {
			if leader.Term() <= frozen.Term() {
				t.Errorf("term %d follows term %d", leader.Term(), frozen.Term())
			}
			for what, err := range map[string]error{
				"MarkRejected": frozen.MarkRejected(ctx, []store.Rejection{{Seq: events[1].Seq, Error: "x"}}, 1),
				"Publish":      publishError(ctx, b, frozen),
			} {
				if !errors.Is(err, store.ErrLeaseTaken) {
					t.Errorf("%s: %v, want %v", what, err, store.ErrLeaseTaken)
				}
			}
			if n := storetest.Value[int](b.DB, "SELECT count(*) FROM outbox WHERE dispatched_at IS NOT NULL OR dead_at IS NOT NULL OR attempts > 0"); n != 0 {
				t.Errorf("%d events were changed, want none", n)
			}
			if n, err := other.Publish(ctx, leader); n != 3 || err != nil {
				t.Errorf("the new leader publishes %d events, %v; want 3", n, err)
			}
		})
	})
}

func publishError(ctx context.Context, b *bench, leader *store.Leader) error {
	// The lease is renewed, and its loss noticed, a few times in its duration.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := b.Publish(ctx, leader); err != nil {
			return err
		}
	}
	return nil
}

// The clock of the database can be set back, as after a failover: then the lease seems
// to last for hours, and is void.
func TestOtherReplicaTakesOverAfterDatabaseClockIsSetBack(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.Exec("INSERT INTO leases VALUES ('outbox', 'crashed', 7, now() + interval '2 hours')")
	b.run(t)
	eventuallyIn(t, 5*time.Second, "it takes over", b.leads)
	b.Event("z", stream)
	eventually(t, "it publishes", func() bool { return len(b.arrived(stream)) == 1 })
}

// Without a clean shutdown, another replica takes over when the lease has expired, and
// the leader that comes back stands by.
func TestOtherReplicaTakesOverAfterLeaseExpires(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other := newReplica(t, b.DB, storetest.RedisURL(t))
	b.Exec("INSERT INTO leases VALUES ('outbox', 'crashed', 7, now() + interval '2 seconds')")
	began := time.Now()
	other.run(t)
	time.Sleep(500 * time.Millisecond)
	if other.leads() {
		t.Error("it leads while another replica has the lease")
	}
	eventually(t, "it takes over", other.leads)
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("it took over after %v, before the lease had expired", took)
	}
	if term := other.Stat().Term; term != 8 {
		t.Errorf("term %d, want 8", term)
	}
}

// A leader that lives renews its lease whether or not there are events.
func TestIdleLeaderKeepsItsLease(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *outbox.Config) { c.PollInterval = time.Hour })
	b.run(t)
	eventually(t, "it leads", b.leads)
	term := b.Stat().Term
	time.Sleep(4 * time.Second) // longer than a lease
	if now := b.Stat().Term; now != term {
		t.Errorf("term %d became %d", term, now)
	}
	if left := storetest.Value[float64](b.DB, "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM leases"); left < 0.5 {
		t.Errorf("the lease expires in %.1f s", left)
	}
}

// holdLease renews the lease for 8 seconds, in the background.
func (b *bench) holdLease(t *testing.T) {
	var done sync.WaitGroup
	done.Go(func() {
		b.asLeader(func(ctx context.Context, leader *store.Leader) {
			for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				if err := leader.Renew(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	})
	t.Cleanup(done.Wait)
}

// watch watches the outbox until the test ends.
func (b *bench) watch(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { b.Watch(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
}

// Each replica notices within 10 seconds that events are not published, and says why.
func TestWatchReportsLackOfProgress(t *testing.T) {
	t.Parallel()
	const noticed = 10 * time.Second
	for _, tt := range []struct {
		state  outbox.State
		inject func(*bench)
		repair func(*bench)
	}{
		{outbox.NoLeader, func(b *bench) { b.Exec("INSERT INTO leases VALUES ('outbox', 'gone', 1, now())") }, func(b *bench) { b.run(b.t) }},
		{outbox.Stalled, func(b *bench) {
			b.Event("z", stream)
			b.holdLease(b.t) // and publish nothing
		}, func(b *bench) { b.run(b.t) }},
		{outbox.TwoLeaders, func(b *bench) {
			b.run(b.t)
			eventually(b.t, "it leads", b.leads)
			b.Exec("UPDATE leases SET holder = 'other', term = term + 1, expires_at = now() + interval '1 second'")
		}, func(*bench) {}},
	} {
		t.Run(string(tt.state), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.watch(t)
			tt.inject(b)
			began := time.Now()
			eventually(t, "it is noticed", func() bool { return b.Stat().State == tt.state })
			if took := time.Since(began); took > noticed {
				t.Errorf("noticed after %v, want at most %v", took, noticed)
			}
			eventually(t, "it is logged", func() bool {
				return strings.Count(b.log.String(), "outbox does not progress") == 1 && strings.Contains(b.log.String(), "state="+string(tt.state))
			})
			tt.repair(b)
			eventuallyIn(t, 30*time.Second, "the recovery is noticed", func() bool { return b.Stat().State == outbox.OK })
			if !strings.Contains(b.log.String(), "outbox recovered") {
				t.Errorf("the recovery is not logged: %s", b.log)
			}
		})
	}
}
