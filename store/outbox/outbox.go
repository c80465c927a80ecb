// Package outbox takes events from Postgres to signed Redis streams.
//
// One replica publishes at a time. It promises each event at least once, and
// the first deliveries of a zone in the order of its commits, with one
// exception: what was sent in one batch behind an event that Redis refused may
// arrive before it. outbox_id is the key by which a consumer knows an event
// again.
//
// Redis away, full or loading counts against nobody: everything waits. An event
// that Redis itself refuses makes its own zone wait, is tried a few times
// quickly, and then is dead: the zone goes on without it.
package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"caracal.run/management/store"
)

// Fields that every entry has besides the event's own.
const (
	outboxID    = "outbox_id"
	signature   = "_sig"
	traceparent = "traceparent" // of traced requests only
)

// Config says how to publish.
type Config struct {
	Traces       trace.TracerProvider
	Key          []byte        // signs; nil signs nothing
	Batch        int           // events that are sent together
	PollInterval time.Duration // how long to trust that we are woken
	MaxLen       int64         // about how many entries a stream keeps
	MaxAttempts  int           // refusals after which an event is dead
	Retention    time.Duration // how long dispatched events stay in Postgres

	// Observe, if not nil, hears of each event that Redis has taken how long that
	// took since its transaction began.
	Observe func(time.Duration)
}

// A Publisher publishes for as long as it leads. Make one with [New].
type Publisher struct {
	config  Config
	store   *store.Store
	redis   *redis.Client
	log     *slog.Logger
	wake    chan struct{}
	leading atomic.Bool

	// Only the leading goroutine looks at these.
	pausedUntil map[string]time.Time // zone -> until when it waits
	unmarked    []int64              // events that Redis has taken, and Postgres has not been told

	published, rejected, unavailable atomic.Uint64
}

// Stat is what a publisher has done so far.
type Stat struct {
	Leading                          bool
	Published, Rejected, Unavailable uint64 // events taken, events refused, times that Redis was away
}

// New makes a publisher.
func New(s *store.Store, client *redis.Client, log *slog.Logger, c Config) *Publisher {
	if c.Observe == nil {
		c.Observe = func(time.Duration) {}
	}
	return &Publisher{config: c, store: s, redis: client, log: log, wake: make(chan struct{}, 1), pausedUntil: map[string]time.Time{}}
}

// Stat is what the publisher has done so far.
func (p *Publisher) Stat() Stat {
	return Stat{p.leading.Load(), p.published.Load(), p.rejected.Load(), p.unavailable.Load()}
}

// Wake makes the publisher look at once.
func (p *Publisher) Wake() {
	select {
	case p.wake <- struct{}{}:
	default: // it has been woken and not yet looked
	}
}

// Run publishes whenever this process leads, until ctx ends; then it publishes
// what is pending once more, if Redis takes it.
func (p *Publisher) Run(ctx context.Context) {
	const isRetryable = 500 * time.Millisecond
	for ctx.Err() == nil {
		err := p.store.RunAsLeader(ctx, "outbox", p.publishAsLeader)
		p.leading.Store(false)
		if ctx.Err() != nil {
			return
		}
		p.log.WarnContext(ctx, "lost the lead of the outbox", "error", err)
		sleep(ctx, isRetryable)
	}
}

// NotifyLoop wakes the publisher after each commit of events by this process, until
// ctx ends: the one in this process if that leads, and otherwise the one that
// does, at most once in a few milliseconds.
func (p *Publisher) NotifyLoop(ctx context.Context) {
	const coalesce = 5 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.store.Committed():
		}
		if p.leading.Load() {
			p.Wake()
			continue
		}
		if err := p.store.NotifyPublisher(ctx); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "could not wake the publisher; it will look by itself", "error", err)
		}
		sleep(ctx, coalesce)
	}
}

