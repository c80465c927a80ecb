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

// A SecretHash is what is kept of a client secret.
type SecretHash string

// hashGenerated hashes 256 random bits: nobody can guess them, so a fast hash
// is enough.
func hashGenerated(text string) SecretHash {
	digest := sha256.Sum256([]byte(text))
	return SecretHash("sha256$" + base64.RawStdEncoding.EncodeToString(digest[:]))
}

// Argon2id costs this much memory a hash (KiB), so few run at once.
const (
	argonMemory      = 64 << 10
	argonTime        = 3
	argonThreads     = 2
	argonConcurrency = 2
)

var argon = make(chan struct{}, argonConcurrency)

// HashChosenSecret hashes a secret that a person may have made up, with
// Argon2id (RFC 9106), as a PHC string. It is slow on purpose: call it before a
// transaction, never within. It waits a while for its turn.
func HashChosenSecret(ctx context.Context, text string) (SecretHash, error) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case argon <- struct{}{}:
		defer func() { <-argon }()
	case <-ctx.Done():
		return "", mapError(ctx.Err())
	}
	var salt [16]byte
	_, _ = rand.Read(salt[:]) // never fails (crypto/rand)
	hash := argon2.IDKey([]byte(text), salt[:], argonTime, argonMemory, argonThreads, sha256.Size)
	return SecretHash(fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		base64.RawStdEncoding.EncodeToString(salt[:]), base64.RawStdEncoding.EncodeToString(hash))), nil
}
