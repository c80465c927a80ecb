// Package outbox publishes events from Postgres to signed Redis streams.
//
// One replica, the leader, publishes at a time. Delivery is at least once, and
// the first deliveries of a zone's events are in commit order, with one
// exception: events that follow a rejected event in the same pipeline can be
// delivered before it. Consumers deduplicate by outbox_id.
//
// While Redis is unreachable, out of memory or loading its data, all events stay
// pending and no attempts are counted. If Redis rejects an event, or it cannot be
// encoded, its zone is paused and the event is retried with increasing delays.
// After the last attempt it becomes a dead letter, and publishing of the zone
// continues without it. Other zones are not affected.
package outbox

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"caracal.run/management/store"
)

// Config configures a [Publisher].
type Config struct {
	Traces       trace.TracerProvider
	Key          []byte        // HMAC key of the signatures; nil: events are not signed
	Batch        int           // events per pipeline
	PollInterval time.Duration // longest time between two reads of the outbox
	MaxLen       int64         // approximate maximum number of entries in a stream
	MaxAttempts  int           // failed attempts after which an event becomes a dead letter
	Retention    time.Duration // how long dispatched events stay in Postgres

	// Observe, if not nil, receives the time from the start of an event's
	// transaction until Redis stored the event.
	Observe func(time.Duration)
}

// A Publisher publishes events while this process is the leader.
type Publisher struct {
	config Config
	store  *store.Store
	redis  redis.UniversalClient
	log    *slog.Logger
	wake   chan struct{}
	term   atomic.Int64 // of this process as the leader; 0 if it is not
	state  atomic.Value // State

	// When this process, as the leader, last noticed that another one is, in Unix
	// nanoseconds.
	leaseTaken atomic.Int64

	// Used by the publishing goroutine only.
	pausedUntil map[string]time.Time // zone -> end of its pause
	waiting     bool                 // events are pending because Redis is unavailable, and the log says so
	unmarked    []int64              // sequence numbers of events that Redis stored and that are not marked yet

	published, rejected, unavailable atomic.Uint64
}

// Stat has the state of a publisher and its counts since it was created.
type Stat struct {
	Term        int64  // the term of this process as the leader; 0 if it is not
	State       State  // whether events are published, by any replica
	Published   uint64 // events that Redis stored
	Rejected    uint64 // failed attempts: Redis rejected the event, or it could not be encoded
	Unavailable uint64 // batches that failed because Redis was unavailable
}

// New returns a publisher. [Publisher.Run] starts it.
func New(s *store.Store, client redis.UniversalClient, log *slog.Logger, c Config) *Publisher {
	if c.Observe == nil {
		c.Observe = func(time.Duration) {}
	}
	p := &Publisher{config: c, store: s, redis: client, log: log, wake: make(chan struct{}, 1), pausedUntil: map[string]time.Time{}}
	p.state.Store(OK)
	return p
}

// Stat returns the publisher's current state and counts.
func (p *Publisher) Stat() Stat {
	return Stat{p.term.Load(), p.state.Load().(State), p.published.Load(), p.rejected.Load(), p.unavailable.Load()}
}

// Wake makes the publisher read the outbox at once.
func (p *Publisher) Wake() {
	select {
	case p.wake <- struct{}{}:
	default: // a wake-up is already pending
	}
}

// Run publishes whenever this process is the leader, until ctx ends. Then it drains
// the outbox: it publishes the pending events, if Redis is available.
func (p *Publisher) Run(ctx context.Context) {
	const retryInterval = 500 * time.Millisecond
	for ctx.Err() == nil {
		err := p.store.LeadOutbox(ctx, p.publishAsLeader)
		p.term.Store(0)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, store.ErrLeaseTaken) {
			p.leaseTaken.Store(time.Now().UnixNano())
		}
		p.log.Log(ctx, p.leadershipLevel(slog.LevelWarn), "outbox leadership lost", "error", err)
		sleep(ctx, retryInterval)
	}
}

// NotifyLoop wakes the leader after this process commits events, until ctx ends.
// If the leader is another process, it notifies it at most once every few
// milliseconds.
func (p *Publisher) NotifyLoop(ctx context.Context) {
	const minInterval = 5 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.store.Committed():
		}
		if p.term.Load() > 0 {
			p.Wake()
			continue
		}
		if err := p.store.NotifyPublisher(ctx); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "failed to notify publisher, falling back to polling", "error", err)
		}
		sleep(ctx, minInterval)
	}
}

