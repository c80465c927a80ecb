package middleware

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/yamltext"
)

func TestDecodeYAML(t *testing.T) {
	t.Parallel()
	text := `
# A zone.
prune: true
objects:
  - kind: policy
    spec:
      name: "yes"   # text, because it is quoted
      content: |
        package p
        allow := true
      since: 2026-01-02
      share: 0.5
      count: 0x10
      nothing: ~
  - {kind: resource, spec: {scopes: [read, 'a"b'], big: 9223372036854775808}}
`
	got, source, err := decodeYAML([]byte(text))
	want := map[string]any{"prune": true, "objects": []any{
		map[string]any{"kind": "policy", "spec": map[string]any{
			"name": "yes", "content": "package p\nallow := true\n", "since": "2026-01-02", "share": json.Number("0.5"), "count": json.Number("16"), "nothing": nil,
		}},
		map[string]any{"kind": "resource", "spec": map[string]any{"scopes": []any{"read", `a"b`}, "big": json.Number("9223372036854775808")}},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, %v", got, err)
	}
	for path, want := range map[string][2]int{"": {3, 1}, "objects": {4, 1}, "objects 0": {5, 5}, "objects 0 spec name": {7, 7}, "objects 1 spec scopes 1": {15, 44}} {
		line, column := yamltext.Position(source.root, strings.Fields(path))
		if got := [2]int{line, column}; got != want {
			t.Errorf("%q is at %v, want %v", path, got, want)
		}
	}
	located := source.locate(code.InvalidBody.At("is required", "objects", "0", "spec", "owner", "id"))
	if issue := located.(*code.Error).Issues[0]; issue.Line != 6 || issue.Column != 5 {
		t.Errorf("a missing field is at %d:%d", issue.Line, issue.Column)
	}
}

func TestDecodeYAMLFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"", " 0:0 must not be empty"},
		{"# nothing\n", " 0:0 must not be empty"},
		{"a: [", " 1:4 must be YAML: did not find expected node content"},
		{"a: 1\n---\nb: 2\n", " 2:1 must be a single YAML document"},
		{"a: &x 1\nb: *x\n", "a 1:4 must not have an anchor or alias"},
		{"a: *secret\n", " 1:4 must be YAML: unknown anchor"},
		{"a:\n  <<: {b: 1}\n", "a 2:3 must have names of fields that are text"},
		{"a:\n  1: b\n", "a 2:3 must have names of fields that are text"},
		{"a: 1\nb: 2\na: 3\n", "a 3:1 must not be given twice"},
		{"a:\n- .nan\n", "a 0 2:3 must be text, a number, true, false or null"},
		{"a: !!binary aGk=\n", "a 1:4 must be text, a number, true, false or null"},
		{"a: !secret x\n", "a 1:4 must be text, a number, true, false or null"},
		{"a: \"\xff\"\n", " 0:0 must be UTF-8"},
		{"a: [" + strings.Repeat("1,", 400_000) + "]", " 0:0 must not have so many values"},
		{strings.Repeat("[", 100) + strings.Repeat("]", 100), " 1:66 must not be nested deeper than 64 levels"},
	} {
		_, _, err := decodeYAML([]byte(tt.text))
		var codeErr *code.Error
		if !errors.As(err, &codeErr) || codeErr.Code != code.InvalidJSON {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		issue := codeErr.Issues[0]
		if got := fmt.Sprintf("%s %d:%d %s", strings.Join(issue.Path, " "), issue.Line, issue.Column, issue.Message); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

// FuzzDecodeYAML checks that what is decoded is what the same document in JSON has.
func FuzzDecodeYAML(f *testing.F) {
	for _, text := range []string{"a: 1", "- x\n- {b: [1, 2.5, ~, true]}", "a: |\n  b\n  c\n", "? a\n: b", "a: !!str 1", "--- >\n x", "%YAML 1.1\n---\na: 1", "a: &b c", "\"\\ud83d\""} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		value, _, err := decodeYAML(text)
		if err != nil {
			return
		}
		document, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := decode(document); err != nil || !reflect.DeepEqual(same, value) {
			t.Errorf("%q: %#v is %#v in JSON, %v", text, value, same, err)
		}
	})
}
