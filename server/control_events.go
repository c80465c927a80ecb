package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/control"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store/ingest"
)

// Outcomes of invocations in audit events.
const (
	outcomeDenied  = "denied"  // it was refused, and nothing was done
	outcomeApplied = "applied" // it was done
	outcomeFailed  = "failed"  // the operation changed nothing
	outcomeUnknown = "unknown" // it may or may not have changed something
)

// outcomeOf returns the outcome of an invocation and the reason of its audit event.
func outcomeOf(result controlResult, err error) (outcome, reason string) {
	var codeErr *code.Error
	switch errors.As(err, &codeErr); {
	case err == nil:
		return outcomeApplied, ""
	case errors.Is(err, code.ControlTokenReplayed):
		return outcomeDenied, "replay"
	case codeErr == nil:
		return outcomeUnknown, code.InternalError.Error()
	case errors.Is(err, code.ControlUpstream) && result.changes:
		return outcomeUnknown, codeErr.Sentence
	case codeErr.Cause != nil: // of the operation
		return outcomeFailed, cmp.Or(codeErr.Sentence, codeErr.Code.Error())
	}
	return outcomeDenied, cmp.Or(codeErr.Sentence, codeErr.Code.Error())
}

// A controlMetadata is the metadata of the audit event of an invocation. Texts are empty
// if they are unknown.
type controlMetadata struct {
	Subject        string   `json:"subject"` // anonymous: not authenticated
	TokenID        string   `json:"jti"`
	ClientID       string   `json:"client_id"`
	Command        string   `json:"command"`
	Subcommand     string   `json:"subcommand"`
	Reason         string   `json:"reason"`
	IdempotencyKey string   `json:"idempotency_key"`
	AuthorizedBy   string   `json:"authorized_by"` // not verified
	Outcome        string   `json:"outcome"`
	ObjectIDs      []string `json:"object_ids,omitempty"` // of the changed objects
}

// An invocationEvent is an audit event about an invocation.
type invocationEvent struct {
	ingest.Event
	metadata controlMetadata
	objects  []string
}

// controlEvent describes an invocation of a caller, or of an unknown one if it is nil.
func controlEvent(info *middleware.RequestInfo, caller *middleware.ControlCaller, i control.Invocation, outcome, reason string) invocationEvent {
	e := invocationEvent{Event: ingest.Event{
		ID: uuid.NewString(), ZoneID: "unknown", EventType: "control.invoke", RequestID: info.RequestID, Decision: "deny", EvaluationStatus: "complete",
		DeterminingPolicies: []any{}, Diagnostics: []any{}, OccurredAt: time.Now().UTC().Truncate(time.Millisecond),
	}, metadata: controlMetadata{
		Subject: "anonymous", Command: i.Command, Subcommand: i.Subcommand, Reason: reason, IdempotencyKey: i.IdempotencyKey, AuthorizedBy: i.AuthorizedBy, Outcome: outcome,
	}}
	if outcome == outcomeApplied {
		e.Decision = "allow"
	}
	if caller != nil {
		e.ZoneID = caller.ZoneID
		e.metadata.Subject, e.metadata.ClientID, e.metadata.TokenID = caller.KeyID, caller.KeyID, caller.TokenID
	}
	return e
}

// controlEvents publishes audit events in the background, so that no response waits for
// Redis. While Redis is unavailable, they wait in memory; if too many wait, new ones are
// dropped and counted. What an invocation changes is in the admin audit log anyway.
type controlEvents struct {
	redis   redis.UniversalClient
	key     []byte
	log     *slog.Logger
	queue   chan ingest.Event
	dropped atomic.Uint64
}

func newControlEvents(client redis.UniversalClient, key []byte, log *slog.Logger) *controlEvents {
	const queueSize = 4096
	return &controlEvents{redis: client, key: key, log: log, queue: make(chan ingest.Event, queueSize)}
}

// add queues an event, or drops it if the queue is full. It never blocks.
func (c *controlEvents) add(e invocationEvent) {
	e.metadata.ObjectIDs = e.objects
	e.Event.Metadata = e.metadata
	select {
	case c.queue <- e.Event:
	default:
		c.dropped.Add(1)
	}
}

// run publishes queued events until ctx is done, and then the remaining ones.
func (c *controlEvents) run(ctx context.Context) {
	const maxDelay = 2 * time.Second
	for {
		select {
		case e := <-c.queue:
			batch := c.drain(e)
			for delay := 50 * time.Millisecond; !c.publish(ctx, batch) && ctx.Err() == nil; delay = min(2*delay, maxDelay) {
				select {
				case <-ctx.Done():
				case <-time.After(delay):
				}
			}
		case <-ctx.Done():
			if batch := c.drain(); len(batch) > 0 && !c.publish(ctx, batch) {
				c.dropped.Add(uint64(len(batch)))
			}
			return
		}
	}
}

// drain returns events and those that wait, up to the size of a batch.
func (c *controlEvents) drain(batch ...ingest.Event) []ingest.Event {
	const maxBatch = 500
	for len(batch) < maxBatch {
		select {
		case e := <-c.queue:
			batch = append(batch, e)
		default:
			return batch
		}
	}
	return batch
}

// publish reports whether it has published events.
func (c *controlEvents) publish(ctx context.Context, batch []ingest.Event) bool {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	err := ingest.Publish(ctx, c.redis, c.key, batch...)
	if err != nil {
		c.log.WarnContext(ctx, "failed to publish audit events of the Control API", "count", len(batch), "error", err)
	}
	return err == nil
}
