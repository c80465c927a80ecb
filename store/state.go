package store

import (
	"context"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// StateKinds are the kinds of objects that a ZoneState has, and the users whose grants it
// has.
type StateKinds struct {
	Applications, Providers, Resources, Policies, PolicySets bool
	Registered                                               bool // how many registered applications are active
	GrantsOf                                                 []string
	MaxGrants                                                int32  // if not 0: of any user, but no more than these
	Owner                                                    string // "": none; otherwise, the state has what it manages, and who manages what
}

// A ZoneState is a zone with all its active objects of some kinds, the oldest first.
type ZoneState struct {
	Zone         db.Zone
	Applications []db.ListStateApplicationsRow // managed ones
	Providers    []db.ListStateProvidersRow
	Resources    []db.ListStateResourcesRow // without the control resource
	Policies     []db.ListStatePoliciesRow
	PolicySets   []db.ListStatePolicySetsRow
	Manifests    []db.ListStateManifestsRow // of the newest, the active and the shadow version of each policy set
	Grants       []db.ListStateGrantsRow    // active ones
	Owners       []db.ListStateOwnersRow
	Registered   int64 // active applications that clients have registered
}

// ZoneState returns the state of an active zone at one moment, or zone_not_found.
func (s *Store) ZoneState(ctx context.Context, zone string, kinds StateKinds) (state ZoneState, err error) {
	err = s.snapshot(ctx, s.timeouts.settings, func(conn db.DBTX) error {
		q := db.New(conn)
		present, err := q.GetZone(ctx, zone)
		if err != nil {
			return notFoundAs(err, code.ZoneNotFound)
		}
		state, err = readZoneState(ctx, q, present, kinds, s.controlAudience)
		return err
	})
	return state, err
}

// LockZoneState takes the zone lock in exclusive mode, so that nothing else changes the
// zone until the transaction ends, and returns the state of the zone. It returns
// zone_not_found or system_zone_read_only.
func (tx *Tx) LockZoneState(ctx context.Context, zone string, kinds StateKinds) (ZoneState, error) {
	present, err := tx.requireZone(ctx, zone, exclusive)
	if err != nil {
		return ZoneState{}, err
	}
	return readZoneState(ctx, tx.q, present, kinds, tx.controlAudience)
}

// readZoneState reads each kind with one query, of any number of objects.
func readZoneState(ctx context.Context, q *db.Queries, present db.Zone, kinds StateKinds, controlAudience string) (s ZoneState, err error) {
	s.Zone = present
	zone := present.ID
	if kinds.Applications {
		if s.Applications, err = q.ListStateApplications(ctx, zone); err != nil {
			return s, err
		}
	}
	if kinds.Registered {
		if s.Registered, err = q.CountActiveDCRApplications(ctx, zone); err != nil {
			return s, err
		}
	}
	if kinds.Providers {
		if s.Providers, err = q.ListStateProviders(ctx, zone); err != nil {
			return s, err
		}
	}
	if kinds.Resources {
		if s.Resources, err = q.ListStateResources(ctx, db.ListStateResourcesParams{ZoneID: zone, ExcludedIdentifier: controlAudience}); err != nil {
			return s, err
		}
	}
	if kinds.Policies {
		if s.Policies, err = q.ListStatePolicies(ctx, zone); err != nil {
			return s, err
		}
	}
	if kinds.PolicySets {
		if s.PolicySets, err = q.ListStatePolicySets(ctx, zone); err != nil {
			return s, err
		}
		if s.Manifests, err = q.ListStateManifests(ctx, zone); err != nil {
			return s, err
		}
	}
	if kinds.MaxGrants > 0 {
		rows, err := q.ListActiveStateGrants(ctx, db.ListActiveStateGrantsParams{ZoneID: zone, RowLimit: kinds.MaxGrants})
		if err != nil {
			return s, err
		}
		for _, r := range rows {
			s.Grants = append(s.Grants, db.ListStateGrantsRow(r))
		}
	}
	if len(kinds.GrantsOf) > 0 {
		if s.Grants, err = q.ListStateGrants(ctx, db.ListStateGrantsParams{ZoneID: zone, UserIds: kinds.GrantsOf}); err != nil {
			return s, err
		}
	}
	if kinds.Owner == "" {
		return s, nil
	}
	if s.Owners, err = q.ListStateOwners(ctx, zone); err != nil {
		return s, err
	}
	owned, err := q.ListStateGrantsOfOwner(ctx, db.ListStateGrantsOfOwnerParams{ZoneID: zone, Owner: kinds.Owner})
	users := make(map[string]bool, len(kinds.GrantsOf))
	for _, user := range kinds.GrantsOf {
		users[user] = true
	}
	for _, g := range owned {
		if !users[g.UserID] {
			s.Grants = append(s.Grants, db.ListStateGrantsRow(g))
		}
	}
	return s, err
}

// PolicyContents returns those policy versions of a zone that have one of the ids, by
// their ids.
func (s *Store) PolicyContents(ctx context.Context, zone string, ids []string) (map[string]db.ListPolicyContentsRow, error) {
	rows, err := s.q.ListPolicyContents(ctx, db.ListPolicyContentsParams{ZoneID: zone, Ids: ids})
	contents := make(map[string]db.ListPolicyContentsRow, len(rows))
	for _, r := range rows {
		contents[r.ID] = r
	}
	return contents, err
}