// publishAsLeader publishes until ctx ends or the lead is lost.
func (p *Publisher) publishAsLeader(ctx context.Context, s *store.Store) error {
	const purgeEvery, unavailableLimit = time.Minute, 5 * time.Second
	p.leading.Store(true)
	p.log.InfoContext(ctx, "leads the outbox")
	backoff := backoff{}
	var purged, isUnavailable time.Time
	for {
		n, err := p.Publish(ctx, s)
		switch {
		case ctx.Err() != nil:
			if err := p.drain(ctx, s); err != nil {
				p.log.WarnContext(ctx, "events wait for the next leader", "error", err)
			}
			return nil
		case errors.Is(err, errUnavailable):
			p.unavailable.Add(1)
			p.log.WarnContext(ctx, "Redis does not take events; they wait", "error", err)
			if isUnavailable.IsZero() {
				isUnavailable = time.Now()
			} else if time.Since(isUnavailable) > unavailableLimit {
				return err // perhaps another replica reaches it
			}
			sleep(ctx, backoff.next())
			continue
		case err != nil:
			return err
		}
		backoff.reset()
		isUnavailable = time.Time{}
		if time.Since(purged) > purgeEvery && p.purge(ctx, s) {
			purged = time.Now()
		}
		if n == p.config.Batch || purged.IsZero() {
			continue
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-time.After(p.nextWake()):
		}
	}
}

// drain publishes what is pending when the process is about to stop. It tries
// no harder than that: the next leader goes on.
func (p *Publisher) drain(ctx context.Context, s *store.Store) error {
	for until := time.Now().Add(timeout / 2); time.Now().Before(until); {
		if n, err := p.Publish(ctx, s); err != nil || n < p.config.Batch {
			return err
		}
	}
	return errors.New("there was no time for all of them")
}

// timeout is how long one batch may take, and redisPatience how long Redis may
// take for it: with the longest pause that is less than a leader may be silent
// (store.Lead).
const (
	timeout      = 10 * time.Second
	redisTimeout = 2 * time.Second
)

// errUnavailable is that Redis cannot be reached or does not take anything now.
var errUnavailable = errors.New("redis is away")

// Publish sends one batch and says how many events it had. No transaction is
// open while Redis is asked.
func (p *Publisher) Publish(ctx context.Context, s *store.Store) (int, error) {
	// A batch that was begun is finished even if we are told to stop meanwhile:
	// what Redis has taken must be marked, on a connection that still works.
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if len(p.unmarked) > 0 { // they are not to be sent a second time
		if err := s.MarkDispatched(working, p.unmarked); err != nil {
			return 0, err
		}
		p.unmarked = nil
	}
	events, err := s.PendingEvents(working, p.config.Batch, p.pausedZones())
	if err != nil || len(events) == 0 {
		return 0, err
	}
	read := time.Now()
	asking, stop := context.WithTimeout(working, redisTimeout)
	defer stop()
	pipe := p.redis.Pipeline()
	replies := make([]*redis.StringCmd, len(events))
	for i, e := range events {
		span := p.span(working, e)
		defer span.End()
		entry, err := p.entry(e, span)
		if err != nil {
			return 0, err
		}
		replies[i] = pipe.XAdd(asking, entry)
	}
	_, failed := pipe.Exec(asking)
	var sent, rejected []int64
	var why, isUnavailable error
	for i, e := range events {
		switch id, err := replies[i].Result(); {
		case err == nil && id != "":
			sent = append(sent, e.Seq)
			p.config.Observe(time.Duration(e.AgeSeconds*float64(time.Second)) + time.Since(read))
		case err == nil:
			// The client leaves replies untouched when Redis refused the connection itself.
			isUnavailable = fmt.Errorf("%w: %w", errUnavailable, cmp.Or(failed, errNoReply))
		case isRejected(err):
			rejected, why = append(rejected, e.Seq), err
			p.pauseZone(ctx, e, err)
		default:
			isUnavailable = fmt.Errorf("%w: %w", errUnavailable, err)
		}
	}
	p.published.Add(uint64(len(sent)))
	p.rejected.Add(uint64(len(rejected)))
	if err := s.MarkDispatched(working, sent); err != nil {
		p.unmarked = sent
		return 0, err
	}
	if len(rejected) > 0 {
		if err := s.MarkRejected(working, rejected, why.Error(), p.config.MaxAttempts); err != nil {
			return 0, err
		}
	}
	return len(events), isUnavailable
}

