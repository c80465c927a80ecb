package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	"golang.org/x/crypto/argon2"
)

// A SecretHash is the hash of a client secret, as it is stored.
type SecretHash string

// hashGenerated hashes a generated secret with SHA-256. A fast hash is enough for
// 256 random bits, which cannot be guessed.
func hashGenerated(text string) SecretHash {
	digest := sha256.Sum256([]byte(text))
	return SecretHash("sha256$" + base64.RawStdEncoding.EncodeToString(digest[:]))
}

// The parameters of Argon2id (RFC 9106), and the number of hashes that can run at
// the same time, which limits their memory.
const (
	argonMemory      = 64 << 10 // KiB
	argonTime        = 3
	argonThreads     = 2
	argonConcurrency = 2
)

var argonSlots = make(chan struct{}, argonConcurrency)

// HashChosenSecret hashes a secret chosen by a person with Argon2id and returns a
// PHC string. It is deliberately slow, so call it before a transaction and never
// within one. If too many hashes are running, it waits up to five seconds, then
// returns service_unavailable.
func HashChosenSecret(ctx context.Context, text string) (SecretHash, error) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case argonSlots <- struct{}{}:
		defer func() { <-argonSlots }()
	case <-ctx.Done():
		return "", mapError(ctx.Err())
	}
	var salt [16]byte
	_, _ = rand.Read(salt[:]) // never fails (crypto/rand)
	hash := argon2.IDKey([]byte(text), salt[:], argonTime, argonMemory, argonThreads, sha256.Size)
	return SecretHash(fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt[:]), base64.RawStdEncoding.EncodeToString(hash))), nil
}
