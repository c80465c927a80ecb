package jsonresponse

import "strings"

// maxDepth is how deep arrays and objects can be nested, as in encoding/json.
const maxDepth = 10_000

// Valid reports whether a text is a JSON value (RFC 8259), like [json.Valid] and several
// times as fast.
func Valid(text string) bool {
	end := validValue(text, skipSpace(text, 0), 0)
	return end >= 0 && skipSpace(text, end) == len(text)
}

// validValue returns the index after the value that begins at i, or -1 if there is none.
func validValue(text string, i, depth int) int {
	if i >= len(text) {
		return -1
	}
	switch text[i] {
	case '"':
		return validString(text, i)
	case '{':
		return validElements(text, i, depth, '}')
	case '[':
		return validElements(text, i, depth, ']')
	case 't', 'f', 'n':
		for _, word := range [...]string{"true", "false", "null"} {
			if strings.HasPrefix(text[i:], word) {
				return i + len(word)
			}
		}
		return -1
	}
	return validNumber(text, i)
}

// validElements returns the index after the array or object that begins at i.
func validElements(text string, i, depth int, closing byte) int {
	if depth == maxDepth {
		return -1
	}
	if i = skipSpace(text, i+1); i < len(text) && text[i] == closing {
		return i + 1
	}
	for {
		if closing == '}' {
			if i >= len(text) || text[i] != '"' {
				return -1
			}
			if i = validString(text, i); i < 0 {
				return -1
			}
			if i = skipSpace(text, i); i == len(text) || text[i] != ':' {
				return -1
			}
			i = skipSpace(text, i+1)
		}
		if i = validValue(text, i, depth+1); i < 0 {
			return -1
		}
		switch i = skipSpace(text, i); {
		case i == len(text):
			return -1
		case text[i] == closing:
			return i + 1
		case text[i] != ',':
			return -1
		}
		i = skipSpace(text, i+1)
	}
}

// validString returns the index after the string that begins at i.
func validString(text string, i int) int {
	for i++; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i++; i == len(text) {
				return -1
			}
			if text[i] == 'u' {
				for range 4 {
					if i++; i == len(text) || strings.IndexByte("0123456789abcdefABCDEF", text[i]) < 0 {
						return -1
					}
				}
			} else if strings.IndexByte(`"\/bfnrt`, text[i]) < 0 {
				return -1
			}
		}
	}
	return -1
}

// validNumber returns the index after the number that begins at i.
func validNumber(text string, i int) int {
	if text[i] == '-' {
		i++
	}
	start := i
	if i = skipDigits(text, i); i == start || text[start] == '0' && i > start+1 {
		return -1
	}
	if i < len(text) && text[i] == '.' {
		start = i + 1
		if i = skipDigits(text, start); i == start {
			return -1
		}
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		if i++; i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		start = i
		if i = skipDigits(text, start); i == start {
			return -1
		}
	}
	return i
}

func skipDigits(text string, i int) int {
	for i < len(text) && '0' <= text[i] && text[i] <= '9' {
		i++
	}
	return i
}
