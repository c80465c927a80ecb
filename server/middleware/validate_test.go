package middleware

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLoneSurrogate compares loneSurrogate with package encoding/json, which decodes
// half of a surrogate pair as U+FFFD.
func FuzzLoneSurrogate(f *testing.F) {
	for _, text := range []string{`"a"`, `"\ud83d"`, `"\ud83d\ude00"`, `"\ude00\ud83d"`, `"\\ud83d"`, `"\\\ud83d"`, `{"\uDBFF":"\n\u00e9"}`, `["\ud83d\n","\udfff"]`, `"\ud83d\ud83d\ude00"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		found := loneSurrogate(text) >= 0
		var value any
		if json.Unmarshal(text, &value) != nil || !utf8.Valid(text) || strings.ContainsRune(strings.ReplaceAll(strings.ToLower(string(text)), `\ufffd`, "\uFFFD"), '\uFFFD') {
			return
		}
		decoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		overwritten := bytes.ContainsRune(text, '{') // a duplicate field may have replaced the value
		if want := bytes.ContainsRune(decoded, '\uFFFD'); found != want && !(found && overwritten) {
			t.Errorf("%s: found %t, want %t", text, found, want)
		}
	})
}
