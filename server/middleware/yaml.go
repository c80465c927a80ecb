package middleware

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/yamltext"
)

// yamlType is the media type of YAML (RFC 9512).
const yamlType = "application/yaml"

// A yamlText knows where the values of a YAML body are. The zero value is another body.
type yamlText struct{ root *yaml.Node }

// locate adds the lines and columns to the issues of an error. That of a field that is
// missing is that of the object.
func (t yamlText) locate(err error) error {
	var codeErr *code.Error
	if t.root == nil || !errors.As(err, &codeErr) {
		return err
	}
	for i := range codeErr.Issues {
		if issue := &codeErr.Issues[i]; issue.Line == 0 {
			issue.Line, issue.Column = yamltext.Position(t.root, issue.Path)
		}
	}
	return err
}

// decodeYAML decodes exactly one YAML document to the values that the same document in JSON
// has.
func decodeYAML(text []byte) (any, yamlText, error) {
	switch {
	case !utf8.Valid(text):
		return nil, yamlText{}, code.InvalidJSON.At(notUTF8)
	case bytes.HasPrefix(text, []byte(byteOrderMark)):
		return nil, yamlText{}, code.InvalidJSON.At(startsWithMark)
	case mayHaveTooManyValues(text):
		return nil, yamlText{}, code.InvalidJSON.At("must not have so many values")
	}
	document, err := yamltext.Parse(text)
	if err != nil {
		return nil, yamlText{}, invalidText(err)
	}
	c := yamlConverter{code.Error{Code: code.InvalidJSON}}
	value := c.convert(document.Content[0], nil)
	if len(c.invalid.Issues) > 0 {
		return nil, yamlText{}, &c.invalid
	}
	return value, yamlText{document.Content[0]}, nil
}

// invalidText returns invalid_json with the position of an error of package yamltext.
func invalidText(err error) error {
	invalid, located := errors.AsType[*yamltext.Error](err)
	if !located {
		return code.InvalidJSON.Because(err)
	}
	return &code.Error{Code: code.InvalidJSON, Issues: []code.Issue{{Path: invalid.Path, Message: invalid.Message, Line: invalid.Line, Column: invalid.Column}}}
}

// mayHaveTooManyValues reports whether a text has more characters that separate values than
// any document needs. Each value takes hundreds of bytes of memory when it is parsed.
func mayHaveTooManyValues(text []byte) bool {
	const maxSeparators = 400_000
	n := 0
	for _, b := range text {
		switch b {
		case ',', ':', '-', '?', '[', '{':
			n++
		}
	}
	return n > maxSeparators
}

// A yamlConverter converts nodes to the values that encoding/json decodes, with numbers as
// [json.Number].
type yamlConverter struct{ invalid code.Error }

// fail adds an issue about the value at a path, unless there are many already.
func (c *yamlConverter) fail(node *yaml.Node, path []string, message string) any {
	const maxIssues = 100
	if len(c.invalid.Issues) < maxIssues {
		c.invalid.Issues = append(c.invalid.Issues, code.Issue{Path: path, Message: message, Line: node.Line, Column: node.Column})
	}
	return nil
}

func (c *yamlConverter) convert(node *yaml.Node, path []string) any {
	switch {
	case len(path) > maxDepth:
		return c.fail(node, nil, tooDeep)
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		return c.fail(node, path, "must not have an anchor or alias")
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
			return c.fail(name, path, "must have names of fields that are text")
		}
		field := child(path, name.Value)
		if _, twice := object[name.Value]; twice {
			c.fail(name, field, "must not be given twice")
			continue
		}
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
	return c.fail(node, path, "must be text, a number, true, false or null")
}
