// Package issuer issues access tokens and verifies them: JSON Web Tokens (RFC 7519) that
// are signed with the key of a zone (ES256). Instead, another service can issue the tokens
// ([Config.KeysURL]). The package caches the keys.
package issuer

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jws"
	"golang.org/x/sync/singleflight"

	"caracal.run/management/store"
)

// The errors of [Issuer.Verify].
var (
	ErrInvalid     = errors.New("the token is invalid")
	ErrUnavailable = errors.New("the keys that verify the token are unavailable")
)

const (
	// leeway is by how much the clocks of issuers and this service may differ.
	leeway = time.Minute
	// maxToken is the maximum size of a token in bytes.
	maxToken = 4096
	// signingKeyTTL limits for how long a replica signs with a key that another replica has
	// rotated. The key verifies for much longer.
	signingKeyTTL = time.Minute
	// maxZones is the number of zones whose keys are cached.
	maxZones = 1024
)

// Config configures an issuer.
type Config struct {
	Base     string // URL of this service, without a slash at the end
	URL      string // the issuer of every zone; "": each zone has its own, below Base
	KeysURL  string // of the keys of another service that issues the tokens; "": this service issues them
	Audience string // of the tokens: the identifier of the control resource
}

// An Issuer issues and verifies tokens. It is safe for concurrent use.
type Issuer struct {
	store    *store.Store
	config   Config
	verifies *keyCache
	creation singleflight.Group
	now      func() time.Time

	mu      sync.Mutex
	signing map[string]signingKey // by zone
}

// A signingKey is a cached key.
type signingKey struct {
	store.SigningKey
	until time.Time
}

// New returns an issuer. The store must be scoped to [store.System].
func New(s *store.Store, c Config) *Issuer {
	i := &Issuer{store: s, config: c, now: time.Now, signing: map[string]signingKey{}}
	i.verifies = newKeyCache(i.publicKeys, keyTimes{fresh: 30 * time.Second, stale: 30 * time.Second, interval: time.Second})
	if c.KeysURL != "" {
		fetch := externalKeys{store: s, url: c.KeysURL, client: newKeysClient()}
		i.verifies = newKeyCache(fetch.load, keyTimes{fresh: 5 * time.Minute, stale: 10 * time.Minute, interval: 30 * time.Second})
		i.verifies.keepsKeys = true
	}
	return i
}

// External reports whether another service issues the tokens.
func (i *Issuer) External() bool { return i.config.KeysURL != "" }

// URL returns the issuer of a zone's tokens.
func (i *Issuer) URL(zone string) string {
	if i.config.URL != "" {
		return i.config.URL
	}
	return i.config.Base + "/v1/zones/" + zone
}

// Claims are the verified claims of a token.
type Claims struct {
	ID        string // jti
	Subject   string
	ClientID  string
	ZoneID    string
	Issuer    string
	Scopes    []string
	IssuedAt  time.Time
	ExpiresAt time.Time
}

// claims are the claims of a token as they are sent.
type claims struct {
	Issuer    string    `json:"iss"`
	Subject   string    `json:"sub"`
	ClientID  string    `json:"client_id,omitempty"`
	Audience  texts     `json:"aud"`
	Target    []string  `json:"target,omitempty"`
	IssuedAt  *unixTime `json:"iat"`
	ExpiresAt *unixTime `json:"exp"`
	NotBefore *unixTime `json:"nbf,omitempty"`
	ID        string    `json:"jti"`
	ZoneID    string    `json:"zone_id"`
	Scope     string    `json:"scope"`
	SessionID string    `json:"sid,omitempty"`
	RootID    string    `json:"root_sid,omitempty"`
	Use       string    `json:"use"`
	SubType   string    `json:"sub_type"`
}

// A Request describes a token to issue: to an application, for itself.
type Request struct {
	Zone, Application string
	Scopes            []string
	Session           string // ID of the session that is created for the token
	Lifetime          time.Duration
}

