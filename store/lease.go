package store

import (
	"context"
	"crypto/rand"
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

// The term of a leader can end in two ways.
var (
	ErrLeaseExpired = errors.New("the leader's lease has expired")
	ErrLeaseTaken   = errors.New("another replica has become the leader")
)

// A Leader is the store of the one replica that publishes events. Postgres checks its
// term in each statement, by its own clock, so a replica that was frozen and believes
// itself the leader reads no events and rejects none.
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

// LeadOutbox waits until this replica is the leader, then runs work until it returns or
// ctx ends; then another replica can become the leader at once.
func (s *Store) LeadOutbox(ctx context.Context, work func(context.Context, *Leader) error) error {
	const pollInterval, closeTimeout = 500 * time.Millisecond, 2 * time.Second
	conn, err := s.connect(ctx)
	if err != nil {
		return mapError(err)
	}
	leader := &Leader{
		Store:  &Store{core: s.core, actor: System, q: db.New(s.scoped(conn, AllZones))},
		holder: s.pool.Config().ConnConfig.RuntimeParams["application_name"] + " " + rand.Text(), // one per call: a term belongs to one leader
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		leader.release(ctx, conn.IsClosed())
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
	ctx, cancel := context.WithTimeout(ctx, leaseDuration) // the connection may be dead
	defer cancel()
	lease, err := l.q.GetLease(ctx, outboxLease)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, err
	}
	left = time.Duration(lease.SecondsLeft * float64(time.Second))
	if left > 0 && left <= 2*leaseDuration { // otherwise void, see AcquireLease
		return left, nil
	}
	l.renewed = time.Now()
	l.term, err = l.q.AcquireLease(ctx, db.AcquireLeaseParams{Name: outboxLease, Holder: l.holder, Milliseconds: leaseDuration.Milliseconds()})
	if errors.Is(err, pgx.ErrNoRows) {
		return leaseDuration, nil // another replica was faster
	}
	return 0, err
}

// release ends the term. If that fails, it ends when the lease expires.
func (l *Leader) release(ctx context.Context, connectionLost bool) {
	if l.term == 0 {
		return
	}
	q := l.q
	if connectionLost {
		q = l.For(System).q
	}
	_ = q.ReleaseLease(ctx, db.ReleaseLeaseParams{Name: outboxLease, Term: l.term, Holder: l.holder})
}

// Term returns the number of the leader's term.
func (l *Leader) Term() int64 { return l.term }

// Until returns the time at which the leader must stop if it does not renew its lease.
func (l *Leader) Until() time.Time { return l.renewed.Add(leaseDuration - leaseMargin) }

// Renew renews the lease if that is due. It returns [ErrLeaseExpired] or
// [ErrLeaseTaken] if the term has ended.
func (l *Leader) Renew(ctx context.Context) error {
	if time.Since(l.renewed) < leaseRenewal {
		return nil
	}
	return l.renew(ctx)
}

func (l *Leader) renew(ctx context.Context) error {
	now := time.Now()
	n, err := l.q.RenewLease(ctx, db.RenewLeaseParams{Name: outboxLease, Term: l.term, Holder: l.holder, Milliseconds: leaseDuration.Milliseconds()})
	if err != nil {
		return err
	}
	if n > 0 {
		l.renewed = now
		return nil
	}
	lease, err := l.q.GetLease(ctx, outboxLease)
	switch {
	case err != nil:
		return err
	case lease.Term != l.term || lease.Holder != l.holder:
		return fmt.Errorf("%w: %s", ErrLeaseTaken, lease.Holder)
	}
	return ErrLeaseExpired
}

// PendingEvents returns the next events to publish, in the commit order of their
// zone, without those of paused zones. It renews the lease if that is due.
func (l *Leader) PendingEvents(ctx context.Context, limit int, pausedZones []string) ([]Event, error) {
	if err := l.Renew(ctx); err != nil {
		return nil, err
	}
	return l.q.ListPendingOutbox(ctx, db.ListPendingOutboxParams{PausedZones: pausedZones, Term: l.term, Holder: l.holder, RowLimit: int32(limit)})
}

// MarkDispatched records that events are in their streams.
func (l *Leader) MarkDispatched(ctx context.Context, seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
	return l.q.DispatchOutbox(ctx, seqs)
}

// MarkRejected adds a failed attempt to each rejected event and stores its error.
// After maxAttempts attempts an event becomes a dead letter.
func (l *Leader) MarkRejected(ctx context.Context, rejections []Rejection, maxAttempts int) error {
	if len(rejections) == 0 {
		return nil
	}
	p := db.RejectOutboxParams{MaxAttempts: int32(maxAttempts), Term: l.term, Holder: l.holder}
	for _, r := range rejections {
		p.Seqs, p.Errors = append(p.Seqs, r.Seq), append(p.Errors, r.Error)
	}
	marked, err := l.q.RejectOutbox(ctx, p)
	if err != nil || marked == int64(len(rejections)) {
		return err
	}
	return l.renew(ctx) // either the term has ended, or the events were discarded or marked before
}
