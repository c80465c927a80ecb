package provider

import (
	"encoding/json"
	"slices"
	"strings"
)

// Converge is like [Change] for a configuration that is applied again and again: a
// supplied secret replaces a sealed one of the same name only if rotate contains the name,
// or the sealed one must not be used with the new configuration.
func Converge(stored Stored, kind *Kind, config json.RawMessage, rotate []string) (Changed, error) {
	c, err := Change(stored, kind, config)
	if err != nil || kind != nil && *kind != stored.Kind || len(c.Secrets) == 0 {
		return c, err
	}
	v, err := check(stored.Kind, config, func(string) bool { return true })
	if err != nil {
		return Changed{}, err
	}
	before, err := decode(stored.Kind, stored.Public)
	if err != nil {
		return Changed{}, err
	}
	for _, name := range c.Secrets.Names() {
		if slices.Contains(stored.SecretKeys, name) && !slices.Contains(rotate, name) && v.canUse(name, before.values) {
			delete(c.Secrets, name)
		}
	}
	if equal(c.Public, stored.Public) && len(c.Secrets) == 0 && slices.Equal(c.SecretKeys, stored.SecretKeys) {
		return changed(Config{Kind: stored.Kind}, stored.SecretKeys), nil
	}
	return c, nil
}

// canUse reports whether a new configuration, which has a secret, can use the sealed one
// of the same name: it is not sent to another host, or in another URL.
func (v *validation) canUse(name string, stored map[string]any) bool {
	field, _, _ := strings.Cut(name, ".")
	if v.addsHost(recipients[field], stored) {
		return false
	}
	if text, isText := v.values[field].(string); isText && name != field {
		public, _ := separate(field, text)
		return public == stored[field]
	}
	return true
}
