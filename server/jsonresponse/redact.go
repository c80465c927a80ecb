package jsonresponse

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// redacted replaces the value of a secret field.
const redacted = `"[redacted]"`

// isSecret reports whether the value of a field is replaced, by its name in lower case.
// An id of a session, unlike the session itself, is an identifier: it gives access to
// nothing, and the lists of sessions and the filters of the audit logs contain it.
func isSecret(name string) bool {
	switch name {
	case "password", "passwd", "secret", "token", "access_token", "refresh_token", "id_token", "api_key", "apikey",
		"authorization", "cookie", "set_cookie", "client_secret", "private_key", "session", "assertion":
		return true
	}
	return false
}

// AppendRedacted appends JSON text like [AppendRaw], but with "[redacted]" in place of
// the values of fields with the names of secrets, in any case and at any depth. All else
// keeps its text, such as the digits of numbers and the order of fields.
func AppendRedacted(b []byte, text string) []byte {
	if text == "" {
		return append(b, "null"...)
	}
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case ' ', '\t', '\n', '\r':
			i++
		case '"':
			end, contains := scanString(text, i)
			literal := text[i:end]
			b = append(b, literal...)
			i = end
			colon := skipSpace(text, end)
			if colon == len(text) || text[colon] != ':' {
				continue
			}
			b = append(b, ':')
			name := literal[1:max(1, len(literal)-1)]
			if contains&(escape|upper) != 0 {
				name = strings.ToLower(Text(literal))
			}
			if i = skipSpace(text, colon+1); isSecret(name) {
				b = append(b, redacted...)
				i = valueEnd(text, i)
			}
		default:
			b = append(b, c)
			i++
		}
	}
	return b
}

// EachField calls f with each field of a JSON object: its name, and the text of its
// value. It does nothing for a text that is not an object.
func EachField(object string, f func(name, value string)) {
	i := skipSpace(object, 0)
	if i == len(object) || object[i] != '{' {
		return
	}
	for {
		if i = skipSpace(object, i+1); i >= len(object) || object[i] != '"' { // after { or a comma
			return
		}
		end, _ := scanString(object, i)
		name := Text(object[i:end])
		start := skipSpace(object, skipSpace(object, end)+1) // after the colon
		i = valueEnd(object, start)
		if start >= i {
			return
		}
		f(name, object[start:i])
		if i = skipSpace(object, i); i == len(object) || object[i] != ',' {
			return
		}
	}
}

// EachElement calls f with the text of each element of a JSON array. It does nothing for
// a text that is not an array.
func EachElement(array string, f func(value string)) {
	i := skipSpace(array, 0)
	if i == len(array) || array[i] != '[' {
		return
	}
	for {
		start := skipSpace(array, i+1) // after [ or a comma
		if i = valueEnd(array, start); start >= i {
			return
		}
		f(array[start:i])
		if i = skipSpace(array, i); i == len(array) || array[i] != ',' {
			return
		}
	}
}

// Text returns the value of a JSON string, and any other JSON value unchanged.
func Text(value string) string {
	if len(value) < 2 || value[0] != '"' {
		return value
	}
	if inner := value[1 : len(value)-1]; strings.IndexByte(inner, '\\') < 0 && utf8.ValidString(inner) {
		return inner
	}
	var text string
	if json.Unmarshal([]byte(value), &text) != nil {
		return value
	}
	return text
}

// Classes of the bytes in a JSON string.
const (
	quote  = 1 << iota
	escape // a backslash
	upper  // it may have another form in lower case
)

var classes = func() (table [256]byte) {
	for c := range table {
		if c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' {
			table[c] = upper
		}
	}
	table['"'], table['\\'] = quote, escape
	return table
}()

// scanString returns the index after the JSON string that begins at i, and the classes
// of its bytes.
func scanString(text string, i int) (end int, contains byte) {
	for i++; i < len(text); i++ {
		switch class := classes[text[i]]; class {
		case 0:
		case quote:
			return i + 1, contains
		case escape:
			contains |= escape
			i++
		default:
			contains |= class
		}
	}
	return len(text), contains
}

func skipSpace(text string, i int) int {
	for i < len(text) && (text[i] == ' ' || text[i] == '\t' || text[i] == '\n' || text[i] == '\r') {
		i++
	}
	return min(i, len(text))
}

// valueEnd returns the index after the JSON value that begins at i.
func valueEnd(text string, i int) int {
	for depth := 0; i < len(text); {
		switch text[i] {
		case '"':
			if i, _ = scanString(text, i); depth == 0 {
				return i
			}
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth == 0 {
				return i // of a number or a name that ends here
			}
			i++
			if depth--; depth == 0 {
				return i
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
			i++
		default:
			i++
		}
	}
	return len(text)
}
