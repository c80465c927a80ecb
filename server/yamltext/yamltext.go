// Package yamltext parses documents in YAML or JSON, and finds values in them, for messages that
// say the line and the column.
package yamltext

import (
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Position returns where the value at a path of names and indexes is in a YAML document, or the
// last value on the way to it if there is none. A field is where its name is. Lines and columns
// count from 1.
func Position(document *yaml.Node, path []string) (line, column int) {
	node := document
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	line, column = node.Line, node.Column
	for _, name := range path {
		var next *yaml.Node
		switch node.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(node.Content) && next == nil; i += 2 {
				if field := node.Content[i]; field.Value == name {
					next, line, column = node.Content[i+1], field.Line, field.Column
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(node.Content) {
				next = node.Content[i]
				line, column = next.Line, next.Column
			}
		}
		if next == nil {
			break
		}
		node = next
	}
	return line, column
}
