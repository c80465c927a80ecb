package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"caracal.run/management/server/secret"
)

// A validation is a configuration that is being validated. Each rule that accepts a
// value replaces it by its normalized form.
type validation struct {
	kind   Kind
	keys   []string // in the order of the JSON object
	values map[string]any
}

// decode decodes a JSON object. It fails if the kind is unknown or config is not a
// JSON object.
func decode(kind Kind, config json.RawMessage) (*validation, error) {
	v := &validation{kind: kind, values: map[string]any{}}
	if !slices.Contains(Kinds(), kind) {
		return nil, fmt.Errorf("unknown provider kind %q", kind)
	}
	decoder := json.NewDecoder(bytes.NewReader(config))
	decoder.UseNumber() // a number of any size decodes, and is then rejected by a rule
	if open, _ := decoder.Token(); open != json.Delim('{') || !json.Valid(config) {
		return nil, errors.New("provider configuration is not a JSON object")
	}
	for decoder.More() {
		name, _ := decoder.Token() // cannot fail: config is valid JSON
		var value any
		_ = decoder.Decode(&value)
		key := name.(string)
		if _, duplicate := v.values[key]; !duplicate {
			v.keys = append(v.keys, key)
		}
		v.values[key] = value
	}
	return v, nil
}

// check checks all rules of a kind and returns the first violation. Secrets for which
// sealed returns true need not be supplied.
func check(kind Kind, config json.RawMessage, sealed func(key string) bool) (*validation, error) {
	const (
		maxSize       = 64 << 10 // bytes; a list page contains hundreds of configurations
		maxNames      = 10       // of unknown fields in the message
		maxNameLength = 64
	)
	v, err := decode(kind, config)
	if err != nil {
		return nil, err
	}
	if len(config) > maxSize {
		return nil, v.newError(fieldRule{message: fmt.Sprintf("must be at most %d bytes", maxSize)})
	}
	fields := kind.Fields()
	find := func(key string) int { return slices.IndexFunc(fields, func(f Field) bool { return f.Name == key }) }
	if unknown := slices.DeleteFunc(slices.Clone(v.keys), func(key string) bool { return find(key) >= 0 }); len(unknown) > 0 {
		var r fieldRule
		if len(unknown) == 1 {
			r.key = unknown[0]
		}
		names := unknown[:min(len(unknown), maxNames)]
		for i, key := range names {
			names[i] = strings.ToValidUTF8(key[:min(len(key), maxNameLength)], "")
		}
		r.message = "has unsupported keys: " + strings.Join(names, ", ")
		if more := len(unknown) - len(names); more > 0 {
			r.message += fmt.Sprintf(" and %d more", more)
		}
		return nil, v.newError(r)
	}
	for _, key := range v.keys {
		if _, ok := nonBlank(v.values[key], nil); !ok && fields[find(key)].Secret {
			return nil, v.newError(fieldRule{key: key, message: key + " must be a non-empty string"})
		}
	}
	for _, r := range kind.rules() {
		if r.applies(v.values) && !r.accepts(v.values, sealed) {
			return nil, v.newError(r)
		}
	}
	return v, nil
}

func (r fieldRule) applies(values map[string]any) bool { return r.when == nil || r.when(values) }

// accepts reports whether a field satisfies the rule, and normalizes it.
func (r fieldRule) accepts(values map[string]any, sealed func(key string) bool) bool {
	value, present := values[r.key]
	switch {
	case r.presence == forbidden:
		return !present
	case r.presence == secretRequired:
		return present || sealed(r.key)
	case !present && r.fallback != "":
		values[r.key] = r.fallback
		return true
	case !present:
		return r.presence == optional
	}
	value, ok := r.rule(value, values)
	values[r.key] = value
	return ok
}

// newError returns the error of a rule that the configuration violates.
func (v *validation) newError(r fieldRule) error {
	subject := string(v.kind)
	if r.subject != "" {
		subject = r.subject
	}
	return &Error{Key: r.key, Message: subject + " provider config " + r.message}
}

// config separates the secrets, and the credentials in public fields, from the public configuration.
func (v *validation) config() Config {
	public, secrets := map[string]any{}, Secrets{}
	for _, f := range v.kind.Fields() {
		switch value, present := v.values[f.Name]; {
		case present && f.Secret:
			text := value.(string)
			secrets[f.Name] = secret.New(text)
		case present:
			var credentials map[string]string
			public[f.Name], credentials = separate(f.Name, value)
			for name, text := range credentials {
				secrets[name] = secret.New(text)
			}
		}
	}
	return Config{Kind: v.kind, Public: encode(public), Secrets: secrets}
}

// encode encodes strings, booleans and collections of them, which cannot fail. It
// does not escape the & of URLs.
func encode(value any) json.RawMessage {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(value)
	return bytes.TrimSpace(out.Bytes())
}