var errNoReply = errors.New("no reply")

// span is that of publishing an event, below the transaction that wrote it.
func (p *Publisher) span(ctx context.Context, e store.Event) trace.Span {
	if e.Traceparent == nil {
		return trace.SpanFromContext(context.Background()) // of a request that nobody traces
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: *e.Traceparent})
	_, span := p.config.Traces.Tracer("caracal.run/management/store/outbox").Start(ctx, "publish "+e.Stream, trace.WithSpanKind(trace.SpanKindProducer))
	return span
}

// entry is an event as it stands in its stream: its id, what it says, where it
// belongs if it is traced, and the signature over all that.
func (p *Publisher) entry(e store.Event, span trace.Span) (*redis.XAddArgs, error) {
	said := map[string]string{}
	if err := json.Unmarshal(e.Fields, &said); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID, err)
	}
	if span.IsRecording() {
		propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), span), propagation.MapCarrier(said))
	}
	values := []string{outboxID, e.ID}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		values = append(values, name, said[name])
	}
	if p.config.Key != nil {
		said[outboxID] = e.ID
		values = append(values, signature, Sign(p.config.Key, e.Stream, said))
	}
	return &redis.XAddArgs{Stream: e.Stream, MaxLen: p.config.MaxLen, Approx: true, Values: values}, nil
}

// isRejected says whether Redis read an event and will not have it. All else, such
// as OOM, LOADING, READONLY, MASTERDOWN or no connection, speaks of Redis and
// not of the event.
func isRejected(err error) bool {
	return redis.HasErrorPrefix(err, "WRONGTYPE") || redis.HasErrorPrefix(err, "ERR")
}

// pauseZone makes a refused event's zone wait, a little longer each time.
func (p *Publisher) pauseZone(ctx context.Context, e store.Event, why error) {
	const first = 50 * time.Millisecond
	if time.Now().Before(p.pausedUntil[e.ZoneID]) {
		return // for another event of this batch
	}
	p.log.WarnContext(ctx, "Redis refused an event", "zone", e.ZoneID, "stream", e.Stream, "outbox_id", e.ID, "attempt", e.Attempts+1, "error", why)
	p.pausedUntil[e.ZoneID] = time.Now().Add(first << min(e.Attempts, 6))
}

// pausedZones is the zones that still wait, and forgets those that need not.
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

// nextWake is how long to rest: until we poll, or until a zone need not wait.
func (p *Publisher) nextWake() time.Duration {
	const heartbeat = 2 * time.Second // who leads and says nothing loses the lead (store.Lead)
	rest := min(p.config.PollInterval, heartbeat)
	for _, until := range p.pausedUntil {
		rest = min(rest, max(time.Until(until), time.Millisecond))
	}
	return rest
}

// purge deletes a batch of what was dispatched longer ago than the retention,
// and says whether that was all. Events go first: it does one batch at a time.
func (p *Publisher) purge(ctx context.Context, s *store.Store) (done bool) {
	const batch = 1000
	working, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	n, err := s.PurgeEvents(working, time.Now().Add(-p.config.Retention), batch)
	if err != nil {
		p.log.WarnContext(ctx, "could not purge dispatched events", "error", err)
		return true
	}
	return n < batch
}

// A backoff grows while Redis stays away.
type backoff struct{ last time.Duration }

func (p *backoff) next() time.Duration {
	const first, maxDelay = 50 * time.Millisecond, 2 * time.Second
	p.last = min(max(first, 2*p.last), maxDelay)
	return p.last/2 + rand.N(p.last/2)
}

func (p *backoff) reset() { p.last = 0 }

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
