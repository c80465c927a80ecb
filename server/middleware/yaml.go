package middleware

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"caracal.run/management/gen/code"
)

// yamlType is the media type of YAML (RFC 9512).
const yamlType = "application/yaml"

// positions are the lines and columns of the values of a YAML text, by their paths.
type positions map[string]position

type position struct{ line, column int } // from 1

// locate adds the lines and columns to the issues of an error. That of a field that is
// missing is that of the object.
func (p positions) locate(err error) error {
	var codeErr *code.Error
	if p == nil || !errors.As(err, &codeErr) {
		return err
	}
	for i := range codeErr.Issues {
		issue := &codeErr.Issues[i]
		for path := issue.Path; issue.Line == 0; path = path[:len(path)-1] {
			at := p[pathKey(path)]
			if issue.Line, issue.Column = at.line, at.column; len(path) == 0 {
				break
			}
		}
	}
	return err
}

func pathKey(path []string) string { return strings.Join(path, "\x00") }

// decodeYAML decodes exactly one YAML document to the values that the same document in JSON
// has, and returns where they are in the text.
func decodeYAML(text []byte) (any, positions, error) {
	switch {
	case !utf8.Valid(text):
		return nil, nil, code.InvalidJSON.At(notUTF8)
	case bytes.HasPrefix(text, []byte(byteOrderMark)):
		return nil, nil, code.InvalidJSON.At("must not start with a byte order mark (U+FEFF)")
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, next yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil, code.InvalidJSON.At("must not be empty")
	case err != nil:
		return nil, nil, code.InvalidJSON.At(yamlErrorMessage(err))
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		return nil, nil, code.InvalidJSON.At("must be a single YAML document")
	}
	c := yamlConverter{positions{}, code.Error{Code: code.InvalidJSON}}
	value := c.convert(document.Content[0], nil)
	if len(c.invalid.Issues) > 0 {
		return nil, nil, c.at.locate(&c.invalid)
	}
	return value, c.at, nil
}

// yamlErrorMessage returns the message of a syntax error. It does not quote the text,
// which may be secret.
func yamlErrorMessage(err error) string {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.ContainsAny(message, "'\"`") {
		return "must be YAML"
	}
	return "must be YAML: " + message
}

// A yamlConverter converts nodes to the values that encoding/json decodes, with numbers as
// [json.Number].
type yamlConverter struct {
	at      positions
	invalid code.Error
}

func (c *yamlConverter) fail(path []string, message string) any {
	c.invalid.Issues = append(c.invalid.Issues, code.Issue{Path: path, Message: message})
	return nil
}

func (c *yamlConverter) convert(node *yaml.Node, path []string) any {
	if key := pathKey(path); c.at[key] == (position{}) { // that of a field is where its name is
		c.at[key] = position{node.Line, node.Column}
	}
	switch {
	case len(path) > maxDepth:
		return c.fail(nil, tooDeep)
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		return c.fail(path, "must not have an anchor or alias")
	}
	switch node.Kind {
	case yaml.MappingNode:
		return c.object(node, path)
	case yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, element := range node.Content {
			list[i] = c.convert(element, child(path, strconv.Itoa(i)))
		}
		return list
	}
	return c.scalar(node, path)
}

// child returns a path that shares no memory with others.
func child(path []string, name string) []string { return append(path[:len(path):len(path)], name) }

func (c *yamlConverter) object(node *yaml.Node, path []string) any {
	object := map[string]any{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		if name.Kind != yaml.ScalarNode || name.ShortTag() != "!!str" {
			c.at[pathKey(path)] = position{name.Line, name.Column}
			return c.fail(path, "must have names of fields that are text")
		}
		field := child(path, name.Value)
		if _, twice := object[name.Value]; twice {
			c.at[pathKey(field)] = position{name.Line, name.Column}
			c.fail(field, "must not be given twice")
			continue
		}
		c.at[pathKey(field)] = position{name.Line, name.Column}
		object[name.Value] = c.convert(value, field)
	}
	return object
}

func (c *yamlConverter) scalar(node *yaml.Node, path []string) any {
	switch tag := node.ShortTag(); tag {
	case "!!str", "!!timestamp": // JSON has no timestamps
		return node.Value
	case "!!null":
		return nil
	case "!!bool", "!!int", "!!float":
		var value any
		if err := node.Decode(&value); err != nil {
			break
		}
		switch value := value.(type) {
		case bool:
			return value
		case int, int64, uint64:
			return json.Number(fmt.Sprint(value))
		case float64:
			if text, err := json.Marshal(value); err == nil { // not infinite
				return json.Number(text)
			}
		}
	}
	return c.fail(path, "must be text, a number, true, false or null")
}
