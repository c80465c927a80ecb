package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlType is the media type of documents in YAML (RFC 9512).
const yamlType = "application/yaml"

// documentSchema returns a schema of the spec as a JSON Schema document (draft 7, which
// editors know) that has the schemas it refers to as definitions.
func documentSchema(spec *yaml.Node, name, title string) ([]byte, error) {
	c := schemaConverter{schemas: get(get(spec, "components"), "schemas"), definitions: mapping(), begun: map[string]bool{}}
	schema := get(c.schemas, name)
	if schema == nil {
		return nil, fmt.Errorf("there is no schema %q", name)
	}
	root := mapping("$schema", "http://json-schema.org/draft-07/schema#", "title", title)
	converted, err := c.convert(schema)
	if err != nil {
		return nil, err
	}
	root.Content = append(root.Content, converted.Content...)
	set(root, "definitions", c.definitions)
	text := &bytes.Buffer{}
	if err := writeJSON(text, root); err != nil {
		return nil, err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text.Bytes(), "", "  "); err != nil {
		return nil, err
	}
	return append(indented.Bytes(), '\n'), nil
}

// A schemaConverter converts schemas of OpenAPI 3.0 to JSON Schema.
type schemaConverter struct {
	schemas, definitions *yaml.Node
	begun                map[string]bool // the definitions that are converted, or are being converted
}

const schemasPrefix = "#/components/schemas/"

func (c *schemaConverter) convert(n *yaml.Node) (*yaml.Node, error) {
	if ref := get(n, "$ref"); ref != nil {
		return c.reference(ref.Value)
	}
	if d := get(n, "discriminator"); d != nil {
		return c.alternatives(n, d)
	}
	out := mapping()
	for key, value := range pairs(n) {
		var err error
		value = clone(value)
		switch {
		case strings.HasPrefix(key, "x-"), key == "nullable", key == "readOnly", key == "example":
			continue
		case key == "properties":
			value, err = c.convertEach(value)
		case key == "items", key == "additionalProperties" && value.Kind == yaml.MappingNode:
			value, err = c.convert(value)
		case key == "anyOf", key == "oneOf", key == "allOf":
			value, err = c.convertEach(value)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		set(out, key, value)
	}
	if valueOf(get(n, "nullable")) == "true" {
		makeNullable(out)
	}
	return out, nil
}

// convertEach converts the values of a mapping, or the elements of a sequence.
func (c *schemaConverter) convertEach(n *yaml.Node) (*yaml.Node, error) {
	out := &yaml.Node{Kind: n.Kind}
	for i, value := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			out.Content = append(out.Content, value)
			continue
		}
		converted, err := c.convert(value)
		if err != nil {
			return nil, err
		}
		out.Content = append(out.Content, converted)
	}
	return out, nil
}

// reference adds a schema to the definitions, and returns a reference to it.
func (c *schemaConverter) reference(to string) (*yaml.Node, error) {
	name, isSchema := strings.CutPrefix(to, schemasPrefix)
	schema := get(c.schemas, name)
	if !isSchema || schema == nil {
		return nil, fmt.Errorf("there is no schema %q", to)
	}
	if !c.begun[name] {
		c.begun[name] = true
		converted, err := c.convert(schema)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		set(c.definitions, name, converted)
	}
	return mapping("$ref", "#/definitions/"+name), nil
}

// alternatives converts a union. An editor says which field of the chosen alternative is
// wrong if the choice is a condition, and only that no alternative matches if it is oneOf.
func (c *schemaConverter) alternatives(n, discriminator *yaml.Node) (*yaml.Node, error) {
	property := valueOf(get(discriminator, "propertyName"))
	conditions := &yaml.Node{Kind: yaml.SequenceNode}
	var values []string
	for value, to := range pairs(get(discriminator, "mapping")) {
		alternative, err := c.reference(to.Value)
		if err != nil {
			return nil, err
		}
		chosen := mapping("properties", mapping(property, mapping("const", value)), "required", []string{property})
		conditions.Content = append(conditions.Content, mapping("if", chosen, "then", alternative))
		values = append(values, value)
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("the discriminator has no mapping")
	}
	out := mapping("type", "object", "required", []string{property}, "properties", mapping(property, mapping("enum", values)), "allOf", conditions)
	if description := get(n, "description"); description != nil {
		set(out, "description", description)
	}
	return out, nil
}

// makeNullable makes null a value of a schema.
func makeNullable(n *yaml.Node) {
	null := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	if t := get(n, "type"); t != nil {
		only := *t
		*t = yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{&only, scalar("null")}}
	}
	if values := get(n, "enum"); values != nil && !slices.ContainsFunc(values.Content, func(v *yaml.Node) bool { return v.Tag == "!!null" }) {
		extended := *values
		extended.Content = append(slices.Clone(values.Content), null)
		*values = extended
	}
}

// writeJSON writes a node in the order of its fields.
func writeJSON(b *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode, yaml.SequenceNode:
		brackets := "{}"
		if n.Kind == yaml.SequenceNode {
			brackets = "[]"
		}
		b.WriteByte(brackets[0])
		for i, child := range n.Content {
			if i > 0 {
				b.WriteByte(separator(n.Kind, i))
			}
			if err := writeJSON(b, child); err != nil {
				return err
			}
		}
		b.WriteByte(brackets[1])
		return nil
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return err
	}
	text := &bytes.Buffer{}
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	b.Write(bytes.TrimSpace(text.Bytes()))
	return nil
}

// separator returns what precedes element i of a mapping, whose keys and values alternate,
// or of a sequence.
func separator(kind yaml.Kind, i int) byte {
	if kind == yaml.MappingNode && i%2 == 1 {
		return ':'
	}
	return ','
}
