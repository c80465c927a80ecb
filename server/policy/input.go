package policy

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Limits of an input. Policies are checked for the sizes that their values can reach
// with inputs of this order (see weight.go).
const (
	MaxInputBytes = 64 << 10
	maxTextBytes  = 4 << 10 // of each text
	maxElements   = 1000    // of each list or object
)

// An Input describes the request to decide about (policy-evaluation.md §3).
type Input struct {
	term       *ast.Term // for the rules of policies
	normalized *ast.Term // for the decision contract: see contract.rego
}

// fields are the fields of an input object, with their kinds: "text", "texts",
// "integer", "boolean", "object" (with any fields), "any", or fields.
type fields map[string]any

var inputFields = fields{
	"schema_version": "text",
	"principal": fields{
		"type": "text", "id": "text", "zone_id": "text", "registration_method": "text",
		"agent_session_id": "text", "lifecycle": "text", "labels": "texts",
	},
	"resource": fields{"type": "text", "id": "text", "identifier": "text", "scopes": "texts"},
	"action":   fields{"id": "text", "method": "text", "path": "text"},
	"session":  fields{"id": "text"},
	"delegation_edge": fields{
		"id": "text", "source_session_id": "text", "target_session_id": "text", "issuer_application_id": "text",
		"receiver_application_id": "text", "resource_id": "text", "scopes": "texts", "edge_version": "integer", "path": "texts",
		"graph_epoch": "integer", "constraints_json": "any",
	},
	"context": fields{
		"actor_claims": "object", "subject_claims": "object", "trace_id": "text", "session_id": "text", "agent_session_id": "text",
		"delegation_edge_id": "text", "challenge_resolved": "boolean", "requested_scopes": "texts",
	},
}

// An InputError is the error of an input that does not have the schema.
type InputError struct {
	Path    string // of the field, such as principal.labels; "" for the input
	Message string // reads after the path
}

func (e *InputError) Error() string {
	if e.Path == "" {
		return "the input " + e.Message
	}
	return e.Path + " " + e.Message
}

// ParseInput reads an input in JSON. It drops unknown fields and null, and sets the
// schema version and the requested scopes if there are none. It replaces the zone of
// the principal, so that an input cannot describe a principal of another zone. It
// returns an [*InputError] if the input exceeds a limit, is labeled with another schema
// version, or has a field of another type.
func ParseInput(raw []byte, zone string) (Input, error) {
	if len(raw) > MaxInputBytes {
		return Input{}, &InputError{Message: fmt.Sprintf("must be at most %d bytes", MaxInputBytes)}
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return Input{}, &InputError{Message: "must be valid JSON"}
	}
	if _, err := decoder.Token(); err != io.EOF { // there is more than one value
		return Input{}, &InputError{Message: "must be valid JSON"}
	}
	object, ok := value.(map[string]any)
	if !ok {
		return Input{}, &InputError{Message: "must be an object"}
	}
	known, err := inputFields.filter("", object)
	if err != nil {
		return Input{}, err
	}
	request, _ := known["context"].(map[string]any)
	if request == nil {
		request = map[string]any{}
		known["context"] = request
	}
	if request["requested_scopes"] == nil {
		request["requested_scopes"] = []any{}
	}
	if principal, ok := known["principal"].(map[string]any); ok {
		principal["zone_id"] = zone
	}
	if v, _ := known["schema_version"].(string); v == "" {
		known["schema_version"] = InputSchemaVersion
	} else if v != InputSchemaVersion {
		return Input{}, &InputError{Path: "schema_version", Message: "must be " + InputSchemaVersion}
	}
	term, err := ast.InterfaceToValue(known)
	if err != nil {
		return Input{}, &InputError{Message: "must be valid JSON"}
	}
	for _, path := range setPaths {
		known = withSet(known, path)
	}
	normalized, err := ast.InterfaceToValue(known)
	return Input{term: ast.NewTerm(term), normalized: ast.NewTerm(normalized)}, err
}

// setPaths are the lists whose order has no meaning.
var setPaths = [][]string{
	{"principal", "labels"}, {"delegation_edge", "scopes"}, {"context", "requested_scopes"}, {"context", "subject_claims", "target"},
}

// withSet returns a copy of an object in which the list at a path is a set.
func withSet(object map[string]any, path []string) map[string]any {
	object = maps.Clone(object)
	switch value := object[path[0]].(type) {
	case map[string]any:
		if len(path) > 1 {
			object[path[0]] = withSet(value, path[1:])
		}
	case []any:
		if len(path) == 1 {
			set := ast.NewSet()
			for _, element := range value {
				if s, ok := element.(string); ok {
					set.Add(ast.StringTerm(s))
				}
			}
			object[path[0]] = set
		}
	}
	return object
}

// filter returns the known fields of an object.
func (f fields) filter(path string, object map[string]any) (map[string]any, error) {
	known := make(map[string]any, len(object))
	for _, name := range sortedKeys(object) {
		kind, ok := f[name]
		value := object[name]
		if !ok || value == nil {
			continue
		}
		field := name
		if path != "" {
			field = path + "." + name
		}
		if nested, ok := kind.(fields); ok {
			child, ok := value.(map[string]any)
			if !ok {
				return nil, &InputError{Path: field, Message: "must be an object"}
			}
			filtered, err := nested.filter(field, child)
			if err != nil {
				return nil, err
			}
			known[name] = filtered
			continue
		}
		if must := mismatch(kind.(string), value); must != "" {
			return nil, &InputError{Path: field, Message: must}
		}
		known[name] = value
	}
	return known, nil
}

// mismatch returns what a value of a kind must be, or "" if it is.
func mismatch(kind string, value any) string {
	switch kind {
	case "text":
		if _, ok := value.(string); !ok {
			return "must be a string"
		}
	case "texts":
		list, ok := value.([]any)
		if !ok || slices.ContainsFunc(list, func(v any) bool { _, ok := v.(string); return !ok }) {
			return "must be a list of strings"
		}
	case "integer":
		n, ok := value.(json.Number)
		if _, err := n.Int64(); !ok || err != nil {
			return "must be an integer"
		}
	case "boolean":
		if _, ok := value.(bool); !ok {
			return "must be true or false"
		}
	case "object":
		if _, ok := value.(map[string]any); !ok {
			return "must be an object"
		}
	}
	return exceeded(value)
}

// exceeded returns which limit a value exceeds, or "" if none.
func exceeded(value any) string {
	tooMany := fmt.Sprintf("must not contain more than %d elements", maxElements)
	switch value := value.(type) {
	case json.Number:
		if !validNumber(string(value)) {
			return "must not contain a number with more than 40 digits or an exponent beyond 308"
		}
	case string:
		if len(value) > maxTextBytes {
			return fmt.Sprintf("must not contain a string of more than %d bytes", maxTextBytes)
		}
	case []any:
		if len(value) > maxElements {
			return tooMany
		}
		for _, element := range value {
			if message := exceeded(element); message != "" {
				return message
			}
		}
	case map[string]any:
		if len(value) > maxElements {
			return tooMany
		}
		for name, element := range value {
			if message := cmp.Or(exceeded(name), exceeded(element)); message != "" {
				return message
			}
		}
	}
	return ""
}
