package main

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// response is a spec with one operation, which returns the schema Item.
func response(schemas string) string {
	return `
paths:
  /items:
    get:
      responses:
        "200": {content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/Item"}}}}}
        "204": {description: No content.}
        "400": {x-problem: true, content: {application/json: {schema: {$ref: "#/components/schemas/Problem"}}}}
        "404": {content: {text/plain: {schema: {type: string}}}}
components:
  schemas:
` + schemas
}

// encodersOf returns the encoders of the types in a Go file, as the spec wants
// them.
func encodersOf(t *testing.T, spec, types string) (*encoders, error) {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(spec), &document); err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "api.gen.go", "package api\n"+types, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	e := newEncoders(document.Content[0], file)
	err = e.addResponses()
	return e, err
}

// TestEncodersOfEveryKindOfType compiles the encoders of types of every supported
// kind and compares what they write.
func TestEncodersOfEveryKindOfType(t *testing.T) {
	t.Parallel()
	spec := response(`
    Item:
      allOf:
        - properties:
            note: {type: string}
            tags: {type: array, items: {type: string}}
        - {$ref: "#/components/schemas/Rest"}
    Rest:
      properties:
        labels: {$ref: "#/components/schemas/Labels"}
        raw: {type: object, x-go-type: json.RawMessage}
        kind: {$ref: "#/components/schemas/Kind"}
        size: {type: integer, format: int32, nullable: true}
        grid: {type: array, items: {type: array, items: {type: integer}}}
        at: {type: string, format: date-time}
        parent: {$ref: "#/components/schemas/Item"}
        members: {type: object, additionalProperties: {$ref: "#/components/schemas/Member"}}
        list: {type: array, items: {$ref: "#/components/schemas/Member"}}
        options: {$ref: "#/components/schemas/Options"}
    Options: {properties: {b: {type: string}, a: {type: string}}}
    Labels: {type: object, additionalProperties: {type: string}}
    Kind: {type: string, enum: [a, b]}
    Member: {properties: {name: {type: string}, admin: {type: boolean}, nick: {type: string}}}
`)
	types := `
type Item struct {
	At      *timestamp.Time    ` + "`json:\"at,omitempty\"`" + `
	Grid    [][]int            ` + "`json:\"grid\"`" + `
	Kind    *Kind              ` + "`json:\"kind,omitempty\"`" + `
	Labels  *Labels            ` + "`json:\"labels,omitempty\"`" + `
	List    []Member           ` + "`json:\"list,omitempty\"`" + `
	Members *map[string]Member ` + "`json:\"members,omitempty\"`" + `
	Note    *string            ` + "`json:\"note,omitempty\"`" + `
	Options *Options           ` + "`json:\"options,omitempty\"`" + `
	Parent  *Item              ` + "`json:\"parent,omitempty\"`" + `
	Raw     json.RawMessage    ` + "`json:\"raw,omitempty\"`" + `
	Size    *int32             ` + "`json:\"size\"`" + `
	Tags    Tags               ` + "`json:\"tags,omitempty\"`" + `
}
type Kind string
type Labels map[string]string
type Tags = []string
type Member struct {
	Admin bool   ` + "`json:\"admin\"`" + `
	Name  string ` + "`json:\"name\"`" + `
	Nick  string ` + "`json:\"nick,omitempty\"`" + `
}
type Problem struct { Error string }
type Options struct {
	A *string ` + "`json:\"a,omitempty\"`" + `
	B *string ` + "`json:\"b,omitempty\"`" + `
}
`
	e, err := encodersOf(t, spec, types)
	if err != nil {
		t.Fatal(err)
	}
	if _, found := e.bodies["Problem"]; found {
		t.Error("an error response has an encoder")
	}
	program := `package main

import (
	"encoding/json"
	"fmt"
	"time"

	"caracal.run/management/server/timestamp"
)
` + types + `
func main() {
	at := timestamp.Time(time.UnixMilli(1))
	full := Item{
		Note: new("n"), Tags: Tags{"x", "y"}, Labels: &Labels{"b": "2", "a": "1"}, Raw: json.RawMessage("[1]"), Kind: new(Kind("a")),
		Size: new(int32(-7)), Grid: [][]int{{1, 2}, {}, {3}}, At: &at, Parent: &Item{Grid: [][]int{}, Tags: Tags{"z"}},
		Members: &map[string]Member{"m": {Name: "M", Admin: true}}, List: []Member{{Name: "L"}, {Name: "<", Nick: "N"}},
	}
	fmt.Printf("%s\n%s\n", Item{}.AppendJSON(nil), full.AppendJSON([]byte("[")))
	for _, v := range []Options{{}, {A: new("x")}, {B: new("x")}, {A: new("x"), B: new("x")}} {
		fmt.Printf("%s\n", v.AppendJSON(nil))
	}
}
`
	got := runProgram(t, map[string]string{"encode.gen.go": strings.Replace(string(e.source()), "package api", "package main", 1), "main.go": program})
	want := `{"size":null,"grid":[]}
[{"note":"n","tags":["x","y"],"labels":{"a":"1","b":"2"},"raw":[1],"kind":"a","size":-7,"grid":[[1,2],[],[3]],"at":"1970-01-01T00:00:00.001Z",` +
		`"parent":{"tags":["z"],"size":null,"grid":[]},"members":{"m":{"name":"M","admin":true}},"list":[{"name":"L","admin":false},{"name":"<","admin":false,"nick":"N"}]}
{}
{"a":"x"}
{"b":"x"}
{"b":"x","a":"x"}
`
	if got != want {
		t.Errorf("wrote\n%s\nwant\n%s", got, want)
	}
}

