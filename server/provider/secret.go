package provider

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// A Secret is a text that prints as [set], however it is printed. It is behind
// a pointer because fmt asks no methods of what lies in unexported fields: there
// it finds an address.
type Secret struct{ text *string }

// Reveal is the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Format prints [set], or nothing.
func (s Secret) Format(f fmt.State, _ rune) {
	if s.Reveal() != "" {
		_, _ = f.Write([]byte("[set]"))
	}
}

// MarshalText keeps the secret out of JSON and logs too.
func (s Secret) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", s), nil }

// Secrets are the secret members of a configuration, by name.
type Secrets map[string]Secret

// Names are the members' names, sorted.
func (s Secrets) Names() []string { return slices.Sorted(maps.Keys(s)) }

// Plaintext is what gets sealed: a compact JSON object of all secrets
// (contract: conventions.md §12). It is no use to anything else.
func (s Secrets) Plaintext() json.RawMessage {
	texts := map[string]string{}
	for name, secret := range s {
		texts[name] = secret.Reveal()
	}
	return encode(texts)
}
