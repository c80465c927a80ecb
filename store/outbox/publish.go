package outbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"caracal.run/management/store"
	"caracal.run/management/store/redisconn"
)

// Fields that the publisher adds to the fields of an event.
const (
	outboxID    = "outbox_id"
	signature   = "_sig"
	traceparent = "traceparent" // if the request was traced
)

// redisTimeout limits a Redis pipeline. It is less than the duration of the leader's
// lease, so that an unresponsive Redis does not cost the leadership.
const redisTimeout = 1500 * time.Millisecond

// errUnavailable means that Redis is unreachable or accepts no writes now.
var errUnavailable = errors.New("redis unavailable")

// markTimeout limits the statements that mark events, which a shutdown and the end of
// the lease do not interrupt: the events are in Redis, and would be sent again.
const markTimeout = 10 * time.Second

// Publish sends one batch and returns its number of events. No transaction is
// open while Redis is called.
func (p *Publisher) Publish(ctx context.Context, leader *store.Leader) (int, error) {
	markCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	if len(p.unmarked) > 0 { // otherwise, they would be sent again
		if err := leader.MarkDispatched(markCtx, p.unmarked); err != nil {
			return 0, err
		}
		p.unmarked = nil
	}
	events, err := p.pendingEvents(ctx, leader)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	sendCtx, cancelSend := leaderContext(ctx, leader)
	sent, rejected, unavailable := p.send(sendCtx, events)
	cancelSend()
	p.published.Add(uint64(len(sent)))
	p.rejected.Add(uint64(len(rejected)))
	if err := leader.MarkDispatched(markCtx, sent); err != nil {
		p.unmarked = sent
		return 0, err
	}
	if err := leader.MarkRejected(markCtx, rejected, p.config.MaxAttempts); err != nil {
		return 0, err
	}
	return len(events), unavailable
}

func (p *Publisher) pendingEvents(ctx context.Context, leader *store.Leader) ([]store.Event, error) {
	ctx, cancel := leaderContext(ctx, leader)
	defer cancel()
	return leader.PendingEvents(ctx, p.config.Batch, p.pausedZones())
}

// send sends events in one pipeline. It returns the sequence numbers of those
// that Redis stored, the rejected ones with their errors, and an error if Redis
// is unavailable: then the remaining events stay pending.
func (p *Publisher) send(ctx context.Context, events []store.Event) (sent []int64, rejected []store.Rejection, unavailable error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	reject := func(e store.Event, err error) {
		rejected = append(rejected, store.Rejection{Seq: e.Seq, Error: errorText(err)})
		p.pauseZone(ctx, e, err)
	}
	pipe := p.redis.Pipeline()
	replies := make([]*redis.StringCmd, len(events)) // nil: not sent
	skipped := map[string]bool{}                     // zones of events that cannot be encoded
	for i, e := range events {
		if skipped[e.ZoneID] {
			continue // keep the order of the zone's events
		}
		span := p.span(ctx, e)
		defer span.End()
		entry, err := p.entry(e, span)
		if err != nil {
			skipped[e.ZoneID] = true
			reject(e, err)
			continue
		}
		replies[i] = pipe.XAdd(ctx, entry)
	}
	_, pipeErr := pipe.Exec(ctx)
	for i, e := range events {
		if replies[i] == nil {
			continue
		}
		switch id, err := replies[i].Result(); {
		case err == nil && id != "":
			sent = append(sent, e.Seq)
			p.config.Observe(time.Duration(e.AgeSeconds*float64(time.Second)) + time.Since(start))
		case err == nil:
			// The client does not set the replies if Redis rejects the connection.
			unavailable = fmt.Errorf("%w: %w", errUnavailable, cmp.Or(pipeErr, redisconn.ErrNoReply))
		case redisconn.IsRejected(err):
			reject(e, err)
		default:
			unavailable = fmt.Errorf("%w: %w", errUnavailable, err)
		}
	}
	return sent, rejected, unavailable
}

// errorText returns the text of an error, truncated and without bytes that Postgres
// cannot store. Redis quotes bytes of the command in its replies.
func errorText(err error) string {
	const maxLength = 1000
	text := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > maxLength {
		text = strings.ToValidUTF8(text[:maxLength], "")
	}
	return text
}

// span starts the span of publishing an event, a child of the span that the event's
// transaction recorded.
func (p *Publisher) span(ctx context.Context, e store.Event) trace.Span {
	if e.Traceparent == nil {
		return trace.SpanFromContext(context.Background()) // the request was not traced
	}
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: *e.Traceparent})
	_, span := p.config.Traces.Tracer("caracal.run/management/store/outbox").Start(ctx, "publish "+e.Stream, trace.WithSpanKind(trace.SpanKindProducer))
	return span
}

// entry returns the stream entry of an event: its id, its fields, the trace
// context if it is traced, and the signature over all of these.
func (p *Publisher) entry(e store.Event, span trace.Span) (*redis.XAddArgs, error) {
	fields := map[string]string{}
	if err := json.Unmarshal(e.Fields, &fields); err != nil {
		return nil, fmt.Errorf("the event's fields must be an object of strings: %w", err)
	}
	if span.IsRecording() {
		propagation.TraceContext{}.Inject(trace.ContextWithSpan(context.Background(), span), propagation.MapCarrier(fields))
	}
	values := []string{outboxID, e.ID}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		values = append(values, name, fields[name])
	}
	if p.config.Key != nil {
		fields[outboxID] = e.ID
		values = append(values, signature, Sign(p.config.Key, e.Stream, fields))
	}
	return &redis.XAddArgs{Stream: e.Stream, MaxLen: p.config.MaxLen, Approx: true, Values: values}, nil
}
