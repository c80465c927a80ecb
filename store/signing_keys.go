package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// A SigningKey signs the tokens of a zone. It prints as its ID.
type SigningKey struct {
	ID string // the kid of tokens
	// Private returns the private key. It is a function so that package fmt cannot print
	// the key, see package seal.
	Private func() *ecdsa.PrivateKey
}

// Format prints the ID, never the key.
func (k SigningKey) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "signing key %s", k.ID) }

// MarshalText returns the same text as Format.
func (k SigningKey) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", k), nil }

// A VerificationKey is the public key of a [SigningKey].
type VerificationKey struct {
	ID  string
	JWK PublicJWK
}

// A PublicJWK is a public key on an elliptic curve as a JSON Web Key (RFC 7518, section
// 6.2.1), as it is stored.
type PublicJWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	X   string `json:"x"` // a coordinate in base64url
	Y   string `json:"y"`
}

// Key returns the public key, or an error if the JWK is malformed.
func (j PublicJWK) Key() (*ecdsa.PublicKey, error) {
	point := []byte{4} // uncompressed (SEC 1, section 2.3.3)
	for _, text := range []string{j.X, j.Y} {
		coordinate, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			return nil, err
		}
		point = append(point, coordinate...)
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
}

// publicJWK returns the JWK of a public key. Coordinates have a fixed length.
func publicJWK(key *ecdsa.PublicKey) (PublicJWK, error) {
	point, err := key.Bytes()
	if err != nil {
		return PublicJWK{}, err
	}
	size := (len(point) - 1) / 2
	text := base64.RawURLEncoding.EncodeToString
	return PublicJWK{Kty: "EC", Crv: "P-256", X: text(point[1 : 1+size]), Y: text(point[1+size:])}, nil
}

// SigningKey returns the key that signs the tokens of a zone. It creates the key if the
// zone has none yet, and returns zone_not_found if the zone is not active. Like
// [Store.DataKey], which it calls, it must not be called in a transaction.
func (s *Store) SigningKey(ctx context.Context, cause Cause, zone string) (SigningKey, error) {
	row, err := s.For(cause.Actor).shared.GetSigningKey(ctx, zone)
	if errors.Is(err, pgx.ErrNoRows) {
		row, err = s.createSigningKey(ctx, cause, zone)
	}
	if err != nil {
		return SigningKey{}, err
	}
	der, err := s.OpenSecret(ctx, cause, row.DataKey, privateSigningKey(zone, row.ID), row.PrivateKey)
	if err != nil {
		return SigningKey{}, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return SigningKey{}, fmt.Errorf("%w: signing key %s of zone %s has an invalid format", ErrNotOpened, row.ID, zone)
	}
	return SigningKey{ID: row.ID, Private: func() *ecdsa.PrivateKey { return private }}, nil
}

// createSigningKey creates the signing key of a zone and returns it. If a concurrent
// transaction has created one first, it returns that one.
func (s *Store) createSigningKey(ctx context.Context, cause Cause, zone string) (row db.GetSigningKeyRow, err error) {
	sealer, err := s.DataKey(ctx, cause, zone)
	if err != nil {
		return row, err
	}
	// The key is recorded as its own operation: it remains even if the request fails.
	cause = Cause{Actor: cause.Actor, RequestID: cause.RequestID, Operation: "make signing key"}
	err = s.InTx(ctx, cause, func(tx *Tx) error {
		if _, err := tx.lockZone(ctx, zone, shared); err != nil { // its row lock orders concurrent creations
			return err
		}
		row, err = tx.q.GetSigningKey(ctx, zone)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		created, err := tx.insertSigningKey(ctx, zone, sealer)
		row = db.GetSigningKeyRow{ID: created.ID, PrivateKey: created.PrivateKey, DataKey: created.DataKey}
		return err
	})
	return row, err
}

