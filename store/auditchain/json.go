package auditchain

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A Value is a parsed JSON value.
type Value struct {
	kind     byte    // '{', '[', '"', '0' (a number), 't', 'f' or 'n' (null)
	text     string  // of a string, decoded; of a number, canonical
	elements []Value // of an array; of an object, the values of its fields
	names    []string
}

// Limits of the JSON that is accepted. Postgres has limits, too, which are higher.
const (
	maxDepth  = 100
	maxDigits = 1000 // of a number without an exponent
)

// Parse parses a JSON text (RFC 8259). Of fields with the same name, the last one
// counts. It returns an error for what Postgres cannot store as jsonb: invalid UTF-8,
// U+0000 and unpaired surrogates; and for deep nesting and numbers of many digits.
func Parse(text []byte) (Value, error) {
	if !utf8.Valid(text) {
		return Value{}, errors.New("invalid UTF-8")
	}
	p := parser{text: text}
	v, err := p.value(0)
	if err == nil {
		if p.skipSpace(); p.pos < len(p.text) {
			err = p.unexpected()
		}
	}
	return v, err
}

// IsObject reports whether the value is an object.
func (v Value) IsObject() bool { return v.kind == '{' }

// IsArray reports whether the value is an array.
func (v Value) IsArray() bool { return v.kind == '[' }

// IsNull reports whether the value is null, or a missing field.
func (v Value) IsNull() bool { return v.kind == 'n' || v.kind == 0 }

// Text returns the value of a string, and whether the value is one.
func (v Value) Text() (string, bool) { return v.text, v.kind == '"' }

// Elements returns the elements of an array.
func (v Value) Elements() []Value {
	if v.kind != '[' {
		return nil
	}
	return v.elements
}

// Field returns the field of an object with a name. If there is none, the value
// is null.
func (v Value) Field(name string) Value {
	for i, n := range slices.Backward(v.names) {
		if n == name {
			return v.elements[i]
		}
	}
	return Value{}
}

// Canonical returns the text that Postgres has for the value as jsonb: fields are
// ordered by the length of their name, and then by its bytes; a space follows each colon
// and comma; numbers have no exponent.
func (v Value) Canonical() string { return string(v.append(nil)) }

func (v Value) append(b []byte) []byte {
	switch v.kind {
	case '{':
		order := make([]int, 0, len(v.names))
		last := make(map[string]int, len(v.names))
		for i, name := range v.names {
			last[name] = i
		}
		for i, name := range v.names {
			if last[name] == i {
				order = append(order, i)
			}
		}
		slices.SortFunc(order, func(i, j int) int {
			return cmp.Or(cmp.Compare(len(v.names[i]), len(v.names[j])), strings.Compare(v.names[i], v.names[j]))
		})
		b = append(b, '{')
		for n, i := range order {
			if n > 0 {
				b = append(b, ", "...)
			}
			b = append(appendString(b, v.names[i]), ": "...)
			b = v.elements[i].append(b)
		}
		return append(b, '}')
	case '[':
		b = append(b, '[')
		for n, element := range v.elements {
			if n > 0 {
				b = append(b, ", "...)
			}
			b = element.append(b)
		}
		return append(b, ']')
	case '"':
		return appendString(b, v.text)
	case '0':
		return append(b, v.text...)
	case 't':
		return append(b, "true"...)
	case 'f':
		return append(b, "false"...)
	}
	return append(b, "null"...)
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < ' ':
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

type parser struct {
	text []byte
	pos  int
}

func (p *parser) unexpected() error {
	if p.pos >= len(p.text) {
		return errors.New("unexpected end of JSON")
	}
	r, _ := utf8.DecodeRune(p.text[p.pos:])
	return fmt.Errorf("unexpected %q at byte %d", r, p.pos)
}

func (p *parser) skipSpace() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\n\r", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

// accept skips a byte, if it is the next one.
func (p *parser) accept(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *parser) value(depth int) (Value, error) {
	if depth > maxDepth {
		return Value{}, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	p.skipSpace()
	if p.pos >= len(p.text) {
		return Value{}, p.unexpected()
	}
	switch c := p.text[p.pos]; c {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		text, err := p.string()
		return Value{kind: '"', text: text}, err
	case 't', 'f', 'n':
		for _, word := range []string{"true", "false", "null"} {
			if word[0] == c && bytes.HasPrefix(p.text[p.pos:], []byte(word)) {
				p.pos += len(word)
				return Value{kind: c}, nil
			}
		}
		return Value{}, p.unexpected()
	default:
		text, err := p.number()
		return Value{kind: '0', text: text}, err
	}
}

func (p *parser) object(depth int) (Value, error) {
	v := Value{kind: '{'}
	p.pos++
	if p.skipSpace(); p.accept('}') {
		return v, nil
	}
	for {
		p.skipSpace()
		if p.pos >= len(p.text) || p.text[p.pos] != '"' {
			return v, p.unexpected()
		}
		name, err := p.string()
		if err != nil {
			return v, err
		}
		if p.skipSpace(); !p.accept(':') {
			return v, p.unexpected()
		}
		element, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.names, v.elements = append(v.names, name), append(v.elements, element)
		p.skipSpace()
		switch {
		case p.accept(','):
		case p.accept('}'):
			return v, nil
		default:
			return v, p.unexpected()
		}
	}
}

func (p *parser) array(depth int) (Value, error) {
	v := Value{kind: '['}
	p.pos++
	if p.skipSpace(); p.accept(']') {
		return v, nil
	}
	for {
		element, err := p.value(depth + 1)
		if err != nil {
			return v, err
		}
		v.elements = append(v.elements, element)
		p.skipSpace()
		switch {
		case p.accept(','):
		case p.accept(']'):
			return v, nil
		default:
			return v, p.unexpected()
		}
	}
}

func (p *parser) string() (string, error) {
	p.pos++
	start := p.pos
	for p.pos < len(p.text) && p.text[p.pos] != '"' && p.text[p.pos] != '\\' && p.text[p.pos] >= ' ' {
		p.pos++
	}
	if p.accept('"') {
		return string(p.text[start : p.pos-1]), nil
	}
	b := bytes.Clone(p.text[start:p.pos])
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case c == '"':
			p.pos++
			return string(b), nil
		case c < ' ':
			return "", p.unexpected()
		case c != '\\':
			b = append(b, c)
			p.pos++
			continue
		}
		p.pos++
		if p.pos >= len(p.text) {
			break
		}
		if i := strings.IndexByte(`"\/bfnrt`, p.text[p.pos]); i >= 0 {
			b = append(b, "\"\\/\b\f\n\r\t"[i])
			p.pos++
			continue
		}
		r, err := p.escapedRune()
		if err != nil {
			return "", err
		}
		b = utf8.AppendRune(b, r)
	}
	return "", p.unexpected()
}

