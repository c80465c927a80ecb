package main

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// nameRule describes what a name must satisfy and how it is normalized.
const nameRule = "Leading and trailing whitespace is removed, and the rest is normalized to Unicode NFC. A name must contain " +
	"a visible character, and no control characters, line separators or bidirectional controls."

// describeNames appends the rule for names to the description of each schema that
// has x-name.
func describeNames(n *yaml.Node) {
	if valueOf(get(n, "x-name")) == "true" {
		description := child(n, "description")
		description.SetString(strings.TrimSpace(valueOf(description) + " " + nameRule))
	}
	for _, c := range n.Content {
		describeNames(c)
	}
}
