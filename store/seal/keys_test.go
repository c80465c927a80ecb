package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/store/seal"
)

const (
	first  = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	second = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f"
	third  = "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
)

func load(t *testing.T, text string) *seal.Keys {
	t.Helper()
	keys, err := seal.Load(func() (string, error) { return text, nil })
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// idOf returns the id of a key-encryption key.
func idOf(t *testing.T, text string) string { return load(t, text).Current() }

// A source is the path of a key file.
type source string

func newSource(t *testing.T, text string) source {
	s := source(filepath.Join(t.TempDir(), "keys"))
	s.write(t, text)
	return s
}

// write replaces the file atomically, as an administrator should.
func (s source) write(t *testing.T, text string) {
	t.Helper()
	temporary := string(s) + ".new"
	if err := os.WriteFile(temporary, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temporary, string(s)); err != nil {
		t.Fatal(err)
	}
}

func (s source) read() (string, error) {
	text, err := os.ReadFile(string(s))
	return string(text), err
}

func (s source) load(t *testing.T) *seal.Keys {
	t.Helper()
	keys, err := seal.Load(s.read)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestLoadUsesFirstKeyToWrapAndAllToUnwrap(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"one":        first,
		"lines":      first + "\n" + second + "\n",
		"CRLF":       first + "\r\n" + second + "\r\n",
		"commas":     first + "," + second,
		"both":       " " + first + " ,\n\t" + second + ",,",
		"upper case": strings.ToUpper(first) + " " + second,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := load(t, text)
			if keys.Current() != idOf(t, first) {
				t.Errorf("current key is %s, want the first", keys.Current())
			}
			_, wrapped := keys.NewDataKey("zone", 1)
			if wrapped.KEKID != idOf(t, first) || wrapped.Zone != "zone" || wrapped.Number != 1 {
				t.Errorf("wrapped by %s for zone %s as number %d", wrapped.KEKID, wrapped.Zone, wrapped.Number)
			}
			if _, err := keys.Unwrap(wrapped); err != nil {
				t.Error(err)
			}
			_, wrapped = load(t, second).NewDataKey("zone", 1)
			if _, err := keys.Unwrap(wrapped); (err != nil) != (name == "one") {
				t.Errorf("unwrap a key wrapped by the second: %v", err)
			}
		})
	}
}

