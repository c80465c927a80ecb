package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"caracal.run/management/store/ingest"
	"caracal.run/management/store/redisconn"
)

// An auditPublisher publishes the audit events of token requests and of the Control API in
// the background, so that no response waits for Redis. While Redis is unavailable, events
// wait in a queue. This is best effort: if the queue is full or the process ends meanwhile,
// events are dropped and counted. What was changed is in the admin audit log anyway.
type auditPublisher struct {
	redis   *redisconn.Client
	key     []byte // signs events; nil: they are not signed
	log     *slog.Logger
	queue   chan ingest.Event
	dropped atomic.Uint64
}

func newAuditPublisher(redis *redisconn.Client, key []byte, log *slog.Logger) *auditPublisher {
	const queueSize = 10_000
	return &auditPublisher{redis: redis, key: key, log: log, queue: make(chan ingest.Event, queueSize)}
}

// add queues an event, or drops it if the queue is full. It never blocks.
func (p *auditPublisher) add(event ingest.Event) {
	select {
	case p.queue <- event:
	default:
		p.dropped.Add(1)
	}
}

// run publishes queued events until ctx is done, and then tries once to publish the
// remaining ones. It waits a little for more events: a command for one costs almost as much
// as one for many, and they are ingested at intervals anyway.
func (p *auditPublisher) run(ctx context.Context) {
	const coalesce = 10 * time.Millisecond
	for {
		select {
		case event := <-p.queue:
			select {
			case <-time.After(coalesce):
			case <-ctx.Done():
			}
			p.publish(ctx, p.batch(event))
		case <-ctx.Done():
			for {
				select {
				case event := <-p.queue:
					p.publish(ctx, p.batch(event))
				default:
					return
				}
			}
		}
	}
}

// batch returns an event and the ones that are queued behind it.
func (p *auditPublisher) batch(first ingest.Event) []ingest.Event {
	const maxBatch = 1000
	events := []ingest.Event{first}
	for len(events) < maxBatch {
		select {
		case event := <-p.queue:
			events = append(events, event)
		default:
			return events
		}
	}
	return events
}

// publish publishes events, with retries until ctx is done. Events that are published again
// are recognized by their IDs.
func (p *auditPublisher) publish(ctx context.Context, events []ingest.Event) {
	const timeout, interval = 2 * time.Second, time.Second
	for attempt := 1; ; attempt++ {
		attemptCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		err := ingest.Publish(attemptCtx, p.redis, p.key, events...)
		cancel()
		if err == nil {
			return
		}
		if attempt == 1 {
			p.log.WarnContext(ctx, "failed to publish audit events, retrying", "events", len(events), "error", err)
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			p.dropped.Add(uint64(len(events)))
			return
		}
	}
}
