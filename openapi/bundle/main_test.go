package main

import (
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestResolveRejectsUnquotedComma(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{`{description: "Required in a new key, and to change it.", nullable: true}`, ""},
		{`{description: Required in a new key, and to change it., nullable: true}`,
			`line 1: "and to change it." is a field without a value: quote text that contains a comma`},
		{`{example: {expires_at: null}}`, ""},
	} {
		var root yaml.Node
		if err := yaml.Unmarshal([]byte(tt.text), &root); err != nil {
			t.Fatal(err)
		}
		if err := resolve(&root); (err == nil) != (tt.want == "") || err != nil && err.Error() != tt.want {
			t.Errorf("%s: error %v, want %q", tt.text, err, tt.want)
		}
	}
}
