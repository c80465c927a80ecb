package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// A ProviderGrant is a provider grant without its tokens.
type ProviderGrant = db.GetProviderGrantRow

// ProviderGrant returns a provider grant of a zone or provider_grant_not_found.
func (s *Store) ProviderGrant(ctx context.Context, zone, id string) (ProviderGrant, error) {
	g, err := s.shared.GetProviderGrant(ctx, db.GetProviderGrantParams{ZoneID: zone, ID: id})
	return g, notFoundAs(err, code.ProviderGrantNotFound)
}

// A ProviderGrantFilter selects provider grants. A nil field selects all.
type ProviderGrantFilter struct{ UserID, ResourceID, ProviderID, Status *string }

// ProviderGrants returns a page of a zone's provider grants that match a filter, newest
// first. It is empty if the zone does not exist.
func (s *Store) ProviderGrants(ctx context.Context, zone string, f ProviderGrantFilter, p Page) ([]ProviderGrant, error) {
	before, id, limit := p.After.Time, p.After.ID, p.Limit+1
	switch {
	case f.UserID != nil:
		rows, err := s.shared.ListProviderGrantsByUser(ctx, db.ListProviderGrantsByUserParams{
			ZoneID: zone, UserID: *f.UserID, ResourceID: f.ResourceID, ProviderID: f.ProviderID, Status: f.Status, BeforeTime: before, BeforeID: id, RowLimit: limit,
		})
		return convertRows(rows, err, func(r db.ListProviderGrantsByUserRow) ProviderGrant { return ProviderGrant(r) })
	case f.ResourceID != nil && f.Status != nil:
		rows, err := s.shared.ListProviderGrantsByResourceAndStatus(ctx, db.ListProviderGrantsByResourceAndStatusParams{
			ZoneID: zone, ResourceID: *f.ResourceID, Status: *f.Status, ProviderID: f.ProviderID, BeforeTime: before, BeforeID: id, RowLimit: limit,
		})
		return convertRows(rows, err, func(r db.ListProviderGrantsByResourceAndStatusRow) ProviderGrant { return ProviderGrant(r) })
	case f.ResourceID != nil:
		rows, err := s.shared.ListProviderGrantsByResource(ctx, db.ListProviderGrantsByResourceParams{
			ZoneID: zone, ResourceID: *f.ResourceID, ProviderID: f.ProviderID, BeforeTime: before, BeforeID: id, RowLimit: limit,
		})
		return convertRows(rows, err, func(r db.ListProviderGrantsByResourceRow) ProviderGrant { return ProviderGrant(r) })
	case f.ProviderID != nil && f.Status != nil:
		rows, err := s.shared.ListProviderGrantsByProviderAndStatus(ctx, db.ListProviderGrantsByProviderAndStatusParams{
			ZoneID: zone, ProviderID: *f.ProviderID, Status: *f.Status, BeforeTime: before, BeforeID: id, RowLimit: limit,
		})
		return convertRows(rows, err, func(r db.ListProviderGrantsByProviderAndStatusRow) ProviderGrant { return ProviderGrant(r) })
	case f.ProviderID != nil:
		rows, err := s.shared.ListProviderGrantsByProvider(ctx, db.ListProviderGrantsByProviderParams{
			ZoneID: zone, ProviderID: *f.ProviderID, BeforeTime: before, BeforeID: id, RowLimit: limit,
		})
		return convertRows(rows, err, func(r db.ListProviderGrantsByProviderRow) ProviderGrant { return ProviderGrant(r) })
	case f.Status != nil:
		rows, err := s.shared.ListProviderGrantsByStatus(ctx, db.ListProviderGrantsByStatusParams{
			ZoneID: zone, Status: *f.Status, BeforeTime: before, BeforeID: id, RowLimit: limit,
		})
		return convertRows(rows, err, func(r db.ListProviderGrantsByStatusRow) ProviderGrant { return ProviderGrant(r) })
	}
	rows, err := s.shared.ListProviderGrants(ctx, db.ListProviderGrantsParams{ZoneID: zone, BeforeTime: before, BeforeID: id, RowLimit: limit})
	return convertRows(rows, err, func(r db.ListProviderGrantsRow) ProviderGrant { return ProviderGrant(r) })
}

