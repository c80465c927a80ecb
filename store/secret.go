package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
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

// argonPrefix begins the PHC string of a hash with the present parameters.
var argonPrefix = fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonTime, argonThreads)

// HashChosenSecret hashes a secret chosen by a person with Argon2id and returns a
// PHC string. It is deliberately slow, so call it before a transaction and never
// within one. If too many hashes are running, it waits up to five seconds, then
// returns service_unavailable.
func HashChosenSecret(ctx context.Context, text string) (SecretHash, error) {
	var salt [16]byte
	_, _ = rand.Read(salt[:]) // never fails (crypto/rand)
	hash, err := argonHash(ctx, text, salt[:], nil)
	if err != nil {
		return "", err
	}
	return SecretHash(argonPrefix + base64.RawStdEncoding.EncodeToString(salt[:]) + "$" + base64.RawStdEncoding.EncodeToString(hash)), nil
}

// argonHash waits for a slot like HashChosenSecret. If mayHash is not nil, it is called when
// there is a slot: others that waited may have used up a limit since.
func argonHash(ctx context.Context, text string, salt []byte, mayHash func() error) ([]byte, error) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	select {
	case argonSlots <- struct{}{}:
		defer func() { <-argonSlots }()
	case <-ctx.Done():
		return nil, mapError(ctx.Err())
	}
	if mayHash != nil {
		if err := mayHash(); err != nil {
			return nil, err
		}
	}
	return argon2.IDKey([]byte(text), salt, argonTime, argonMemory, argonThreads, sha256.Size), nil
}

// ErrInvalidSecret says that a secret is not a valid client secret of an application.
var ErrInvalidSecret = errors.New("invalid client secret")

// A Client is an application that authenticates. The zero Client has no secret.
type Client struct {
	db.Application
	secretHashes []string // of the secrets that it can use now
}

// Client returns an active application of any active zone that the actor can access, or
// application_not_found. It may have expired.
func (s *Store) Client(ctx context.Context, id string) (Client, error) {
	row, err := s.shared.GetClient(ctx, id)
	return Client{row.Application, row.SecretHashes}, notFoundAs(err, code.ApplicationNotFound)
}

// VerifySecret returns nil if a text was a client secret of the application when the client
// was read, and neither had expired. Otherwise it returns ErrInvalidSecret, or
// service_unavailable.
//
// The duration does not reveal which applications exist: a text that does not have the
// form of a generated secret is hashed with Argon2id once, also if there is no chosen
// secret to compare it with. A text of that form is hashed so only for an application with
// a chosen secret. Otherwise, clients that repeat an expired secret would occupy the slots
// for hashes, and the id of an application is no secret (RFC 6749, section 2.2).
//
// If mayHash is not nil, it is called before a text is hashed with Argon2id, and its error is
// returned instead. So a rate limit of failures bounds what guesses cost, and does not lock
// out clients with generated secrets.
func (c Client) VerifySecret(ctx context.Context, secret string, mayHash func() error) error {
	generated, valid := string(hashGenerated(secret)), 0
	var chosen []string
	for _, hash := range c.secretHashes {
		valid |= subtle.ConstantTimeCompare([]byte(hash), []byte(generated))
		if strings.HasPrefix(hash, argonPrefix) {
			chosen = append(chosen, hash)
		}
	}
	if valid == 1 {
		return nil
	}
	if len(chosen) == 0 && !generatedForm.MatchString(secret) {
		chosen = []string{noSecret}
	}
	if len(chosen) > 0 && mayHash != nil {
		if err := mayHash(); err != nil {
			return err
		}
	}
	for _, hash := range chosen {
		salt, digest, err := parseArgonHash(hash)
		if err != nil {
			return err
		}
		got, err := argonHash(ctx, secret, salt, mayHash)
		if err != nil {
			return err
		}
		valid |= subtle.ConstantTimeCompare(got, digest)
	}
	if valid == 1 {
		return nil
	}
	return ErrInvalidSecret
}

// generatedForm matches the client secrets that this service generates, and few others.
var generatedForm = regexp.MustCompile(`^cs_[A-Za-z0-9_-]{43}$`)

// noSecret is the hash of no secret: its digest has no bits.
var noSecret = argonPrefix + base64.RawStdEncoding.EncodeToString(make([]byte, 16)) + "$"

func parseArgonHash(hash string) (salt, digest []byte, err error) {
	saltText, digestText, _ := strings.Cut(strings.TrimPrefix(hash, argonPrefix), "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(saltText)
	digest, err2 := base64.RawStdEncoding.DecodeString(digestText)
	return salt, digest, errors.Join(err1, err2)
}
