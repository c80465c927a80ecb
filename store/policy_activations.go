package store

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A PolicyBinding is what is active in a zone: a version of a policy set and,
// optionally, another version of it as its shadow.
type PolicyBinding struct {
	PolicySetID, VersionID string
	ShadowVersionID        *string
}

// Versions returns the ids of the versions.
func (b PolicyBinding) Versions() []string {
	if b.ShadowVersionID == nil {
		return []string{b.VersionID}
	}
	return []string{b.VersionID, *b.ShadowVersionID}
}

func (b PolicyBinding) equal(other PolicyBinding) bool {
	return b.PolicySetID == other.PolicySetID && b.VersionID == other.VersionID && (b.ShadowVersionID == nil) == (other.ShadowVersionID == nil) &&
		valueOr(b.ShadowVersionID, "") == valueOr(other.ShadowVersionID, "")
}

// A PolicyActivation is a change of the active policy set of a zone.
type PolicyActivation struct {
	PolicyBinding
	Replaced *PolicyBinding // what was active before; nil: nothing
	OutboxID string
}

// A PolicySetSource is a version of a policy set with its policies, in the order of
// the manifest.
type PolicySetSource struct {
	SchemaVersion, ManifestSHA256 string
	Policies                      []PolicySource
}

// PolicySetSources returns versions of a policy set by their ids. A version that the
// policy set does not have is missing, as is every one if it is archived.
func (s *Store) PolicySetSources(ctx context.Context, zone, set string, versions ...string) (map[string]PolicySetSource, error) {
	rows, err := s.q.ListPolicySetSources(ctx, db.ListPolicySetSourcesParams{ZoneID: zone, PolicySetID: set, VersionIds: versions, MaxBytes: MaxManifestBytes})
	sources := map[string]PolicySetSource{}
	for _, r := range rows {
		source := sources[r.VersionID]
		source.SchemaVersion, source.ManifestSHA256 = r.SetSchemaVersion, r.ManifestSHA256
		source.Policies = append(source.Policies, PolicySource{ID: r.ID, SchemaVersion: r.SchemaVersion, Bytes: r.Bytes, Content: r.Content, Archived: r.Archived})
		sources[r.VersionID] = source
	}
	return sources, err
}

// PolicyActivations returns a page of the changes of the active policy set of a zone,
// newest first, below a number. It is empty if the zone does not exist.
func (s *Store) PolicyActivations(ctx context.Context, zone string, before int64, limit int32) ([]db.PolicyActivation, error) {
	return s.shared.ListPolicyActivations(ctx, db.ListPolicyActivationsParams{ZoneID: zone, BeforeNumber: before, RowLimit: limit + 1})
}

// RollbackTarget returns what was active in a zone before the last change, which must
// have activated the policy set. It returns policy_set_not_found,
// policy_set_not_active or no_previous_version.
func (s *Store) RollbackTarget(ctx context.Context, zone, set string) (PolicyBinding, error) {
	return rollbackTarget(s.q.GetRollback(ctx, db.GetRollbackParams{ZoneID: zone, ID: set}))
}

func rollbackTarget(r db.GetRollbackRow, err error) (PolicyBinding, error) {
	switch {
	case err != nil:
		return PolicyBinding{}, notFoundAs(err, code.PolicySetNotFound)
	case !r.Active:
		return PolicyBinding{}, code.PolicySetNotActive
	case r.PreviousPolicySetID == nil || r.PreviousVersionID == nil || r.PreviousArchivedAt != nil:
		return PolicyBinding{}, code.NoPreviousVersion
	}
	return PolicyBinding{*r.PreviousPolicySetID, *r.PreviousVersionID, r.PreviousShadowVersionID}, nil
}

// ActivationStatus returns the state of a policy set, of one of its versions and of an
// event. A nil version is the active one; a nil event is that of the last activation
// of the version. It returns policy_set_binding_not_found.
func (s *Store) ActivationStatus(ctx context.Context, zone, set string, version, outboxID *string) (db.GetActivationStatusRow, error) {
	status, err := s.shared.GetActivationStatus(ctx, db.GetActivationStatusParams{ZoneID: zone, ID: set, VersionID: version, OutboxID: outboxID})
	return status, notFoundAs(err, code.PolicySetBindingNotFound)
}

// ActivatePolicySet makes a binding the active one of its zone. The caller must have
// checked that the versions belong to the policy set, which never changes, and that
// their policies can be used together. It returns version_not_found if the policy set
// is archived, referenced_policy_version_missing if one of the policies was archived
// since, or an error of the zone.
func (tx *Tx) ActivatePolicySet(ctx context.Context, zone string, b PolicyBinding) (PolicyActivation, error) {
	if _, err := tx.requireZone(ctx, zone, exclusive); err != nil {
		return PolicyActivation{}, err
	}
	return tx.activate(ctx, zone, "activate", b)
}

// ErrRollbackTargetChanged is the error of a rollback if another change came first.
var ErrRollbackTargetChanged = errors.New("the active policy set of the zone was changed at the same time")

// RollbackPolicySet restores what was active before the last change, which must be
// the target that the caller has checked like that of ActivatePolicySet. Otherwise it
// returns [ErrRollbackTargetChanged]. It also returns what RollbackTarget and
// ActivatePolicySet do.
func (tx *Tx) RollbackPolicySet(ctx context.Context, zone, set string, target PolicyBinding) (PolicyActivation, error) {
	if _, err := tx.requireZone(ctx, zone, exclusive); err != nil {
		return PolicyActivation{}, err
	}
	current, err := rollbackTarget(tx.q.GetRollback(ctx, db.GetRollbackParams{ZoneID: zone, ID: set}))
	if err != nil {
		return PolicyActivation{}, err
	}
	if !current.equal(target) {
		return PolicyActivation{}, ErrRollbackTargetChanged
	}
	return tx.activate(ctx, zone, "rollback", target)
}

