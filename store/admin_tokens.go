package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Values of created_by of the tokens that are seeded at startup. For a token created
// through the API, the value is "admin:" and the id of the creator's token.
const (
	createdByBootstrap    = "env-bootstrap"
	createdByDerived      = "env-derived"
	createdByDerivedWrite = "env-derived-write"
	createdByActor        = "admin:"
)

// An AdminToken authenticates an administrator of all zones or of one.
type AdminToken struct{ db.AdminToken }

// Actor returns the actor that the token authenticates.
func (t AdminToken) Actor() Actor {
	zone := t.ZoneID
	if zone == NoZone {
		zone = AllZones
	}
	return Actor{ID: t.ID, Name: t.Name, Zone: zone, Bootstrap: t.CreatedBy == createdByBootstrap, CanApprove: t.CanApprove}
}

// Derived reports whether the token was derived from the bootstrap token, for the
// Console. A derived token cannot manage admin tokens.
func (t AdminToken) Derived() bool {
	return t.CreatedBy == createdByDerived || t.CreatedBy == createdByDerivedWrite
}

// MayWrite reports whether the token has the write capability.
func (t AdminToken) MayWrite() bool { return t.Capability == "write" }

// AdminTokenBySecret returns the active token whose secret has the given SHA-256
// digest, or invalid_admin_token. A secret of 256 random bits cannot be guessed,
// so a fast hash is enough. For an expired token, the sentence of the error says when
// it expired: the caller knows its secret.
func (s *Store) AdminTokenBySecret(ctx context.Context, digest [sha256.Size]byte) (AdminToken, error) {
	t, err := s.For(System).shared.GetAdminTokenBySecret(ctx, digest[:])
	if err == nil && t.Expired {
		return AdminToken{}, code.InvalidAdminToken.Saying("The admin token expired at " + t.AdminToken.ExpiresAt.UTC().Format(time.RFC3339) + ".")
	}
	return AdminToken{t.AdminToken}, notFoundAs(err, code.InvalidAdminToken)
}

// AdminToken returns a token, which may be expired or revoked, or
// admin_token_not_found.
func (s *Store) AdminToken(ctx context.Context, id string) (db.AdminToken, error) {
	t, err := s.shared.GetAdminToken(ctx, id)
	return t, notFoundAs(err, code.AdminTokenNotFound)
}

// TouchAdminTokens sets the last use of tokens, except of those whose last use is
// recorded as less than debounce ago.
func (s *Store) TouchAdminTokens(ctx context.Context, ids []string, at time.Time, debounce time.Duration) error {
	return s.For(System).q.TouchAdminTokens(ctx, db.TouchAdminTokensParams{Ids: ids, UsedAt: at, StaleBefore: at.Add(-debounce)})
}

// NewAdminToken describes a token to create.
type NewAdminToken struct {
	Name       string
	Zone       *string // nil: global
	Capability string
	CanApprove bool
	ExpiresIn  *int64 // seconds; nil: never
}

// CreateAdminToken creates a token and returns it with its secret, of which only a
// digest is stored. It returns admin_token_cannot_grant_approval or zone_not_found.
func (tx *Tx) CreateAdminToken(ctx context.Context, n NewAdminToken) (AdminToken, string, error) {
	if n.CanApprove && !tx.cause.Actor.CanApprove {
		return AdminToken{}, "", code.AdminTokenCannotGrantApproval
	}
	zone := NoZone
	if n.Zone != nil {
		zone = *n.Zone
		if err := tx.lockZoneID(ctx, zone, shared); err != nil {
			return AdminToken{}, "", err
		}
		if _, err := tx.q.GetZone(ctx, zone); err != nil {
			return AdminToken{}, "", notFoundAs(err, code.ZoneNotFound)
		}
	}
	secret := newSecret("cat_")
	digest := sha256.Sum256([]byte(secret))
	token, err := tx.q.InsertAdminToken(ctx, db.InsertAdminTokenParams{
		ZoneID: zone, ID: newID(), Name: n.Name, Capability: n.Capability, CanApprove: n.CanApprove,
		CreatedBy: createdByActor + tx.cause.Actor.ID, TokenSHA256: digest[:], ExpiresIn: n.ExpiresIn,
	})
	if err != nil {
		return AdminToken{}, "", err
	}
	tx.record(zone, audit.AdminTokens, token.ID, diff(nil, snapshot(audit.AdminTokens, token)))
	return AdminToken{token}, secret, nil
}

