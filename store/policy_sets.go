package store

import (
	"context"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// PolicySet returns a policy set of a zone or policy_set_not_found.
func (s *Store) PolicySet(ctx context.Context, zone, id string) (db.PolicySet, error) {
	set, err := s.shared.GetPolicySet(ctx, db.GetPolicySetParams{ZoneID: zone, ID: id})
	return set, notFoundAs(err, code.PolicySetNotFound)
}

// PolicySets returns a page of a zone's policy sets, newest first. It is empty if the
// zone does not exist.
func (s *Store) PolicySets(ctx context.Context, zone string, name *string, p Page) ([]db.PolicySet, error) {
	if name != nil {
		return s.shared.ListPolicySetsByName(ctx, db.ListPolicySetsByNameParams{ZoneID: zone, Name: *name, BeforeTime: p.After.Time, BeforeID: p.After.ID})
	}
	return s.shared.ListPolicySets(ctx, db.ListPolicySetsParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// NewPolicySet describes a policy set to create.
type NewPolicySet struct {
	Name        string
	Description *string
}

// CreatePolicySet creates a policy set without versions. It returns zone_not_found,
// system_zone_read_only, reserved_namespace or policy_set_name_conflict.
func (tx *Tx) CreatePolicySet(ctx context.Context, zone string, n NewPolicySet) (db.PolicySet, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.PolicySet{}, err
	}
	if err := tx.checkReservedName(PolicySetName, n.Name); err != nil {
		return db.PolicySet{}, err
	}
	set, err := tx.q.InsertPolicySet(ctx, db.InsertPolicySetParams{
		ZoneID: zone, ID: newID(), Name: n.Name, Description: n.Description, CreatedBy: tx.cause.Actor.Name,
	})
	if err != nil {
		return set, err
	}
	tx.record(zone, audit.PolicySets, set.ID, diff(nil, snapshot(audit.PolicySets, set)))
	return set, nil
}

// DeletePolicySet archives a policy set, so its name becomes available again. If it
// was active, nothing is active in the zone afterwards. It returns
// policy_set_not_found, version_conflict or an error of the zone.
func (tx *Tx) DeletePolicySet(ctx context.Context, zone, id string, precondition Precondition) error {
	if _, err := tx.requireZone(ctx, zone, exclusive); err != nil { // it may publish an event
		return err
	}
	set, err := tx.q.GetPolicySet(ctx, db.GetPolicySetParams{ZoneID: zone, ID: id})
	if err != nil {
		return notFoundAs(err, code.PolicySetNotFound)
	}
	if err := precondition.check(set.Version); err != nil {
		return err
	}
	if err := db.New(deferredConn{tx.conn}).ArchivePolicySet(ctx, db.ArchivePolicySetParams{ZoneID: zone, ID: id}); err != nil {
		return err
	}
	if set.ActiveVersionID == nil {
		tx.record(zone, audit.PolicySets, id, deleted)
		return nil
	}
	_, err = tx.recordActivation(ctx, zone, "delete", set, bindingOf(set), nil)
	return err
}
