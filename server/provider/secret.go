package provider

import (
	"encoding/json"
	"maps"
	"slices"

	"caracal.run/management/server/secret"
)

// Secrets holds the secret fields of a configuration by name.
type Secrets map[string]secret.String

// Names returns the names of the fields, sorted.
func (s Secrets) Names() []string { return slices.Sorted(maps.Keys(s)) }

// Plaintext returns a compact JSON object of all secrets, which the caller seals.
func (s Secrets) Plaintext() json.RawMessage {
	texts := map[string]string{}
	for name, text := range s {
		texts[name] = text.Reveal()
	}
	return encode(texts)
}
