package main

import (
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A small API: one operation, whose parameters a test fills in.
const (
	testSpec = `
x-shared-problems:
  path: [invalid_params]
  query: [invalid_query]
  cursor: [invalid_cursor]
  if_match: [version_conflict]
x-outside-problems: [invalid_params, invalid_query, invalid_cursor, version_conflict]
paths:
  /v1/keys/{keyId}:
    parameters: ITEM
    get:
      operationId: getKey
      tags: [keys]
      summary: Retrieve a key
      description: Returns a key.
      x-access: [public]
      x-problems: []
      security: []
      parameters: OPERATION
      responses: {}
components:
  parameters:
    keyId: {name: keyId, in: path}
    other: {name: keyId, in: path}
    alias: {$ref: "#/components/parameters/keyId"}
    loop: {$ref: "#/components/parameters/loop"}
    id: {name: id, in: query}
    cursor: {name: cursor, in: query}
    cursorOfKeys: {name: cursor, in: query}
    limit: {name: limit, in: query}
    match: {name: If-Match, in: header}
    session: {name: session, in: cookie}
    nameless: {in: query}
    placeless: {name: keyId}
`
	testProblems = `
invalid_params: {status: 400, sentence: Invalid.}
invalid_query: {status: 400, sentence: Invalid.}
invalid_cursor: {status: 400, sentence: Invalid.}
version_conflict: {status: 412, sentence: Invalid.}
`
)

// testOperation returns the small API with these parameters, in YAML.
func testOperation(t *testing.T, item, operation string) (spec *yaml.Node, known problems) {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(strings.NewReplacer("ITEM", item, "OPERATION", operation).Replace(testSpec)), &root); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(testProblems), &known); err != nil {
		t.Fatal(err)
	}
	return root.Content[0], known
}

func component(name string) string { return `{$ref: "#/components/parameters/` + name + `"}` }

func TestParametersAreReadFromTheirDeclarations(t *testing.T) {
	for _, tt := range []struct {
		name, item, operation string
		want, codes           []string
	}{
		{"none", "[]", "[]", nil, nil},
		{"path parameter of any name", "[" + component("keyId") + "]", "[]", []string{"path keyId"}, []string{"invalid_params"}},
		{"component with another name than its parameter", "[" + component("other") + "]", "[]", []string{"path keyId"}, []string{"invalid_params"}},
		{"reference to a reference", "[" + component("alias") + "]", "[]", []string{"path keyId"}, []string{"invalid_params"}},
		{"inline path parameter", "[{name: keyId, in: path}]", "[]", []string{"path keyId"}, []string{"invalid_params"}},
		{"path parameter of the operation", "[]", "[{name: keyId, in: path}]", []string{"path keyId"}, []string{"invalid_params"}},
		{"query parameter called id", "[]", "[" + component("id") + "]", []string{"query id"}, []string{"invalid_query"}},
		{"inline query parameter", "[]", "[{name: filter, in: query}]", []string{"query filter"}, []string{"invalid_query"}},
		{"list", "[]", "[" + component("limit") + ", " + component("cursor") + "]", []string{"query limit", "query cursor"}, []string{"invalid_cursor", "invalid_query"}},
		{"cursor under another component name", "[]", "[" + component("cursorOfKeys") + "]", []string{"query cursor"}, []string{"invalid_cursor", "invalid_query"}},
		{"If-Match under another component name", "[]", "[" + component("match") + "]", []string{"header If-Match"}, []string{"version_conflict"}},
		{"other header", "[]", "[{name: Prefer, in: header}]", []string{"header Prefer"}, nil},
		{"cookie", "[]", "[" + component("session") + "]", []string{"cookie session"}, nil},
		{"override", "[" + component("keyId") + "]", "[{name: keyId, in: path}]", []string{"path keyId"}, []string{"invalid_params"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec, known := testOperation(t, tt.item, tt.operation)
			item := get(get(spec, "paths"), "/v1/keys/{keyId}")
			op := get(item, "get")
			if got := parameters(spec, item, op); !slices.Equal(got, tt.want) {
				t.Errorf("parameters: %q, want %q", got, tt.want)
			}
			if err := expand(spec, known, auditLog{}); err != nil {
				t.Fatal(err)
			}
			var codes []string
			for _, response := range pairs(get(op, "responses")) {
				for _, part := range get(get(get(get(response, "content"), "application/json"), "schema"), "allOf").Content {
					codes = append(codes, list(get(get(get(part, "properties"), "error"), "enum"))...)
				}
			}
			slices.Sort(codes)
			if !slices.Equal(codes, tt.codes) {
				t.Errorf("error codes: %q, want %q", codes, tt.codes)
			}
		})
	}
}

func TestParametersThatCannotBeReadAreAnError(t *testing.T) {
	for _, tt := range []struct{ name, item, want string }{
		{"unknown component", "[" + component("unknown") + "]", `invalid parameter "$ref #/components/parameters/unknown"`},
		{"reference to itself", "[" + component("loop") + "]", `invalid parameter "$ref #/components/parameters/loop"`},
		{"reference to another document", `[{$ref: "https://example.com/keys.yaml#/keyId"}]`, `invalid parameter "$ref https://example.com/keys.yaml#/keyId"`},
		{"no name", "[" + component("nameless") + "]", `invalid parameter "query "`},
		{"no location", "[" + component("placeless") + "]", `invalid parameter " keyId"`},
		{"unknown location", "[{name: keyId, in: body}]", `invalid parameter "body keyId"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			spec, known := testOperation(t, tt.item, "[]")
			if err := expand(spec, known, auditLog{}); err == nil || err.Error() != "get /v1/keys/{keyId}: "+tt.want {
				t.Errorf("error: %v, want %s", err, tt.want)
			}
		})
	}
}
