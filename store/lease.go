package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
)

// outboxLease is the name of the lease of the leader that publishes events. The
// queries in queries/outbox.sql contain it.
const outboxLease = "outbox"

const (
	// leaseDuration is how long a leader that crashed, froze or lost its connections
	// keeps the others waiting.
	leaseDuration = 3 * time.Second
	// leaseRenewal is the age at which a leader renews its lease.
	leaseRenewal = leaseDuration / 6
	// leaseMargin is how long before the end of its lease a leader stops.
	leaseMargin = leaseDuration / 10
)

// ErrLeaseLost means that the term of a leader has ended: another replica is the
// leader, or can become it.
var ErrLeaseLost = errors.New("leader lease lost")

// A Leader is the store of the one replica that publishes events. Its methods act
// only while its term lasts: Postgres checks the term in each statement, by its own
// clock, so a replica that was frozen and believes itself the leader changes nothing.
//
// The lease is a row, not a session lock, so leadership does not depend on the
// connection: it works through a connection pooler that assigns a connection to each
// transaction.
//
// A Leader has one connection, which it does not share with requests, and is used by
// one goroutine at a time.
type Leader struct {
	*Store
	holder  string
	term    int64
	renewed time.Time // before the last renewal was sent, so the lease lasts longer than it says
}

// LeadOutbox waits until this replica is the leader, then runs work. Its context ends
// when work returns or ctx ends; then another replica can become the leader at once.
func (s *Store) LeadOutbox(ctx context.Context, work func(context.Context, *Leader) error) error {
	const pollInterval, releaseTimeout = 500 * time.Millisecond, 2 * time.Second
	conn, err := s.connect(ctx)
	if err != nil {
		return mapError(err)
	}
	leader := &Leader{
		Store:  &Store{core: s.core, actor: System, q: db.New(s.scoped(conn, AllZones))},
		holder: s.pool.Config().ConnConfig.RuntimeParams["application_name"],
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if leader.term > 0 {
			_ = leader.q.ReleaseLease(ctx, db.ReleaseLeaseParams{Name: outboxLease, Term: leader.term}) // or it expires
		}
		_ = conn.Close(ctx)
	}()
	for {
		left, err := leader.acquire(ctx)
		if err != nil {
			return err
		}
		if leader.term > 0 {
			return work(ctx, leader)
		}
		select {
		case <-time.After(min(pollInterval, max(left, leaseMargin))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// acquire begins a term if the lease is free. Otherwise it returns the time until the
// lease expires. It reads first: an attempt to insert would lock the row.
func (l *Leader) acquire(ctx context.Context) (left time.Duration, err error) {
	lease, err := l.q.GetLease(ctx, outboxLease)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, err
	}
	if left = time.Duration(lease.SecondsLeft * float64(time.Second)); left > 0 {
		return left, nil
	}
	l.renewed = time.Now()
	l.term, err = l.q.AcquireLease(ctx, db.AcquireLeaseParams{Name: outboxLease, Holder: l.holder, Milliseconds: leaseDuration.Milliseconds()})
	if errors.Is(err, pgx.ErrNoRows) {
		return leaseDuration, nil // another replica was faster
	}
	return 0, err
}

// Term returns the number of the leader's term.
func (l *Leader) Term() int64 { return l.term }

// Until returns the time at which the leader must stop if it does not renew its lease.
func (l *Leader) Until() time.Time { return l.renewed.Add(leaseDuration - leaseMargin) }

// Renew renews the lease if that is due. It returns [ErrLeaseLost] if the term has
// ended.
func (l *Leader) Renew(ctx context.Context) error {
	if time.Since(l.renewed) < leaseRenewal {
		return nil
	}
	return l.renew(ctx)
}

func (l *Leader) renew(ctx context.Context) error {
	now := time.Now()
	n, err := l.q.RenewLease(ctx, db.RenewLeaseParams{Name: outboxLease, Term: l.term, Milliseconds: leaseDuration.Milliseconds()})
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("%w: term %d has ended", ErrLeaseLost, l.term)
	}
	l.renewed = now
	return nil
}

// PendingEvents returns the next events to publish, in the commit order of their
// zone, without those of paused zones. It renews the lease if that is due.
func (l *Leader) PendingEvents(ctx context.Context, limit int, pausedZones []string) ([]Event, error) {
	if err := l.Renew(ctx); err != nil {
		return nil, err
	}
	return l.q.ListPendingOutbox(ctx, db.ListPendingOutboxParams{PausedZones: pausedZones, Term: l.term, RowLimit: int32(limit)})
}

// MarkDispatched records that events are in their streams.
func (l *Leader) MarkDispatched(ctx context.Context, seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
	marked, err := l.q.DispatchOutbox(ctx, db.DispatchOutboxParams{Seqs: seqs, Term: l.term})
	return l.checkTerm(ctx, marked, len(seqs), err)
}

// MarkRejected adds a failed attempt to each rejected event and stores its error.
// After maxAttempts attempts an event becomes a dead letter.
func (l *Leader) MarkRejected(ctx context.Context, rejections []Rejection, maxAttempts int) error {
	if len(rejections) == 0 {
		return nil
	}
	p := db.RejectOutboxParams{MaxAttempts: int32(maxAttempts), Term: l.term}
	for _, r := range rejections {
		p.Seqs, p.Errors = append(p.Seqs, r.Seq), append(p.Errors, r.Error)
	}
	marked, err := l.q.RejectOutbox(ctx, p)
	return l.checkTerm(ctx, marked, len(rejections), err)
}

// checkTerm returns [ErrLeaseLost] if a statement changed fewer rows than it named
// because the term has ended. The rows may also have been marked before.
func (l *Leader) checkTerm(ctx context.Context, changed int64, named int, err error) error {
	if err != nil || changed == int64(named) {
		return err
	}
	return l.renew(ctx)
}
