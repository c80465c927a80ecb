package store

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
)

// Who made a token. Those that are not minted are seeded at start.
const (
	createdByBootstrap    = "env-bootstrap"
	createdByDerived      = "env-derived"
	createdByDerivedWrite = "env-derived-write"
)

// An AdminToken is who may manage: everything, or one zone.
type AdminToken struct{ db.AdminToken }

// Actor is the token as the one who acts.
func (t AdminToken) Actor() Actor {
	zone := t.ZoneID
	if zone == NoZone {
		zone = AllZones
	}
	return Actor{ID: t.ID, Name: t.Name, Zone: zone, Bootstrap: t.CreatedBy == createdByBootstrap}
}

// Derived says whether the token was derived from the bootstrap token, as the
// Console's are. Such a token cannot manage tokens.
func (t AdminToken) Derived() bool {
	return t.CreatedBy == createdByDerived || t.CreatedBy == createdByDerivedWrite
}

// MayWrite says whether the token is for more than reading.
func (t AdminToken) MayWrite() bool { return t.Capability == "write" }

// AdminTokenBySecret is the live token with this text, or invalid_admin_token.
// A secret of 256 random bits needs no slow hash: nobody can guess what its
// digest was made from.
func (s *Store) AdminTokenBySecret(ctx context.Context, digest [sha256.Size]byte) (AdminToken, error) {
	t, err := s.For(System).q.GetActiveAdminToken(ctx, digest[:])
	return AdminToken{t}, notFoundAs(err, code.InvalidAdminToken)
}

// TouchAdminTokens notes that tokens were used, at most once in a debounce.
func (s *Store) TouchAdminTokens(ctx context.Context, ids []string, at time.Time, debounce time.Duration) error {
	return s.For(System).q.TouchAdminTokens(ctx, db.TouchAdminTokensParams{Ids: ids, UsedAt: at, StaleBefore: at.Add(-debounce)})
}

// NewAdminToken is what a caller says of a token to be.
type NewAdminToken struct {
	Name       string
	Zone       *string // nil: global
	Capability string
	ExpiresIn  *int64 // seconds; nil: never
}

// CreateAdminToken mints a token and answers its text too, which is not kept.
func (tx *Tx) CreateAdminToken(ctx context.Context, n NewAdminToken) (AdminToken, string, error) {
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
	text := newSecret("cat_")
	digest := sha256.Sum256([]byte(text))
	token, err := tx.q.InsertAdminToken(ctx, db.InsertAdminTokenParams{
		ZoneID: zone, ID: newID(), Name: n.Name, Capability: n.Capability,
		CreatedBy: "admin:" + tx.cause.Actor.ID, TokenSHA256: digest[:], ExpiresIn: n.ExpiresIn,
	})
	if err != nil {
		return AdminToken{}, "", err
	}
	tx.record(zone, audit.AdminTokens, token.ID, diff(nil, snapshot(audit.AdminTokens, token)))
	return AdminToken{token}, text, nil
}

// AdminTokens is a page of all tokens there ever were, newest first.
func (s *Store) AdminTokens(ctx context.Context, p Page) ([]db.AdminToken, error) {
	return s.q.ListAdminTokens(ctx, db.ListAdminTokensParams{BeforeTime: p.After.Time, BeforeID: p.After.ID, RowLimit: p.Limit + 1})
}

// DeleteAdminToken revokes a live token, for every replica at once.
func (tx *Tx) DeleteAdminToken(ctx context.Context, id string) error {
	token, err := tx.q.RevokeAdminToken(ctx, id)
	if err != nil {
		return notFoundAs(err, code.AdminTokenNotFound)
	}
	return tx.recordRevoked(ctx, []db.AdminToken{token})
}

// SeedAdminTokens makes the bootstrap token and the Console's two tokens that
// derive from it live, and ends those of an earlier bootstrap token (contract:
// conventions.md §9.2). A token that was revoked and is configured again works
// again.
func (tx *Tx) SeedAdminTokens(ctx context.Context, bootstrap string) error {
	for _, seed := range []struct{ name, capability, createdBy, text string }{
		{"bootstrap", "write", createdByBootstrap, bootstrap},
		{"console-read-only", "read", createdByDerived, derive(bootstrap, "caracal:console:read-only:v1")},
		{"console-write", "write", createdByDerivedWrite, derive(bootstrap, "caracal:console:write:v1")},
	} {
		digest := sha256.Sum256([]byte(seed.text))
		token, err := tx.q.InsertAdminToken(ctx, db.InsertAdminTokenParams{
			ZoneID: NoZone, ID: newID(), Name: seed.name, Capability: seed.capability, CreatedBy: seed.createdBy, TokenSHA256: digest[:],
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
		if err := tx.recordRevoked(ctx, others); err != nil {
			return err
		}
	}
	return nil
}

// derive is the text of a token that follows from the bootstrap token.
func derive(bootstrap, label string) string {
	mac := hmac.New(sha256.New, []byte(bootstrap))
	mac.Write([]byte(label))
	return "cat_" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// recordRevoked notes the end of tokens and tells every replica.
func (tx *Tx) recordRevoked(ctx context.Context, tokens []db.AdminToken) error {
	if len(tokens) == 0 {
		return nil
	}
	for _, t := range tokens {
		tx.record(t.ZoneID, audit.AdminTokens, t.ID, noFields)
	}
	return tx.q.NotifyAdminTokensRevoked(ctx)
}
