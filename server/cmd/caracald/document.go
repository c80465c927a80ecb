package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/yamltext"
)

// A document is a file with JSON or YAML.
type document struct {
	name string
	json json.RawMessage
	root *yaml.Node // for the positions of values; nil: they are unknown
}

// readInput reads a file, or the standard input if its name is -.
func readInput(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}

// readDocument reads a file with one JSON or YAML document.
func readDocument(cmd *cobra.Command, name string) (document, error) {
	text, err := readInput(cmd, name)
	if err != nil {
		return document{}, err
	}
	return parseDocument(name, text)
}

// parseDocument parses JSON or YAML.
func parseDocument(name string, text []byte) (document, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark, which some editors write
	d := document{name: name}
	root, invalid := yamltext.Parse(text)
	if invalid == nil {
		d.root = root
	}
	isJSON := strings.EqualFold(filepath.Ext(name), ".json") || json.Valid(text)
	if isJSON || invalid != nil && bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		d.json = text // although it may not be YAML
		return d, inFile(name, yamltext.CheckJSON(text))
	}
	if invalid == nil {
		invalid = yamltext.FieldTwice(root.Content[0])
	}
	if invalid != nil {
		return d, inFile(name, invalid)
	}
	keepTimes(root)
	var value any
	if err := root.Decode(&value); err != nil {
		return d, fmt.Errorf("%s: %w", name, err)
	}
	var err error
	if d.json, err = json.Marshal(value); err != nil {
		return d, fmt.Errorf("%s: cannot be JSON: %w", name, err)
	}
	return d, nil
}

// inFile adds the name of a file to an error of package yamltext.
func inFile(name string, err error) error {
	invalid, located := errors.AsType[*yamltext.Error](err)
	switch {
	case err == nil:
		return nil
	case located && invalid.Line > 0:
		return fmt.Errorf("%s:%w", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// locate adds the line and the column in the document to each invalid field that an error
// of the API names.
func (d document) locate(err error) error {
	e, isResponse := errors.AsType[*client.Error](err)
	if !isResponse || d.root == nil {
		return err
	}
	located := *e
	located.Fields = make([]client.FieldError, len(e.Fields))
	for i, f := range e.Fields {
		line, column := yamltext.Position(d.root, strings.Split(f.Path, "."))
		f.Path = strings.TrimSuffix(fmt.Sprintf("%s:%d:%d: %s", d.name, line, column, f.Path), ": ")
		located.Fields[i] = f
	}
	return &located
}

// keepTimes makes dates and times text, as they are in JSON.
func keepTimes(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, child := range n.Content {
		keepTimes(child)
	}
}
