package ingest

import (
	"context"
	"strings"
	"time"

	"caracal.run/management/store"
)

// writeTimeout limits a transaction, which the shutdown does not interrupt.
const writeTimeout = 30 * time.Second

// write stores events in one transaction. If an event makes it fail, it finds that event
// by dividing the batch. While Postgres is unavailable, it waits. It returns an error if
// ctx ends.
func (i *Ingester) write(ctx context.Context, batch []*entry) error {
	const attempts, delay = 3, 100 * time.Millisecond
	if len(batch) == 0 {
		return nil
	}
	var err error
	for range attempts {
		if err = i.appendEvents(ctx, batch); !isTransient(err) {
			break
		}
		i.counts.retries.Add(1)
		if err := i.waitForPostgres(ctx, err); err != nil {
			return err
		}
		sleep(ctx, delay)
	}
	switch e := batch[0]; {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case len(batch) > 1:
		middle := len(batch) / 2
		if err := i.write(ctx, batch[:middle]); err != nil {
			return err
		}
		return i.write(ctx, batch[middle:])
	case !isTransient(err):
		e.reason = "pg_permanent_error:" + reasonText(err)
	case e.deliveries >= i.config.MaxDeliveries:
		e.reason = "transient_exceeded_max_deliveries:" + reasonText(err)
	default: // it stays pending
		i.log.WarnContext(ctx, "audit event cannot be stored at the moment", "id", e.ID, "deliveries", e.deliveries, "error", err)
	}
	return nil
}

// isTransient reports whether another attempt to store an event can succeed.
func isTransient(err error) bool { return store.IsUnavailable(err) || store.IsMissingPartition(err) }

// appendEvents stores events in one transaction.
func (i *Ingester) appendEvents(ctx context.Context, batch []*entry) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	events := make([]store.AuditEvent, len(batch))
	for n, e := range batch {
		events[n] = e.event
	}
	if err := i.createPartitions(ctx, events); err != nil {
		return err
	}
	cause := store.Cause{Actor: store.System, RequestID: i.config.Consumer, Operation: "ingest-audit-events"}
	var results []store.AppendResult
	err := i.store.InTx(ctx, cause, func(tx *store.Tx) (err error) {
		results, err = tx.AppendAuditEvents(ctx, i.config.Key, events)
		return err
	})
	if store.IsMissingPartition(err) { // it was dropped after this process saw it
		clear(i.months)
	}
	if err != nil {
		return err
	}
	for n, e := range batch {
		switch results[n] {
		case store.Appended:
			e.stored = true
			i.counts.inserts.Add(1)
		case store.Duplicate:
			e.stored = true
			i.counts.duplicates.Add(1)
		case store.Conflict:
			e.reason = "tamper_on_replay"
			i.counts.tamperReplays.Add(1)
		}
	}
	return nil
}

// createPartitions creates the partitions of the events' months that this process has
// not seen yet.
func (i *Ingester) createPartitions(ctx context.Context, events []store.AuditEvent) error {
	for _, e := range events {
		month := time.Date(e.OccurredAt.Year(), e.OccurredAt.Month(), 1, 0, 0, 0, 0, time.UTC)
		if i.months[month] {
			continue
		}
		if _, err := i.store.CreateAuditPartitions(ctx, month, month); err != nil {
			return err
		}
		i.months[month] = true
	}
	return nil
}

// waitForPostgres waits until Postgres can be used. It returns an error if ctx ends.
func (i *Ingester) waitForPostgres(ctx context.Context, cause error) error {
	const interval = 500 * time.Millisecond
	for ctx.Err() == nil {
		if i.store.Ping(ctx) == nil {
			return nil
		}
		i.setUnavailable(ctx, "postgres unavailable, audit events pending", cause)
		sleep(ctx, interval)
	}
	return ctx.Err()
}

// updateRetention reads how long events are kept, once a minute. It waits while Postgres
// is unavailable.
func (i *Ingester) updateRetention(ctx context.Context) error {
	const interval = time.Minute
	for time.Since(i.lastRetention) >= interval {
		retention, err := i.store.AuditRetention(ctx, i.config.RetentionDays)
		if err == nil {
			i.retentionDays, i.lastRetention = retention.Days, time.Now()
			return nil
		}
		if err := i.waitForPostgres(ctx, err); err != nil {
			return err
		}
		sleep(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// reasonText returns the text of an error for a dead letter.
func reasonText(err error) string {
	const maxLength = 500
	text := err.Error()
	return strings.ToValidUTF8(text[:min(len(text), maxLength)], "")
}
