package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// requestsSource returns the part of the spec that the service checks requests with, as
// JSON: paths, parameters, bodies, extensions, and the schemas that these refer to. What is
// only for readers is left out, as are failures and the schemas of responses, so that a
// process loads in some tens of milliseconds what would take a second.
func requestsSource(spec *yaml.Node) ([]byte, error) {
	paths := withoutTexts(get(spec, "paths"), true)
	for path, item := range pairs(paths) {
		for method, op := range pairs(item) {
			if remove(op, "responses"); method != "parameters" {
				set(op, "responses", successes(spec, get(get(get(get(spec, "paths"), path), method), "responses")))
			}
		}
	}
	components := mapping("securitySchemes", withoutTexts(get(get(spec, "components"), "securitySchemes"), true))
	addReferenced(spec, paths, components)
	document := mapping("openapi", get(spec, "openapi"), "info", mapping("title", valueOf(get(get(spec, "info"), "title")), "version", valueOf(get(get(spec, "info"), "version"))), "paths", paths, "components", components)
	if security := get(spec, "security"); security != nil {
		set(document, "security", security)
	}
	var value any
	if err := document.Decode(&value); err != nil {
		return nil, err
	}
	text := &bytes.Buffer{}
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ") // for differences between two versions
	err := encoder.Encode(value)
	return text.Bytes(), err
}

// successes returns the statuses and media types of the responses of requests that succeed.
func successes(spec, responses *yaml.Node) *yaml.Node {
	all := mapping()
	for status, response := range pairs(responses) {
		if n, err := strconv.Atoi(status); err != nil || n >= 300 {
			continue
		}
		response = deref(spec, response)
		types := mapping()
		for name := range pairs(get(response, "content")) {
			set(types, name, mapping())
		}
		set(all, status, mapping("description", get(response, "description"), "content", types))
	}
	return all
}

// withoutTexts returns a copy without descriptions, except of responses, and examples. The keys are names, such as
// those of properties, or words of OpenAPI.
func withoutTexts(n *yaml.Node, names bool) *yaml.Node {
	c := *n
	c.Content = nil
	if n.Kind != yaml.MappingNode {
		for _, element := range n.Content {
			c.Content = append(c.Content, withoutTexts(element, false))
		}
		return &c
	}
	for key, value := range pairs(n) {
		switch {
		case names:
			set(&c, key, withoutTexts(value, false))
		case slices.Contains([]string{"description", "summary", "example", "examples", "tags"}, key):
		case slices.Contains([]string{"default", "enum"}, key) || strings.HasPrefix(key, "x-"): // values
			set(&c, key, value)
		default:
			set(&c, key, withoutTexts(value, slices.Contains([]string{"properties", "patternProperties", "content", "responses", "mapping"}, key)))
		}
	}
	return &c
}

// addReferenced adds the components that a node refers to, and those that these refer to.
func addReferenced(spec, from, components *yaml.Node) {
	if from.Kind == yaml.ScalarNode {
		path, local := strings.CutPrefix(from.Value, "#/components/")
		kind, name, named := strings.Cut(path, "/")
		if !local || !named || get(get(components, kind), name) != nil {
			return
		}
		component := withoutTexts(get(get(get(spec, "components"), kind), name), false)
		set(child(components, kind), name, component)
		addReferenced(spec, component, components)
	}
	for _, n := range from.Content {
		addReferenced(spec, n, components)
	}
}
