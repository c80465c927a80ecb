package store

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// Provider returns an active provider of a zone or provider_not_found.
func (s *Store) Provider(ctx context.Context, zone, id string) (db.Provider, error) {
	p, err := s.shared.GetProvider(ctx, db.GetProviderParams{ZoneID: zone, ID: id})
	return p, notFoundAs(err, code.ProviderNotFound)
}

// A ProviderFilter selects providers. A nil field selects all.
type ProviderFilter struct{ Name, Identifier, Kind *string }

// Providers returns a page of a zone's active providers that match a filter, newest
// first. It is empty if the zone does not exist.
func (s *Store) Providers(ctx context.Context, zone string, f ProviderFilter, p Page) ([]db.ListProvidersRow, error) {
	switch {
	case f.Identifier != nil:
		rows, err := s.shared.ListProvidersByIdentifier(ctx, db.ListProvidersByIdentifierParams{
			ZoneID: zone, Identifier: *f.Identifier, Name: f.Name, Kind: f.Kind, BeforeTime: p.After.Time, BeforeID: p.After.ID,
		})
		return convertRows(rows, err, func(r db.ListProvidersByIdentifierRow) db.ListProvidersRow { return db.ListProvidersRow(r) })
	case f.Name != nil:
		rows, err := s.shared.ListProvidersByName(ctx, db.ListProvidersByNameParams{
			ZoneID: zone, Name: *f.Name, Kind: f.Kind, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
		return convertRows(rows, err, func(r db.ListProvidersByNameRow) db.ListProvidersRow { return db.ListProvidersRow(r) })
	case f.Kind != nil:
		rows, err := s.shared.ListProvidersByKind(ctx, db.ListProvidersByKindParams{
			ZoneID: zone, Kind: *f.Kind, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1,
		})
		return convertRows(rows, err, func(r db.ListProvidersByKindRow) db.ListProvidersRow { return db.ListProvidersRow(r) })
	}
	return s.shared.ListProviders(ctx, db.ListProvidersParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// A ProviderConfig is a provider's configuration. The caller has validated it
// against the rules of the kind.
type ProviderConfig struct {
	Kind         string
	PublicConfig json.RawMessage
	Secrets      seal.Plaintext // a JSON object of strings, the secrets to be sealed by name; empty if there are none
	SecretKeys   []string       // the names of the secrets, sorted
	EndsGrants   bool           // a change to it revokes the provider's grants
}

// NewProvider describes a provider to create.
type NewProvider struct {
	Name       *string // nil: the identifier
	Identifier *string // nil: generated from the name
	ProviderConfig
}

// Check returns invalid_provider if the provider has neither a name nor an
// identifier. [Tx.CreateProvider] checks the same; a caller that checks first
// does not create a data key for an invalid request.
func (n NewProvider) Check() error {
	if n.Name == nil && n.Identifier == nil {
		return code.InvalidProvider.At("must be set if identifier is not", "name")
	}
	return nil
}

// CreateProvider creates a provider. If it has secrets, key must be the zone's data
// key ([Store.DataKey]). It returns zone_not_found, system_zone_read_only,
// invalid_provider, reserved_namespace or provider_identifier_conflict.
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
		// A numbered identifier is checked too: caracal-sys is not reserved, caracal-sys-2 is.
		if err := tx.checkReservedName(ProviderIdentifier, identifier); err != nil {
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
		base := providerBase(*n.Name)
		p, err = insertWithUniqueName(base, row.ID, insert, func() (string, error) {
			return tx.q.GetAvailableProviderIdentifier(ctx, db.GetAvailableProviderIdentifierParams{ZoneID: zone, Base: base})
		})
	}
	if err != nil {
		return p, err
	}
	tx.record(zone, audit.Providers, p.ID, diff(nil, snapshot(audit.Providers, p)))
	return p, nil
}

// providerBase returns the identifier that is generated from a name. It leaves room
// for the suffix that [insertWithUniqueName] can append.
func providerBase(name string) string {
	const scheme, maxLength = "provider://", 500 - len("-") - 32
	name = strings.TrimPrefix(strings.TrimFunc(name, IsSpace), scheme)
	base := scheme + slugOf(name, "provider")
	return strings.TrimRight(base[:min(len(base), maxLength)], "-")
}

// sealProvider returns a provider's sealed secrets and the number of the data key,
// or nil if it has no secrets.
func sealProvider(key seal.DataKey, zone, id string, secrets seal.Plaintext) ([]byte, *int32) {
	if len(secrets) == 0 {
		return nil, nil
	}
	return key.Seal(providerSecrets(zone, id), secrets), &key.Number
}

// providerSecrets returns the location of a provider's sealed secrets.
func providerSecrets(zone, id string) seal.Location {
	return seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}
}

// ProviderPatch lists the fields to change; nil leaves a field unchanged.
type ProviderPatch struct {
	Name       *string
	Identifier *string
	// Configure returns the new configuration, which can depend on the stored one.
	// It is called while the provider's row is locked. Secrets that are in its
	// SecretKeys but not in its Secrets remain as they are stored; the others that are
	// stored are erased.
	Configure func(stored ProviderConfig) (ProviderConfig, error)
	// Verify returns an error if the request contradicts the present provider, whose
	// row is locked.
	Verify func(present db.Provider) error
}

// UpdateProvider updates a provider if the precondition accepts its version. If
// Configure can return secrets, key must be the zone's data key ([Store.DataKey]). A
// change with [ProviderConfig.EndsGrants] revokes the grants of the provider. If the
// patch changes no field, the provider is not written; secrets are always a change.
//
// It returns provider_not_found, version_conflict, no_fields, reserved_namespace,
// provider_identifier_conflict, an error of Verify or Configure, or an error of the
// zone.
func (tx *Tx) UpdateProvider(ctx context.Context, zone, id string, precondition Precondition, key seal.DataKey, p ProviderPatch) (db.Provider, error) {
	if p.Name == nil && p.Identifier == nil && p.Configure == nil {
		return db.Provider{}, code.NoFields
	}
	if err := tx.checkReservedName(ProviderIdentifier, valueOr(p.Identifier, "")); err != nil {
		return db.Provider{}, err
	}
	before, err := tx.lockProvider(ctx, zone, id, precondition)
	if err != nil {
		return before, err
	}
	if err := verify(before, p.Verify); err != nil {
		return before, err
	}
	after, endsGrants := before, false
	after.Name, after.Identifier = valueOr(p.Name, before.Name), valueOr(p.Identifier, before.Identifier)
	if p.Configure != nil {
		config, err := p.Configure(ProviderConfig{Kind: before.Kind, PublicConfig: before.ConfigJSON, SecretKeys: before.SecretConfigKeys})
		if err != nil {
			return before, err
		}
		endsGrants = config.EndsGrants
		after.Kind, after.ConfigJSON, after.SecretConfigKeys = config.Kind, config.PublicConfig, append([]string{}, config.SecretKeys...)
		if after.SecretConfig, after.DataKey, err = tx.resealProvider(ctx, before, key, config); err != nil {
			return before, err
		}
	}
	if unchanged(audit.Providers, before, after) {
		return before, nil
	}
	after, err = tx.q.UpdateProvider(ctx, db.UpdateProviderParams{
		ZoneID: zone, ID: id, Name: after.Name, Identifier: after.Identifier, Kind: after.Kind, ConfigJSON: after.ConfigJSON,
		SecretConfig: after.SecretConfig, SecretConfigKeys: after.SecretConfigKeys, DataKey: after.DataKey,
	})
	if err != nil {
		return after, err
	}
	tx.record(zone, audit.Providers, id, diff(snapshot(audit.Providers, before), snapshot(audit.Providers, after)))
	if endsGrants {
		return after, tx.revokeProviderGrants(ctx, zone, id)
	}
	return after, nil
}

// resealProvider returns a provider's sealed secrets after a change of its
// configuration, and the number of their data key. It opens the stored secrets only if
// some of them are to be kept and others are not.
func (tx *Tx) resealProvider(ctx context.Context, before db.Provider, key seal.DataKey, config ProviderConfig) ([]byte, *int32, error) {
	secrets := map[string]string{}
	if len(config.Secrets) > 0 {
		if err := json.Unmarshal(config.Secrets, &secrets); err != nil {
			return nil, nil, err
		}
	}
	switch supplied := slices.Sorted(maps.Keys(secrets)); {
	case slices.Equal(supplied, config.SecretKeys):
		sealed, number := sealProvider(key, before.ZoneID, before.ID, config.Secrets)
		return sealed, number, nil
	case len(supplied) == 0 && slices.Equal(before.SecretConfigKeys, config.SecretKeys):
		return before.SecretConfig, before.DataKey, nil
	}
	keys, err := tx.dataKeys(ctx, before.ZoneID)
	if err != nil {
		return nil, nil, err
	}
	stored, err := openSecret(keys, valueOr(before.DataKey, 0), providerSecrets(before.ZoneID, before.ID), before.SecretConfig)
	if err != nil {
		return nil, nil, err
	}
	var all map[string]string
	if err := json.Unmarshal(stored, &all); err != nil {
		return nil, nil, err
	}
	maps.Copy(all, secrets)
	maps.DeleteFunc(all, func(name, _ string) bool { return !slices.Contains(config.SecretKeys, name) })
	merged, err := json.Marshal(all)
	if err != nil {
		return nil, nil, err
	}
	sealed, number := sealProvider(keys[len(keys)-1], before.ZoneID, before.ID, merged)
	return sealed, number, nil
}

// DeleteProvider archives a provider, erases its secrets and revokes its grants. It
// returns provider_in_use if an active resource references the provider. It also
// returns provider_not_found, version_conflict, reserved_namespace or an error of the
// zone.
//
// The lock of the provider's row conflicts with that of lockReferences and
// noneProvider, so that no reference is added meanwhile.
func (tx *Tx) DeleteProvider(ctx context.Context, zone, id string, precondition Precondition) error {
	if _, err := tx.lockProvider(ctx, zone, id, precondition); err != nil {
		return err
	}
	inUse, err := tx.q.IsProviderInUse(ctx, db.IsProviderInUseParams{ZoneID: zone, ProviderID: id})
	if err != nil {
		return err
	}
	if inUse {
		return code.ProviderInUse
	}
	if err := tx.q.ArchiveProvider(ctx, db.ArchiveProviderParams{ZoneID: zone, ID: id}); err != nil {
		return err
	}
	tx.record(zone, audit.Providers, id, deleted)
	return tx.revokeProviderGrants(ctx, zone, id)
}

// TestProvider returns a provider whose token endpoint the caller is about to
// test, and records the test in the audit log. It returns provider_not_found or an
// error of the zone.
func (tx *Tx) TestProvider(ctx context.Context, zone, id string) (db.Provider, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.Provider{}, err
	}
	p, err := tx.q.GetProvider(ctx, db.GetProviderParams{ZoneID: zone, ID: id})
	if err != nil {
		return p, notFoundAs(err, code.ProviderNotFound)
	}
	tx.record(zone, audit.Providers, id, used)
	return p, nil
}

// lockProvider takes the zone lock and locks a provider's row, if the actor is
// allowed to change it and the precondition accepts its version.
func (tx *Tx) lockProvider(ctx context.Context, zone, id string, precondition Precondition) (db.Provider, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.Provider{}, err
	}
	p, err := tx.q.LockProvider(ctx, db.LockProviderParams{ZoneID: zone, ID: id})
	if err != nil {
		return p, notFoundAs(err, code.ProviderNotFound)
	}
	if err := tx.checkReservedName(ProviderIdentifier, p.Identifier); err != nil {
		return p, err
	}
	return p, precondition.check(p.Version)
}

const kindNone = "none"

const noneProviderIdentifier = "provider://none"

func noneProviderID(zone string) string { return "provider-none-" + zone }

// IsNoneProvider reports whether a provider is the one that a zone has for resources without a
// credential.
func IsNoneProvider(zone, id, identifier string) bool {
	return id == noneProviderID(zone) || identifier == noneProviderIdentifier
}

// noneProvider locks an active provider of kind none and returns its id. It creates
// the provider, with an id derived from the zone's, when the zone needs it for the
// first time. The transaction must have the zone lock in exclusive mode.
func (tx *Tx) noneProvider(ctx context.Context, zone string) (string, error) {
	const name = "No credential"
	id, identifier := noneProviderID(zone), noneProviderIdentifier
	kind, err := tx.q.LockProviderShared(ctx, db.LockProviderSharedParams{ZoneID: zone, ID: id})
	switch {
	case err == nil && kind == kindNone:
		return id, nil
	case err == nil:
		id = newID() // the provider with that id was changed to another kind
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
	default: // the identifier belongs to a provider of another kind
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
