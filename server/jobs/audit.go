package jobs

import (
	"context"
	"time"

	"caracal.run/management/store"
)

// OfAuditEvents returns the jobs that create partitions for audit events, drop those of
// months that have expired, and delete counts that are no longer needed. The key signs
// the checkpoints that stand for what is dropped. Events are kept for at most maxDays.
func OfAuditEvents(key []byte, maxDays int) []Job {
	const monthsAhead, countsKept, deletedCounts = 3, 48 * time.Hour, 5000
	return []Job{
		{"create-audit-partitions", time.Hour, func(ctx context.Context, s *store.Store) (int, error) {
			year, month, _ := time.Now().UTC().Date()
			first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
			return s.CreateAuditPartitions(ctx, first, first.AddDate(0, monthsAhead, 0))
		}},
		{"drop-audit-partitions", time.Hour, func(ctx context.Context, s *store.Store) (int, error) {
			retention, err := s.AuditRetention(ctx, maxDays)
			if err != nil {
				return 0, err
			}
			dropped, err := s.DropExpiredAuditMonth(ctx, key, time.Now().AddDate(0, 0, -retention.Days))
			if err != nil || !dropped {
				return 0, err
			}
			return 1, nil
		}},
		{"delete-audit-decision-counts", time.Hour, func(ctx context.Context, s *store.Store) (int, error) {
			return s.DeleteAuditDecisionCounts(ctx, time.Now().Add(-countsKept), deletedCounts)
		}},
	}
}
