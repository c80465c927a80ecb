package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// A PolicySource is a policy version with its content.
type PolicySource struct {
	ID, SchemaVersion string
	Bytes             int64  // of the content
	Content           string // "" if those of the manifest have more than MaxManifestBytes
	Archived          bool   // whether its policy is archived
}

// MaxManifestBytes is the maximum size of the contents of the policy versions of a
// manifest, in total. It is the limit of the STS, and bounds the memory of a request.
const MaxManifestBytes = 8 << 20

// ManifestCandidates returns those of a zone's policy versions that have one of the
// ids, in any order. It returns policy_set_not_found if the zone has no such policy
// set.
func (s *Store) ManifestCandidates(ctx context.Context, zone, set string, ids []string) ([]PolicySource, error) {
	rows, err := s.q.ListManifestCandidates(ctx, db.ListManifestCandidatesParams{ZoneID: zone, PolicySetID: set, Ids: ids, MaxBytes: MaxManifestBytes})
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, code.PolicySetNotFound
	}
	found := make([]PolicySource, 0, len(rows))
	for _, r := range rows {
		if r.ID != "" {
			found = append(found, PolicySource(r))
		}
	}
	return found, nil
}

// PolicySetVersions returns a page of the versions of a policy set, newest first,
// below a number. It returns policy_set_not_found if the policy set does not exist;
// it may be archived.
func (s *Store) PolicySetVersions(ctx context.Context, zone, set string, before, limit int32) ([]db.PolicySetVersion, error) {
	versions, err := s.shared.ListPolicySetVersions(ctx, db.ListPolicySetVersionsParams{ZoneID: zone, PolicySetID: set, BeforeNumber: before, RowLimit: limit + 1})
	if err != nil || len(versions) > 0 {
		return versions, err
	}
	found, err := s.shared.CountPolicySets(ctx, db.CountPolicySetsParams{ZoneID: zone, ID: set})
	if err == nil && found == 0 {
		err = code.PolicySetNotFound
	}
	return versions, err
}

// PolicySetVersion returns a version of a policy set and the ids of its policy
// versions, in order, or policy_set_version_not_found. The policy set may be
// archived.
func (s *Store) PolicySetVersion(ctx context.Context, zone, set, id string) (db.PolicySetVersion, []string, error) {
	row, err := s.shared.GetPolicySetVersion(ctx, db.GetPolicySetVersionParams{ZoneID: zone, PolicySetID: set, ID: id})
	return row.PolicySetVersion, row.PolicyVersionIds, notFoundAs(err, code.PolicySetVersionNotFound)
}

// NewPolicySetVersion describes a version to add to a policy set.
type NewPolicySetVersion struct {
	Manifest       []string // ids of policy versions of the zone, without duplicates
	ManifestSHA256 string
	SchemaVersion  string
}

// AddPolicySetVersion adds a version to a policy set. It returns
// policy_set_not_found or an error of the zone. It does not check the policies again
// that the caller has checked: a version has no effect until it is activated.
func (tx *Tx) AddPolicySetVersion(ctx context.Context, zone, set string, n NewPolicySetVersion) (db.PolicySetVersion, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.PolicySetVersion{}, err
	}
	next, err := tx.q.IncrementPolicySetVersion(ctx, db.IncrementPolicySetVersionParams{ZoneID: zone, ID: set})
	if err != nil {
		return db.PolicySetVersion{}, notFoundAs(err, code.PolicySetNotFound)
	}
	v := db.PolicySetVersion{
		ZoneID: zone, ID: newID(), PolicySetID: set, Version: next.LatestVersion, ManifestSHA256: n.ManifestSHA256,
		SchemaVersion: n.SchemaVersion, CreatedBy: tx.cause.Actor.Name, CreatedAt: next.CreatedAt,
	}
	deferred := db.New(deferredConn{tx.conn}) // sent with the audit entry
	err = deferred.InsertPolicySetVersion(ctx, db.InsertPolicySetVersionParams{
		ZoneID: zone, ID: v.ID, PolicySetID: set, Version: v.Version, ManifestSHA256: v.ManifestSHA256, SchemaVersion: v.SchemaVersion, CreatedBy: v.CreatedBy, CreatedAt: v.CreatedAt,
	})
	if err != nil {
		return v, err
	}
	tx.record(zone, audit.PolicySetVersions, v.ID, diff(nil, snapshot(audit.PolicySetVersions, v)))
	return v, deferred.InsertPolicySetManifest(ctx, db.InsertPolicySetManifestParams{ZoneID: zone, PolicySetVersionID: v.ID, PolicyVersionIds: n.Manifest})
}

// PolicySetsOfVersions returns the ids of the policy sets of versions, by the ids of the
// versions. One that does not exist, or whose policy set is archived, is missing.
func (s *Store) PolicySetsOfVersions(ctx context.Context, zone string, versions []string) (map[string]string, error) {
	rows, err := s.shared.ListPolicySetsOfVersions(ctx, db.ListPolicySetsOfVersionsParams{ZoneID: zone, Ids: versions})
	sets := map[string]string{}
	for _, r := range rows {
		sets[r.ID] = r.PolicySetID
	}
	return sets, err
}

// ManifestSHA256 returns the digest of a manifest, in hexadecimal: of compact JSON, a
// list of objects in the order of the manifest.
func ManifestSHA256(manifest []string) string {
	type entry struct {
		PolicyVersionID string `json:"policy_version_id"`
	}
	entries := make([]entry, len(manifest))
	for i, id := range manifest {
		entries[i].PolicyVersionID = id
	}
	// An id of the zone's rows has no character that encoding/json escapes.
	text, _ := json.Marshal(entries) // cannot fail
	digest := sha256.Sum256(text)
	return hex.EncodeToString(digest[:])
}