// escapedRune parses the u and the digits of an escape, and of the second one of a
// surrogate pair.
func (p *parser) escapedRune() (rune, error) {
	unit := func() (rune, error) {
		if p.pos+5 > len(p.text) || p.text[p.pos] != 'u' {
			return 0, p.unexpected()
		}
		n, err := strconv.ParseUint(string(p.text[p.pos+1:p.pos+5]), 16, 16)
		if err != nil {
			return 0, p.unexpected()
		}
		p.pos += 5
		return rune(n), nil
	}
	r, err := unit()
	if err != nil {
		return 0, err
	}
	if utf16.IsSurrogate(r) {
		if !p.accept('\\') {
			return 0, errors.New("unpaired surrogate")
		}
		low, err := unit()
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0, errors.New("unpaired surrogate")
		}
	}
	if r == 0 {
		return 0, errors.New(`\u0000 cannot be stored`)
	}
	return r, nil
}

func (p *parser) digits() string {
	start := p.pos
	for p.pos < len(p.text) && p.text[p.pos] >= '0' && p.text[p.pos] <= '9' {
		p.pos++
	}
	return string(p.text[start:p.pos])
}

// number parses a number and returns it without an exponent, with as many fractional
// digits as it had, like the type numeric of Postgres.
func (p *parser) number() (string, error) {
	negative := p.accept('-')
	whole := p.digits()
	if whole == "" || len(whole) > 1 && whole[0] == '0' {
		return "", p.unexpected()
	}
	fraction := ""
	if p.accept('.') {
		if fraction = p.digits(); fraction == "" {
			return "", p.unexpected()
		}
	}
	exponent := 0
	if p.accept('e') || p.accept('E') {
		sign := 1
		if p.accept('-') {
			sign = -1
		} else {
			p.accept('+')
		}
		digits := p.digits()
		if digits == "" {
			return "", p.unexpected()
		}
		n, err := strconv.Atoi(digits)
		if err != nil || n > maxDigits {
			return "", errors.New("the exponent of a number is too large")
		}
		exponent = sign * n
	}
	if len(whole)+len(fraction)+max(exponent, -exponent) > maxDigits {
		return "", errors.New("a number has too many digits")
	}
	// The decimal point moves by the exponent.
	digits, point, scale := whole+fraction, len(whole)+exponent, max(0, len(fraction)-exponent)
	if point <= 0 {
		digits, point = strings.Repeat("0", 1-point)+digits, 1
	}
	if point > len(digits) {
		digits += strings.Repeat("0", point-len(digits))
	}
	whole, fraction = strings.TrimLeft(digits[:point], "0"), digits[point:]
	if whole == "" {
		whole = "0"
	}
	text := whole
	if scale > 0 {
		text += "." + fraction
	}
	if negative && strings.Trim(text, "0.") != "" {
		text = "-" + text
	}
	return text, nil
}
