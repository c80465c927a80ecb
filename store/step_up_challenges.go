package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A StepUpChallenge is what may be returned of a step-up challenge.
type StepUpChallenge = db.GetStepUpChallengeRow

// StepUpChallenge returns a step-up challenge of a zone or challenge_not_found.
func (s *Store) StepUpChallenge(ctx context.Context, zone, id string) (StepUpChallenge, error) {
	c, err := s.shared.GetStepUpChallenge(ctx, db.GetStepUpChallengeParams{ZoneID: zone, ID: id})
	return c, notFoundAs(err, code.ChallengeNotFound)
}

// statusExpired is the status of challenges that have neither of the outcomes consumed
// and rejected, and have expired. Any other status is an outcome.
const statusExpired = "expired"

// StepUpChallenges returns a page of a zone's step-up challenges, newest first. If
// status is not nil, it returns those with the status, in the order of their expiry,
// from the last one: so the expired ones can be found, or skipped, by an index. It is
// empty if the zone does not exist.
func (s *Store) StepUpChallenges(ctx context.Context, zone string, status *string, p Page) ([]StepUpChallenge, error) {
	switch {
	case status == nil:
		rows, err := s.shared.ListStepUpChallenges(ctx, db.ListStepUpChallengesParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
		return convertRows(rows, err, func(r db.ListStepUpChallengesRow) StepUpChallenge { return StepUpChallenge(r) })
	case *status == statusExpired:
		rows, err := s.shared.ListStepUpChallengesByExpiry(ctx, db.ListStepUpChallengesByExpiryParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
		return convertRows(rows, err, func(r db.ListStepUpChallengesByExpiryRow) StepUpChallenge { return StepUpChallenge(r) })
	}
	rows, err := s.shared.ListStepUpChallengesByOutcome(ctx, db.ListStepUpChallengesByOutcomeParams{
		ZoneID: zone, Outcome: *status, Unexpired: *status == "pending" || *status == "satisfied",
		BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
	})
	return convertRows(rows, err, func(r db.ListStepUpChallengesByOutcomeRow) StepUpChallenge { return StepUpChallenge(r) })
}

// SatisfyStepUpChallenge satisfies a pending challenge whose session is active, if
// the precondition accepts its version. The actor must not be the requester. It
// returns challenge_not_found, version_conflict, challenge_not_satisfiable with a
// reason, or an error of the zone.
func (tx *Tx) SatisfyStepUpChallenge(ctx context.Context, zone, id string, precondition Precondition) (db.SatisfyStepUpChallengeRow, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.SatisfyStepUpChallengeRow{}, err
	}
	c, err := tx.q.SatisfyStepUpChallenge(ctx, db.SatisfyStepUpChallengeParams{
		ZoneID: zone, ID: id, Approver: tx.subject(), OwnSubjects: tx.ownSubjects(),
		AnyVersion: !precondition.Present, Versions: precondition.Versions,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return c, tx.explainStepUpChallenge(ctx, zone, id, precondition)
	}
	if err != nil {
		return c, err
	}
	tx.record(zone, audit.StepUpChallenges, id, diff(snapshot(audit.StepUpChallenges, db.SatisfyStepUpChallengeRow{}), snapshot(audit.StepUpChallenges, c)))
	return c, nil
}

// RejectStepUpChallenge rejects a pending challenge, if the precondition accepts its
// version. It returns challenge_not_found, version_conflict, challenge_not_satisfiable
// with a reason, or an error of the zone.
func (tx *Tx) RejectStepUpChallenge(ctx context.Context, zone, id, reason string, precondition Precondition) (db.RejectStepUpChallengeRow, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.RejectStepUpChallengeRow{}, err
	}
	c, err := tx.q.RejectStepUpChallenge(ctx, db.RejectStepUpChallengeParams{
		ZoneID: zone, ID: id, RejectedBy: tx.subject(), RejectedReason: reason,
		AnyVersion: !precondition.Present, Versions: precondition.Versions,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return c, tx.explainStepUpChallenge(ctx, zone, id, precondition)
	}
	if err != nil {
		return c, err
	}
	tx.record(zone, audit.StepUpChallenges, id, diff(snapshot(audit.StepUpChallenges, db.RejectStepUpChallengeRow{}), snapshot(audit.StepUpChallenges, c)))
	return c, nil
}

// subject returns the actor as a subject, as it is recorded in approver_subject_id.
func (tx *Tx) subject() string { return createdByActor + tx.cause.Actor.ID }

// ownSubjects returns the ids under which the actor itself may have requested
// something.
func (tx *Tx) ownSubjects() []string { return []string{tx.subject(), tx.cause.Actor.ID} }

// explainStepUpChallenge returns why a statement of the same transaction did not
// satisfy or reject a challenge.
func (tx *Tx) explainStepUpChallenge(ctx context.Context, zone, id string, precondition Precondition) error {
	c, err := tx.q.ExplainStepUpChallenge(ctx, db.ExplainStepUpChallengeParams{ZoneID: zone, ID: id, OwnSubjects: tx.ownSubjects()})
	if err != nil {
		return notFoundAs(err, code.ChallengeNotFound)
	}
	if err := precondition.check(c.Version); err != nil {
		return err
	}
	reason, sentence := "", ""
	switch {
	case c.Outcome == "consumed":
		reason, sentence = "consumed", "The step-up challenge was already used to obtain a token."
	case c.Outcome == "rejected":
		reason, sentence = "rejected", "The step-up challenge was rejected."
	case c.Outcome == "satisfied":
		reason, sentence = "already_satisfied", "The step-up challenge is already satisfied."
	case c.Expired:
		reason, sentence = "expired", "The step-up challenge has expired. Repeat the request that requires it."
	case c.OwnRequest:
		reason, sentence = "self_approval", "A step-up challenge cannot be satisfied by its requester. Use another token."
	case !c.SessionLive:
		reason, sentence = "session_not_live", "The session of the step-up challenge is not active, or there is none in this zone."
	default: // another service inserted the challenge after the first statement
		return code.ChallengeNotFound
	}
	e := code.ChallengeNotSatisfiable.With("reason", reason)
	e.Sentence = sentence
	return e
}
