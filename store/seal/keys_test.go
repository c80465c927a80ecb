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

// idOf is what a key-encryption key is called.
func idOf(t *testing.T, text string) string { return load(t, text).Current() }

// A source is a file with keys.
type source string

func newSource(t *testing.T, text string) source {
	s := source(filepath.Join(t.TempDir(), "keys"))
	s.write(t, text)
	return s
}

// write replaces the file at once, as whoever changes keys does.
func (s source) write(t *testing.T, text string) {
	t.Helper()
	beside := string(s) + ".new"
	if err := os.WriteFile(beside, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(beside, string(s)); err != nil {
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

func TestTheFirstKeyWrapsAndAllUnwrap(t *testing.T) {
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
				t.Errorf("%s wraps", keys.Current())
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
				t.Errorf("what the second wraps: %v", err)
			}
		})
	}
}

func TestAKeyThatIsWrongIsNamedByItsPositionAndNotQuoted(t *testing.T) {
	t.Parallel()
	const zeros = "0000000000000000000000000000000000000000000000000000000000000000"
	for _, tt := range []struct{ name, text, want string }{
		{"none", "", "has no key"},
		{"only space", " \r\n\t,,", "has no key"},
		{"short", first[2:], "key 1 is not 32 bytes in hexadecimal"},
		{"long", first + "00", "key 1 is not 32 bytes in hexadecimal"},
		{"half a byte less", first[1:], "key 1 is not 32 bytes in hexadecimal"},
		{"not hexadecimal", "g" + first[1:], "key 1 is not 32 bytes in hexadecimal"},
		{"another separator", first + ";" + second, "key 1 is not 32 bytes in hexadecimal"},
		{"a mark before it", "\ufeff" + first, "key 1 is not 32 bytes in hexadecimal"},
		{"the second is short", first + "\n" + second[2:], "key 2 is not 32 bytes in hexadecimal"},
		{"zeros", zeros, "key 1 is all zeros"},
		{"the third is zeros", first + "," + second + "," + zeros, "key 3 is all zeros"},
		{"twice", first + "," + second + "," + first, "key 3 is there twice"},
		{"twice in another case", third + " " + strings.ToUpper(third), "key 2 is there twice"},
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

func TestADataKeyUnwrapsOnlyAsWhatItIs(t *testing.T) {
	t.Parallel()
	keys := load(t, first+" "+second)
	key, wrapped := keys.NewDataKey("zone", 1)
	auditChange := func(f func(w *seal.Wrapped)) seal.Wrapped {
		w := wrapped
		w.Bytes = bytes.Clone(w.Bytes)
		f(&w)
		return w
	}
	for _, tt := range []struct {
		name string
		w    seal.Wrapped
	}{
		{"another zone", auditChange(func(w *seal.Wrapped) { w.Zone = "zones" })},
		{"another number", auditChange(func(w *seal.Wrapped) { w.Number = 2 })},
		{"another key-encryption key", auditChange(func(w *seal.Wrapped) { w.KEKID = idOf(t, second) })},
		{"another version", auditChange(func(w *seal.Wrapped) { w.Bytes[0] = 2 })},
		{"nothing", auditChange(func(w *seal.Wrapped) { w.Bytes = nil })},
		{"a secret", auditChange(func(w *seal.Wrapped) { w.Bytes = key.Seal(place, seal.Plaintext(secret)) })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := keys.Unwrap(tt.w); !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), "zone "+tt.w.Zone) {
				t.Errorf("got %v", err)
			}
		})
	}
	for bit := range 8 * len(wrapped.Bytes) {
		if _, err := keys.Unwrap(auditChange(func(w *seal.Wrapped) { w.Bytes = flipped(w.Bytes, bit) })); !errors.Is(err, seal.ErrDecrypt) {
			t.Errorf("with bit %d flipped: %v", bit, err)
		}
	}
	for n := range wrapped.Bytes {
		if _, err := keys.Unwrap(auditChange(func(w *seal.Wrapped) { w.Bytes = w.Bytes[:n] })); !errors.Is(err, seal.ErrDecrypt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestAWrappedDataKeyIsTheSameKey(t *testing.T) {
	t.Parallel()
	keys := load(t, first)
	key, wrapped := keys.NewDataKey("zone", 1)
	sealed := key.Seal(place, seal.Plaintext(secret))
	isRetryable, err := keys.Unwrap(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	rewrapped := load(t, second+" "+first).Wrap(isRetryable)
	if rewrapped.KEKID != idOf(t, second) || bytes.Equal(rewrapped.Bytes, wrapped.Bytes) {
		t.Errorf("wrapped by %s", rewrapped.KEKID)
	}
	last, err := load(t, second).Unwrap(rewrapped)
	if err != nil {
		t.Fatal(err)
	}
	if opened, err := last.Open(place, sealed); err != nil || string(opened) != secret {
		t.Errorf("it opens as %q, %v", []byte(opened), err)
	}
}

func TestAMissingKeyIsNamed(t *testing.T) {
	t.Parallel()
	_, wrapped := load(t, first).NewDataKey("zone", 3)
	keys := load(t, second)
	_, err := keys.Unwrap(wrapped)
	if err == nil || !strings.Contains(err.Error(), idOf(t, first)+" is missing") || !strings.Contains(err.Error(), "data key 3 of zone zone") {
		t.Errorf("got %v", err)
	}
	ids := []string{"x", idOf(t, second), idOf(t, first)}
	if got := keys.Missing(ids); !slices.Equal(got, []string{"x", idOf(t, first)}) || ids[1] != idOf(t, second) {
		t.Errorf("missing are %v of %v", got, ids)
	}
}

func TestReloadFollowsTheSourceAndForgetsNoKey(t *testing.T) {
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
			t.Errorf("%s wraps, want %s", keys.Current(), idOf(t, want))
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
	if notFoundAs := keys.Missing([]string{idOf(t, first), idOf(t, second), idOf(t, third)}); len(notFoundAs) > 0 {
		t.Errorf("%v were forgotten", notFoundAs)
	}

	for name, spoil := range map[string]func(){
		"empty":     func() { file.write(t, "") },
		"cut short": func() { file.write(t, second[:40]) },
		"gone":      func() { _ = os.Remove(string(file)) },
	} {
		spoil()
		if err := keys.Reload(); err == nil || strings.Contains(err.Error(), second[:40]) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := keys.Unwrap(wrapped); err != nil || keys.Current() != idOf(t, first) {
			t.Errorf("%s: %s wraps; %v", name, keys.Current(), err)
		}
	}
}

func TestKeysThatCannotBeReadAreNoKeys(t *testing.T) {
	t.Parallel()
	if keys, err := seal.Load(source("/nowhere").read); keys != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, %v", keys, err)
	}
}

// Another replica may have learnt of a key first. Whoever meets it first here
// looks for it at the source, and so does everybody who meets it meanwhile,
// however recently somebody looked.
func TestAKeyThatAnotherReplicaHasLearntOfIsFoundAtTheSource(t *testing.T) {
	t.Parallel()
	file := newSource(t, first)
	here, there := file.load(t), load(t, second+" "+first)
	key, wrapped := there.NewDataKey("zone", 1)
	sealed := key.Seal(place, seal.Plaintext(secret))
	if _, err := here.Unwrap(wrapped); err == nil {
		t.Fatal("it was unwrapped by a key that is not there")
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
			if opened, err := got.Open(place, sealed); err != nil || string(opened) != secret {
				t.Errorf("it opens as %q, %v", []byte(opened), err)
			}
		})
	}
	all.Wait()
	if here.Current() != idOf(t, second) {
		t.Errorf("%s wraps", here.Current())
	}
}

