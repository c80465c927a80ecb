package seal_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"caracal.run/management/store/seal"
)

var location = seal.Location{Zone: "zone", Table: "table", Column: "column", Row: "row"}

const secret = "hunter2"

func TestOpenReturnsSecretAtItsLocation(t *testing.T) {
	t.Parallel()
	key, _ := load(t, first).NewDataKey("zone", 1)
	for name, text := range map[string]string{"a secret": secret, "an empty secret": "", "a long secret": strings.Repeat("x", 1<<20)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed := key.Seal(location, seal.Plaintext(text))
			before := bytes.Clone(sealed)
			opened, err := key.Open(location, sealed)
			if err != nil || string(opened) != text {
				t.Errorf("got %d bytes, want %d: %v", len(opened), len(text), err)
			}
			if !bytes.Equal(sealed, before) {
				t.Error("Open changed the sealed bytes")
			}
			if text != "" && bytes.Contains(sealed, []byte(text)) {
				t.Error("the sealed bytes contain the plaintext")
			}
		})
	}
}

func TestOpenRejectsOtherLocationKeyOrModifiedData(t *testing.T) {
	t.Parallel()
	keys := load(t, first)
	key, wrapped := keys.NewDataKey("zone", 1)
	sealed := key.Seal(location, seal.Plaintext(secret))
	another, _ := keys.NewDataKey("zone", 1)
	wrapped.Number = 2
	tests := []struct {
		name     string
		key      seal.DataKey
		location seal.Location
		sealed   []byte
	}{
		{"another zone", key, seal.Location{Zone: "zones", Table: "table", Column: "column", Row: "row"}, sealed},
		{"another table", key, seal.Location{Zone: "zone", Table: "tables", Column: "column", Row: "row"}, sealed},
		{"another column", key, seal.Location{Zone: "zone", Table: "table", Column: "columns", Row: "row"}, sealed},
		{"another row", key, seal.Location{Zone: "zone", Table: "table", Column: "column", Row: "rows"}, sealed},
		{"the same characters, divided differently", key, seal.Location{Zone: "zone", Table: "tablec", Column: "olumn", Row: "row"}, sealed},
		{"no location", key, seal.Location{}, sealed},
		{"another key with the same number", another, location, sealed},
		{"the same key with another number", numbered(key, 2), location, sealed},
		{"another version", key, location, append([]byte{2}, sealed[1:]...)},
		{"no version", key, location, sealed[1:]},
		{"trailing data", key, location, append(bytes.Clone(sealed), 0)},
		{"empty", key, location, []byte{}},
		{"nil", key, location, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if opened, err := tt.key.Open(tt.location, tt.sealed); !errors.Is(err, seal.ErrDecrypt) || opened != nil {
				t.Errorf("got %q, %v, want ErrDecrypt", []byte(opened), err)
			}
		})
	}
	for n := range sealed {
		if _, err := key.Open(location, sealed[:n]); !errors.Is(err, seal.ErrDecrypt) {
			t.Errorf("truncated to %d bytes: %v", n, err)
		}
	}
	for bit := range 8 * len(sealed) {
		if _, err := key.Open(location, flipped(sealed, bit)); !errors.Is(err, seal.ErrDecrypt) {
			t.Errorf("with bit %d flipped: %v", bit, err)
		}
	}
}

// numbered returns a data key with another number.
func numbered(key seal.DataKey, number int32) seal.DataKey {
	key.Number = number
	return key
}