// Issue returns a signed token and its claims. It creates the signing key of the zone if
// there is none. It returns zone_not_found if the zone is not active and has no key.
func (i *Issuer) Issue(ctx context.Context, requestID string, r Request) (string, Claims, error) {
	key, err := i.signingKey(ctx, requestID, r.Zone)
	if err != nil {
		return "", Claims{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", Claims{}, err
	}
	audience, now := []string{i.config.Audience}, i.now()
	issued, expires := unixTime(now.Unix()), unixTime(now.Add(r.Lifetime).Unix())
	c := claims{
		Issuer: i.URL(r.Zone), Subject: r.Application, ClientID: r.Application, Audience: audience, Target: audience,
		IssuedAt: &issued, ExpiresAt: &expires, ID: id.String(), ZoneID: r.Zone, Scope: strings.Join(r.Scopes, " "),
		SessionID: r.Session, RootID: r.Session, Use: useResource, SubType: subTypeApplication,
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", Claims{}, err
	}
	header := jws.NewHeaders()
	if err := header.Set(jws.KeyIDKey, key.ID); err != nil {
		return "", Claims{}, err
	}
	token, err := jws.Sign(payload, jws.WithKey(jwa.ES256(), key.Private(), jws.WithProtectedHeaders(header)))
	return string(token), c.verified(), err
}

const (
	useResource        = "resource"
	subTypeApplication = "application"
)

func (c claims) verified() Claims {
	return Claims{
		ID: c.ID, Subject: c.Subject, ClientID: c.ClientID, ZoneID: c.ZoneID, Issuer: c.Issuer, Scopes: strings.Fields(c.Scope),
		IssuedAt: c.IssuedAt.time(), ExpiresAt: c.ExpiresAt.time(),
	}
}

// signingKey returns the key that signs the tokens of a zone.
func (i *Issuer) signingKey(ctx context.Context, requestID, zone string) (store.SigningKey, error) {
	i.mu.Lock()
	cached, found := i.signing[zone]
	i.mu.Unlock()
	if now := i.now(); found && now.Before(cached.until) {
		return cached.SigningKey, nil
	}
	key, err, _ := i.creation.Do(zone, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout) // several requests may share it
		defer cancel()
		until := i.now().Add(signingKeyTTL)
		key, err := i.store.SigningKey(ctx, store.Cause{Actor: store.System, RequestID: requestID}, zone)
		if err != nil {
			return nil, err
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		if len(i.signing) >= maxZones {
			clear(i.signing)
		}
		i.signing[zone] = signingKey{key, until}
		return key, nil
	})
	if err != nil {
		return store.SigningKey{}, err
	}
	return key.(store.SigningKey), nil
}

// Forget makes the issuer read the keys of a zone again, after they were rotated.
func (i *Issuer) Forget(zone string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.signing, zone)
	i.creation.Forget(zone)
}

// publicKeys reads the keys that verify the tokens of a zone.
func (i *Issuer) publicKeys(ctx context.Context, zone string) (map[string]*ecdsa.PublicKey, error) {
	stored, err := i.store.VerificationKeys(ctx, zone)
	if err != nil {
		return nil, err
	}
	keys := make(map[string]*ecdsa.PublicKey, len(stored))
	for _, k := range stored {
		if keys[k.ID], err = k.JWK.Key(); err != nil {
			return nil, fmt.Errorf("signing key %s of zone %s: %w", k.ID, zone, err)
		}
	}
	return keys, nil
}

// Verify returns the claims of a token. Its error wraps [ErrInvalid] or, if the keys of
// the zone cannot be read, [ErrUnavailable], and says why; it contains nothing of the
// token.
//
// Verify checks neither whether the token was revoked nor whether it was used before.
func (i *Issuer) Verify(ctx context.Context, token string) (Claims, error) {
	c, header, err := decode[claims](token)
	if err != nil {
		return Claims{}, invalid("malformed")
	}
	switch {
	case header.Algorithm != jwa.ES256().String():
		return Claims{}, invalid("wrong algorithm")
	case header.Critical != nil: // none is supported (RFC 7515, section 4.1.11)
		return Claims{}, invalid("unknown critical header")
	case !zoneID.MatchString(c.ZoneID):
		return Claims{}, invalid("no zone")
	}
	key, err := i.verifies.key(ctx, c.ZoneID, header.KeyID)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if key == nil {
		return Claims{}, invalid("unknown key")
	}
	if _, err := jws.Verify([]byte(token), jws.WithCompact(), jws.WithKey(jwa.ES256(), key)); err != nil {
		return Claims{}, invalid("wrong signature")
	}
	if reason := i.check(c); reason != "" {
		return Claims{}, invalid(reason)
	}
	return c.verified(), nil
}

func invalid(reason string) error { return fmt.Errorf("%w: %s", ErrInvalid, reason) }

// check returns why signed claims are not acceptable, or "".
func (i *Issuer) check(c claims) string {
	now := i.now()
	switch {
	case c.Issuer != i.URL(c.ZoneID):
		return "wrong issuer"
	case !slices.Contains(c.Audience, i.config.Audience):
		return "wrong audience"
	case c.ExpiresAt == nil || c.IssuedAt == nil || c.ID == "" || c.Subject == "":
		return "missing claim"
	case !now.Before(c.ExpiresAt.time().Add(leeway)):
		return "expired"
	case c.IssuedAt.time().After(now.Add(leeway)), c.NotBefore != nil && c.NotBefore.time().After(now.Add(leeway)):
		return "not yet valid"
	case c.Use != useResource || c.SubType != subTypeApplication:
		return "wrong kind of token"
	}
	return ""
}
