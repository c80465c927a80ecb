package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"caracal.run/management/gen/client"
)

// addOutput adds the flag that chooses the format of the output.
func (a *apiCaller) addOutput(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&a.output, "output", "o", "table", "`format`: table, or json, yaml or name for programs")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp))
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]string{"table", "json", "yaml", "name"}, a.output) {
			return invalidUsage(cmd, "--output must be table, json, yaml or name, not %q", a.output)
		}
		return run(cmd, args)
	}
}

// printItems prints a list of objects, which are JSON texts of the API.
func (a *apiCaller) printItems(cmd *cobra.Command, n *noun, items []json.RawMessage) error {
	out := cmd.OutOrStdout()
	switch a.output {
	case "json", "yaml":
		return a.printText(out, slices.Concat([]byte("["), bytes.Join(rawBytes(items), []byte(",")), []byte("]")))
	case "name":
		for _, item := range items {
			fmt.Fprintln(out, n.idOf(item))
		}
		return nil
	}
	if len(items) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "There are no %s.\n", n.many())
		return nil
	}
	columns := strings.Fields(n.columns)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.ToUpper(strings.ReplaceAll(strings.Join(columns, "\t"), "_", " ")))
	for _, item := range items {
		var values map[string]json.RawMessage
		if err := json.Unmarshal(item, &values); err != nil {
			return err
		}
		cells := make([]string, len(columns))
		for i, column := range columns {
			cells[i] = cell(values[column])
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	return table.Flush()
}

func rawBytes(items []json.RawMessage) (all [][]byte) {
	for _, item := range items {
		all = append(all, item)
	}
	return all
}

// printObject prints an object, which is a JSON text of the API.
func (a *apiCaller) printObject(cmd *cobra.Command, n *noun, object json.RawMessage) error {
	out := cmd.OutOrStdout()
	switch a.output {
	case "json", "yaml":
		return a.printText(out, object)
	case "name":
		_, err := fmt.Fprintln(out, n.idOf(object))
		return err
	}
	return printFields(out, object)
}

// printFields prints an object for people: a line for each field, and what is nested as
// YAML.
func printFields(out io.Writer, object json.RawMessage) error {
	fields, err := objectFields(object)
	if err != nil {
		return err
	}
	width := 0
	for _, f := range fields {
		width = max(width, len(f.name))
	}
	for _, f := range fields {
		if text := cell(f.value); !isNested(f.value) {
			fmt.Fprintf(out, "%-*s  %s\n", width, f.name, text)
			continue
		}
		node, err := yamlNode(f.value)
		if err != nil {
			return err
		}
		var text strings.Builder
		if err := writeYAML(&text, node); err != nil {
			return err
		}
		fmt.Fprintln(out, f.name)
		for line := range strings.Lines(text.String()) {
			fmt.Fprintf(out, "  %s\n", printable(strings.TrimRight(line, "\n")))
		}
	}
	return nil
}

// isNested reports whether a value does not fit on a line: an object, a list with objects,
// or a text of several lines.
func isNested(value json.RawMessage) bool {
	text := strings.TrimSpace(string(value))
	return text != "{}" && strings.HasPrefix(text, "{") || strings.HasPrefix(text, "[") && strings.ContainsAny(text[1:], "[{") || strings.HasPrefix(text, `"`) && strings.Contains(text, `\n`)
}

// printText prints a JSON text as JSON or YAML.
func (a *apiCaller) printText(out io.Writer, text json.RawMessage) error {
	if a.output == "yaml" {
		node, err := yamlNode(text)
		if err != nil {
			return err
		}
		return writeYAML(out, node)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(text), "", "  "); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := b.WriteTo(out)
	return err
}

func writeYAML(out io.Writer, node *yaml.Node) error {
	encoder := yaml.NewEncoder(out)
	encoder.SetIndent(2)
	return errors.Join(encoder.Encode(node), encoder.Close())
}

// cell returns a value for a table, on one line.
func cell(value json.RawMessage) string {
	var text string
	var list []json.RawMessage
	switch {
	case len(value) == 0 || string(value) == "null" || string(value) == "[]" || string(value) == `""`:
		return "-"
	case json.Unmarshal(value, &text) == nil:
		return printable(text)
	case json.Unmarshal(value, &list) == nil && !slices.ContainsFunc(list, func(v json.RawMessage) bool { return v[0] == '{' || v[0] == '[' }):
		cells := make([]string, len(list))
		for i, v := range list {
			cells[i] = cell(v)
		}
		return strings.Join(cells, ",")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, value); err != nil {
		return "-"
	}
	return printable(b.String())
}

// printable returns a text on one line that cannot control a terminal.
func printable(text string) string {
	text = strings.ReplaceAll(text, "\t", "    ")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}

// A field is a field of a JSON object.
type field struct {
	name  string
	value json.RawMessage
}

// objectFields returns the fields of a JSON object in their order.
func objectFields(object json.RawMessage) (fields []field, err error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.Join(errors.New("not a JSON object"), err)
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		f := field{name: fmt.Sprint(name)}
		if err := decoder.Decode(&f.value); err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	return fields, nil
}

// yamlNode converts JSON into YAML, with fields in the same order.
func yamlNode(text json.RawMessage) (*yaml.Node, error) {
	switch text = bytes.TrimSpace(text); text[0] {
	case '{':
		fields, err := objectFields(text)
		node := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range fields {
			value, err := yamlNode(f.value)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: f.name}, value)
		}
		if len(fields) == 0 {
			node.Style = yaml.FlowStyle
		}
		return node, err
	case '[':
		var list []json.RawMessage
		err := json.Unmarshal(text, &list)
		node := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range list {
			value, err := yamlNode(item)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, value)
		}
		if len(list) == 0 {
			node.Style = yaml.FlowStyle
		}
		return node, err
	case '"':
		node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}
		return node, json.Unmarshal(text, &node.Value)
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: string(text)}, nil // a number, true, false or null
}

// printAPIError prints an error response: its code and sentence, then what is wrong by
// field, and the ID of the request.
func printAPIError(out io.Writer, err error) {
	e, _ := errors.AsType[*client.Error](err)
	fmt.Fprintf(out, "caracald: %s: %s\n", e.Code, printable(e.Description))
	for _, f := range e.Fields {
		if f.Path != "" { // otherwise it is about the whole body
			f.Message = f.Path + ": " + f.Message
		}
		fmt.Fprintf(out, "  %s\n", printable(f.Message))
	}
	issues := client.PolicyIssues(e)
	for _, issue := range issues {
		fmt.Fprintf(out, "  %d:%d: %s\n", issue.Row, issue.Column, printable(issue.Message))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extra)) {
		if name != "issues" || issues == nil {
			value, _ := json.Marshal(e.Extra[name]) // was decoded from JSON
			fmt.Fprintf(out, "  %s: %s\n", name, cell(value))
		}
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(out, "  retry after: %v\n", e.RetryAfter.Round(time.Second))
	}
	if e.RequestID != "" {
		fmt.Fprintf(out, "  request: %s\n", e.RequestID)
	}
}
