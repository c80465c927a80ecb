package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

// Keys are the key-encryption keys of a service: the first wraps, and all
// unwrap. A data key that names a key which is not among them makes them look
// at their source again, so that a file may be changed while the service runs.
//
// Wrap and Unwrap are all that the rest of the house asks of them: a service
// that keeps its keys elsewhere would stand behind these two.
type Keys struct {
	source func() (string, error)

	mu      sync.Mutex
	ring    []key
	reading int // counts the times that the source was read
	read    int // of which the ring is
}

type key struct {
	id string
	cipherKey
}

// A Wrapped data key can be kept anywhere.
type Wrapped struct {
	Zone   string
	Number int32
	KEKID  string // the id of the key-encryption key
	Bytes  []byte
}

// Load reads the keys from their source: one or more keys of 32 bytes in
// hexadecimal, separated by commas or white space, the one that wraps first.
func Load(source func() (string, error)) (*Keys, error) {
	k := &Keys{source: source}
	if err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the source again. If that fails, the keys stay what they are. A
// key that the source has no more goes on unwrapping until the process ends.
func (k *Keys) Reload() error {
	k.mu.Lock()
	k.reading++
	reading := k.reading
	k.mu.Unlock()
	text, err := k.source()
	if err != nil {
		return err
	}
	ring, err := parse(text)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if reading < k.read { // somebody began later and was faster
		return nil
	}
	k.read = reading
	for _, old := range k.ring {
		if !slices.ContainsFunc(ring, func(one key) bool { return one.id == old.id }) {
			ring = append(ring, old)
		}
	}
	k.ring = ring
	return nil
}

// parse never quotes what it reads.
func parse(text string) ([]key, error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || strings.ContainsRune(" \t\r\n", r) })
	if len(words) == 0 {
		return nil, errors.New("has no key")
	}
	var ring []key
	for i, word := range words {
		bytes, err := hex.DecodeString(word)
		if err != nil || len(bytes) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("key %d is not %d bytes in hexadecimal", i+1, chacha20poly1305.KeySize)
		}
		if [chacha20poly1305.KeySize]byte(bytes) == [chacha20poly1305.KeySize]byte{} {
			return nil, fmt.Errorf("key %d is all zeros", i+1)
		}
		one := key{id: idOf(bytes), cipherKey: newCipherKey(bytes)}
		if slices.ContainsFunc(ring, func(k key) bool { return k.id == one.id }) {
			return nil, fmt.Errorf("key %d is there twice", i+1)
		}
		ring = append(ring, one)
	}
	return ring, nil
}

// idOf names a key after what it is, so that a wrong key cannot have the right
// name.
func idOf(bytes []byte) string {
	digest := sha256.Sum256(append([]byte("caracal:kek:id:"), bytes...))
	return hex.EncodeToString(digest[:8])
}

// Current is the id of the key that wraps.
func (k *Keys) Current() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring[0].id
}

// Missing is which of some ids belong to none of the keys.
func (k *Keys) Missing(ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, err := k.byID(id); return err == nil })
}

// NewDataKey makes a zone's data key and wraps it with what the source has first
// now: once a rotation has begun, nobody adds to what it has to do. If the source
// cannot be read, the keys stay what they are.
func (k *Keys) NewDataKey(zone string, number int32) (DataKey, Wrapped) {
	_ = k.Reload()
	bytes := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(bytes) // never fails (crypto/rand)
	made := DataKey{Number: number, zone: zone, cipherKey: newCipherKey(bytes)}
	return made, k.Wrap(made)
}

// Wrap wraps a data key under the current key.
func (k *Keys) Wrap(d DataKey) Wrapped {
	k.mu.Lock()
	current := k.ring[0]
	k.mu.Unlock()
	w := Wrapped{Zone: d.zone, Number: d.Number, KEKID: current.id}
	_, bytes := d.cipherKey()
	aead, _ := current.cipherKey()
	w.Bytes = seal(aead, bytes, w.bind())
	return w
}

// Unwrap is the data key that was wrapped. The error names the key-encryption
// key that is missing.
func (k *Keys) Unwrap(w Wrapped) (DataKey, error) {
	by, err := k.byID(w.KEKID)
	if err != nil {
		return DataKey{}, fmt.Errorf("data key %d of zone %s: %w", w.Number, w.Zone, err)
	}
	aead, _ := by.cipherKey()
	bytes, err := open(aead, w.Bytes, w.bind())
	if err == nil && len(bytes) != chacha20poly1305.KeySize {
		err = ErrDecrypt
	}
	if err != nil {
		return DataKey{}, fmt.Errorf("data key %d of zone %s: %w", w.Number, w.Zone, err)
	}
	return DataKey{Number: w.Number, zone: w.Zone, cipherKey: newCipherKey(bytes)}, nil
}

func (w Wrapped) bind() []byte {
	return additionalData("data key", w.Zone, strconv.Itoa(int(w.Number)), w.KEKID)
}

// byID is one of the keys. One that is not among them is looked for at the
// source, however recently somebody looked: another replica may have learnt of it
// first, and a request must not fail for that.
func (k *Keys) byID(id string) (key, error) {
	if one, found := k.find(id); found {
		return one, nil
	}
	failed := k.Reload()
	if one, found := k.find(id); found {
		return one, nil
	}
	return key{}, errors.Join(fmt.Errorf("the key-encryption key %s is missing", id), failed)
}

func (k *Keys) find(id string) (key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.ring, func(one key) bool { return one.id == id })
	if i < 0 {
		return key{}, false
	}
	return k.ring[i], true
}

// Format prints which key wraps and never the keys.
func (k *Keys) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "key-encryption keys, current %s", k.Current())
}

// MarshalText keeps the keys out of JSON too.
func (k *Keys) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", k), nil }