// AdminTokens returns a page of all tokens, or of those with a name, newest first,
// including expired and revoked ones.
func (s *Store) AdminTokens(ctx context.Context, name *string, p Page) ([]db.AdminToken, error) {
	if name != nil {
		return s.shared.ListAdminTokensByName(ctx, db.ListAdminTokensByNameParams{Name: *name, BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
	}
	return s.shared.ListAdminTokens(ctx, db.ListAdminTokensParams{BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// AdminTokenPatch lists the fields to change; nil leaves a field unchanged.
type AdminTokenPatch struct {
	Name       *string
	CanApprove *bool
	ExpiresAt  **time.Time // a pointer to nil: never
	// Verify returns an error if the request contradicts the present token, whose row
	// is locked.
	Verify func(present db.AdminToken) error
}

// maxTokenLifetime is the time within which a token that expires must do so. The
// spec has the same limit for new tokens.
const maxTokenLifetime = 315360000 * time.Second // ten years

// UpdateAdminToken renames a token, or changes when it expires or whether it can
// approve, if the precondition accepts its version, and notifies every replica at
// commit. An expired token can become valid again.
//
// An actor cannot extend its own token, nor give approval permission without having
// it, nor extend a token that has it: it could give itself a right that it was not
// given. UpdateAdminToken returns admin_token_not_found if the token does not exist
// or is revoked, version_conflict, no_fields, admin_token_protected if the service
// creates the token itself, invalid_admin_token_request,
// admin_token_self_extension, admin_token_cannot_grant_approval or an error of Verify.
func (tx *Tx) UpdateAdminToken(ctx context.Context, id string, precondition Precondition, p AdminTokenPatch) (db.AdminToken, error) {
	if p.Name == nil && p.CanApprove == nil && p.ExpiresAt == nil {
		return db.AdminToken{}, code.NoFields
	}
	locked, err := tx.q.LockAdminToken(ctx, id)
	before := locked.AdminToken
	if err != nil {
		return before, notFoundAs(err, code.AdminTokenNotFound)
	}
	if err := precondition.check(before.Version); err != nil {
		return before, err
	}
	if err := verify(before, p.Verify); err != nil {
		return before, err
	}
	after := before
	after.Name, after.CanApprove = valueOr(p.Name, before.Name), valueOr(p.CanApprove, before.CanApprove)
	if expiry := valueOr(p.ExpiresAt, before.ExpiresAt); !sameExpiry(expiry, before.ExpiresAt) {
		after.ExpiresAt = expiry
	}
	if unchanged(audit.AdminTokens, before, after) {
		return before, nil
	}
	if !strings.HasPrefix(before.CreatedBy, createdByActor) {
		return before, code.AdminTokenProtected
	}
	if after.CanApprove && (!before.CanApprove || extends(before.ExpiresAt, after.ExpiresAt)) && !tx.cause.Actor.CanApprove {
		return before, code.AdminTokenCannotGrantApproval // a later expiry gives the permission too: an expired token regains it
	}
	if after.ExpiresAt != before.ExpiresAt {
		if err := tx.checkExpiry(before, after.ExpiresAt, locked.Now); err != nil {
			return before, err
		}
	}
	after, err = tx.q.UpdateAdminToken(ctx, db.UpdateAdminTokenParams{ID: id, Name: after.Name, CanApprove: after.CanApprove, ExpiresAt: after.ExpiresAt})
	if err != nil {
		return after, err
	}
	tx.record(after.ZoneID, audit.AdminTokens, id, diff(snapshot(audit.AdminTokens, before), snapshot(audit.AdminTokens, after)))
	tx.revoked = true // the token as the replicas have cached it
	return after, nil
}

// checkExpiry returns invalid_admin_token_request if a new expiry is not in the
// future or too far in it, and admin_token_self_extension if the actor would extend
// its own token.
func (tx *Tx) checkExpiry(before db.AdminToken, expiry *time.Time, now time.Time) error {
	switch {
	case expiry != nil && !expiry.After(now):
		return code.InvalidAdminTokenRequest.At("must be in the future", "expires_at")
	case expiry != nil && expiry.After(now.Add(maxTokenLifetime)):
		return code.InvalidAdminTokenRequest.At(fmt.Sprintf("must be at most %.0f seconds from now", maxTokenLifetime.Seconds()), "expires_at")
	case before.ID == tx.cause.Actor.ID && extends(before.ExpiresAt, expiry):
		return code.AdminTokenSelfExtension
	}
	return nil
}

// extends reports whether a new expiry is later than an old one.
func extends(before, after *time.Time) bool {
	return before != nil && (after == nil || after.After(*before))
}

// sameExpiry reports whether two expiries are the same in milliseconds, the
// precision in which clients read them.
func sameExpiry(a, b *time.Time) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Truncate(time.Millisecond).Equal(b.Truncate(time.Millisecond))
}

// DeleteAdminToken revokes a token if the precondition accepts its version, and
// notifies every replica at commit. It returns version_conflict, or
// admin_token_not_found if the token does not exist or is already revoked.
func (tx *Tx) DeleteAdminToken(ctx context.Context, id string, precondition Precondition) error {
	locked, err := tx.q.LockAdminToken(ctx, id)
	if err != nil {
		return notFoundAs(err, code.AdminTokenNotFound)
	}
	if err := precondition.check(locked.AdminToken.Version); err != nil {
		return err
	}
	token, err := tx.q.RevokeAdminToken(ctx, id)
	if err != nil {
		return err
	}
	tx.recordRevoked([]db.AdminToken{token})
	return nil
}

// SeedAdminTokens activates the bootstrap token and the two Console tokens derived
// from it, and revokes those of an earlier bootstrap token. If an earlier bootstrap
// token is configured again, it becomes active again, as a new row.
func (tx *Tx) SeedAdminTokens(ctx context.Context, bootstrap string) error {
	for _, seed := range []struct{ name, capability, createdBy, secret string }{
		{"bootstrap", "write", createdByBootstrap, bootstrap},
		{"console-read-only", "read", createdByDerived, derive(bootstrap, "caracal:console:read-only:v1")},
		{"console-write", "write", createdByDerivedWrite, derive(bootstrap, "caracal:console:write:v1")},
	} {
		digest := sha256.Sum256([]byte(seed.secret))
		token, err := tx.q.InsertAdminToken(ctx, db.InsertAdminTokenParams{
			ZoneID: NoZone, ID: newID(), Name: seed.name, Capability: seed.capability, CreatedBy: seed.createdBy, TokenSHA256: digest[:],
			CanApprove: seed.createdBy == createdByBootstrap,
		})
		if err == nil {
			tx.record(NoZone, audit.AdminTokens, token.ID, diff(nil, snapshot(audit.AdminTokens, token)))
		} else if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		others, err := tx.q.RevokeOtherAdminTokensBy(ctx, db.RevokeOtherAdminTokensByParams{CreatedBy: seed.createdBy, TokenSHA256: digest[:]})
		if err != nil {
			return err
		}
		tx.recordRevoked(others)
	}
	return nil
}

// derive returns the secret of a token that is derived from the bootstrap token:
// an HMAC-SHA-256 of the label, keyed with the bootstrap token.
func derive(bootstrap, label string) string {
	mac := hmac.New(sha256.New, []byte(bootstrap))
	mac.Write([]byte(label))
	return "cat_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// recordRevoked records the revocation of tokens, of which every replica is told.
func (tx *Tx) recordRevoked(tokens []db.AdminToken) {
	tx.revoked = tx.revoked || len(tokens) > 0
	for _, t := range tokens {
		tx.record(t.ZoneID, audit.AdminTokens, t.ID, deleted)
	}
}

// AdminTokensEpoch returns a number that increases with each transaction that revokes
// admin tokens.
func (s *Store) AdminTokensEpoch(ctx context.Context) (int64, error) {
	return s.shared.GetAdminTokensEpoch(ctx)
}
