package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/store"
)

// redisTimeout limits a command or a pipeline.
const redisTimeout = 5 * time.Second

// maxDeadLetters is the approximate number of dead letters that are kept.
const maxDeadLetters = 100_000

// An entry is a received entry of the stream, and what becomes of it.
type entry struct {
	redis.XMessage
	deliveries int64
	event      store.AuditEvent
	reason     string // not empty: it becomes a dead letter
	deleted    bool   // it was removed from the stream before it was acknowledged
	stored     bool
}

func (i *Ingester) createGroup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	err := i.redis.XGroupCreateMkStream(ctx, Stream, Group, "0").Err()
	if err != nil && strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return nil
	}
	return err
}

// readNew reads events that no process has received yet.
func (i *Ingester) readNew(ctx context.Context) ([]entry, error) { return i.read(ctx, ">") }

// drainPending processes the events that a previous process with the same name has
// received and not acknowledged.
func (i *Ingester) drainPending(ctx context.Context) error {
	for after := "0"; ctx.Err() == nil; {
		entries, err := i.read(ctx, after)
		if err != nil || len(entries) == 0 {
			return err
		}
		after = entries[len(entries)-1].ID
		if err := i.process(ctx, i.withDeliveries(ctx, entries)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (i *Ingester) read(ctx context.Context, after string) ([]entry, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	const noBlock = -1 // a blocked connection would delay the shutdown
	streams, err := i.redis.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: Group, Consumer: i.config.Consumer, Streams: []string{Stream, after}, Count: int64(i.config.Batch), Block: noBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil || len(streams) == 0 {
		return nil, err
	}
	return newEntries(streams[0].Messages), nil
}

// claim processes the events that another process has received and not acknowledged in
// time, and those that failed in this one.
func (i *Ingester) claim(ctx context.Context) error {
	for start := "0-0"; ctx.Err() == nil; {
		claimCtx, cancel := context.WithTimeout(ctx, redisTimeout)
		messages, next, err := i.redis.XAutoClaim(claimCtx, &redis.XAutoClaimArgs{
			Stream: Stream, Group: Group, Consumer: i.config.Consumer, MinIdle: i.config.ClaimIdle, Start: start, Count: int64(i.config.Batch),
		}).Result()
		cancel()
		if err != nil {
			return err
		}
		if err := i.process(ctx, i.withDeliveries(ctx, newEntries(messages))); err != nil {
			return err
		}
		if next == "0-0" {
			return nil
		}
		start = next
	}
	return ctx.Err()
}

func newEntries(messages []redis.XMessage) []entry {
	entries := make([]entry, len(messages))
	for n, m := range messages {
		entries[n] = entry{XMessage: m, deliveries: 1, deleted: m.Values == nil}
	}
	return entries
}

// withDeliveries looks up how often entries have been delivered. If that fails, they
// count as delivered once, so that a failure delays their end as dead letters.
func (i *Ingester) withDeliveries(ctx context.Context, entries []entry) []entry {
	if len(entries) == 0 {
		return entries
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	pending, err := i.redis.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: Stream, Group: Group, Consumer: i.config.Consumer, Start: entries[0].ID, End: entries[len(entries)-1].ID, Count: int64(len(entries)),
	}).Result()
	if err != nil {
		return entries
	}
	deliveries := make(map[string]int64, len(pending))
	for _, p := range pending {
		deliveries[p.ID] = p.RetryCount
	}
	for n := range entries {
		entries[n].deliveries = max(1, deliveries[entries[n].ID])
	}
	return entries
}

// acknowledge copies dead letters to their stream, and then acknowledges them and what
// is stored. It does not end with ctx: what is stored would be delivered again.
func (i *Ingester) acknowledge(ctx context.Context, entries []entry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), redisTimeout)
	defer cancel()
	var done []string
	var dead []*entry
	for n := range entries {
		switch e := &entries[n]; {
		case e.stored, e.deleted:
			done = append(done, e.ID)
		case e.reason != "":
			dead = append(dead, e)
		}
	}
	var failed error
	if len(dead) > 0 {
		i.log.WarnContext(ctx, "audit events cannot be stored", "count", len(dead), "reason", dead[0].reason, "id", dead[0].ID)
		pipe := i.redis.Pipeline()
		replies := make([]*redis.StringCmd, len(dead))
		for n, e := range dead {
			replies[n] = pipe.XAdd(ctx, &redis.XAddArgs{Stream: DeadLetterStream, MaxLen: maxDeadLetters, Approx: true, Values: e.deadLetter()})
		}
		_, failed = pipe.Exec(ctx)
		for n, e := range dead {
			if id, err := replies[n].Result(); err == nil && id != "" { // the client does not set the replies if Redis rejects the connection
				done = append(done, e.ID)
				i.counts.deadLetters.Add(1)
			}
		}
	}
	if len(done) == 0 {
		return failed
	}
	return errors.Join(failed, i.redis.XAck(ctx, Stream, Group, done...).Err())
}

// deadLetter returns the fields of the entry's copy in the dead-letter stream. The field
// id of the entry is left out: src_id is the ID of the entry, and data has the event's.
func (e *entry) deadLetter() []string {
	fields := []string{"reason", e.reason, "src_id", e.ID, "received_at", fmt.Sprint(time.Now().UnixMilli())}
	for name, value := range e.Values {
		if name != "id" {
			fields = append(fields, "src_"+name, fmt.Sprint(value))
		}
	}
	return fields
}
