package jobs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"caracal.run/management/store"
)

// Retention says for how many days what has ended is kept.
type Retention struct {
	Sessions   int // also agent sessions and delegation edges
	Challenges int // step-up challenges
}

// The numbers of objects that a batch changes at most. The transactions of those that
// publish events keep other writes to their zone waiting.
const (
	terminatedPerBatch = 100 // with all descendants
	archivedPerBatch   = 50  // with all sessions
	expiredPerBatch    = 500
	deletedPerBatch    = 1000
)

// maxFailedZones is the number of zones after whose failure a batch stops: then, the cause
// is not in the zones.
const maxFailedZones = 20

// Of returns the jobs that end what has lapsed and delete what ended long ago.
func Of(keep Retention) []Job {
	const soon, hourly = time.Minute, time.Hour
	return []Job{
		inZones("expire-sessions", soon, expiredPerBatch, (*store.Store).LapsedSessions, (*store.Tx).ExpireSessions),
		inZones("terminate-agent-sessions", soon, terminatedPerBatch, (*store.Store).LapsedAgentSessions, (*store.Tx).TerminateAgentSessions),
		inZones("archive-dcr-applications", soon, archivedPerBatch, (*store.Store).ExpiredDCRApplications, (*store.Tx).ArchiveExpiredApplications),
		inZones("delete-application-secrets", soon, expiredPerBatch, (*store.Store).ExpiredSecrets, (*store.Tx).DeleteExpiredSecrets),
		inZones("delete-signing-keys", soon, deletedPerBatch, (*store.Store).RetiredSigningKeys, (*store.Tx).DeleteSigningKeys),
		{"delete-idempotency-keys", soon, func(ctx context.Context, s *store.Store) (int, error) {
			return s.DeleteIdempotencyKeys(ctx, deletedPerBatch)
		}},
		deleteOld("delete-step-up-challenges", hourly, keep.Challenges, (*store.Store).OldStepUpChallenges, (*store.Tx).DeleteStepUpChallenges),
		// In this order, each finds what the one before it no longer references.
		deleteOld("delete-delegation-edges", hourly, keep.Sessions, (*store.Store).EndedDelegationEdges, (*store.Tx).DeleteDelegationEdges),
		deleteOld("delete-agent-sessions", hourly, keep.Sessions, (*store.Store).EndedAgentSessions, (*store.Tx).DeleteAgentSessions),
		deleteOld("delete-sessions", hourly, keep.Sessions, (*store.Store).EndedSessions, (*store.Tx).DeleteSessions),
	}
}

// deleteOld returns the job that deletes what ended more than a number of days ago.
func deleteOld(name string, interval time.Duration, days int,
	due func(s *store.Store, ctx context.Context, days, limit int, excluded []string) ([]store.Due, error),
	remove func(tx *store.Tx, ctx context.Context, days int, due store.Due) (int, error),
) Job {
	return inZones(name, interval, deletedPerBatch,
		func(s *store.Store, ctx context.Context, limit int, excluded []string) ([]store.Due, error) {
			return due(s, ctx, days, limit, excluded)
		},
		func(tx *store.Tx, ctx context.Context, d store.Due) (int, error) { return remove(tx, ctx, days, d) })
}

// inZones returns the job that changes what is due in any zone. A batch has a transaction
// for each zone. If that of one zone fails, the batch goes on with the others, so that no
// zone can keep the job from the others.
func inZones(name string, interval time.Duration, limit int,
	due func(s *store.Store, ctx context.Context, limit int, excluded []string) ([]store.Due, error),
	change func(tx *store.Tx, ctx context.Context, due store.Due) (int, error),
) Job {
	return Job{name, interval, func(ctx context.Context, s *store.Store) (changed int, err error) {
		failed := []string{} // zones
		var errs []error
		for {
			zones, err := due(s, ctx, limit, failed)
			if err != nil {
				return changed, errors.Join(append(errs, err)...)
			}
			failedBefore := len(failed)
			for _, d := range zones {
				n := 0
				cause := store.Cause{Actor: store.System, RequestID: uuid.NewString(), Operation: name}
				err := s.InTx(ctx, cause, func(tx *store.Tx) (err error) {
					n, err = change(tx, ctx, d)
					return err
				})
				if err != nil {
					failed = append(failed, d.Zone)
					errs = append(errs, fmt.Errorf("zone %s: %w", d.Zone, err))
					continue
				}
				changed += n
			}
			if changed > 0 || len(failed) == failedBefore || len(failed) >= maxFailedZones {
				return changed, errors.Join(errs...)
			}
		}
	}}
}
