package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A validation is a configuration that is being checked: values become normal one by
// one, as the rows of the matrix accept them.
type validation struct {
	kind   Kind
	keys   []string // as the body has them
	values map[string]any
}

// decode reads an object and remembers the order of its members.
func decode(kind Kind, config json.RawMessage) (*validation, error) {
	d := &validation{kind: kind, values: map[string]any{}}
	if !slices.Contains(Kinds(), kind) {
		return nil, fmt.Errorf("unknown provider kind %q", kind)
	}
	in := json.NewDecoder(bytes.NewReader(config))
	in.UseNumber() // no rule takes a number: one that fits no float64 is as wrong as any other
	if open, _ := in.Token(); open != json.Delim('{') || !json.Valid(config) {
		return nil, errors.New("a provider's configuration is not a JSON object")
	}
	for in.More() {
		name, _ := in.Token() // neither fails: the text is valid
		var value any
		_ = in.Decode(&value)
		key := name.(string)
		if _, again := d.values[key]; !again {
			d.keys = append(d.keys, key)
		}
		d.values[key] = value
	}
	return d, nil
}

// check holds a configuration against the matrix; the first refusal wins.
// Sealed says which secrets need not be supplied.
func check(kind Kind, config json.RawMessage, sealed func(key string) bool) (*validation, error) {
	const mostBytes, mostNamed, longestName = 64 << 10, 10, 64 // a list shows hundreds of configurations; a refusal is for reading
	d, err := decode(kind, config)
	if err != nil {
		return nil, err
	}
	if len(config) > mostBytes {
		return nil, d.refuse(ruleRow{message: fmt.Sprintf("must be at most %d bytes", mostBytes)})
	}
	members := kind.Fields()
	find := func(key string) int { return slices.IndexFunc(members, func(m Field) bool { return m.Name == key }) }
	if unknown := slices.DeleteFunc(slices.Clone(d.keys), func(key string) bool { return find(key) >= 0 }); len(unknown) > 0 {
		var r ruleRow
		if len(unknown) == 1 {
			r.key = unknown[0]
		}
		named := unknown[:min(len(unknown), mostNamed)]
		for i, key := range named {
			named[i] = strings.ToValidUTF8(key[:min(len(key), longestName)], "")
		}
		r.message = "has unsupported keys: " + strings.Join(named, ", ")
		if more := len(unknown) - len(named); more > 0 {
			r.message += fmt.Sprintf(" and %d more", more)
		}
		return nil, d.refuse(r)
	}
	for _, key := range d.keys {
		if _, ok := nonBlank(d.values[key], nil); !ok && members[find(key)].Secret {
			return nil, d.refuse(ruleRow{key: key, message: key + " must be a non-empty string"})
		}
	}
	for _, r := range kind.rows() {
		if r.applies(d.values) && !r.accepts(d.values, sealed) {
			return nil, d.refuse(r)
		}
	}
	return d, nil
}

func (r ruleRow) applies(values map[string]any) bool { return r.when == nil || r.when(values) }

// accepts says whether the member is as the row demands, and leaves it normal.
func (r ruleRow) accepts(values map[string]any, sealed func(key string) bool) bool {
	value, given := values[r.key]
	switch {
	case r.presence == forbidden:
		return !given
	case r.presence == secretRequired:
		return given || sealed(r.key)
	case !given && r.fallback != "":
		values[r.key] = r.fallback
		return true
	case !given:
		return r.presence == optional
	}
	value, ok := r.rule(value, values)
	values[r.key] = value
	return ok
}

func (d *validation) refuse(r ruleRow) error {
	subject := string(d.kind)
	if r.subject != "" {
		subject = r.subject
	}
	return &Error{Key: r.key, Message: subject + " provider config " + r.message}
}

// config takes the secrets out of what is public.
func (d *validation) config() Config {
	public, secrets := map[string]any{}, Secrets{}
	for _, m := range d.kind.Fields() {
		switch value, given := d.values[m.Name]; {
		case given && m.Secret:
			text := value.(string)
			secrets[m.Name] = Secret{&text}
		case given:
			public[m.Name] = value
		}
	}
	return Config{Kind: d.kind, Public: encode(public), Secrets: secrets}
}

// encode writes strings, booleans and collections of them: nothing that could
// fail. URLs keep their ampersands.
func encode(value any) json.RawMessage {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	_ = e.Encode(value)
	return bytes.TrimSpace(out.Bytes())
}
