package main

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// accessRules are the valid values of x-access, and the tokens that they require.
var accessRules = map[string]string{
	"public":       "",
	"read":         "a token with read permission",
	"write":        "a token with write permission",
	"approve":      "a token with approval permission",
	"global read":  "a global token with read permission",
	"global write": "a global token with write permission",
}

// changes reports whether an operation with an access rule can change something.
func changes(access []string) bool {
	return slices.Contains(access, "write") || slices.Contains(access, "approve")
}

// describeAccess appends the token that an operation requires to its description,
// as declared in x-access. The description of a public operation with a security
// scheme must explain that scheme itself. It returns an error if x-access is not a
// valid rule, or if a public operation does not declare its security, because it
// would inherit the admin token.
func describeAccess(path string, op *yaml.Node) error {
	access := list(get(op, "x-access"))
	rule := strings.Join(access, " ")
	token, known := accessRules[rule]
	if !known {
		return fmt.Errorf("invalid x-access %q", access)
	}
	if slices.Contains(access, "public") {
		switch security := get(op, "security"); {
		case security == nil:
			return fmt.Errorf("security is required, because x-access is public")
		case len(security.Content) == 0:
			appendDescription(op, "Requires no token.")
		}
		return nil
	}
	if !slices.Contains(access, "global") && strings.Contains(path, "{zoneId}") {
		token += " for the zone"
	}
	appendDescription(op, "Requires "+token+".")
	return nil
}

// appendDescription adds a paragraph to the description of an operation.
func appendDescription(op *yaml.Node, paragraph string) {
	description := get(op, "description")
	description.SetString(strings.TrimSpace(description.Value) + "\n\n" + paragraph)
}