// flipped returns a copy of b with one bit flipped.
func flipped(b []byte, bit int) []byte {
	b = bytes.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

func TestSealAndWrapUseUniqueNonces(t *testing.T) {
	t.Parallel()
	keys := load(t, first)
	key, _ := keys.NewDataKey("zone", 1)
	seen := map[string]bool{}
	for range 1000 {
		sealed, wrapped := key.Seal(location, seal.Plaintext(secret)), keys.Wrap(key).Bytes
		for _, b := range [][]byte{sealed, wrapped} {
			nonce := string(b[1 : 1+chacha20poly1305.NonceSizeX])
			if seen[nonce] {
				t.Fatal("a nonce was repeated")
			}
			seen[nonce] = true
		}
	}
}

// Stored rows depend on the format, so it must not change. These bytes were
// created with XChaCha20-Poly1305 directly, with the key-encryption key 20, 21 … 3f,
// the data key 80, 81 … 9f, and nonces that count up from 40 and from 60.
func TestSealedFormatIsStable(t *testing.T) {
	t.Parallel()
	const (
		wrapped = "01404142434445464748494a4b4c4d4e4f5051525354555657" +
			"baa0ef2aa2e37b58fff765b368ee6caa69c45570428294d4ac185bb412a2578d" + "71722aac2bb31c31b11ee25c077cda3a"
		sealed         = "01606162636465666768696a6b6c6d6e6f7071727374757677" + "b9757c40d50f7e" + "bedcbe42aadeb5e4ebdd92bca9a57322"
		additionalData = "00000006" + "736563726574" + "00000004" + "7a6f6e65" + "00000001" + "37" +
			"00000005" + "7461626c65" + "00000006" + "636f6c756d6e" + "00000003" + "726f77" // secret, zone, 7, table, column, row
	)
	keys := load(t, second)
	if got, want := keys.Current(), "6498334d67a3c7cb"; got != want {
		t.Errorf("the key-encryption key has the id %s, want %s", got, want)
	}
	key, err := keys.Unwrap(seal.Wrapped{Zone: "zone", Number: 7, KEKID: "6498334d67a3c7cb", Bytes: unhex(t, wrapped)})
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := key.Open(location, unhex(t, sealed)); err != nil || string(opened) != secret {
		t.Errorf("got %q, %v, want %q", []byte(opened), err, secret)
	}

	// The cipher itself opens a newly sealed secret with that data key and
	// additional data.
	aead, err := chacha20poly1305.NewX(unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := key.Seal(location, seal.Plaintext(secret))
	nonce := fresh[1 : 1+aead.NonceSize()]
	if opened, err := aead.Open(nil, nonce, fresh[1+aead.NonceSize():], unhex(t, additionalData)); err != nil || string(opened) != secret || fresh[0] != 1 {
		t.Errorf("%x: got %q, %v, want %q", fresh, opened, err, secret)
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKeysAndSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	keys := load(t, second+"\n"+first)
	// The data key of TestSealedFormatIsStable, whose bytes are known.
	key, err := keys.Unwrap(seal.Wrapped{Zone: "zone", Number: 7, KEKID: "6498334d67a3c7cb", Bytes: unhex(t, "01404142434445464748494a4b4c4d4e4f5051525354555657"+
		"baa0ef2aa2e37b58fff765b368ee6caa69c45570428294d4ac185bb412a2578d71722aac2bb31c31b11ee25c077cda3a")})
	if err != nil {
		t.Fatal(err)
	}
	plain := seal.Plaintext(secret)
	type unexported struct { // fmt does not call the methods of unexported fields
		key  seal.DataKey
		keys *seal.Keys
	}
	type exported struct {
		Key     seal.DataKey
		Pointer *seal.DataKey
		Keys    *seal.Keys
		Plain   seal.Plaintext
		Wrapped seal.Wrapped
	}
	values := map[string]any{
		"data key": key, "pointer to a data key": &key, "keys": keys, "plaintext": plain, "wrapped": keys.Wrap(key),
		"in a struct": exported{key, &key, keys, plain, keys.Wrap(key)}, "in unexported fields": unexported{key, keys},
		"in a list": []any{key, keys, plain}, "in a map": map[string]any{"k": key, "ks": keys, "p": plain},
		"in an error": fmt.Errorf("%v %v %v", key, keys, plain),
	}
	forbidden := []string{secret}
	for _, bytes := range [][]byte{unhex(t, first), unhex(t, second), unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"), []byte(secret)} {
		bytes = bytes[:min(4, len(bytes))]
		list := strings.Trim(fmt.Sprintf("%d", bytes), "[]")
		forbidden = append(forbidden, string(bytes), fmt.Sprintf("%x", bytes), fmt.Sprintf("%X", bytes), fmt.Sprintf("% x", bytes),
			list, strings.ReplaceAll(list, " ", ", "), strings.ReplaceAll(list, " ", ","), strings.Trim(fmt.Sprintf("%#v", bytes), "[]byte{}"))
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) { // not parallel: fmt reads the state of locks in unexported fields
			outputs := map[string]string{}
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%c", "%U", "%t", "%z"} {
				outputs[verb] = fmt.Sprintf(verb, value)
			}
			var asJSON, asText bytes.Buffer
			slog.New(slog.NewJSONHandler(&asJSON, nil)).Info("x", "value", value)
			slog.New(slog.NewTextHandler(&asText, nil)).Info("x", "value", value)
			outputs["slog JSON"], outputs["slog text"] = asJSON.String(), asText.String()
			text, err := json.Marshal(value)
			if err != nil {
				t.Error(err)
			}
			outputs["JSON"] = string(text)
			for mode, text := range outputs {
				if i := slices.IndexFunc(forbidden, func(s string) bool { return strings.Contains(text, s) }); i >= 0 {
					t.Errorf("%s contains %q: %s", mode, forbidden[i], text)
				}
			}
		})
	}
	if got := fmt.Sprintf("%v|%s|%v", key, plain, seal.Plaintext(nil)); got != "data key 7 of zone zone|[set]|" {
		t.Errorf("got %s", got)
	}
}
