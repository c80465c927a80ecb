package store

import (
	"context"
	"errors"

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
// It scans the index of the field of the filter that usually selects the fewest grants:
// a user has few, a status many.
func (s *Store) Grants(ctx context.Context, zone string, f GrantFilter, p Page) ([]db.ListedGrant, error) {
	q, scopes := s.inOrder(), append([]string{}, f.Scopes...) // not null
	switch {
	case f.UserID != nil:
		return q.ListGrantsByUser(ctx, db.ListGrantsByUserParams{
			ZoneID: zone, UserID: *f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.ResourceID != nil:
		return q.ListGrantsByResource(ctx, db.ListGrantsByResourceParams{
			ZoneID: zone, ResourceID: *f.ResourceID, UserID: f.UserID, ApplicationID: f.ApplicationID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.ApplicationID != nil:
		return q.ListGrantsByApplication(ctx, db.ListGrantsByApplicationParams{
			ZoneID: zone, ApplicationID: *f.ApplicationID, UserID: f.UserID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case len(scopes) > 0:
		return q.ListGrantsByScope(ctx, db.ListGrantsByScopeParams{
			ZoneID: zone, Scope: scopes[0], UserID: f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.ProviderID != nil:
		return q.ListGrantsByProvider(ctx, db.ListGrantsByProviderParams{
			ZoneID: zone, ProviderID: *f.ProviderID, UserID: f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, Status: f.Status,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	case f.Status != nil:
		return q.ListGrantsByStatus(ctx, db.ListGrantsByStatusParams{
			ZoneID: zone, Status: *f.Status, UserID: f.UserID, ApplicationID: f.ApplicationID, ResourceID: f.ResourceID, ProviderID: f.ProviderID,
			Scopes: scopes, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
	}
	return q.ListGrants(ctx, db.ListGrantsParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
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
	g, err := tx.q.InsertGrant(ctx, db.InsertGrantParams{
		ZoneID: zone, ID: newID(), ApplicationID: n.ApplicationID, UserID: n.UserID, ResourceID: n.ResourceID, Scopes: n.Scopes,
		ExcludedIdentifier: tx.excludedIdentifier(tx.cause.Actor), Bootstrap: tx.cause.Actor.Bootstrap,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return g, tx.whyNoGrant(ctx, zone, n)
	}
	if err != nil {
		return g, err
	}
	tx.record(zone, audit.Grants, g.ID, diff(nil, snapshot(audit.Grants, g)))
	return g, db.New(deferredConn{tx.conn}).InsertGrantScopes(ctx, db.InsertGrantScopesParams{ZoneID: zone, GrantID: g.ID, Scopes: n.Scopes})
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
