package store

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Grant returns a grant of a zone or grant_not_found.
func (s *Store) Grant(ctx context.Context, zone, id string) (db.Grant, error) {
	g, err := s.shared.GetGrant(ctx, db.GetGrantParams{ZoneID: zone, ID: id})
	return g, notFoundAs(err, code.GrantNotFound)
}

// A GrantFilter selects grants. A nil field selects all.
type GrantFilter struct {
	UserID, ApplicationID, ResourceID, ProviderID, Status *string
	Scopes                                                []string // a grant must have all of them
}

// Grants returns a page of a zone's grants that match a filter, newest first, with the
// names of what they refer to. It is empty if the zone does not exist.
//
// It scans the index of the field of the filter that selects the fewest grants.
func (s *Store) Grants(ctx context.Context, zone string, f GrantFilter, p Page) ([]db.ListedGrant, error) {
	q, scopes := s.inOrder(), append([]string{}, f.Scopes...) // not null
	by, scope, err := f.mostSelective(ctx, q, zone)
	if err != nil {
		return nil, err
	}
	switch by {
	case "user_id":
		return q.ListGrantsByUser(ctx, db.ListGrantsByUserParams{
			ZoneID: zone, UserID: *f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case "application_id":
		return q.ListGrantsByApplication(ctx, db.ListGrantsByApplicationParams{
			ZoneID: zone, ApplicationID: *f.ApplicationID, UserID: f.UserID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case "resource_id":
		return q.ListGrantsByResource(ctx, db.ListGrantsByResourceParams{
			ZoneID: zone, ResourceID: *f.ResourceID, UserID: f.UserID, ApplicationID: f.ApplicationID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case "scope":
		return q.ListGrantsByScope(ctx, db.ListGrantsByScopeParams{
			ZoneID: zone, Scope: scope, UserID: f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case "provider_id":
		return q.ListGrantsByProvider(ctx, db.ListGrantsByProviderParams{
			ZoneID: zone, ProviderID: *f.ProviderID, UserID: f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case "status":
		return q.ListGrantsByStatus(ctx, db.ListGrantsByStatusParams{
			ZoneID: zone, Status: *f.Status, UserID: f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, ProviderID: f.ProviderID,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	}
	return q.ListGrants(ctx, db.ListGrantsParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// mostSelective returns the field of a filter that selects the fewest grants and, if that
// is a scope, the scope. It returns "" for a filter without fields. If there is a choice,
// it counts up to a few hundred grants for each field.
func (f GrantFilter) mostSelective(ctx context.Context, q *db.Queries, zone string) (by, scope string, err error) {
	const maxCount = 500
	type field struct {
		name  string
		scope int64 // its number, from 1
	}
	var fields []field // in case of a tie, the first counts
	for _, one := range []struct {
		name  string
		value *string
	}{{"user_id", f.UserID}, {"resource_id", f.ResourceID}, {"application_id", f.ApplicationID}, {"provider_id", f.ProviderID}, {"status", f.Status}} {
		if one.value != nil {
			fields = append(fields, field{one.name, 0})
		}
	}
	for i := range f.Scopes {
		fields = append(fields, field{"scope", int64(i) + 1})
	}
	chosen := func(best field) (by, scope string, err error) {
		if best.scope > 0 {
			scope = f.Scopes[best.scope-1]
		}
		return best.name, scope, nil
	}
	switch len(fields) {
	case 0:
		return "", "", nil
	case 1:
		return chosen(fields[0])
	}
	rows, err := q.CountGrantsByFilter(ctx, db.CountGrantsByFilterParams{
		ZoneID: zone, UserID: f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status,
		Scopes: append([]string{}, f.Scopes...), RowLimit: maxCount,
	})
	if err != nil {
		return "", "", err
	}
	counts := map[field]int64{}
	for _, r := range rows {
		counts[field{r.Filter, r.Scope}] = r.Count
	}
	return chosen(slices.MinFunc(fields, func(a, b field) int { return cmp.Compare(counts[a], counts[b]) }))
}

// NewGrant describes a grant to create.
type NewGrant struct {
	ApplicationID, UserID, ResourceID string
	Scopes                            []string
}

// CreateGrant creates a grant. It locks the application and the resource until the
// transaction ends, so that they allow the grant when it is committed. It returns
// zone_not_found, system_zone_read_only, application_not_found, resource_not_found or
// grant_scopes_exceed_resource.
func (tx *Tx) CreateGrant(ctx context.Context, zone string, n NewGrant) (db.Grant, error) {
	if err := tx.lockZoneID(ctx, zone, shared); err != nil {
		return db.Grant{}, err
	}
	row, err := tx.q.InsertGrant(ctx, db.InsertGrantParams{
		ZoneID: zone, ID: newID(), ApplicationID: n.ApplicationID, UserID: n.UserID, ResourceID: n.ResourceID, Scopes: n.Scopes,
		ExcludedIdentifier: tx.excludedIdentifier(tx.cause.Actor), Bootstrap: tx.cause.Actor.Bootstrap,
	})
	g := db.Grant(row)
	if errors.Is(err, pgx.ErrNoRows) {
		return g, tx.whyNoGrant(ctx, zone, n)
	}
	if err != nil {
		return g, err
	}
	tx.record(zone, audit.Grants, g.ID, diff(nil, snapshot(audit.Grants, g)))
	return g, nil
}

// whyNoGrant returns the error of a grant that could not be inserted.
func (tx *Tx) whyNoGrant(ctx context.Context, zone string, n NewGrant) error {
	found, err := tx.q.GetZoneOfGrant(ctx, db.GetZoneOfGrantParams{
		ZoneID: zone, ApplicationID: n.ApplicationID, ResourceID: n.ResourceID, ExcludedIdentifier: tx.excludedIdentifier(tx.cause.Actor),
	})
	if _, err := tx.checkZoneWritable(found.Zone, err); err != nil {
		return err
	}
	switch {
	case !found.HasApplication:
		return code.ApplicationNotFound
	case !found.HasResource:
		return code.ResourceNotFound
	}
	return code.GrantScopesExceedResource
}

// RevokeGrant revokes an active grant. It also revokes the sessions that rest on it,
// unless another active grant permits all that it did. It does nothing for a grant that
// is not active. It returns grant_not_found, version_conflict or an error of the zone.
func (tx *Tx) RevokeGrant(ctx context.Context, zone, id string, precondition Precondition) error {
	if _, err := tx.requireZone(ctx, zone, exclusive); err != nil {
		return err
	}
	before, err := tx.q.LockGrant(ctx, db.LockGrantParams{ZoneID: zone, ID: id})
	if err != nil {
		return notFoundAs(err, code.GrantNotFound)
	}
	if err := precondition.check(before.Version); err != nil {
		return err
	}
	if before.Status != "active" {
		return nil
	}
	after, err := tx.q.RevokeGrant(ctx, db.RevokeGrantParams{ZoneID: zone, ID: id})
	if err != nil {
		return err
	}
	tx.record(zone, audit.Grants, id, diff(snapshot(audit.Grants, before), snapshot(audit.Grants, after.Grant)))
	if after.Covered {
		return nil
	}
	return tx.revokeForGrant(ctx, after.Grant)
}
