// Package ingest moves authorization audit events from their Redis stream to Postgres,
// where each is appended to the hash chain of its zone.
//
// Other services produce the events; see [Publish]. Every replica of this service
// ingests: the replicas share a consumer group, and so the events. An event is
// acknowledged only after its transaction has committed, or after a copy is in the
// dead-letter stream with the reason why it cannot be stored. Because events are
// deduplicated by their ID, one that is delivered again is stored once.
//
// While Redis or Postgres is unavailable, events wait in the stream. The stream is
// trimmed, but never past an event that a consumer group has not acknowledged.
package ingest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/store"
)

// The streams of audit events and of those that could not be stored, and the consumer
// group of this service.
const (
	Stream           = "caracal.audit.events"
	DeadLetterStream = "caracal.audit.events.dlq"
	Group            = "audit-ingestor"
)

// Config configures an [Ingester].
type Config struct {
	Key           []byte        // HMAC key of the events' signatures and of the chains; nil: neither is signed
	Consumer      string        // name of this process in the consumer group
	Batch         int           // maximum number of events in a transaction; 0: [DefaultBatch]
	ClaimIdle     time.Duration // time after which an event that another process has not acknowledged is taken over
	RemoveIdle    time.Duration // time after which a process that has not read is removed from the consumer group; 0: [DefaultRemoveIdle]
	MaxDeliveries int64         // number of failed deliveries after which an event becomes a dead letter
	RetentionDays int           // maximum age of an event
}

// An Ingester ingests audit events.
type Ingester struct {
	config Config
	store  *store.Store
	redis  redis.UniversalClient
	log    *slog.Logger

	// Used by the goroutine of Run only.
	unavailable   bool // Redis or Postgres is unavailable, and the log says so
	months        map[time.Time]bool
	retentionDays int
	lastRetention time.Time // when retentionDays was read
	lastClaim     time.Time
	lastUpkeep    time.Time

	counts counts
	stream atomic.Pointer[StreamStat]
}

// Defaults of the configuration.
const (
	DefaultBatch      = 500
	DefaultRemoveIdle = time.Hour
)

// New returns an ingester. [Ingester.Run] starts it.
func New(s *store.Store, client redis.UniversalClient, log *slog.Logger, c Config) *Ingester {
	c.Batch, c.RemoveIdle = cmp.Or(c.Batch, DefaultBatch), cmp.Or(c.RemoveIdle, DefaultRemoveIdle)
	i := &Ingester{config: c, store: s.For(store.System), redis: client, log: log, months: map[time.Time]bool{}}
	i.stream.Store(&StreamStat{})
	return i
}

// Run ingests until ctx ends. Then it completes the batch that it has begun.
func (i *Ingester) Run(ctx context.Context) {
	const firstDelay, maxDelay = 100 * time.Millisecond, 2 * time.Second
	delay := firstDelay
	for ctx.Err() == nil {
		err := i.consume(ctx, func() { delay = firstDelay })
		if ctx.Err() != nil {
			return
		}
		if isMissingGroup(err) { // Redis lost its data
			i.log.WarnContext(ctx, "consumer group of audit events is missing, creating it again")
			continue
		}
		i.setUnavailable(ctx, "redis unavailable, audit events pending", err)
		sleep(ctx, delay/2+rand.N(delay/2))
		delay = min(2*delay, maxDelay)
	}
}

// consume ingests until ctx ends or Redis fails. It calls succeeded when Redis works.
func (i *Ingester) consume(ctx context.Context, succeeded func()) error {
	const pollInterval, fillInterval = 200 * time.Millisecond, 20 * time.Millisecond
	if err := i.createGroup(ctx); err != nil {
		return err
	}
	if err := i.drainPending(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := i.maintain(ctx); err != nil {
			return err
		}
		entries, err := i.readNew(ctx)
		if err != nil {
			return err
		}
		if i.unavailable {
			i.log.InfoContext(ctx, "ingesting audit events again")
			i.unavailable = false
		}
		succeeded()
		if err := i.process(ctx, entries); err != nil {
			return err
		}
		switch {
		case len(entries) == 0:
			sleep(ctx, pollInterval)
		case len(entries) < i.config.Batch: // a transaction for a few events costs almost as much as one for many
			sleep(ctx, fillInterval)
		}
	}
	return ctx.Err()
}

// maintain does what is due periodically.
func (i *Ingester) maintain(ctx context.Context) error {
	const upkeepInterval = 10 * time.Second
	if time.Since(i.lastClaim) >= i.config.ClaimIdle {
		i.lastClaim = time.Now()
		if err := i.claim(ctx); err != nil {
			return err
		}
	}
	if time.Since(i.lastUpkeep) >= upkeepInterval {
		i.lastUpkeep = time.Now()
		return i.upkeep(ctx)
	}
	return nil
}

// process stores the valid events of a batch, copies the others to the dead-letter
// stream, and acknowledges both. It returns an error if Redis fails or ctx ends: then
// what is not acknowledged is delivered again.
func (i *Ingester) process(ctx context.Context, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := i.updateRetention(ctx); err != nil {
		return err
	}
	now := time.Now()
	valid := make([]*entry, 0, len(entries))
	for n := range entries {
		e := &entries[n]
		if i.parse(e, now); e.reason == "" && !e.deleted {
			valid = append(valid, e)
		}
	}
	err := i.write(ctx, valid)
	return errors.Join(err, i.acknowledge(ctx, entries))
}

// setUnavailable logs that Redis or Postgres is unavailable, once until both work.
func (i *Ingester) setUnavailable(ctx context.Context, message string, err error) {
	if !i.unavailable {
		i.log.WarnContext(ctx, message, "error", err)
		i.unavailable = true
	}
}

// isMissingGroup reports whether Redis has replied that the stream or the group does not
// exist.
func isMissingGroup(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply) && strings.HasPrefix(reply.Error(), "NOGROUP")
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