func TestLoadNamesInvalidKeyByPositionWithoutQuotingIt(t *testing.T) {
	t.Parallel()
	const zeros = "0000000000000000000000000000000000000000000000000000000000000000"
	for _, tt := range []struct{ name, text, want string }{
		{"none", "", "must contain at least one key"},
		{"only space", " \r\n\t,,", "must contain at least one key"},
		{"short", first[2:], "key 1 is not 32 bytes in hexadecimal"},
		{"long", first + "00", "key 1 is not 32 bytes in hexadecimal"},
		{"half a byte shorter", first[1:], "key 1 is not 32 bytes in hexadecimal"},
		{"not hexadecimal", "g" + first[1:], "key 1 is not 32 bytes in hexadecimal"},
		{"another separator", first + ";" + second, "key 1 is not 32 bytes in hexadecimal"},
		{"byte order mark", "\ufeff" + first, "key 1 is not 32 bytes in hexadecimal"},
		{"the second is short", first + "\n" + second[2:], "key 2 is not 32 bytes in hexadecimal"},
		{"zeros", zeros, "key 1 is all zeros"},
		{"the third is zeros", first + "," + second + "," + zeros, "key 3 is all zeros"},
		{"duplicate", first + "," + second + "," + first, "key 3 is a duplicate"},
		{"duplicate in another case", third + " " + strings.ToUpper(third), "key 2 is a duplicate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := seal.Load(func() (string, error) { return tt.text, nil })
			if err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestUnwrapRequiresSameZoneNumberAndKey(t *testing.T) {
	t.Parallel()
	keys := load(t, first+" "+second)
	key, wrapped := keys.NewDataKey("zone", 1)
	changed := func(f func(w *seal.Wrapped)) seal.Wrapped {
		w := wrapped
		w.Bytes = bytes.Clone(w.Bytes)
		f(&w)
		return w
	}
	for _, tt := range []struct {
		name string
		w    seal.Wrapped
	}{
		{"another zone", changed(func(w *seal.Wrapped) { w.Zone = "zones" })},
		{"another number", changed(func(w *seal.Wrapped) { w.Number = 2 })},
		{"another key-encryption key", changed(func(w *seal.Wrapped) { w.KEKID = idOf(t, second) })},
		{"another version", changed(func(w *seal.Wrapped) { w.Bytes[0] = 2 })},
		{"nil", changed(func(w *seal.Wrapped) { w.Bytes = nil })},
		{"a sealed secret", changed(func(w *seal.Wrapped) { w.Bytes = key.Seal(location, seal.Plaintext(secret)) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := keys.Unwrap(tt.w); !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), "zone "+tt.w.Zone) {
				t.Errorf("got %v, want ErrDecrypt that names the zone", err)
			}
		})
	}
	for bit := range 8 * len(wrapped.Bytes) {
		if _, err := keys.Unwrap(changed(func(w *seal.Wrapped) { w.Bytes = flipped(w.Bytes, bit) })); !errors.Is(err, seal.ErrDecrypt) {
			t.Errorf("with bit %d flipped: %v", bit, err)
		}
	}
	for n := range wrapped.Bytes {
		if _, err := keys.Unwrap(changed(func(w *seal.Wrapped) { w.Bytes = w.Bytes[:n] })); !errors.Is(err, seal.ErrDecrypt) {
			t.Errorf("truncated to %d bytes: %v", n, err)
		}
	}
}

func TestUnwrapReturnsTheSameKey(t *testing.T) {
	t.Parallel()
	keys := load(t, first)
	key, wrapped := keys.NewDataKey("zone", 1)
	sealed := key.Seal(location, seal.Plaintext(secret))
	unwrapped, err := keys.Unwrap(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	rewrapped := load(t, second+" "+first).Wrap(unwrapped)
	if rewrapped.KEKID != idOf(t, second) || bytes.Equal(rewrapped.Bytes, wrapped.Bytes) {
		t.Errorf("rewrapped by %s, want %s", rewrapped.KEKID, idOf(t, second))
	}
	last, err := load(t, second).Unwrap(rewrapped)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := last.Open(location, sealed); err != nil || string(opened) != secret {
		t.Errorf("got %q, %v, want %q", []byte(opened), err, secret)
	}
}

func TestUnwrapNamesMissingKey(t *testing.T) {
	t.Parallel()
	_, wrapped := load(t, first).NewDataKey("zone", 3)
	keys := load(t, second)
	_, err := keys.Unwrap(wrapped)
	if err == nil || !strings.Contains(err.Error(), idOf(t, first)+" is missing") || !strings.Contains(err.Error(), "data key 3 of zone zone") {
		t.Errorf("got %v", err)
	}
	ids := []string{"x", idOf(t, second), idOf(t, first)}
	if got := keys.Missing(ids); !slices.Equal(got, []string{"x", idOf(t, first)}) || ids[1] != idOf(t, second) {
		t.Errorf("got %v of %v", got, ids)
	}
}

func TestReloadAppliesTheSourceAndKeepsRemovedKeys(t *testing.T) {
	t.Parallel()
	file := newSource(t, first)
	keys := file.load(t)
	_, wrapped := keys.NewDataKey("zone", 1)
	reload := func(want string) {
		t.Helper()
		if err := keys.Reload(); err != nil {
			t.Error(err)
		}
		if keys.Current() != idOf(t, want) {
			t.Errorf("current key is %s, want %s", keys.Current(), idOf(t, want))
		}
		if _, err := keys.Unwrap(wrapped); err != nil {
			t.Error(err)
		}
	}
	file.write(t, second+"\n"+first)
	reload(second)
	file.write(t, second)
	reload(second)
	file.write(t, third)
	reload(third)
	file.write(t, first)
	reload(first)
	if missing := keys.Missing([]string{idOf(t, first), idOf(t, second), idOf(t, third)}); len(missing) > 0 {
		t.Errorf("missing after the reloads: %v", missing)
	}

	for name, breakSource := range map[string]func(){
		"empty":     func() { file.write(t, "") },
		"truncated": func() { file.write(t, second[:40]) },
		"removed":   func() { _ = os.Remove(string(file)) },
	} {
		breakSource()
		if err := keys.Reload(); err == nil || strings.Contains(err.Error(), second[:40]) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := keys.Unwrap(wrapped); err != nil || keys.Current() != idOf(t, first) {
			t.Errorf("%s: current key is %s, want the first; %v", name, keys.Current(), err)
		}
	}
}

func TestLoadFailsIfTheSourceCannotBeRead(t *testing.T) {
	t.Parallel()
	if keys, err := seal.Load(source("/nowhere").read); keys != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, %v", keys, err)
	}
}

// Another replica can have loaded a new key earlier. Concurrent calls that need the
// key all find it in the source.
func TestUnwrapReloadsTheSourceForAnUnknownKey(t *testing.T) {
	t.Parallel()
	file := newSource(t, first)
	here, there := file.load(t), load(t, second+" "+first)
	key, wrapped := there.NewDataKey("zone", 1)
	sealed := key.Seal(location, seal.Plaintext(secret))
	if _, err := here.Unwrap(wrapped); err == nil {
		t.Fatal("unwrapped without the key")
	}
	file.write(t, second+" "+first)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			got, err := here.Unwrap(wrapped)
			if err != nil {
				t.Error(err)
				return
			}
			if opened, err := got.Open(location, sealed); err != nil || string(opened) != secret {
				t.Errorf("got %q, %v, want %q", []byte(opened), err, secret)
			}
		})
	}
	all.Wait()
	if here.Current() != idOf(t, second) {
		t.Errorf("current key is %s, want the second", here.Current())
	}
}

