package main

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func parse(t *testing.T, text string) *yaml.Node {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	return root.Content[0]
}

func TestNamesThatDifferOnlyInCaseAreRejected(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ components, want string }{
		{`{schemas: {AdminToken: {}}, securitySchemes: {adminBearer: {}}, examples: {AdminToken: {}}}`, ""},
		{`{schemas: {AdminToken: {}}, securitySchemes: {adminToken: {}}}`, "schemas/AdminToken and securitySchemes/adminToken"},
		{`{schemas: {ID: {}}, parameters: {id: {}}}`, "schemas/ID and parameters/id"},
		{`{schemas: {Zone: {}, ZONE: {}}}`, "schemas/Zone and schemas/ZONE"},
	} {
		err := checkNames(parse(t, "components: "+tt.components))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.components, err, tt.want)
		}
	}
}

const unionSpec = `components:
  schemas:
    Config: {type: object, x-union: {none: NoConfig, key: KeyConfig, token: TokenConfig}}
    NoConfig: {type: object}
    KeyConfig:
      type: object
      required: [key]
      properties:
        key: {type: string, writeOnly: true, description: The key.}
        header: {$ref: "#/components/schemas/Header"}
        method: {type: string, enum: [basic, none], description: The method., example: basic}
    TokenConfig:
      type: object
      properties:
        header: {$ref: "#/components/schemas/Header"}
        method: {enum: [basic, jwt], type: string, description: "How to authenticate.", example: jwt}
    Header: {type: string, description: The header.}
`

func TestUnionHasTheFieldsOfItsAlternatives(t *testing.T) {
	t.Parallel()
	spec := parse(t, unionSpec)
	before := rules(get(get(get(spec, "components"), "schemas"), "KeyConfig"))
	if err := expandUnions(spec); err != nil {
		t.Fatal(err)
	}
	schemas := get(get(spec, "components"), "schemas")
	const want = `type: object
x-union: {none: NoConfig, key: KeyConfig, token: TokenConfig}
properties:
    key: {type: string, writeOnly: true, description: The key. Only for ` + "`key`" + `.}
    header: {type: string, description: The header. Only for ` + "`key` and `token`" + `.}
    method: {type: string, enum: [basic, none, jwt], description: The method. How to authenticate. Only for ` + "`key` and `token`" + `., example: basic}
`
	config := get(schemas, "Config")
	config.Style = 0
	got, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("the union is\n%s\nwant\n%s", got, want)
	}
	if after := rules(get(schemas, "KeyConfig")); after != before {
		t.Errorf("the alternative became\n%s", after)
	}
}

func TestUnionOfWhatDiffersIsRejected(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ old, replacement, want string }{
		"an unknown schema":           {"key: KeyConfig", "key: KeyConfigs", `Config: x-union: there is no schema "KeyConfigs"`},
		"different rules":             {"{enum: [basic, jwt], type: string", "{type: integer", "Config: method: two alternatives declare it differently"},
		"a field with no description": {"writeOnly: true, description: The key.", "writeOnly: true", "Config: key: description is required"},
	} {
		err := expandUnions(parse(t, strings.Replace(unionSpec, tt.old, tt.replacement, 1)))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}
