package store

import (
	"crypto/rand"
	"encoding/base64"

	"github.com/google/uuid"
)

// newID is a UUIDv7: ids of one process grow with time (RFC 9562 §5.7).
func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(err) // the operating system gives no random numbers: nothing here can go on
	}
	return id.String()
}

// newSecret is 256 random bits behind a prefix that says what they open.
func newSecret(prefix string) string {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails (crypto/rand)
	return prefix + base64.RawURLEncoding.EncodeToString(bits[:])
}
