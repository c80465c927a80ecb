package ingest

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// counts are the counts of this process since its start.
type counts struct {
	inserts, duplicates, parseErrors, hmacFailures, tamperReplays, deadLetters, retries atomic.Uint64
}

// Stat has the counts of an ingester since it was created, and the state of the streams.
type Stat struct {
	Inserts       uint64 // events that were stored
	Duplicates    uint64 // events that were stored before
	ParseErrors   uint64 // events with invalid JSON
	HMACFailures  uint64 // events whose signature is missing or invalid
	TamperReplays uint64 // events with the ID of a stored event and other content
	DeadLetters   uint64 // events that were copied to the dead-letter stream
	Retries       uint64 // failed transactions that were tried again
	StreamStat
}

// StreamStat is the state of the streams at the last upkeep.
type StreamStat struct {
	Lag                 int64   // events that no replica has received
	Pending             int64   // events that a replica has received and not acknowledged
	OldestPendingAge    float64 // in seconds, since the event was appended to the stream
	DeadLetterCount     int64   // in the dead-letter stream
	OldestDeadLetterAge float64 // in seconds
}

// Stat returns the ingester's counts.
func (i *Ingester) Stat() Stat {
	c := &i.counts
	return Stat{
		c.inserts.Load(), c.duplicates.Load(), c.parseErrors.Load(), c.hmacFailures.Load(), c.tamperReplays.Load(), c.deadLetters.Load(), c.retries.Load(),
		*i.stream.Load(),
	}
}

// upkeep trims the stream, removes the consumers of processes that no longer exist, and
// reads the state of the streams. It returns an error if Redis fails.
func (i *Ingester) upkeep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	groups, err := i.redis.XInfoGroups(ctx, Stream).Result()
	if err != nil {
		return err
	}
	now := time.Now()
	var stat StreamStat
	var keep streamID // the lowest ID that a group needs
	for n, g := range groups {
		last, err := parseStreamID(g.LastDeliveredID)
		if err != nil {
			return err
		}
		needed := last.next()
		if g.Pending > 0 {
			pending, err := i.redis.XPending(ctx, Stream, g.Name).Result()
			if err != nil {
				return err
			}
			if pending.Count > 0 {
				if needed, err = parseStreamID(pending.Lower); err != nil {
					return err
				}
			}
		}
		if g.Name == Group {
			stat.Lag, stat.Pending = g.Lag, g.Pending
			if g.Pending > 0 {
				stat.OldestPendingAge = needed.age(now)
			}
		}
		if n == 0 || needed.compare(keep) < 0 {
			keep = needed
		}
	}
	if len(groups) > 0 {
		if err := i.redis.XTrimMinIDApprox(ctx, Stream, keep.String(), 0).Err(); err != nil {
			return err
		}
	}
	if err := i.removeIdleConsumers(ctx); err != nil {
		return err
	}
	if stat.DeadLetterCount, err = i.redis.XLen(ctx, DeadLetterStream).Result(); err != nil {
		return err
	}
	oldest, err := i.redis.XRangeN(ctx, DeadLetterStream, "-", "+", 1).Result()
	if err != nil {
		return err
	}
	if len(oldest) > 0 {
		if id, err := parseStreamID(oldest[0].ID); err == nil {
			stat.OldestDeadLetterAge = id.age(now)
		}
	}
	i.stream.Store(&stat)
	return nil
}

// removeIdleConsumers removes consumers that have no pending events and have not read
// for a long time.
func (i *Ingester) removeIdleConsumers(ctx context.Context) error {
	consumers, err := i.redis.XInfoConsumers(ctx, Stream, Group).Result()
	if err != nil {
		return err
	}
	for _, c := range consumers {
		if c.Idle < i.config.RemoveIdle || c.Pending > 0 || c.Name == i.config.Consumer {
			continue
		}
		lost, err := i.redis.XGroupDelConsumer(ctx, Stream, Group, c.Name).Result()
		if err != nil {
			return err
		}
		if lost > 0 { // it has read meanwhile: deliver again what is still in the stream
			if err := i.redis.XGroupSetID(ctx, Stream, Group, "0").Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// A streamID is the ID of an entry of a stream.
type streamID struct{ milliseconds, sequence uint64 }

func parseStreamID(text string) (streamID, error) {
	first, second, _ := strings.Cut(text, "-")
	ms, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return streamID{}, fmt.Errorf("stream ID %q: %w", text, err)
	}
	seq, err := strconv.ParseUint(second, 10, 64)
	if err != nil {
		return streamID{}, fmt.Errorf("stream ID %q: %w", text, err)
	}
	return streamID{ms, seq}, nil
}

func (s streamID) String() string { return fmt.Sprintf("%d-%d", s.milliseconds, s.sequence) }

func (s streamID) next() streamID {
	if s.sequence++; s.sequence == 0 {
		s.milliseconds++
	}
	return s
}

func (s streamID) compare(t streamID) int {
	return cmp.Or(cmp.Compare(s.milliseconds, t.milliseconds), cmp.Compare(s.sequence, t.sequence))
}

func (s streamID) age(now time.Time) float64 {
	return max(0, now.Sub(time.UnixMilli(int64(s.milliseconds))).Seconds())
}
