package store

import (
	"context"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// StateKinds are the kinds of objects that a ZoneState has.
type StateKinds struct{ Applications, Providers, Resources bool }

// A ZoneState is a zone with all its active objects of some kinds, the oldest first.
type ZoneState struct {
	Zone         db.Zone
	Applications []db.ListStateApplicationsRow // managed ones
	Providers    []db.ListStateProvidersRow
	Resources    []db.ListStateResourcesRow // without the control resource
}

// ZoneState returns the state of an active zone at one moment, or zone_not_found.
func (s *Store) ZoneState(ctx context.Context, zone string, kinds StateKinds) (state ZoneState, err error) {
	err = s.snapshot(ctx, s.timeouts.settings, func(q *db.Queries) (err error) {
		state, err = readZoneState(ctx, q, zone, kinds, s.controlAudience)
		return err
	})
	return state, err
}

// LockZoneState takes the zone lock in exclusive mode, so that nothing else changes the
// zone until the transaction ends, and returns the state of the zone. It returns
// zone_not_found or system_zone_read_only.
func (tx *Tx) LockZoneState(ctx context.Context, zone string, kinds StateKinds) (ZoneState, error) {
	if _, err := tx.requireZone(ctx, zone, exclusive); err != nil {
		return ZoneState{}, err
	}
	return readZoneState(ctx, tx.q, zone, kinds, tx.controlAudience)
}

// readZoneState reads each kind with one query, of any number of objects.
func readZoneState(ctx context.Context, q *db.Queries, zone string, kinds StateKinds, controlAudience string) (s ZoneState, err error) {
	if s.Zone, err = q.GetZone(ctx, zone); err != nil {
		return s, notFoundAs(err, code.ZoneNotFound)
	}
	if kinds.Applications {
		if s.Applications, err = q.ListStateApplications(ctx, zone); err != nil {
			return s, err
		}
	}
	if kinds.Providers {
		if s.Providers, err = q.ListStateProviders(ctx, zone); err != nil {
			return s, err
		}
	}
	if kinds.Resources {
		s.Resources, err = q.ListStateResources(ctx, db.ListStateResourcesParams{ZoneID: zone, ExcludedIdentifier: controlAudience})
	}
	return s, err
}
