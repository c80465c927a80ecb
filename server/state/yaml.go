package state

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// YAML returns the document as YAML, which begins with a comment. Comments also say what
// it cannot express.
func (d Exported) YAML(comment string) ([]byte, error) {
	source, err := d.JSON()
	if err != nil {
		return nil, err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(source, &document); err != nil { // JSON is YAML, and its fields keep their order
		return nil, err
	}
	if err := setStyles(&document); err != nil {
		return nil, err
	}
	root := document.Content[0]
	root.HeadComment = strings.Join(append([]string{comment}, d.omissions()...), "\n")
	for i, object := range root.Content[1].Content {
		object.HeadComment = d.Objects[i].note
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	err = encoder.Encode(&document)
	return text.Bytes(), err
}

// omissions returns comments on the objects that the document leaves out.
func (d Exported) omissions() (lines []string) {
	if len(d.notes) > 0 {
		lines = append(lines, "Not in this document:")
	}
	for _, note := range d.notes {
		lines = append(lines, "- "+note)
	}
	return lines
}

// setStyles makes nodes that were parsed from JSON look as people write YAML: in blocks, with
// quotes only where they are necessary, and texts of several lines as they are.
func setStyles(n *yaml.Node) error {
	n.Style = 0
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str":
		var encoded yaml.Node // quoted if an older parser would not read it as text, such as yes
		if err := encoded.Encode(n.Value); err != nil {
			return err
		}
		n.Style = encoded.Style
	case n.Kind != yaml.ScalarNode && len(n.Content) == 0:
		n.Style = yaml.FlowStyle
	}
	for _, child := range n.Content {
		if err := setStyles(child); err != nil {
			return err
		}
	}
	return nil
}
