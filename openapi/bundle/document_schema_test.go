package main

import (
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// TestDocumentSchema checks documents against the generated schema: the examples of the
// spec, and documents with one mistake each.
func TestDocumentSchema(t *testing.T) {
	t.Parallel()
	const file = "../../gen/state.schema.json"
	compiler := jsonschema.NewCompiler()
	schema, err := compiler.Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Components struct {
			Examples map[string]struct{ Value any }
		}
	}
	text, err := os.ReadFile("../../gen/openapi.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for name, example := range spec.Components.Examples {
		if strings.HasPrefix(name, "StateOf") {
			examples++
			if err := schema.Validate(example.Value); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if examples < 2 {
		t.Errorf("%d examples", examples)
	}
	for _, tt := range []struct{ document, want string }{
		{`objects: [{kind: application, spec: {name: Billing, traits: [a]}}]`, ""},
		{`{}`, "missing property 'objects'"},
		{`{objects: [], other: 1}`, "additional properties 'other' not allowed"},
		{`objects: [{kind: aplication, spec: {name: Billing}}]`, "value must be one of"},
		{`objects: [{kind: application, spec: {nam: Billing}}]`, "missing property 'name'"},
		{`objects: [{kind: application, spec: {name: Billing, scopes: [a]}}]`, "additional properties 'scopes' not allowed"},
		{`objects: [{kind: resource, spec: {identifier: "https://a.example.com", scopes: a}}]`, "got string, want array"},
		{`objects: [{kind: identity-provider, spec: {identifier: "provider://a", kind: oauth}}]`, "value must be one of"},
	} {
		var document any
		if err := yaml.Unmarshal([]byte(tt.document), &document); err != nil {
			t.Fatal(err)
		}
		err := schema.Validate(document)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.document, err, tt.want)
		}
	}
}
