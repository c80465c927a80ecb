package store

import (
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// NormalizeName returns a name in the form in which it is stored and compared:
// without leading and trailing white space, and in Unicode normalization form C
// (NFC). If the name is invalid, problem describes why, and where: a name must not
// contain control characters, line separators or bidirectional controls, with which
// a name could look like another one, and at least one character must be visible.
// An empty name is valid here: whether a name is required depends on the object.
func NormalizeName(name string) (normalized, problem string) {
	trimmed := strings.TrimLeftFunc(name, IsSpace)
	position := len([]rune(name)) - len([]rune(trimmed))
	trimmed = strings.TrimRightFunc(trimmed, IsSpace)
	visible := trimmed == ""
	for _, r := range trimmed {
		position++
		switch {
		case unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp):
			return "", fmt.Sprintf("must not contain control characters, such as %U at position %d", r, position)
		case unicode.Is(unicode.Bidi_Control, r) && !isDirectionalMark(r):
			return "", fmt.Sprintf("must not contain bidirectional controls, such as %U at position %d", r, position)
		}
		visible = visible || !isInvisible(r)
	}
	if !visible {
		return "", fmt.Sprintf("must contain a visible character; %U at position 1 is invisible", []rune(name)[0])
	}
	return norm.NFC.String(trimmed), ""
}

// IsSpace reports whether the API trims a character as white space: Unicode white
// space and the byte order mark.
func IsSpace(r rune) bool { return unicode.IsSpace(r) || r == '\uFEFF' }

// isDirectionalMark reports whether a character is a mark of Arabic or Hebrew text.
// Unlike the other bidirectional controls, it does not reorder the text after it.
func isDirectionalMark(r rune) bool { return r == '\u200E' || r == '\u200F' || r == '\u061C' }

// isInvisible reports whether a character is usually displayed as nothing or as a
// space, such as a zero-width space, a soft hyphen or a Hangul filler.
func isInvisible(r rune) bool {
	const blankBraille = '\u2800'
	ignorable := unicode.In(r, unicode.Cc, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
	return IsSpace(r) || r == blankBraille || ignorable && !unicode.Is(unicode.Prepended_Concatenation_Mark, r)
}

// skeleton returns a name as a reader sees it, for comparison with reserved names:
// without invisible characters, in lower case, and with compatibility characters,
// such as full-width letters, replaced by the usual ones.
func skeleton(name string) string {
	visible := strings.Map(func(r rune) rune {
		if isInvisible(r) {
			return -1
		}
		return r
	}, norm.NFKC.String(name))
	return strings.ToLower(visible)
}