// NewProviderGrant describes a provider grant to create or replace.
type NewProviderGrant struct {
	ProviderGrantRequest
	AccessToken  seal.Plaintext
	RefreshToken seal.Plaintext // empty: none
	ExpiresAt    *time.Time

	AuthorizationRequestID string // of the request that began the authorization; "": none
	// Verify returns an error if the tokens are not those of a provider with the public
	// configuration, whose row is locked; nil: not checked.
	Verify func(publicConfig json.RawMessage) error
}

// errOtherGrant means that the tokens of a grant were sealed for another row than the
// one that they belong to.
var errOtherGrant = errors.New("the active grant was created or revoked meanwhile")

// CreateProviderGrant creates a provider grant, or replaces the scopes and tokens of
// the active grant with the same key. It seals the tokens before it opens the
// transaction. As they are bound to the row that contains them, it starts over if the
// active grant is created or revoked meanwhile.
//
// It returns zone_not_found, system_zone_read_only, provider_not_found,
// provider_grant_unsupported, resource_not_found, provider_resource_mismatch or
// grant_scopes_exceed_resource.
func (s *Store) CreateProviderGrant(ctx context.Context, cause Cause, zone string, n NewProviderGrant) (ProviderGrant, error) {
	const maxAttempts = 10
	var err error
	for range maxAttempts {
		var sealed sealedGrant
		if sealed, err = s.sealProviderGrant(ctx, cause, zone, n); err != nil {
			return ProviderGrant{}, err
		}
		var g db.ProviderGrant
		err = s.InTx(ctx, cause, func(tx *Tx) (err error) {
			g, err = tx.putProviderGrant(ctx, zone, n, sealed)
			return err
		})
		if !errors.Is(err, errOtherGrant) {
			return withoutTokens(g), err
		}
	}
	return ProviderGrant{}, code.ServiceUnavailable.Because(err)
}

// A sealedGrant contains the sealed tokens of a grant.
type sealedGrant struct {
	id                        string // of the row that the tokens are sealed for
	exists                    bool   // the row is that of the active grant
	accessToken, refreshToken []byte
	dataKey                   int32
}

// sealProviderGrant seals the tokens of a grant for the row of the active grant or, if
// there is none, for a new one. It checks what the grant references first, so that an
// invalid request does not create a data key.
func (s *Store) sealProviderGrant(ctx context.Context, cause Cause, zone string, n NewProviderGrant) (sealedGrant, error) {
	r, err := s.grantReferences(ctx, cause, zone, n.ProviderGrantRequest)
	if err != nil {
		return sealedGrant{}, err
	}
	key, err := s.DataKey(ctx, cause, zone)
	if err != nil {
		return sealedGrant{}, err
	}
	sealed := sealedGrant{id: r.GrantID, exists: r.GrantID != "", dataKey: key.Number}
	if !sealed.exists {
		sealed.id = newID()
	}
	sealed.accessToken = key.Seal(grantToken(zone, sealed.id, "access_token"), n.AccessToken)
	if len(n.RefreshToken) > 0 {
		sealed.refreshToken = key.Seal(grantToken(zone, sealed.id, "refresh_token"), n.RefreshToken)
	}
	return sealed, nil
}

