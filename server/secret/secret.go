// Package secret has a string that is never printed.
package secret

import "fmt"

// A String prints as [set] with every verb, in JSON and in logs. The text is behind
// a pointer for structs with an unexported String: fmt does not call the methods of
// unexported fields, and prints the address of the text instead. The zero value is
// the empty string.
type String struct{ text *string }

// New returns a String that holds the text.
func New(text string) String { return String{&text} }

// Reveal returns the text.
func (s String) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether the text is empty.
func (s String) IsZero() bool { return s.Reveal() == "" }

// Format prints [set], or nothing if the text is empty.
func (s String) Format(f fmt.State, _ rune) {
	if !s.IsZero() {
		_, _ = f.Write([]byte("[set]"))
	}
}

// MarshalText returns what Format prints, for JSON and logs.
func (s String) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", s), nil }

// UnmarshalText sets the text.
func (s *String) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}
