package store

import (
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// FuzzNormalizeName searches for names whose normalized form is not valid, not in
// normal form, or changes when it is normalized again, and for names that look
// reserved only before or only after.
func FuzzNormalizeName(f *testing.F) {
	for _, name := range []string{"", " ", "Production", " Cafe\u0301\u00a0", "\u200b", "a\u202eb", "\u2126", "\ufeffx\ufeff", "\u0301", "\u1160", "\u0600", "a\u0085", "\U000e0020caracal.sys/", "\u2000x\u2000", "\u037e"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !utf8.ValidString(name) {
			return // a request body is UTF-8
		}
		normalized, problem := NormalizeName(name)
		if problem != "" {
			if normalized != "" || !strings.Contains(problem, "at position ") {
				t.Errorf("%q: got %q, %s", name, normalized, problem)
			}
			return
		}
		if again, problem := NormalizeName(normalized); again != normalized || problem != "" {
			t.Errorf("%q became %q, then %q (%s)", name, normalized, again, problem)
		}
		if !norm.NFC.IsNormalString(normalized) || strings.TrimFunc(normalized, IsSpace) != normalized {
			t.Errorf("%q became %q", name, normalized)
		}
		if reserved(ZoneName, name) != reserved(ZoneName, normalized) {
			t.Errorf("%q is reserved: %t; %q: %t", name, reserved(ZoneName, name), normalized, reserved(ZoneName, normalized))
		}
	})
}

// An invisible character anywhere in a name does not change whether it is reserved.
func TestInvisibleCharactersDoNotHideReservedNames(t *testing.T) {
	t.Parallel()
	const name = "Caracal.sys/x"
	invisible := 0
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if !utf8.ValidRune(r) || !isInvisible(r) {
			continue
		}
		invisible++
		for at := range len(name) {
			if hidden := name[:at] + string(r) + name[at:]; !reserved(ZoneName, hidden) {
				t.Errorf("%q is not reserved", hidden)
			}
		}
	}
	if invisible < 400 {
		t.Errorf("only %d characters are invisible", invisible)
	}
	for _, other := range []string{"Caracal sys", "caracal.system/", "x caracal.sys/", "Production"} {
		if reserved(ZoneName, other) {
			t.Errorf("%q is reserved", other)
		}
	}
}