// putProviderGrant inserts a grant or updates the active one. It returns errOtherGrant
// if the tokens are sealed for another row.
func (tx *Tx) putProviderGrant(ctx context.Context, zone string, n NewProviderGrant, sealed sealedGrant) (db.ProviderGrant, error) {
	config, err := tx.lockGrantReferences(ctx, zone, n.ProviderGrantRequest)
	if err != nil {
		return db.ProviderGrant{}, err
	}
	if err := verify(config, n.Verify); err != nil {
		return db.ProviderGrant{}, err
	}
	if !sealed.exists {
		g, err := tx.q.InsertProviderGrant(ctx, db.InsertProviderGrantParams{
			ZoneID: zone, ID: sealed.id, UserID: n.UserID, ResourceID: n.ResourceID, ProviderID: n.ProviderID, Scopes: n.Scopes,
			AccessToken: sealed.accessToken, RefreshToken: sealed.refreshToken, DataKey: sealed.dataKey, ExpiresAt: n.ExpiresAt,
		})
		if errors.Is(err, pgx.ErrNoRows) {
			return g, errOtherGrant
		}
		if err != nil {
			return g, err
		}
		tx.recordGrant(n, nil, g)
		return g, nil
	}
	row, err := tx.q.ReplaceProviderGrant(ctx, db.ReplaceProviderGrantParams{
		ZoneID: zone, ID: sealed.id, Scopes: n.Scopes, ExpiresAt: n.ExpiresAt,
		AccessToken: sealed.accessToken, RefreshToken: sealed.refreshToken, DataKey: sealed.dataKey,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return db.ProviderGrant{}, errOtherGrant
	}
	if err != nil {
		return db.ProviderGrant{}, err
	}
	before := row.ProviderGrant
	before.Scopes, before.ExpiresAt, before.AccessToken = row.ScopesBefore, row.ExpiresAtBefore, nil // a sealed token always changes
	tx.recordGrant(n, snapshot(audit.ProviderGrants, before), row.ProviderGrant)
	return row.ProviderGrant, nil
}

// recordGrant records that a grant was created, or replaced if before is not nil.
func (tx *Tx) recordGrant(n NewProviderGrant, before auditFields, after db.ProviderGrant) {
	change := diff(before, snapshot(audit.ProviderGrants, after))
	change.AuthorizationRequestID = n.AuthorizationRequestID
	tx.record(after.ZoneID, audit.ProviderGrants, after.ID, change)
}

// RevokeProviderGrant revokes the active grant with the key and erases its tokens. It
// returns provider_grant_not_found or an error of the zone.
func (tx *Tx) RevokeProviderGrant(ctx context.Context, zone string, k ProviderGrantKey) (ProviderGrant, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return ProviderGrant{}, err
	}
	g, err := tx.q.RevokeProviderGrant(ctx, db.RevokeProviderGrantParams{ZoneID: zone, UserID: k.UserID, ResourceID: k.ResourceID, ProviderID: k.ProviderID})
	if err != nil {
		return ProviderGrant{}, notFoundAs(err, code.ProviderGrantNotFound)
	}
	tx.recordRevokedGrant(zone, g.ID)
	return withoutTokens(g), nil
}

// revokeProviderGrants revokes the active grants of a provider and erases their
// tokens.
func (tx *Tx) revokeProviderGrants(ctx context.Context, zone, provider string) error {
	grants, err := tx.q.RevokeProviderGrantsOfProvider(ctx, db.RevokeProviderGrantsOfProviderParams{ZoneID: zone, ProviderID: provider})
	for _, id := range grants {
		tx.recordRevokedGrant(zone, id)
	}
	return err
}

func (tx *Tx) recordRevokedGrant(zone, id string) {
	tx.record(zone, audit.ProviderGrants, id, diff(auditFields{"status": "active"}, auditFields{"status": "revoked"}))
}

// withoutTokens returns a grant without its sealed tokens.
func withoutTokens(g db.ProviderGrant) ProviderGrant {
	return ProviderGrant{
		ZoneID: g.ZoneID, ID: g.ID, UserID: g.UserID, ResourceID: g.ResourceID, ProviderID: g.ProviderID, Scopes: g.Scopes, Status: g.Status,
		HasAccessToken: g.AccessToken != nil, HasRefreshToken: g.RefreshToken != nil, RefreshedAt: g.RefreshedAt, ExpiresAt: g.ExpiresAt,
		Version: g.Version, CreatedAt: g.CreatedAt, UpdatedAt: g.UpdatedAt,
	}
}
