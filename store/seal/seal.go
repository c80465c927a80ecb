// Package seal encrypts secrets at rest with envelope encryption: a zone's data
// key seals the zone's secrets, and a key-encryption key, which is never stored
// in the database, wraps the data key. A secret that is kept for a short time has a
// data key of its own, which is wrapped in the same way.
//
// The cipher is XChaCha20-Poly1305 (golang.org/x/crypto/chacha20poly1305), whose
// nonces are long enough to be random for any number of secrets under one key.
// The additional data binds a sealed secret to its location: it cannot be opened
// as that of another zone, table, column or row.
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

// ErrDecrypt means that a sealed secret or a wrapped key cannot be decrypted: it
// was sealed with another key or for another location, or it was modified.
var ErrDecrypt = errors.New("cannot decrypt: wrong key, wrong location or modified data")

// A Location is where a sealed secret is stored: a column of a row of a zone.
type Location struct{ Zone, Table, Column, Row string }

// A DataKey seals the secrets of one zone. It prints as its zone and number.
type DataKey struct {
	Number int32 // counts the zone's data keys from 1; 0: seals one secret only
	zone   string
	cipherKey
}

// A cipherKey returns a cipher and its key. It is a function so that package fmt
// cannot print the key: fmt prints unexported fields without calling their Format
// method and, for some verbs, the targets of pointers.
type cipherKey func() (cipher.AEAD, []byte)

func newCipherKey(bytes []byte) cipherKey {
	aead, err := chacha20poly1305.NewX(bytes)
	if err != nil {
		panic(err) // the key has the wrong length, which is a bug
	}
	return func() (cipher.AEAD, []byte) { return aead, bytes }
}

// Format prints the zone and the number, never the key.
func (k DataKey) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "data key %d of zone %s", k.Number, k.zone)
}

// MarshalText returns the same text as Format, so that JSON does not contain the
// key.
func (k DataKey) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", k), nil }

// Seal seals a secret for a location in the key's zone.
func (k DataKey) Seal(l Location, secret Plaintext) []byte {
	aead, _ := k.cipherKey()
	return seal(aead, secret, k.additionalData(l))
}

// Open returns the secret that was sealed with this key for this location, or an
// error that wraps [ErrDecrypt].
func (k DataKey) Open(l Location, sealed []byte) (Plaintext, error) {
	aead, _ := k.cipherKey()
	secret, err := open(aead, sealed, k.additionalData(l))
	if err != nil {
		return nil, fmt.Errorf("%s.%s of row %s: %w", l.Table, l.Column, l.Row, err)
	}
	return secret, nil
}

func (k DataKey) additionalData(l Location) []byte {
	return lengthPrefixed("secret", l.Zone, strconv.Itoa(int(k.Number)), l.Table, l.Column, l.Row)
}

// version is the first byte of everything sealed. A new format or cipher gets a new
// version.
const version = 1

// seal returns the version, a random nonce and the encrypted secret.
func seal(aead cipher.AEAD, secret, additionalData []byte) []byte {
	sealed := make([]byte, 1+aead.NonceSize(), 1+aead.NonceSize()+len(secret)+aead.Overhead())
	sealed[0] = version
	_, _ = rand.Read(sealed[1:]) // never fails (crypto/rand)
	return aead.Seal(sealed, sealed[1:], secret, additionalData)
}

// open decrypts what seal returned, or returns [ErrDecrypt].
func open(aead cipher.AEAD, sealed, additionalData []byte) ([]byte, error) {
	if len(sealed) < 1+aead.NonceSize() || sealed[0] != version {
		return nil, ErrDecrypt
	}
	nonce, ciphertext := sealed[1:1+aead.NonceSize()], sealed[1+aead.NonceSize():]
	secret, err := aead.Open(nil, nonce, ciphertext, additionalData)
	if err != nil {
		return nil, ErrDecrypt
	}
	return secret, nil
}

// lengthPrefixed concatenates parts, each after its length, so that different lists
// of parts have different encodings.
func lengthPrefixed(parts ...string) []byte {
	var b []byte
	for _, part := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

// A Plaintext is a secret that is not sealed. It prints as [set].
type Plaintext []byte

// Format prints [set], or nothing if the secret is empty.
func (p Plaintext) Format(f fmt.State, _ rune) {
	if len(p) > 0 {
		_, _ = f.Write([]byte("[set]"))
	}
}

// MarshalText returns the same text as Format, so that JSON does not contain the
// secret.
func (p Plaintext) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", p), nil }
