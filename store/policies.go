package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Policies returns a page of a zone's active policies, newest first. It is empty if
// the zone does not exist.
func (s *Store) Policies(ctx context.Context, zone string, name *string, p Page) ([]db.Policy, error) {
	if name != nil {
		return s.shared.ListPoliciesByName(ctx, db.ListPoliciesByNameParams{ZoneID: zone, Name: *name, BeforeTime: p.After.Time, BeforeID: p.After.ID})
	}
	return s.shared.ListPolicies(ctx, db.ListPoliciesParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// Policy returns an active policy of a zone with all its versions, newest first, or
// policy_not_found. If onlyLatestContent is true, older versions have no content.
func (s *Store) Policy(ctx context.Context, zone, id string, onlyLatestContent bool) (db.Policy, []db.PolicyVersion, error) {
	rows, err := s.q.GetPolicyWithVersions(ctx, db.GetPolicyWithVersionsParams{ZoneID: zone, ID: id, OnlyLatestContent: onlyLatestContent})
	if err != nil {
		return db.Policy{}, nil, err
	}
	if len(rows) == 0 {
		return db.Policy{}, nil, code.PolicyNotFound
	}
	versions := make([]db.PolicyVersion, len(rows))
	for i, r := range rows {
		versions[i] = db.PolicyVersion{
			ZoneID: zone, ID: r.ID, PolicyID: id, Version: r.Version, Content: r.Content, ContentSHA256: r.ContentSHA256,
			SchemaVersion: r.SchemaVersion, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt,
		}
	}
	return rows[0].Policy, versions, nil
}

// PolicyVersions returns at most limit versions of a policy, active or archived,
// with numbers below before, newest first, and one extra row if there are more. It
// returns policy_not_found if there are none: every policy has a version 1.
func (s *Store) PolicyVersions(ctx context.Context, zone, policy string, before, limit int32) ([]db.ListPolicyVersionsRow, error) {
	versions, err := s.shared.ListPolicyVersions(ctx, db.ListPolicyVersionsParams{ZoneID: zone, PolicyID: policy, BeforeVersion: before, RowLimit: limit + 1})
	if err == nil && len(versions) == 0 {
		return nil, code.PolicyNotFound
	}
	return versions, err
}

// PolicyVersion returns a version of a policy, active or archived, or
// policy_version_not_found.
func (s *Store) PolicyVersion(ctx context.Context, zone, policy, id string) (db.PolicyVersion, error) {
	v, err := s.shared.GetPolicyVersion(ctx, db.GetPolicyVersionParams{ZoneID: zone, PolicyID: policy, ID: id})
	return v, notFoundAs(err, code.PolicyVersionNotFound)
}

// NewPolicy describes a policy to create.
type NewPolicy struct {
	Name         string
	Description  *string
	OwnerType    string
	FirstVersion NewPolicyVersion
}

// NewPolicyVersion describes a version to add to a policy. The caller has checked
// the content.
type NewPolicyVersion struct{ Content, SchemaVersion string }

// CreatePolicy creates a policy with its first version. It returns
// reserved_namespace, zone_not_found, system_zone_read_only or
// policy_name_conflict.
func (tx *Tx) CreatePolicy(ctx context.Context, zone string, n NewPolicy) (db.Policy, db.PolicyVersion, error) {
	if err := tx.checkReservedName(PolicyName, n.Name); err != nil {
		return db.Policy{}, db.PolicyVersion{}, err
	}
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.Policy{}, db.PolicyVersion{}, err
	}
	p, err := tx.q.InsertPolicy(ctx, db.InsertPolicyParams{
		ZoneID: zone, ID: newID(), Name: n.Name, Description: n.Description, OwnerType: n.OwnerType, CreatedBy: tx.cause.Actor.Name,
	})
	if err != nil {
		return p, db.PolicyVersion{}, err
	}
	tx.record(zone, audit.Policies, p.ID, diff(nil, snapshot(audit.Policies, p)))
	v := db.PolicyVersion{ZoneID: zone, PolicyID: p.ID, Version: p.LatestVersion, CreatedAt: p.CreatedAt}
	v, err = tx.insertPolicyVersion(ctx, v, n.FirstVersion)
	return p, v, err
}

// AddPolicyVersion adds a version to an active policy. It locks the policy, so the
// numbers of its versions have no gaps. It returns zone_not_found,
// system_zone_read_only or policy_not_found.
func (tx *Tx) AddPolicyVersion(ctx context.Context, zone, policy string, n NewPolicyVersion) (db.PolicyVersion, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.PolicyVersion{}, err
	}
	next, err := tx.q.IncrementPolicyVersion(ctx, db.IncrementPolicyVersionParams{ZoneID: zone, ID: policy})
	if err != nil {
		return db.PolicyVersion{}, notFoundAs(err, code.PolicyNotFound)
	}
	return tx.insertPolicyVersion(ctx, db.PolicyVersion{ZoneID: zone, PolicyID: policy, Version: next.LatestVersion, CreatedAt: next.CreatedAt}, n)
}

// insertPolicyVersion sets the other columns of a version, and inserts it together
// with its audit entry.
func (tx *Tx) insertPolicyVersion(ctx context.Context, v db.PolicyVersion, n NewPolicyVersion) (db.PolicyVersion, error) {
	digest := sha256.Sum256([]byte(n.Content))
	v.ID, v.CreatedBy = newID(), tx.cause.Actor.Name
	v.Content, v.ContentSHA256, v.SchemaVersion = n.Content, hex.EncodeToString(digest[:]), n.SchemaVersion
	tx.record(v.ZoneID, audit.PolicyVersions, v.ID, diff(nil, snapshot(audit.PolicyVersions, v)))
	return v, db.New(deferredConn{tx.conn}).InsertPolicyVersion(ctx, db.InsertPolicyVersionParams(v))
}

// DeletePolicy archives a policy, so its name becomes available again. It returns
// zone_not_found, system_zone_read_only, policy_not_found, version_conflict, or
// policy_in_use if the zone's active policy set contains one of its versions. An
// activation takes the zone lock in exclusive mode, so the policy cannot come into
// use before the transaction ends.
func (tx *Tx) DeletePolicy(ctx context.Context, zone, id string, precondition Precondition) error {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return err
	}
	p, err := tx.q.LockPolicy(ctx, db.LockPolicyParams{ZoneID: zone, ID: id})
	if err != nil {
		return notFoundAs(err, code.PolicyNotFound)
	}
	if err := precondition.check(p.Policy.Version); err != nil {
		return err
	}
	if p.InUse {
		return code.PolicyInUse
	}
	tx.record(zone, audit.Policies, id, deleted)
	return db.New(deferredConn{tx.conn}).ArchivePolicy(ctx, db.ArchivePolicyParams{ZoneID: zone, ID: id})
}

// DeclaredScopes returns the scopes of a zone's active resources that have one of the
// identifiers, or zone_not_found. It omits the control resource if the actor is not
// global.
func (s *Store) DeclaredScopes(ctx context.Context, zone string, identifiers []string) (map[string][]string, error) {
	rows, err := s.q.ListDeclaredScopes(ctx, db.ListDeclaredScopesParams{ZoneID: zone, Identifiers: identifiers, ExcludedIdentifier: s.excludedIdentifier()})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, code.ZoneNotFound
	}
	declared := make(map[string][]string, len(rows))
	for _, r := range rows {
		declared[r.Identifier] = r.Scopes
	}
	return declared, nil
}
