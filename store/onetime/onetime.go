// Package onetime remembers in Redis which tokens were used, so that each can be used
// once, whichever replica receives it.
package onetime

import (
	"context"
	"errors"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/store/redisconn"
)

// ErrUsed is returned for a token that was used before.
var ErrUsed = errors.New("the token was already used")

// Tokens are the used tokens of one kind.
type Tokens struct {
	prefix string
	redis  *redisconn.Client
}

// New returns the used tokens whose keys in Redis begin with a prefix.
func New(prefix string, client *redisconn.Client) *Tokens { return &Tokens{prefix, client} }

// Use marks a token as used. until is when the token ceases to be accepted: only until
// then it must be remembered. Use returns [ErrUsed], or service_unavailable if Redis is
// not available, because then it is not known whether the token was used.
func (t *Tokens) Use(ctx context.Context, id string, until time.Time) error {
	const timeout = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ttl := time.Until(until)
	if ttl <= 0 {
		return ErrUsed
	}
	fresh, err := t.redis.SetNX(ctx, t.prefix+id, "1", ttl).Result()
	switch {
	case err != nil:
		return code.ServiceUnavailable.Because(err)
	case !fresh:
		return ErrUsed
	}
	return nil
}
