package yamltext

import (
	"strings"
	"testing"
)

// A syntax error is where a person has to look: not at the block around it, and not where the
// parser ended.
func TestSyntaxErrorsOfYAML(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("  - kind: application\n    spec:\n      name: Billing\n", 20_000)
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "# nothing\n", "must not be empty"},
		{"two documents", "a: 1\n---\nb: 2\n", "2:1: must be a single YAML document"},
		{"an invalid second document", "a: 1\n---\nb: 2: 3\n", "3:4: must be YAML: mapping values are not allowed in this context"},
		{"an item too far to the left", "objects:\n  - kind: a\n    spec:\n      name: x\n   foo: bar\n  - kind: b\n", "5:4: must be YAML: did not find expected '-' indicator"},
		{"a field too far to the left", "objects:\n  - kind: a\n    spec:\n      name: x\n     foo: bar\n  - kind: b\n", "5:6: must be YAML: did not find expected key"},
		{"a first line too far to the right", "  a: 1\n  b: 2\nc: 1\n", "3:1: must be YAML: did not find expected <document start>"},
		{"a text too far to the left", "a: |\n  x\n y\nb: 1\n", "3:2: must be YAML: did not find expected key"},
		{"an item among fields", "a: 1\n- b\n", "2:1: must be YAML: did not find expected key"},
		{"a tab", "a:\n  b: 1\n\tc: 2\nd: 1\n", "3:1: must be YAML: found a tab character that violates indentation"},
		{"a text that continues", "a: 1\nb: \"x\" foo\n  bar\n\n# c\nc: 1\n", "2:8: must be YAML: did not find expected key"},
		{"characters of several bytes", "é: é\né: \"é\" é\n", "2:8: must be YAML: did not find expected key"},
		{"no colon", "\"a\": 1\r\n\"b\" 2\r\nc: 1\r\n", "2:1: must be YAML: could not find expected ':'"},
		{"an open quote", "a: 1\nb: \"x\nc: y\n", "2:4: must be YAML: found unexpected end of stream"},
		{"an open quote before another", "a: 1\nb: \"x\nc: \"y\"\n", "2:4: must be YAML: did not find expected key"},
		{"an open bracket", "a:\n  b: [x,\n  c: d\ne: f\n", "2:6: must be YAML: did not find expected ',' or ']'"},
		{"a closed bracket before", "a: [\n  b]\n}\n", "3:1: must be YAML: did not find expected key"},
		{"an unknown anchor", "a: 1\nb: *hunter2\n", "2:4: must be YAML: unknown anchor"},
		{"a reserved character", "a: 1\nb: @x\n", "2:4: must be YAML: found character that cannot start any token"},
		{"a large document", "objects:\n" + large + "   foo: bar\n" + large, "60002:4: must be YAML: did not find expected '-' indicator"},
		{"an open quote in a large document", "objects:\n" + large + "  - \"foo: bar\n" + large, "60002:3: must be YAML: found unexpected end of stream"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse([]byte(tt.text)); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{" \n", "must not be empty"},
		{"{\n  \"a\": 1,\n}", "3:1: must be JSON: invalid character '}' looking for beginning of object key string"},
		{"{\"é\": [1,]}", "1:10: must be JSON: invalid character ']' looking for beginning of value"},
		{"{\"a\":\n [1\n\n", "2:3: must be JSON: unexpected end of JSON input"},
		{"{} {}", "1:4: must be JSON: invalid character '{' after top-level value"},
		{"{\"a\": [{\"b\": 1, \"c\": {\"b\": 2},\n   \"\\u0062\": {}}]}", "2:4: a.0.b: must not be given twice"},
		{"[{\"a\": \"a\"}, {\"a\": null, \"b\": {\"a\": []}}]", ""},
	} {
		err := CheckJSON([]byte(tt.text))
		if got := message(err); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestFieldTwice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{"a:\n- {b: 1, c: {b: 2}}\n- d: 1\n  \"d\": 2\n", "4:3: a.1.d: must not be given twice"},
		{"a: a\nb: {a: a}\n", ""},
	} {
		document, err := Parse([]byte(tt.text))
		if err == nil {
			err = FieldTwice(document.Content[0])
		}
		if got := message(err); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