// From the moment that a key is first at the source, it wraps what is new: the
// key that was first before can be rewrapped and taken away.
func TestANewDataKeyIsWrappedByWhatIsFirstAtTheSource(t *testing.T) {
	t.Parallel()
	file := newSource(t, first)
	keys := file.load(t)
	file.write(t, second+" "+first)
	if _, wrapped := keys.NewDataKey("zone", 1); wrapped.KEKID != idOf(t, second) {
		t.Errorf("it is wrapped by %s, want %s", wrapped.KEKID, idOf(t, second))
	}
	file.write(t, "")
	if _, wrapped := keys.NewDataKey("zone", 1); wrapped.KEKID != idOf(t, second) {
		t.Errorf("without a source it is wrapped by %s, want %s", wrapped.KEKID, idOf(t, second))
	}
}

// What was read earlier does not replace what was read later.
func TestAReloadThatTakesLongDoesNotBringBackWhatWas(t *testing.T) {
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
		t.Errorf("%s wraps, want %s", keys.Current(), idOf(t, second))
	}
}

func TestKeysAreUsedByManyAtOnce(t *testing.T) {
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
				isRetryable, err := keys.Unwrap(wrapped)
				if err != nil {
					t.Error(err)
					return
				}
				if opened, err := isRetryable.Open(in, sealed); err != nil || string(opened) != zone {
					t.Errorf("%q, %v", []byte(opened), err)
				}
				_ = fmt.Sprint(keys, keys.Missing([]string{wrapped.KEKID}))
			}
		})
	}
	all.Wait()
}