// VerificationKeys returns the keys that verify the tokens of a zone, newest first: its
// signing key, and previous ones until 24 hours after their rotation. There are none if
// the zone has no key, or is not active.
func (s *Store) VerificationKeys(ctx context.Context, zone string) ([]VerificationKey, error) {
	rows, err := s.shared.ListVerificationKeys(ctx, zone)
	if err != nil {
		return nil, err
	}
	keys := make([]VerificationKey, len(rows))
	for i, row := range rows {
		keys[i].ID = row.ID
		if err := json.Unmarshal(row.PublicJWK, &keys[i].JWK); err != nil {
			return nil, fmt.Errorf("signing key %s of zone %s: %w", row.ID, zone, err)
		}
	}
	return keys, nil
}

// RotateSigningKey replaces the signing key of a zone and returns the new one. The
// previous key verifies for 24 more hours. sealer must be the zone's data key
// ([Store.DataKey]). It returns zone_not_found or system_zone_read_only.
func (tx *Tx) RotateSigningKey(ctx context.Context, zone string, sealer seal.DataKey) (db.SigningKey, error) {
	if _, err := tx.lockZone(ctx, zone, shared); err != nil { // its row lock orders concurrent rotations
		return db.SigningKey{}, err
	}
	retired, err := tx.q.RetireSigningKey(ctx, zone)
	if err != nil {
		return db.SigningKey{}, err
	}
	for _, k := range retired {
		tx.record(zone, audit.SigningKeys, k.ID, diff(auditFields{"retires_at": nil}, auditFields{"retires_at": k.RetiresAt}))
	}
	return tx.insertSigningKey(ctx, zone, sealer)
}

// insertSigningKey inserts a new signing key of a zone that has none.
func (tx *Tx) insertSigningKey(ctx context.Context, zone string, sealer seal.DataKey) (db.SigningKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return db.SigningKey{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return db.SigningKey{}, err
	}
	public, err := publicJWK(&private.PublicKey)
	if err != nil {
		return db.SigningKey{}, err
	}
	jwk, err := json.Marshal(public)
	if err != nil {
		return db.SigningKey{}, err
	}
	id := newID()
	k, err := tx.q.InsertSigningKey(ctx, db.InsertSigningKeyParams{
		ZoneID: zone, ID: id, PublicJWK: jwk, PrivateKey: sealer.Seal(privateSigningKey(zone, id), der), DataKey: sealer.Number,
	})
	if err != nil {
		return k, err
	}
	tx.record(zone, audit.SigningKeys, id, diff(nil, snapshot(audit.SigningKeys, k)))
	return k, nil
}

// privateSigningKey returns the location of a sealed private key.
func privateSigningKey(zone, id string) seal.Location {
	return seal.Location{Zone: zone, Table: "signing_keys", Column: "private_key", Row: id}
}

// RetiredSigningKeys returns at most limit signing keys that no longer verify, without
// those of excluded zones.
func (s *Store) RetiredSigningKeys(ctx context.Context, limit int, excluded []string) ([]Due, error) {
	rows, err := s.q.ListRetiredSigningKeys(ctx, db.ListRetiredSigningKeysParams{ExcludedZones: excluded, RowLimit: int32(limit)})
	return dueIn(rows, err, func(r db.ListRetiredSigningKeysRow) dueRow { return dueRow(r) })
}

// DeleteSigningKeys deletes signing keys that no longer verify and returns how many.
func (tx *Tx) DeleteSigningKeys(ctx context.Context, due Due) (int, error) {
	if err := tx.lockZoneID(ctx, due.Zone, shared); err != nil {
		return 0, err
	}
	ids, err := tx.q.DeleteRetiredSigningKeys(ctx, db.DeleteRetiredSigningKeysParams{ZoneID: due.Zone, Ids: due.IDs})
	for _, id := range ids {
		tx.record(due.Zone, audit.SigningKeys, id, deleted)
	}
	return len(ids), err
}
