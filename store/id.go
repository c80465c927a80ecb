package store

import (
	"crypto/rand"
	"encoding/base64"

	"github.com/google/uuid"
)

// newID returns a UUIDv7, so ids sort by creation time (RFC 9562 §5.7).
func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // the operating system's random number generator failed
	}
	return id.String()
}

// newSecret returns 256 random bits in base64url, after a prefix that names the
// kind of the secret.
func newSecret(prefix string) string {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails (crypto/rand)
	return prefix + base64.RawURLEncoding.EncodeToString(bits[:])
}
