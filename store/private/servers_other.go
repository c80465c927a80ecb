//go:build !linux

package private

import (
	"context"
	"errors"
)

// Servers are a running Postgres and Redis. There are none on this system.
type Servers struct{}

// Start returns an error that says what to do on this system.
func Start(context.Context, Options) (*Servers, error) {
	return nil, errors.New("a private Postgres and Redis require Linux: on this system, set DATABASE_URL and REDIS_URL to yours, and run caracald migrate and caracald serve")
}

// Dir returns "".
func (s *Servers) Dir() string { return "" }

// PostgresURL returns "".
func (s *Servers) PostgresURL(role, database string) string { return "" }

// RedisURL returns "".
func (s *Servers) RedisURL() string { return "" }

// Stop does nothing.
func (s *Servers) Stop() error { return nil }
