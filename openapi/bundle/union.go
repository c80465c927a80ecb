package main

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checkNames returns an error if the names of two components differ only in case,
// or not at all. Generators turn schemas, parameters and security schemes into
// types of one namespace, and change the case of names.
func checkNames(spec *yaml.Node) error {
	seen := map[string]string{}
	for kind, components := range pairs(get(spec, "components")) {
		if kind == "examples" {
			continue
		}
		for name := range pairs(components) {
			where := kind + "/" + name
			if other, taken := seen[strings.ToLower(name)]; taken {
				return fmt.Errorf("the names of %s and %s differ only in case: generators make the same type of them", other, where)
			}
			seen[strings.ToLower(name)] = where
		}
	}
	return nil
}

// expandUnions gives each schema with x-union the fields of all its alternatives.
// Each field says which alternatives have it, by their keys in x-union.
//
// A schema cannot express which alternative applies if that depends on a stored
// value. Generators reject alternatives without a discriminator, or choose wrongly,
// so the document has one object.
func expandUnions(spec *yaml.Node) error {
	schemas := get(get(spec, "components"), "schemas")
	for name, schema := range pairs(schemas) {
		union := get(schema, "x-union")
		if union == nil {
			continue
		}
		fields := mapping()
		keys := map[string][]string{} // of the alternatives that have a field, by its name
		for key, alternative := range pairs(union) {
			one := get(schemas, alternative.Value)
			if one == nil {
				return fmt.Errorf("%s: x-union: there is no schema %q", name, alternative.Value)
			}
			for field, declared := range pairs(get(one, "properties")) {
				keys[field] = append(keys[field], "`"+key+"`")
				if err := mergeField(fields, field, clone(deref(spec, declared))); err != nil {
					return fmt.Errorf("%s: %s: %w", name, field, err)
				}
			}
		}
		for field, merged := range pairs(fields) {
			description := get(merged, "description")
			if description == nil {
				return fmt.Errorf("%s: %s: description is required", name, field)
			}
			description.SetString(fmt.Sprintf("%s Only for %s.", strings.TrimSpace(description.Value), enumeration(keys[field])))
		}
		set(schema, "properties", fields)
	}
	return nil
}

// mergeField adds a field to fields. If the field exists, it gets the values and the
// description of both; everything else must be equal.
func mergeField(fields *yaml.Node, name string, field *yaml.Node) error {
	existing := get(fields, name)
	if existing == nil {
		set(fields, name, field)
		return nil
	}
	if rules(existing) != rules(field) {
		return fmt.Errorf("two alternatives declare it differently")
	}
	if values := get(existing, "enum"); values != nil {
		for _, value := range list(get(field, "enum")) {
			if !slices.Contains(list(values), value) {
				values.Content = append(values.Content, scalar(value))
			}
		}
	}
	if description := get(existing, "description"); description != nil {
		if other := valueOf(get(field, "description")); !strings.Contains(description.Value, other) {
			description.SetString(description.Value + " " + other)
		}
	}
	return nil
}

// rules returns a schema as text, without what mergeField merges.
func rules(schema *yaml.Node) string {
	schema = clone(schema)
	for _, merged := range []string{"enum", "description", "example"} {
		remove(schema, merged)
	}
	schema.Style = 0
	text, err := yaml.Marshal(schema)
	if err != nil {
		panic(err) // cannot happen: the schema was parsed from YAML
	}
	return string(text)
}

// enumeration joins words with commas and "and".
func enumeration(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