// DeactivatePolicySet deactivates the active policy set of a zone and returns the id
// of the event. It returns policy_set_not_found, policy_set_not_active or an error of
// the zone.
func (tx *Tx) DeactivatePolicySet(ctx context.Context, zone, id string) (outboxID string, err error) {
	if _, err := tx.requireZone(ctx, zone, exclusive); err != nil {
		return "", err
	}
	set, err := tx.q.GetPolicySet(ctx, db.GetPolicySetParams{ZoneID: zone, ID: id})
	if err != nil {
		return "", notFoundAs(err, code.PolicySetNotFound)
	}
	if set.ActiveVersionID == nil {
		return "", code.PolicySetNotActive
	}
	if err := db.New(deferredConn{tx.conn}).DeactivatePolicySet(ctx, db.DeactivatePolicySetParams{ZoneID: zone, ID: id}); err != nil {
		return "", err
	}
	return tx.recordActivation(ctx, zone, "deactivate", set, bindingOf(set), nil)
}

// deactivateZone deactivates the active policy set of a zone, if there is one. The
// transaction must have the zone lock in exclusive mode.
func (tx *Tx) deactivateZone(ctx context.Context, zone string) error {
	set, err := tx.q.GetActivePolicySet(ctx, zone)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := db.New(deferredConn{tx.conn}).DeactivatePolicySet(ctx, db.DeactivatePolicySetParams{ZoneID: zone, ID: set.ID}); err != nil {
		return err
	}
	_, err = tx.recordActivation(ctx, zone, "deactivate", set, bindingOf(set), nil)
	return err
}

// activate makes a binding the active one. The transaction must have the zone lock in
// exclusive mode.
func (tx *Tx) activate(ctx context.Context, zone, action string, b PolicyBinding) (PolicyActivation, error) {
	rows, err := tx.q.ListSetAndActiveSet(ctx, db.ListSetAndActiveSetParams{ZoneID: zone, ID: b.PolicySetID, VersionIds: b.Versions()})
	if err != nil {
		return PolicyActivation{}, err
	}
	var set, active *db.PolicySet
	for _, r := range rows {
		if r.ArchivedPolicy {
			return PolicyActivation{}, code.ReferencedPolicyVersionMissing
		}
		if r.PolicySet.ID == b.PolicySetID {
			set = &r.PolicySet
		}
		if r.PolicySet.ActiveVersionID != nil {
			active = &r.PolicySet
		}
	}
	if set == nil {
		return PolicyActivation{}, code.VersionNotFound
	}
	deferred := db.New(deferredConn{tx.conn}) // sent with the event
	if active != nil && active != set {
		if err := deferred.DeactivatePolicySet(ctx, db.DeactivatePolicySetParams{ZoneID: zone, ID: active.ID}); err != nil {
			return PolicyActivation{}, err
		}
		inactive := *active
		inactive.ActiveVersionID, inactive.ShadowVersionID = nil, nil
		tx.record(zone, audit.PolicySets, active.ID, diff(snapshot(audit.PolicySets, *active), snapshot(audit.PolicySets, inactive)))
	}
	err = deferred.ActivatePolicySet(ctx, db.ActivatePolicySetParams{ZoneID: zone, ID: set.ID, VersionID: b.VersionID, ShadowVersionID: b.ShadowVersionID})
	if err != nil {
		return PolicyActivation{}, err
	}
	result := PolicyActivation{PolicyBinding: b}
	if active != nil {
		result.Replaced = bindingOf(*active)
	}
	result.OutboxID, err = tx.recordActivation(ctx, zone, action, *set, result.Replaced, &b)
	return result, err
}

// recordActivation records that a policy set becomes active, if next is not nil, or
// inactive: in the audit log, in the history of the zone and as an event, whose id it
// returns.
func (tx *Tx) recordActivation(ctx context.Context, zone, action string, before db.PolicySet, replaced, next *PolicyBinding) (outboxID string, err error) {
	f := fields{"zone_id": zone, "policy_set_id": before.ID}
	p := db.InsertPolicyActivationParams{ZoneID: zone, Action: action, ActivatedBy: tx.cause.Actor.Name}
	if replaced != nil {
		p.PreviousPolicySetID, p.PreviousVersionID, p.PreviousShadowVersionID = &replaced.PolicySetID, &replaced.VersionID, replaced.ShadowVersionID
	}
	after := before
	after.ActiveVersionID, after.ShadowVersionID = nil, nil
	if next != nil {
		p.PolicySetID, p.VersionID, p.ShadowVersionID = &next.PolicySetID, &next.VersionID, next.ShadowVersionID
		after.ActiveVersionID, after.ShadowVersionID = &next.VersionID, next.ShadowVersionID
		f["policy_set_version_id"] = next.VersionID
		if next.ShadowVersionID != nil {
			f["shadow_version_id"] = *next.ShadowVersionID
		}
	}
	e := newEvent(zone, streamPolicyInvalidate, f)
	p.OutboxID = e.id
	change := diff(snapshot(audit.PolicySets, before), snapshot(audit.PolicySets, after))
	if action == "delete" {
		change.Change = deleted.Change
	}
	tx.record(zone, audit.PolicySets, before.ID, change, e)
	return e.id, db.New(deferredConn{tx.conn}).InsertPolicyActivation(ctx, p) // sent with the event
}

// bindingOf returns what is active of the active policy set.
func bindingOf(active db.PolicySet) *PolicyBinding {
	return &PolicyBinding{active.ID, valueOr(active.ActiveVersionID, ""), active.ShadowVersionID}
}