// runProgram runs a program in this module that is not on disk, and returns what
// it prints.
func runProgram(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, "generated", name)] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "run", "-overlay", file, "./generated").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func TestEncodersRefuseWhatTheyCannotWrite(t *testing.T) {
	t.Parallel()
	const item = "    Item: {properties: {a: {type: string}}}"
	for _, tt := range []struct{ name, spec, types, want string }{
		{"missing type", response(item), "", "Item: no such type"},
		{"not a struct", response(item), "type Item []string", "Item: must be a struct"},
		{"field that the spec does not have", response(item), "type Item struct { A, B string }", `unsupported field with JSON tag ""`},
		{"more fields than the spec", response(item), "type Item struct { A string `json:\"a\"`\nB string `json:\"b\"` }", "has 2 fields and its schema 1"},
		{"other field than the spec", response(item), "type Item struct { B string `json:\"b\"` }", `unsupported field "a"`},
		{"additional properties", response(item), "type Item struct { A string `json:\"a\"`\nMore map[string]any `json:\"-\"` }", `unsupported field with JSON tag "-"`},
		{"other option", response(item), "type Item struct { A string `json:\"a,omitzero\"` }", `unsupported field with JSON tag "a,omitzero"`},
		{"embedded type", response(item), "type Item struct { A `json:\"a\"` }", "unsupported field with JSON tag"},
		{"float", response(item), "type Item struct { A float64 `json:\"a\"` }", "Item.a: unsupported type float64"},
		{"any", response(item), "type Item struct { A []any `json:\"a\"` }", "Item.a: unsupported type any"},
		{"map of other keys", response(item), "type Item struct { A map[int]string `json:\"a\"` }", "Item.a: unsupported type map[int]string"},
		{"array of fixed length", response(item), "type Item struct { A [2]string `json:\"a\"` }", "Item.a: unsupported type [2]string"},
		{"foreign type", response(item), "type Item struct { A nullable.Nullable[string] `json:\"a\"` }", "Item.a: unsupported type nullable.Nullable[string]"},
		{"omitted if empty", response(item), "type Item struct { A int `json:\"a,omitempty\"` }", "Item.a: unsupported optional type int"},
		{"field name to be escaped", response("    Item: {properties: {'<': {type: string}}}"), "type Item struct { A string `json:\"<\"` }", `unsupported field "<"`},
		{"schema without a name", strings.Replace(response(item), `{$ref: "#/components/schemas/Item"}`, "{type: string}", 1), "", "the schema of response 200 must be a reference"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := encodersOf(t, tt.spec, tt.types)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "get /items: ") {
				t.Errorf("returned %v, want get /items: … %s", err, tt.want)
			}
		})
	}
}

// Free-form objects are written by encoding/json.
func TestFreeFormObjectsHaveNoEncoder(t *testing.T) {
	t.Parallel()
	e, err := encodersOf(t, response("    Item: {type: object, additionalProperties: true}"), "type Item map[string]any")
	if err != nil || len(e.bodies) > 0 {
		t.Errorf("returned %v and %d encoders, want none", err, len(e.bodies))
	}
}
