// Package seal keeps secrets at rest in envelopes: a zone's data key seals the
// zone's secrets, and a key-encryption key, which never reaches the database,
// wraps the data key.
//
// The cipher is XChaCha20-Poly1305 (golang.org/x/crypto/chacha20poly1305), whose
// nonces are long enough to be drawn at random for as long as a key lives. What
// is sealed is bound to its place: it opens nowhere else.
package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrDecrypt is that something does not open: it was changed, it was moved, or
// it was sealed under another key.
var ErrDecrypt = errors.New("sealed under another key, or for another place, or changed since")

// A Location is where a sealed secret belongs: a column of a row of a zone.
type Location struct{ Zone, Table, Column, Row string }

// A DataKey seals the secrets of one zone. It prints as its number.
type DataKey struct {
	Number int32 // counts the zone's data keys from 1
	zone   string
	cipherKey
}

// A cipherKey holds a key where it cannot be printed. fmt prints what is unexported
// in a struct without asking, and with a verb that does not fit what pointers
// point to, but it does not look into a function.
type cipherKey func() (cipher.AEAD, []byte)

func newCipherKey(bytes []byte) cipherKey {
	aead, err := chacha20poly1305.NewX(bytes)
	if err != nil {
		panic(err) // the key's length is wrong, and it is ours
	}
	return func() (cipher.AEAD, []byte) { return aead, bytes }
}

// Format prints the number and never the key.
func (k DataKey) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "data key %d of zone %s", k.Number, k.zone)
}

// MarshalText keeps the key out of JSON too.
func (k DataKey) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", k), nil }

// Seal seals a secret for a place in the key's own zone.
func (k DataKey) Seal(p Location, secret Plaintext) []byte {
	aead, _ := k.cipherKey()
	return seal(aead, secret, k.bind(p))
}

// Open opens what was sealed for this very place, or answers [ErrDecrypt].
func (k DataKey) Open(p Location, sealed []byte) (Plaintext, error) {
	aead, _ := k.cipherKey()
	secret, err := open(aead, sealed, k.bind(p))
	if err != nil {
		return nil, fmt.Errorf("%s.%s of row %s: %w", p.Table, p.Column, p.Row, err)
	}
	return secret, nil
}

func (k DataKey) bind(p Location) []byte {
	return additionalData("secret", p.Zone, strconv.Itoa(int(k.Number)), p.Table, p.Column, p.Row)
}

// version begins everything that is sealed; another cipher gets another.
const version = 1

// seal is the version, a nonce, and the secret under both.
func seal(aead cipher.AEAD, secret, associated []byte) []byte {
	sealed := make([]byte, 1+aead.NonceSize(), 1+aead.NonceSize()+len(secret)+aead.Overhead())
	sealed[0] = version
	_, _ = rand.Read(sealed[1:]) // never fails (crypto/rand)
	return aead.Seal(sealed, sealed[1:], secret, associated)
}

func open(aead cipher.AEAD, sealed, associated []byte) ([]byte, error) {
	if len(sealed) < 1+aead.NonceSize() || sealed[0] != version {
		return nil, ErrDecrypt
	}
	nonce, text := sealed[1:1+aead.NonceSize()], sealed[1+aead.NonceSize():]
	secret, err := aead.Open(nil, nonce, text, associated)
	if err != nil {
		return nil, ErrDecrypt
	}
	return secret, nil
}

// additionalData is the associated data: each part after its length, so that no two
// lists of parts read the same.
func additionalData(parts ...string) []byte {
	var b []byte
	for _, part := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// A Plaintext is a secret on its way to be sealed. It prints as [set].
type Plaintext []byte

// Format prints [set], or nothing.
func (p Plaintext) Format(f fmt.State, _ rune) {
	if len(p) > 0 {
		_, _ = f.Write([]byte("[set]"))
	}
}

// MarshalText keeps the secret out of JSON too.
func (p Plaintext) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", p), nil }
