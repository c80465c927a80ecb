package jsonresponse

import "unicode/utf8"

// verbatim reports which ASCII characters are not escaped in a JSON string. Those with a
// special meaning in HTML are not: no response is HTML, and clients that search a
// response without decoding it, such as scripts, find URLs as they are.
var verbatim = func() (table [utf8.RuneSelf]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

// verbatim8 reports whether the first eight bytes of s are not escaped. It can report false
// for such bytes, too.
func verbatim8(s string) bool {
	const each, high = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080 // bytes of 1 and of 128
	if len(s) < 8 {
		return false
	}
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	control, quote, backslash := w-each*' ', (w^each*'"')-each, (w^each*'\\')-each // the high bit is set in the lowest of such bytes
	return (w|control|quote|backslash)&high == 0
}

const hex = "0123456789abcdef"

// AppendString appends s as a JSON string and returns the extended buffer. It
// escapes the same characters as encoding/json without SetEscapeHTML and, like it,
// writes U+FFFD for each byte that is not valid UTF-8.
func AppendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0 // s[start:i] is to be copied verbatim
	for i := 0; i < len(s); {
		if verbatim8(s[i:]) {
			i += 8
			continue
		}
		c := s[i]
		if c < utf8.RuneSelf {
			if verbatim[c] {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript, not in JSON
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, hex[r&0xf])
			start = i + size
		}
		i += size
	}
	return append(append(b, s[start:]...), '"')
}

// AppendRaw appends JSON text without white space, and returns the extended buffer. The
// text must be valid JSON; it appends null for an empty text.
func AppendRaw[Text ~string | ~[]byte](b []byte, text Text) []byte {
	if len(text) == 0 {
		return append(b, "null"...)
	}
	inString := false
	start := 0 // text[start:i] is to be copied verbatim
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			inString = !inString
		case '\\': // only in strings
			i++
		case ' ', '\t', '\n', '\r':
			if !inString {
				b = append(b, text[start:i]...)
				start = i + 1
			}
		}
	}
	return append(b, text[start:]...)
}
