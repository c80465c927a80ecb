package main

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestProblemsAreChecked(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{`{full: {status: 429, sentence: "At most 1,000 items."}}`, ""},
		{`{full: {status: 429, sentence: At most 1,000 items.}}`, `full: unknown field "000 items."`},
		{`{full: {status: 200, sentence: Full.}}`, "full: status (400 or above) and sentence are required"},
		{`{full: {status: 429}}`, "full: status (400 or above) and sentence are required"},
	} {
		var known problems
		if err := yaml.Unmarshal([]byte(tt.text), &known); (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%s: error %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestProblemsShareExtraFieldsByAlias(t *testing.T) {
	t.Parallel()
	var known problems
	text := `{a: {status: 400, sentence: A., extra: &shared {detail: &text {type: string}}}, b: {status: 400, sentence: B., extra: *shared}, c: {status: 400, sentence: C., extra: {detail: *text}}}`
	if err := yaml.Unmarshal([]byte(text), &known); err != nil {
		t.Fatal(err)
	}
	if len(known) != 3 {
		t.Fatalf("got %+v, want a, b and c", known)
	}
	for _, p := range known {
		// Neither an alias nor an anchor, which another document would not have or have twice.
		if field := get(&p.Extra, "detail"); valueOf(get(field, "type")) != "string" || field.Anchor != "" {
			t.Errorf("%s: the field detail is %+v, want a string without an anchor", p.Code, field)
		}
	}
}
