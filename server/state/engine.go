package state

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
)

// An Engine compares documents with zones, and applies them.
type Engine struct {
	Store *store.Store
	// CheckUpstreamURL returns an error if an upstream URL is invalid.
	CheckUpstreamURL func(url *string) error
}

// A Report is what has to be changed in a zone, or was changed.
type Report struct {
	Plan    *Plan
	Results []Result // of the actions that were carried out; empty for a plan
}

// A Result is the result of an action.
type Result struct {
	ID           string // of the object
	VersionID    string // of the version of a policy or policy set
	ClientSecret string // of a created application
	Failure      *Failure
	Done         bool // whether the object is as the document says, or archived
}

// Plan plans what has to be changed so that a zone is as a document says. It returns
// zone_not_found, or invalid_state with the issues of the document. In the mode BestEffort,
// the issues of an object are its failure.
func (e *Engine) Plan(ctx context.Context, actor store.Actor, zone string, d Document, mode Mode) (*Plan, error) {
	live, err := e.Store.For(actor).ZoneState(ctx, zone, d.Kinds())
	if err != nil {
		return nil, err
	}
	plan, issues := Make(live, d, e.options(actor))
	plan.Mode = mode
	if mode == Atomic {
		issues = append(issues, plan.failures()...)
	}
	checks := []func() ([]code.Issue, error){ // each if there are no issues yet: a manifest of invalid contents would be reported again
		func() ([]code.Issue, error) { return checkContents(ctx, plan) },
		func() ([]code.Issue, error) { return e.checkManifests(ctx, actor, zone, plan) },
	}
	for {
		if mode == BestEffort {
			issues = plan.fail(issues)
		}
		if len(issues) > 0 {
			return nil, &code.Error{Code: code.InvalidState, Issues: issues}
		}
		if len(checks) == 0 {
			return plan, nil
		}
		if issues, err = checks[0](); err != nil {
			return nil, err
		}
		checks = checks[1:]
	}
}

func (e *Engine) options(actor store.Actor) Options {
	return Options{
		Actor: actor, CheckUpstreamURL: e.CheckUpstreamURL,
		CheckResourceIdentifier: func(identifier string) error { return e.Store.CheckResourceIdentifier(actor, identifier) },
	}
}

// A Mode is how a document is applied.
type Mode string

// The modes.
const (
	Atomic     Mode = "atomic"      // all objects or none
	BestEffort Mode = "best_effort" // all objects that can be changed
)

// ApplyOptions are the conditions under which a document is applied.
type ApplyOptions struct {
	Mode          Mode
	PlanID        *string // only if the plan is this one
	Revision      *string // only if the zone is in this state
	ConfirmPrune  bool    // whatever share of the objects of a kind is pruned
	TakeOwnership bool    // also of objects that another owner manages
}

// check returns state_changed, invalid_state or prune_share_exceeded if a plan must not be carried out.
func (o ApplyOptions) check(plan *Plan) error {
	switch {
	case o.PlanID != nil && *o.PlanID != plan.ID, o.Revision != nil && *o.Revision != plan.Revision:
		return code.StateChanged
	case len(plan.taken) > 0 && !o.TakeOwnership:
		return &code.Error{Code: code.InvalidState, Issues: plan.taken}
	case len(plan.exceeded) > 0 && !o.ConfirmPrune:
		return &code.Error{Code: code.PruneShareExceeded, Issues: plan.exceeded}
	}
	return nil
}

// errChanged is the error of a transaction that finds the zone changed since the plan.
var errChanged = errors.New("the zone was changed since the plan was made")

// Apply changes a zone so that it is as a document says, in one transaction. It returns
// state_not_applied if an object could not be changed, state_changed if the zone is
// changed again and again, an error of the options, an error of Plan, or an error of the
// zone.
//
// It plans before the transaction, and plans again if the zone has changed until the
// transaction has the zone lock.
func (e *Engine) Apply(ctx context.Context, cause store.Cause, zone string, d Document, o ApplyOptions) (Report, error) {
	const maxAttempts = 5
	for attempt := range maxAttempts {
		if attempt > 0 { // let the others finish, which have changed the zone
			select {
			case <-time.After(rand.N(20 * time.Millisecond << attempt)):
			case <-ctx.Done():
				return Report{}, code.ServiceUnavailable.Because(ctx.Err())
			}
		}
		plan, err := e.Plan(ctx, cause.Actor, zone, d, o.Mode)
		if err != nil {
			return Report{}, err
		}
		if err := o.check(plan); err != nil {
			return Report{}, err
		}
		results, err := e.run(ctx, cause, zone, d, plan)
		if !errors.Is(err, errChanged) {
			return Report{plan, results}, err
		}
	}
	return Report{}, code.StateChanged
}

