package main

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// addIdempotencyKey adds the header Idempotency-Key to a POST or PATCH operation, and
// Idempotency-Replayed to its success response. If the operation has x-no-idempotency-key,
// it appends to the description that it takes no key, and why. It returns an error if
// another operation has this field.
func addIdempotencyKey(method string, op *yaml.Node) error {
	const extension = "x-no-idempotency-key"
	reason := get(op, extension)
	switch {
	case !slices.Contains([]string{"post", "patch"}, method):
		if reason != nil {
			return fmt.Errorf("%s must be set only on POST and PATCH operations", extension)
		}
		return nil
	case reason != nil && reason.Value == "":
		return fmt.Errorf("%s must give a reason", extension)
	case reason != nil:
		appendDescription(op, "Takes no `Idempotency-Key`: "+reason.Value+".")
		return nil
	}
	parameters := get(op, "parameters")
	if parameters == nil {
		parameters = &yaml.Node{Kind: yaml.SequenceNode}
		set(op, "parameters", parameters)
	}
	parameters.Content = append(parameters.Content, ref("#/components/parameters/idempotencyKey"))
	for status, response := range pairs(get(op, "responses")) {
		if status < "300" {
			set(child(response, "headers"), "Idempotency-Replayed", ref("#/components/headers/IdempotencyReplayed"))
			return nil
		}
	}
	return errors.New("a success response is required")
}
