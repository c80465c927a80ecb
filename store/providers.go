package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// Provider is a live provider of a zone, or provider_not_found.
func (s *Store) Provider(ctx context.Context, zone, id string) (db.Provider, error) {
	p, err := s.q.GetProvider(ctx, db.GetProviderParams{ZoneID: zone, ID: id})
	return p, notFoundAs(err, code.ProviderNotFound)
}

// Providers is a page of a zone's live providers, newest first.
func (s *Store) Providers(ctx context.Context, zone string, p Page) ([]db.ListProvidersRow, error) {
	return s.q.ListProviders(ctx, db.ListProvidersParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// A ProviderConfig is a configuration that whoever knows the rules has checked.
type ProviderConfig struct {
	Kind         string
	PublicConfig json.RawMessage
	Secrets      seal.Plaintext // to be sealed; empty: none
	SecretKeys   []string       // the names of the secrets, sorted
}

// NewProvider is what a caller says of a provider to be.
type NewProvider struct {
	Name           *string
	Identifier     *string // nil: made from the name
	BaseIdentifier string  // what to make it from
	ProviderConfig
}

// Check refuses a provider that is called nothing. [Tx.CreateProvider] does too,
// but by then there is a key for its secrets.
func (n NewProvider) Check() error {
	if n.Name == nil && n.Identifier == nil {
		return code.InvalidProvider.At("is missing, and so is identifier: one of them is needed", "name")
	}
	return nil
}

// CreateProvider adds a provider. The key is the zone's, if there are secrets to
// seal.
func (tx *Tx) CreateProvider(ctx context.Context, zone string, key seal.DataKey, n NewProvider) (db.Provider, error) {
	if err := n.Check(); err != nil {
		return db.Provider{}, err
	}
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.Provider{}, err
	}
	row := db.InsertProviderParams{
		ZoneID: zone, ID: newID(), Kind: n.Kind, ConfigJSON: n.PublicConfig, SecretConfigKeys: append([]string{}, n.SecretKeys...),
	}
	row.SecretConfig, row.DataKey = sealProvider(key, zone, row.ID, n.Secrets)
	insert := func(identifier string) (db.Provider, error) {
		if err := tx.checkReservedName(providerIdentifier, identifier); err != nil { // of a number too: caracal-sys is free to all, caracal-sys-2 is not
			return db.Provider{}, err
		}
		row.Name, row.Identifier = valueOr(n.Name, identifier), identifier
		return tx.q.InsertProvider(ctx, row)
	}
	var p db.Provider
	var err error
	if n.Identifier != nil {
		p, err = insert(*n.Identifier)
		err = notFoundAs(err, code.ProviderIdentifierConflict)
	} else {
		p, err = insertWithUniqueName(n.BaseIdentifier, row.ID, insert, func() (string, error) {
			return tx.q.GetAvailableProviderIdentifier(ctx, db.GetAvailableProviderIdentifierParams{ZoneID: zone, Base: n.BaseIdentifier})
		})
	}
	if err != nil {
		return p, err
	}
	tx.record(zone, audit.Providers, p.ID, diff(nil, snapshot(audit.Providers, p)))
	return p, nil
}

// sealProvider is a provider's secrets as they are stored.
func sealProvider(key seal.DataKey, zone, id string, secrets seal.Plaintext) ([]byte, *int32) {
	if len(secrets) == 0 {
		return nil, nil
	}
	return key.Seal(providerSecrets(zone, id), secrets), &key.Number
}

func providerSecrets(zone, id string) seal.Location {
	return seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}
}

// ProviderPatch is what a caller wants changed; nil stays as it is.
type ProviderPatch struct {
	Name       *string
	Identifier *string
	// Configure decides, under the provider's lock, what its configuration
	// becomes: that depends on what it is. Nil: it stays.
	Configure func(stored ProviderConfig) (ProviderConfig, error)
}

// UpdateProvider changes a provider that is still at a version that match
// admits. The key is the zone's, if secrets may have to be sealed.
//
// Where Configure answers names of secrets but no secrets, those that are sealed
// stay. A provider that stops being one that people grant access to loses what
// they have granted.
func (tx *Tx) UpdateProvider(ctx context.Context, zone, id string, match Precondition, key seal.DataKey, p ProviderPatch) (db.Provider, error) {
	if p.Name == nil && p.Identifier == nil && p.Configure == nil {
		return db.Provider{}, code.NoFields
	}
	if err := tx.checkReservedName(providerIdentifier, valueOr(p.Identifier, "")); err != nil {
		return db.Provider{}, err
	}
	before, err := tx.lockProvider(ctx, zone, id, match)
	if err != nil {
		return before, err
	}
	row := db.UpdateProviderParams{
		ZoneID: zone, ID: id, Name: valueOr(p.Name, before.Name), Identifier: valueOr(p.Identifier, before.Identifier),
		Kind: before.Kind, ConfigJSON: before.ConfigJSON,
		SecretConfig: before.SecretConfig, SecretConfigKeys: before.SecretConfigKeys, DataKey: before.DataKey,
	}
	if p.Configure != nil {
		config, err := p.Configure(ProviderConfig{Kind: before.Kind, PublicConfig: before.ConfigJSON, SecretKeys: before.SecretConfigKeys})
		if err != nil {
			return before, err
		}
		row.Kind, row.ConfigJSON, row.SecretConfigKeys = config.Kind, config.PublicConfig, append([]string{}, config.SecretKeys...)
		switch {
		case len(config.Secrets) > 0:
			row.SecretConfig, row.DataKey = sealProvider(key, zone, id, config.Secrets)
		case len(config.SecretKeys) == 0:
			row.SecretConfig, row.DataKey = nil, nil
		}
	}
	after, err := tx.q.UpdateProvider(ctx, row)
	if err != nil {
		return after, err
	}
	tx.record(zone, audit.Providers, id, diff(snapshot(audit.Providers, before), snapshot(audit.Providers, after)))
	if after.Kind != before.Kind {
		return after, tx.revokeProviderGrants(ctx, zone, id)
	}
	return after, nil
}

