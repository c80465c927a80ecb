// Package oauthstate keeps in Redis what the service must remember of an OAuth
// authorization until the user returns from the provider: who may receive the tokens,
// and the code verifier (RFC 7636).
//
// The key contains the hash of the state, and the value is sealed with the data key of
// the zone. So what is in Redis neither completes an authorization nor shows anything
// of it.
package oauthstate

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/redisconn"
	"caracal.run/management/store/seal"
)

// Prefix is the prefix of the keys in Redis.
const Prefix = "api:provider_oauth_state:"

const (
	lifetime = 10 * time.Minute
	timeout  = 2 * time.Second // of Redis
)

// NewSecret returns 256 random bits as text: a state or a code verifier.
func NewSecret() string {
	var bytes [32]byte
	_, _ = rand.Read(bytes[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(bytes[:])
}

// Challenge returns the code challenge of a code verifier, with the method S256
// (RFC 7636, section 4.2).
func Challenge(verifier string) string { return digest(verifier) }

// An Authorization is an authorization that was started.
type Authorization struct {
	Zone         string
	Grant        store.ProviderGrantRequest
	Provider     string // fingerprint of the provider's configuration
	CodeVerifier string
	Actor        store.Actor // who started it
	RequestID    string      // of the request that started it
}

// Format prints nothing of the authorization.
func (a Authorization) Format(f fmt.State, _ rune) {
	_, _ = f.Write([]byte("authorization"))
}

// A stored is the value in Redis. The sealed part is an Authorization in JSON.
type stored struct {
	Zone    string `json:"zone_id"`
	DataKey int32  `json:"data_key"`
	Sealed  []byte `json:"sealed"`
}

// States are the started authorizations.
type States struct {
	store *store.Store
	redis *redisconn.Client
}

// New returns the states in a Redis.
func New(s *store.Store, client *redisconn.Client) *States { return &States{s, client} }

// Put stores an authorization under a new state, and returns when it expires, by the
// clock of Redis. It returns oauth_state_unavailable if Redis is, or an error of
// [store.Store.DataKey].
func (s *States) Put(ctx context.Context, cause store.Cause, state string, a Authorization) (time.Time, error) {
	key, err := s.store.DataKey(ctx, cause, a.Zone)
	if err != nil {
		return time.Time{}, err
	}
	plaintext, err := json.Marshal(a)
	if err != nil {
		return time.Time{}, err
	}
	id := digest(state)
	value, err := json.Marshal(stored{a.Zone, key.Number, key.Seal(location(a.Zone, id), plaintext)})
	if err != nil {
		return time.Time{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	pipe := s.redis.Pipeline()
	pipe.Set(ctx, Prefix+id, value, lifetime)
	expires := pipe.PExpireTime(ctx, Prefix+id)
	if _, err := pipe.Exec(ctx); err != nil {
		return time.Time{}, code.OAuthStateUnavailable.Because(err)
	}
	return time.UnixMilli(int64(expires.Val() / time.Millisecond)), nil
}

// Take returns the authorization of a state and deletes it, so that a state can be used
// once. It returns oauth_state_expired if there is none, oauth_state_mismatch if it
// was started in another zone, oauth_state_invalid if it cannot be opened, and
// oauth_state_unavailable if Redis is unavailable.
func (s *States) Take(ctx context.Context, zone, state string) (Authorization, error) {
	id := digest(state)
	redisCtx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	text, err := s.redis.GetDel(redisCtx, Prefix+id).Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return Authorization{}, code.OAuthStateExpired
	case err != nil:
		return Authorization{}, code.OAuthStateUnavailable.Because(err)
	}
	var value stored
	if err := json.Unmarshal(text, &value); err != nil {
		return Authorization{}, code.OAuthStateInvalid
	}
	if value.Zone != zone {
		return Authorization{}, code.OAuthStateMismatch
	}
	reader := store.Cause{Actor: store.Actor{Zone: zone}}
	plaintext, err := s.store.OpenSecret(ctx, reader, value.DataKey, location(zone, id), value.Sealed)
	if errors.Is(err, store.ErrNotOpened) {
		return Authorization{}, code.OAuthStateInvalid.Because(err)
	}
	if err != nil {
		return Authorization{}, err
	}
	var a Authorization
	if err := json.Unmarshal(plaintext, &a); err != nil {
		return Authorization{}, code.OAuthStateInvalid
	}
	return a, nil
}

// location returns what the value of a key is sealed for.
func location(zone, id string) seal.Location {
	return seal.Location{Zone: zone, Table: "redis", Column: Prefix, Row: id}
}

// digest returns the SHA-256 of a text in base64url.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