// run carries a plan out.
func (e *Engine) run(ctx context.Context, cause store.Cause, zone string, d Document, plan *Plan) (results []Result, err error) {
	var key seal.DataKey
	for _, a := range plan.Actions {
		if a.step != nil && a.step.seals() {
			if key, err = e.Store.DataKey(ctx, cause, zone); err != nil {
				return nil, err
			}
			break
		}
	}
	err = e.Store.InTx(ctx, cause, func(tx *store.Tx) error {
		live, err := tx.LockZoneState(ctx, zone, d.Kinds())
		if err != nil {
			return err
		}
		if revision(live) != plan.Revision {
			return errChanged
		}
		x := &execution{tx: tx, zone: zone, key: key, created: map[objectKey]string{}, versions: map[string]string{}}
		if results, err = x.run(ctx, plan); err != nil || d.Owner == "" {
			return err
		}
		return x.own(ctx, d.Owner, plan, results)
	})
	return results, err
}

// An execution carries a plan out in a transaction.
type execution struct {
	tx      *store.Tx
	zone    string
	key     seal.DataKey
	created map[objectKey]string // the IDs of created objects

	versions map[string]string // the IDs of added policy versions, by the name of the policy
}

// id returns the ID of an object, which may have been created by the same plan.
func (x *execution) id(r *reference) string {
	if r.id == "" {
		return x.created[r.objectKey]
	}
	return r.id
}

// run carries out all actions, in the order of their dependencies. The results are in the
// order of the plan.
func (x *execution) run(ctx context.Context, plan *Plan) (results []Result, err error) {
	results = make([]Result, len(plan.Actions))
	failed := slices.ContainsFunc(plan.Actions, func(a Action) bool { return a.Failure != nil })
	for _, i := range plan.Order() {
		a := plan.Actions[i]
		if a.step == nil || a.Failure != nil {
			results[i] = Result{ID: a.ID, VersionID: a.Version, Failure: a.Failure, Done: a.Failure == nil}
			continue
		}
		if plan.Mode == BestEffort {
			if a.Verb == Archive && failed {
				results[i].ID = a.ID // nothing is pruned if an object failed
				continue
			}
			if results[i], err = x.try(ctx, a); err != nil {
				return nil, err
			}
			if failed = failed || results[i].Failure != nil; results[i].Failure != nil {
				continue
			}
		} else if results[i], err = a.step.run(ctx, x); err != nil {
			return nil, notApplied(a, err)
		}
		result := &results[i]
		result.Done = true
		if a.Verb == Create {
			x.created[objectKey{a.Kind, a.Identity}] = result.ID
		}
	}
	return results, nil
}

// try carries an action out. If it fails, nothing of it remains.
func (x *execution) try(ctx context.Context, a Action) (result Result, err error) {
	err = x.tx.Savepoint(ctx, func() error {
		result, err = a.step.run(ctx, x)
		return err
	})
	if err == nil {
		return result, nil
	}
	var problem *code.Error
	if !errors.As(notApplied(a, err), &problem) {
		return Result{}, err
	}
	return Result{ID: a.ID, Failure: newFailure(store.Explained(err))}, nil
}

// own makes an owner manage the objects of the document.
func (x *execution) own(ctx context.Context, owner string, plan *Plan, results []Result) error {
	var objects []store.ManagedObject
	for i, a := range plan.Actions {
		if a.Verb != Archive && a.Kind != Zone && results[i].Done {
			objects = append(objects, store.ManagedObject{Kind: string(a.Kind), ID: results[i].ID})
		}
	}
	return x.tx.SetStateOwner(ctx, x.zone, owner, objects, plan.owners)
}

// notApplied returns the error of an action, which names the object. An error that is not
// about the object, such as one of the database, is returned unchanged.
func notApplied(a Action, err error) error {
	mapped := store.Explained(err)
	if !errors.As(mapped, new(code.Code)) || errors.Is(mapped, code.ServiceUnavailable) {
		return err
	}
	problem, detail := problemOf(mapped)
	return &code.Error{Code: code.StateNotApplied, Cause: mapped, Fields: map[string]any{
		"object": map[string]any{"kind": a.Kind, "identity": a.Identity}, "problem": problem, "detail": detail,
	}}
}