// DeleteProvider archives a provider and erases its secrets and what people have
// granted it. While a live resource names it, it stays, unless it is of a kind
// that holds no credential.
func (tx *Tx) DeleteProvider(ctx context.Context, zone, id string, match Precondition) error {
	before, err := tx.lockProvider(ctx, zone, id, match)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{kindNone, "caracal_mandate"}, before.Kind) {
		used, err := tx.q.IsProviderInUse(ctx, db.IsProviderInUseParams{ZoneID: zone, ProviderID: id})
		if err != nil {
			return err
		}
		if used {
			return code.ProviderInUse
		}
	}
	if err := tx.q.ArchiveProvider(ctx, db.ArchiveProviderParams{ZoneID: zone, ID: id}); err != nil {
		return err
	}
	tx.record(zone, audit.Providers, id, noFields)
	return tx.revokeProviderGrants(ctx, zone, id)
}

// TestProvider is a provider whose token endpoint is about to be reached. The
// trail says so.
func (tx *Tx) TestProvider(ctx context.Context, zone, id string) (db.Provider, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.Provider{}, err
	}
	p, err := tx.q.GetProvider(ctx, db.GetProviderParams{ZoneID: zone, ID: id})
	if err != nil {
		return p, notFoundAs(err, code.ProviderNotFound)
	}
	tx.record(zone, audit.Providers, id, diff(nil, nil))
	return p, nil
}

func (tx *Tx) revokeProviderGrants(ctx context.Context, zone, provider string) error {
	grants, err := tx.q.RevokeProviderGrantsOfProvider(ctx, db.RevokeProviderGrantsOfProviderParams{ZoneID: zone, ProviderID: provider})
	for _, id := range grants {
		tx.record(zone, audit.ProviderGrants, id, diff(auditFields{"status": "active"}, auditFields{"status": "revoked"}))
	}
	return err
}

// lockProvider holds a provider that the actor may change and that is still at a
// version that match admits.
func (tx *Tx) lockProvider(ctx context.Context, zone, id string, match Precondition) (db.Provider, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.Provider{}, err
	}
	p, err := tx.q.LockProvider(ctx, db.LockProviderParams{ZoneID: zone, ID: id})
	if err != nil {
		return p, notFoundAs(err, code.ProviderNotFound)
	}
	if err := tx.checkReservedName(providerIdentifier, p.Identifier); err != nil {
		return p, err
	}
	return p, match.check(p.Version)
}

const kindNone = "none"

// noneProvider is the id of a live provider that stands for "no credential",
// held. A zone has one as soon as something needs it, under an id that says so.
// The transaction holds the zone.
func (tx *Tx) noneProvider(ctx context.Context, zone string) (string, error) {
	const name = "No credential"
	id, identifier := "provider-none-"+zone, "provider://none"
	kind, err := tx.q.LockProviderShared(ctx, db.LockProviderSharedParams{ZoneID: zone, ID: id})
	switch {
	case err == nil && kind == kindNone:
		return id, nil
	case err == nil:
		id = newID() // somebody has made it something else, and keeps it
	case !errors.Is(err, pgx.ErrNoRows):
		return "", err
	}
	other, err := tx.q.LockProviderByIdentifierShared(ctx, db.LockProviderByIdentifierSharedParams{ZoneID: zone, Identifier: identifier})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return "", err
	case other.Kind == kindNone:
		return other.ID, nil
	default: // it belongs to a provider of another kind
		identifier, err = tx.q.GetAvailableProviderIdentifier(ctx, db.GetAvailableProviderIdentifierParams{ZoneID: zone, Base: identifier})
		if err != nil {
			return "", err
		}
	}
	if err := tx.q.EnsureProvider(ctx, db.EnsureProviderParams{ZoneID: zone, ID: id, Name: name, Identifier: identifier, Kind: kindNone}); err != nil {
		return "", err
	}
	tx.record(zone, audit.Providers, id, diff(nil, auditFields{"name": name, "identifier": identifier, "kind": kindNone}))
	return id, nil
}