// publishAsLeader publishes until ctx ends or leadership is lost.
func (p *Publisher) publishAsLeader(ctx context.Context, leader *store.Leader) error {
	const unavailableLimit = 5 * time.Second
	p.term.Store(leader.Term())
	p.log.Log(ctx, p.leadershipLevel(slog.LevelInfo), "outbox leadership acquired", "term", leader.Term())
	// Not by this goroutine: a slow deletion must not cost the lease.
	purgeCtx, stopPurge := context.WithCancel(ctx)
	var purging sync.WaitGroup
	purging.Go(func() { p.purgeLoop(purgeCtx) })
	defer func() { stopPurge(); purging.Wait() }()

	retry := backoff{}
	var unavailableSince time.Time
	for {
		n, err := p.Publish(ctx, leader)
		switch {
		case ctx.Err() != nil:
			if err := p.drain(ctx, leader); err != nil {
				p.log.WarnContext(ctx, "shutdown before outbox was drained", "error", err)
			}
			return nil
		case errors.Is(err, errUnavailable):
			p.unavailable.Add(1)
			if !p.waiting {
				p.log.WarnContext(ctx, "redis unavailable, events pending", "error", err)
				p.waiting = true
			}
			if unavailableSince.IsZero() {
				unavailableSince = time.Now()
			} else if time.Since(unavailableSince) > unavailableLimit {
				return err // give up leadership: another replica may be able to reach Redis
			}
			if err := p.renew(ctx, leader); err != nil {
				return err
			}
			sleep(ctx, retry.next())
			continue
		case err != nil:
			return err
		}
		if p.waiting {
			p.log.InfoContext(ctx, "redis available, publishing pending events")
			p.waiting = false
		}
		retry.reset()
		unavailableSince = time.Time{}
		if n == p.config.Batch {
			continue
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-time.After(p.nextWake()):
		}
	}
}

// leaderContext returns a context that ends with the leader's lease. A shutdown does not
// end it.
func leaderContext(ctx context.Context, leader *store.Leader) (context.Context, context.CancelFunc) {
	return context.WithDeadline(context.WithoutCancel(ctx), leader.Until())
}

func (p *Publisher) renew(ctx context.Context, leader *store.Leader) error {
	ctx, cancel := leaderContext(ctx, leader)
	defer cancel()
	return leader.Renew(ctx)
}

// leadershipLevel returns the level of a line of the log about leadership. While Redis
// is unavailable, the replicas take turns as the leader, so each has many such lines.
func (p *Publisher) leadershipLevel(level slog.Level) slog.Level {
	if p.waiting {
		return slog.LevelDebug
	}
	return level
}

// drain publishes the pending events when the process shuts down. It returns an
// error if some remain, which the next leader publishes.
func (p *Publisher) drain(ctx context.Context, leader *store.Leader) error {
	const timeout = 5 * time.Second
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); {
		if n, err := p.Publish(ctx, leader); err != nil || n < p.config.Batch {
			return err
		}
	}
	return errors.New("drain deadline exceeded")
}

// pauseZone pauses the zone of a rejected event. The pause doubles with each
// attempt, up to a maximum.
func (p *Publisher) pauseZone(ctx context.Context, e store.Event, cause error) {
	const first, maxDoublings = 50 * time.Millisecond, 6
	if time.Now().Before(p.pausedUntil[e.ZoneID]) {
		return // another event of this batch has paused it
	}
	p.log.WarnContext(ctx, "event rejected, zone paused",
		"zone_id", e.ZoneID, "stream", e.Stream, "outbox_id", e.ID, "attempt", e.Attempts+1, "error", cause)
	p.pausedUntil[e.ZoneID] = time.Now().Add(first << min(e.Attempts, maxDoublings))
}

// pausedZones returns the paused zones and forgets those whose pause has ended.
func (p *Publisher) pausedZones() []string {
	zones := []string{}
	for zone, until := range p.pausedUntil {
		if time.Now().Before(until) {
			zones = append(zones, zone)
		} else {
			delete(p.pausedUntil, zone)
		}
	}
	return zones
}

// nextWake returns how long to sleep: until the next poll or the end of a pause.
func (p *Publisher) nextWake() time.Duration {
	const heartbeat = time.Second // the lease is renewed when the outbox is read
	wait := min(p.config.PollInterval, heartbeat)
	for _, until := range p.pausedUntil {
		wait = min(wait, max(time.Until(until), time.Millisecond))
	}
	return wait
}

// purgeLoop deletes the dispatched events that are older than the retention, until ctx
// ends.
func (p *Publisher) purgeLoop(ctx context.Context) {
	const interval, batch, timeout = time.Minute, 1000, 10 * time.Second
	for ctx.Err() == nil {
		purgeCtx, cancel := context.WithTimeout(ctx, timeout)
		n, err := p.store.PurgeEvents(purgeCtx, time.Now().Add(-p.config.Retention), batch)
		cancel()
		if err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "failed to purge dispatched events", "error", err)
		}
		if n < batch {
			sleep(ctx, interval)
		}
	}
}

// A backoff computes the delays between attempts while Redis is unavailable.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	const first, maxDelay = 50 * time.Millisecond, time.Second // less than the lease
	b.last = min(max(first, 2*b.last), maxDelay)
	return b.last/2 + rand.N(b.last/2)
}

func (b *backoff) reset() { b.last = 0 }

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