// As soon as a key is the first in the source, it wraps new data keys, so that the
// previous first key can be rotated out.
func TestNewDataKeyIsWrappedByTheFirstKeyOfTheSource(t *testing.T) {
	t.Parallel()
	file := newSource(t, first)
	keys := file.load(t)
	file.write(t, second+" "+first)
	if _, wrapped := keys.NewDataKey("zone", 1); wrapped.KEKID != idOf(t, second) {
		t.Errorf("wrapped by %s, want %s", wrapped.KEKID, idOf(t, second))
	}
	file.write(t, "")
	if _, wrapped := keys.NewDataKey("zone", 1); wrapped.KEKID != idOf(t, second) {
		t.Errorf("with an empty source: wrapped by %s, want %s", wrapped.KEKID, idOf(t, second))
	}
}

// A reload that started earlier does not replace the keys of one that started later.
func TestReloadKeepsKeysOfLaterReload(t *testing.T) {
	t.Parallel()
	texts := make(chan string, 2)
	texts <- first
	read, resume := make(chan struct{}), make(chan struct{})
	keys, err := seal.Load(func() (string, error) {
		text := <-texts
		if text == third {
			close(read)
			<-resume
		}
		return text, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	reload := func() {
		if err := keys.Reload(); err != nil {
			t.Error(err)
		}
	}
	var slow sync.WaitGroup
	texts <- third
	slow.Go(reload)
	<-read
	texts <- second
	reload()
	close(resume)
	slow.Wait()
	if keys.Current() != idOf(t, second) {
		t.Errorf("current key is %s, want %s", keys.Current(), idOf(t, second))
	}
}

func TestKeysAreSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	file := newSource(t, first)
	keys := file.load(t)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for i := range 50 {
				zone := fmt.Sprintf("zone-%d-%d", n, i)
				in := seal.Location{Zone: zone, Table: "t", Column: "c", Row: "r"}
				key, wrapped := keys.NewDataKey(zone, 1)
				sealed := key.Seal(in, seal.Plaintext(zone))
				if n == 0 && i%10 == 0 {
					file.write(t, []string{first, second, third + "," + first}[i/10%3])
				}
				unwrapped, err := keys.Unwrap(wrapped)
				if err != nil {
					t.Error(err)
					return
				}
				if opened, err := unwrapped.Open(in, sealed); err != nil || string(opened) != zone {
					t.Errorf("got %q, %v, want %q", []byte(opened), err, zone)
				}
				_ = fmt.Sprint(keys, keys.Missing([]string{wrapped.KEKID}))
			}
		})
	}
	all.Wait()
}
