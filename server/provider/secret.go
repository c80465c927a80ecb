package provider

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// A Secret is a string that prints as [set]. The string is behind a pointer for
// structs with an unexported Secret: fmt does not call the methods of unexported
// fields, and prints the address of the string instead.
type Secret struct{ text *string }

// Reveal returns the string.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Format prints [set], or nothing if the secret is empty.
func (s Secret) Format(f fmt.State, _ rune) {
	if s.Reveal() != "" {
		_, _ = f.Write([]byte("[set]"))
	}
}

// MarshalText returns what Format prints, for JSON and logs.
func (s Secret) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", s), nil }

// Secrets holds the secret fields of a configuration by name.
type Secrets map[string]Secret

// Names returns the names of the fields, sorted.
func (s Secrets) Names() []string { return slices.Sorted(maps.Keys(s)) }

// Plaintext returns a compact JSON object of all secrets, which the caller seals.
func (s Secrets) Plaintext() json.RawMessage {
	texts := map[string]string{}
	for name, secret := range s {
		texts[name] = secret.Reveal()
	}
	return encode(texts)
}
