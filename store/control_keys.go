package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/controlkey"
)

// ControlKey returns the active application of a zone that is a Control key, or
// control_key_not_found.
func (s *Store) ControlKey(ctx context.Context, zone, id string) (db.Application, error) {
	a, err := getApplication(ctx, s.shared, zone, id)
	if errors.Is(err, code.ApplicationNotFound) || err == nil && !a.ControlKey {
		return db.Application{}, code.ControlKeyNotFound
	}
	return a.Application, err
}

// UsableControlKey returns the name of a Control key and what it is allowed to do, if its
// zone is active and the key is neither revoked nor expired. It returns
// control_key_not_found otherwise.
func (s *Store) UsableControlKey(ctx context.Context, zone, id string) (name string, key controlkey.Key, err error) {
	row, err := s.shared.GetControlKeyOfActiveZone(ctx, db.GetControlKeyOfActiveZoneParams{ZoneID: zone, ID: id})
	if err != nil {
		return "", key, notFoundAs(err, code.ControlKeyNotFound)
	}
	if key, _, err = controlkey.Parse(row.Traits); err != nil || key.Expired(time.Now()) {
		return "", key, code.ControlKeyNotFound
	}
	return row.Name, key, nil
}

// ControlKeys returns a page of a zone's active applications that are Control keys,
// newest first. It is empty if the zone does not exist.
func (s *Store) ControlKeys(ctx context.Context, zone string, p Page) ([]db.ListControlKeysRow, error) {
	return s.shared.ListControlKeys(ctx, db.ListControlKeysParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// CreateControlKey creates a Control key and returns its application with its client
// secret, of which only a hash is stored. With public keys (a JSON Web Key Set), the key can
// also authenticate with assertions that it signs. The control resource of the zone is created or
// updated if it does not have the scopes that keys can have. CreateControlKey returns
// reserved_namespace, trait_forbidden if the actor is not global, resource_quota_exceeded
// or an error of the zone.
func (tx *Tx) CreateControlKey(ctx context.Context, zone, name string, key controlkey.Key, jwks json.RawMessage) (db.Application, string, error) {
	if err := tx.checkReservedName(ApplicationName, name); err != nil {
		return db.Application{}, "", err
	}
	traits := key.Traits()
	if err := CheckTraits(tx.cause.Actor, traits); err != nil {
		return db.Application{}, "", err
	}
	if _, err := tx.requireZone(ctx, zone, exclusive); err != nil {
		return db.Application{}, "", err
	}
	if err := tx.ensureControlResource(ctx, zone); err != nil {
		return db.Application{}, "", err
	}
	return tx.insertApplication(ctx, db.InsertApplicationParams{ZoneID: zone, Name: name, RegistrationMethod: managed, Traits: traits, Jwks: jwks})
}

// ensureControlResource creates the control resource, or gives it the scopes that Control
// keys can have. The transaction must have the zone lock in exclusive mode.
func (tx *Tx) ensureControlResource(ctx context.Context, zone string) error {
	r, err := tx.q.GetResourceByIdentifier(ctx, db.GetResourceByIdentifierParams{ZoneID: zone, Identifier: tx.controlAudience})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		name := "Control API"
		_, err = tx.CreateResource(ctx, zone, NewResource{Name: &name, Identifier: &tx.controlAudience, Scopes: controlkey.Scopes(), OperationEnforcement: "enforced"})
		return err
	case err != nil:
		return err
	case slices.Equal(slices.Sorted(slices.Values(r.Scopes)), controlkey.Scopes()):
		return nil
	}
	_, err = tx.UpdateResource(ctx, zone, r.ID, Precondition{}, ResourcePatch{Scopes: controlkey.Scopes()})
	return err
}

// DeleteControlKey archives the application of a Control key, like DeleteApplication. It
// returns control_key_not_found, version_conflict, trait_forbidden if the actor is not
// global, or an error of the zone.
func (tx *Tx) DeleteControlKey(ctx context.Context, zone, id string, precondition Precondition) error {
	before, err := tx.lockApplication(ctx, zone, id, exclusive, precondition)
	if errors.Is(err, code.ApplicationNotFound) || before.ID != "" && !before.ControlKey {
		return code.ControlKeyNotFound
	}
	if err != nil {
		return err
	}
	return tx.endApplications(ctx, zone, []db.Application{before.Application})
}
