package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/auditchain"
)

// AuditRetention is how long audit events are kept.
type AuditRetention struct {
	Days      int // at most MaxDays
	MaxDays   int
	Version   int64
	UpdatedAt *time.Time // nil: it was never set, and is MaxDays
}

// firstRetentionVersion is the version of a retention that was never set.
const firstRetentionVersion = 1

func toAuditRetention(r db.AuditRetention, maxDays int) AuditRetention {
	return AuditRetention{min(int(r.RetentionDays), maxDays), maxDays, r.Version, &r.UpdatedAt}
}

// AuditRetention returns how long audit events are kept. The retention that was set is
// limited to maxDays.
func (s *Store) AuditRetention(ctx context.Context, maxDays int) (AuditRetention, error) {
	r, err := s.q.GetAuditRetention(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return AuditRetention{Days: maxDays, MaxDays: maxDays, Version: firstRetentionVersion}, nil
	}
	return toAuditRetention(r, maxDays), err
}

// SetAuditRetention sets how long audit events are kept, if the precondition accepts the
// present version. It returns retention_above_limit or version_conflict.
func (tx *Tx) SetAuditRetention(ctx context.Context, precondition Precondition, days, maxDays int) (AuditRetention, error) {
	if days > maxDays {
		return AuditRetention{}, code.RetentionAboveLimit.With("max_days", maxDays)
	}
	before, err := tx.q.LockAuditRetention(ctx, int32(maxDays))
	if err != nil {
		return AuditRetention{}, err
	}
	if err := precondition.check(before.Version); err != nil {
		return AuditRetention{}, err
	}
	if before.RetentionDays == int32(days) && before.Version > firstRetentionVersion {
		return toAuditRetention(before, maxDays), nil
	}
	after, err := tx.q.UpdateAuditRetention(ctx, int32(days))
	if err != nil {
		return AuditRetention{}, err
	}
	tx.record(NoZone, audit.AuditRetention, "audit-retention", diff(snapshot(audit.AuditRetention, before), snapshot(audit.AuditRetention, after)))
	return toAuditRetention(after, maxDays), nil
}

// DropExpiredAuditMonth drops the audit events of the oldest month that ended before a
// time, and reports whether there was one. In the same transaction, it inserts a
// checkpoint for each run of consecutive events. A checkpoint stands only for events that
// verify: others leave a gap, so that dropping them does not hide that they were changed.
func (s *Store) DropExpiredAuditMonth(ctx context.Context, key []byte, before time.Time) (dropped bool, err error) {
	cause := Cause{Actor: System, Operation: "drop-audit-partitions"}
	err = s.InTx(ctx, cause, func(tx *Tx) error {
		if err := tx.q.AllowSlowStatements(ctx); err != nil {
			return err
		}
		months, err := tx.q.LockExpiredAuditPartition(ctx, before)
		if err != nil || len(months) == 0 {
			dropped = false
			return err
		}
		if err := tx.insertAuditCheckpoints(ctx, key, months[0]); err != nil {
			return err
		}
		dropped = true
		return tx.q.DropAuditPartition(ctx, months[0])
	})
	return dropped && err == nil, err
}

// DeleteAuditDecisionCounts deletes at most limit counts of minutes before a time, oldest
// first, and returns how many.
func (s *Store) DeleteAuditDecisionCounts(ctx context.Context, before time.Time, limit int) (int, error) {
	n, err := s.For(System).q.DeleteAuditDecisionCounts(ctx, db.DeleteAuditDecisionCountsParams{Before: before, RowLimit: int32(limit)})
	return int(n), err
}

// insertAuditCheckpoints inserts the checkpoints that stand for the events of a month.
func (tx *Tx) insertAuditCheckpoints(ctx context.Context, key []byte, month time.Time) error {
	const pageSize = 2000
	var run *auditchain.Checkpoint
	var rows db.InsertAuditCheckpointsParams
	flush := func() error {
		if len(rows.ZoneIds) == 0 {
			return nil
		}
		defer func() { rows = db.InsertAuditCheckpointsParams{} }()
		return tx.q.InsertAuditCheckpoints(ctx, rows)
	}
	end := func() {
		if run == nil {
			return
		}
		rows.ZoneIds, rows.FirstSeqs, rows.LastSeqs = append(rows.ZoneIds, run.ZoneID), append(rows.FirstSeqs, run.FirstSeq), append(rows.LastSeqs, run.LastSeq)
		rows.PreviousHashes, rows.LastHashes, rows.Macs = append(rows.PreviousHashes, run.Previous), append(rows.LastHashes, run.Last), append(rows.Macs, run.MAC(key))
		run = nil
	}
	page := db.ListAuditEventsOfMonthParams{Since: month, Until: month.AddDate(0, 1, 0), RowLimit: pageSize}
	for {
		events, err := tx.q.ListAuditEventsOfMonth(ctx, page)
		if err != nil {
			return err
		}
		for _, e := range events {
			link := AuditLink(e)
			if run != nil && (run.ZoneID != link.ZoneID || run.LastSeq+1 != link.Seq || run.Last != link.Previous) {
				end()
			}
			if link.Check(key).Reason != "" {
				end()
				continue
			}
			if run == nil {
				run = &auditchain.Checkpoint{ZoneID: link.ZoneID, FirstSeq: link.Seq, Previous: link.Previous}
			}
			run.LastSeq, run.Last = link.Seq, link.ContentHash
		}
		if len(rows.ZoneIds) >= pageSize {
			if err := flush(); err != nil {
				return err
			}
		}
		if len(events) < pageSize {
			end()
			return flush()
		}
		last := events[len(events)-1]
		page.AfterZone, page.AfterSeq = last.ZoneID, last.ChainSeq
	}
}
