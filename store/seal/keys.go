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

// Keys is the keyring of a service's key-encryption keys: the first key wraps data
// keys, all of them unwrap. It reloads its source when a data key is wrapped by a
// key that it does not have, so a key file can change while the service runs.
//
// Only Wrap and Unwrap use the key bytes: to support an external key management
// service, call it in these two.
type Keys struct {
	source func() (string, error)

	mu      sync.Mutex
	ring    []key
	started int // number of the last reload that started
	applied int // number of the reload that ring is from
}

type key struct {
	id string
	cipherKey
}

// A Wrapped is a data key encrypted by a key-encryption key. It is safe to store.
type Wrapped struct {
	Zone   string
	Number int32
	KEKID  string // the id of the key-encryption key
	Bytes  []byte
}

// Load reads the keys from a source: one or more keys of 32 bytes in hexadecimal,
// separated by commas or white space. The first one wraps. An error does not
// quote what the source contains.
func Load(source func() (string, error)) (*Keys, error) {
	k := &Keys{source: source}
	if err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the source again. If that fails, the keys remain unchanged. A key
// that was removed from the source can still unwrap until the process ends.
func (k *Keys) Reload() error {
	k.mu.Lock()
	k.started++
	number := k.started
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
	if number < k.applied { // a reload that started later has already finished
		return nil
	}
	k.applied = number
	for _, old := range k.ring {
		if !slices.ContainsFunc(ring, func(k key) bool { return k.id == old.id }) {
			ring = append(ring, old)
		}
	}
	k.ring = ring
	return nil
}

// parse parses the keys. Its errors name a key by its position and never quote it.
func parse(text string) ([]key, error) {
	words := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || strings.ContainsRune(" \t\r\n", r) })
	if len(words) == 0 {
		return nil, errors.New("must contain at least one key")
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
		parsed := key{id: keyID(bytes), cipherKey: newCipherKey(bytes)}
		if slices.ContainsFunc(ring, func(k key) bool { return k.id == parsed.id }) {
			return nil, fmt.Errorf("key %d is a duplicate", i+1)
		}
		ring = append(ring, parsed)
	}
	return ring, nil
}

// keyID derives a key's id from its bytes, so that a wrong key cannot have the
// right id.
func keyID(bytes []byte) string {
	digest := sha256.Sum256(append([]byte("caracal:kek:id:"), bytes...))
	return hex.EncodeToString(digest[:8])
}

// Current returns the id of the key that wraps.
func (k *Keys) Current() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring[0].id
}

// Missing returns those of the given ids that belong to none of the keys, after
// reloading the source if necessary.
func (k *Keys) Missing(ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { _, err := k.byID(id); return err == nil })
}

// NewDataKey creates a data key for a zone and wraps it. It reloads the source
// first, so that no replica wraps with an old key once a rotation has started. If
// the source cannot be read, the current key wraps.
func (k *Keys) NewDataKey(zone string, number int32) (DataKey, Wrapped) {
	_ = k.Reload()
	return k.NewRecordKey(zone, number)
}

// NewRecordKey is NewDataKey for a key that seals one record, which is deleted soon. It does
// not reload the source, which would read a file for each record: until this process has
// read the keys of a rotation, the record needs the old key.
func (k *Keys) NewRecordKey(zone string, number int32) (DataKey, Wrapped) {
	bytes := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(bytes) // never fails (crypto/rand)
	created := DataKey{Number: number, zone: zone, cipherKey: newCipherKey(bytes)}
	return created, k.Wrap(created)
}

// Wrap wraps a data key with the current key.
func (k *Keys) Wrap(d DataKey) Wrapped {
	k.mu.Lock()
	current := k.ring[0]
	k.mu.Unlock()
	w := Wrapped{Zone: d.zone, Number: d.Number, KEKID: current.id}
	_, bytes := d.cipherKey()
	aead, _ := current.cipherKey()
	w.Bytes = seal(aead, bytes, w.additionalData())
	return w
}

// Unwrap returns the data key that was wrapped. It returns an error that names the
// key-encryption key if that is missing, and otherwise one that wraps [ErrDecrypt].
func (k *Keys) Unwrap(w Wrapped) (DataKey, error) {
	kek, err := k.byID(w.KEKID)
	if err != nil {
		return DataKey{}, fmt.Errorf("data key %d of zone %s: %w", w.Number, w.Zone, err)
	}
	aead, _ := kek.cipherKey()
	bytes, err := open(aead, w.Bytes, w.additionalData())
	if err == nil && len(bytes) != chacha20poly1305.KeySize {
		err = ErrDecrypt
	}
	if err != nil {
		return DataKey{}, fmt.Errorf("data key %d of zone %s: %w", w.Number, w.Zone, err)
	}
	return DataKey{Number: w.Number, zone: w.Zone, cipherKey: newCipherKey(bytes)}, nil
}

func (w Wrapped) additionalData() []byte {
	return lengthPrefixed("data key", w.Zone, strconv.Itoa(int(w.Number)), w.KEKID)
}

// byID returns the key with the given id. If the ring lacks it, byID reloads the
// source, however recent the last reload is: another replica can have loaded a new
// key earlier, and a request must not fail because of that.
func (k *Keys) byID(id string) (key, error) {
	if found, ok := k.find(id); ok {
		return found, nil
	}
	reloadErr := k.Reload()
	if found, ok := k.find(id); ok {
		return found, nil
	}
	return key{}, errors.Join(fmt.Errorf("the key-encryption key %s is missing", id), reloadErr)
}

func (k *Keys) find(id string) (key, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.ring, func(k key) bool { return k.id == id })
	if i < 0 {
		return key{}, false
	}
	return k.ring[i], true
}

// Format prints the id of the current key, never the keys.
func (k *Keys) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "key-encryption keys, current %s", k.Current())
}

// MarshalText returns the same text as Format, so that JSON does not contain the
// keys.
func (k *Keys) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", k), nil }
