package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// NewRegistrationToken describes a registration token to create.
type NewRegistrationToken struct {
	Name      string
	MaxUses   *int32     // nil: no limit
	ExpiresAt *time.Time // nil: never
}

// CreateRegistrationToken creates a token that allows clients to register, and returns it
// with its value, of which only a hash is stored. It returns an error of the zone.
func (tx *Tx) CreateRegistrationToken(ctx context.Context, zone string, n NewRegistrationToken) (db.RegistrationToken, string, error) {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return db.RegistrationToken{}, "", err
	}
	token := newSecret("crt_")
	t, err := tx.q.InsertRegistrationToken(ctx, db.InsertRegistrationTokenParams{
		ZoneID: zone, ID: newID(), Name: n.Name, TokenSHA256: digestOf(token), MaxUses: n.MaxUses, ExpiresAt: n.ExpiresAt,
	})
	if err != nil {
		return t, "", err
	}
	tx.record(zone, audit.RegistrationTokens, t.ID, diff(nil, snapshot(audit.RegistrationTokens, t)))
	return t, token, nil
}

// digestOf returns the SHA-256 of a generated token, which cannot be guessed.
func digestOf(token string) []byte {
	digest := sha256.Sum256([]byte(token))
	return digest[:]
}

// RegistrationTokens returns a page of a zone's registration tokens, newest first. It is
// empty if the zone does not exist.
func (s *Store) RegistrationTokens(ctx context.Context, zone string, p Page) ([]db.RegistrationToken, error) {
	return s.shared.ListRegistrationTokens(ctx, db.ListRegistrationTokensParams{ZoneID: zone, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// DeleteRegistrationToken deletes a registration token. It returns
// registration_token_not_found or an error of the zone.
func (tx *Tx) DeleteRegistrationToken(ctx context.Context, zone, id string) error {
	if _, err := tx.requireZone(ctx, zone, shared); err != nil {
		return err
	}
	if _, err := tx.q.DeleteRegistrationToken(ctx, db.DeleteRegistrationTokenParams{ZoneID: zone, ID: id}); err != nil {
		return notFoundAs(err, code.RegistrationTokenNotFound)
	}
	tx.record(zone, audit.RegistrationTokens, id, deleted)
	return nil
}

// MayRegister returns zone_not_found, or invalid_registration_token unless a client can register in a zone
// with a token, or without one (""). It needs no transaction and locks nothing;
// [Tx.RegisterClient] decides.
func (s *Store) MayRegister(ctx context.Context, zone, token string) error {
	may, err := s.shared.MayRegister(ctx, db.MayRegisterParams{ZoneID: zone, TokenSHA256: digestOf(token)})
	if err == nil && !may.TokenValid && (token != "" || !may.OpenRegistration) {
		return code.InvalidRegistrationToken
	}
	return notFoundAs(err, code.ZoneNotFound)
}

// useRegistrationToken counts a use of a registration token and makes it the actor of the
// transaction. Without a token, it requires that the zone allows everyone to register. It
// returns invalid_registration_token.
func (tx *Tx) useRegistrationToken(ctx context.Context, zone db.Zone, token string) error {
	if token == "" {
		if !zone.OpenRegistration {
			return code.InvalidRegistrationToken
		}
		return nil
	}
	t, err := tx.q.UseRegistrationToken(ctx, db.UseRegistrationTokenParams{ZoneID: zone.ID, TokenSHA256: digestOf(token)})
	if errors.Is(err, pgx.ErrNoRows) {
		return code.InvalidRegistrationToken
	}
	tx.cause.Actor.ID, tx.cause.Actor.Name = t.ID, t.Name
	return err
}
