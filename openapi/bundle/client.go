package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A clientOperation describes an operation of which a client method is generated.
type clientOperation struct {
	id, method, path string
	description      string
	codes            []string // its own error codes
	args             []string // path parameters, as Go names
	query            []queryParameter
	body             string // Go type; "" if it has none
	isForm           bool   // the body is sent as a form
	status           int    // of the successful response
	mediaType        string // of the successful response; "" if it has no body
	result           string // Go type of the result or, in a list, of an item
	isList           bool
	hasRows          bool // a page is an object with rows and next_cursor, not an array
	exports          bool // the list can be exported: its query parameter format is a ListFormat
	public, control  bool
	changes          bool // although its method is GET
	takesKey         bool // takes an Idempotency-Key
}

// A queryParameter is a query parameter other than limit and cursor.
type queryParameter struct{ name, goName, goType, description string }

// clientOperations returns the operations of the spec. It returns an error if no
// method can be generated for one of them.
func clientOperations(spec *yaml.Node) ([]clientOperation, error) {
	var all []clientOperation
	for path, item := range pairs(get(spec, "paths")) {
		for method, op := range pairs(item) {
			if !slices.Contains(methods, method) {
				continue
			}
			o := clientOperation{
				id: valueOf(get(op, "operationId")), method: method, path: path,
				description: valueOf(get(op, "description")), codes: list(get(op, "x-problems")),
				public:  get(op, "security") != nil && !takesControlToken(op), // the default is the admin token
				control: takesControlToken(op),
				changes: valueOf(get(op, "x-head")) == "false",
			}
			err := o.setParameters(spec, item, op)
			if err == nil {
				err = o.setBodies(spec, op)
			}
			if err == nil && o.isList && !strings.HasPrefix(o.description, "Returns ") {
				err = fmt.Errorf("the description of a list must begin with Returns")
			}
			if err != nil {
				return nil, fmt.Errorf("client method of %s: %w", o.id, err)
			}
			all = append(all, o)
		}
	}
	return all, nil
}

// setParameters sets the path and query parameters. Headers are call options,
// and limit and cursor are list options.
func (o *clientOperation) setParameters(spec, item, op *yaml.Node) error {
	for _, declared := range []*yaml.Node{get(item, "parameters"), get(op, "parameters")} {
		if declared == nil {
			continue
		}
		for _, p := range declared.Content {
			p = deref(spec, p)
			switch name, in := valueOf(get(p, "name")), valueOf(get(p, "in")); {
			case in == "header" && name == "Idempotency-Key":
				o.takesKey = true
			case in == "query" && name == "cursor":
				o.isList = true
			case in == "query" && name == "format" && last(valueOf(get(get(p, "schema"), "$ref"))) == "ListFormat":
				o.exports = true
			case in == "query" && name != "limit":
				schema := deref(spec, get(p, "schema"))
				kind := valueOf(get(schema, "type"))
				if kind == "array" {
					kind += " of " + valueOf(get(deref(spec, get(schema, "items")), "type"))
				}
				goType, known := map[string]string{"string": "string", "integer": "int64", "boolean": "bool", "array of string": "[]string"}[kind]
				if !known {
					return fmt.Errorf("unsupported type of the query parameter %s", name)
				}
				if ref := get(get(p, "schema"), "$ref"); ref != nil && get(schema, "enum") != nil {
					goType = last(ref.Value)
				}
				o.query = append(o.query, queryParameter{name, goName(name), goType, valueOf(get(p, "description"))})
			}
		}
	}
	// The arguments are in the order of the path.
	for rest := o.path; strings.Contains(rest, "{"); {
		_, after, _ := strings.Cut(rest, "{")
		name, left, _ := strings.Cut(after, "}")
		o.args, rest = append(o.args, argument(name)), left
	}
	return nil
}

// argument returns the name of a path parameter as a Go argument: zoneId becomes
// zoneID.
func argument(name string) string {
	if start, isID := strings.CutSuffix(name, "Id"); isID {
		return start + "ID"
	}
	return name
}

// setBodies sets the types of the request and of the successful response.
func (o *clientOperation) setBodies(spec, op *yaml.Node) error {
	if body := get(op, "requestBody"); body != nil {
		o.isForm = takes(op, formType)
		mediaType := "application/json"
		if o.isForm {
			mediaType = formType
		}
		ref := get(get(get(get(body, "content"), mediaType), "schema"), "$ref")
		if ref == nil {
			return fmt.Errorf("the schema of the request must be a reference")
		}
		o.body = last(ref.Value)
	}
	for status, response := range pairs(get(op, "responses")) {
		n, err := strconv.Atoi(status)
		if err != nil || n < 200 || n >= 300 {
			continue
		}
		if o.status != 0 {
			return fmt.Errorf("it has more than one successful response")
		}
		o.status = n
		for mediaType, content := range pairs(get(response, "content")) {
			preferred := "application/json"
			if get(get(response, "content"), yamlType) != nil {
				preferred = yamlType // a document, to be kept as it is
			}
			if mediaType != preferred && get(get(response, "content"), preferred) != nil {
				continue
			}
			schema := get(content, "schema")
			if rows := get(get(deref(spec, schema), "properties"), "rows"); o.isList && rows != nil {
				schema, o.hasRows = rows, true
			}
			if o.isList {
				schema = get(schema, "items")
			}
			switch ref := get(schema, "$ref"); {
			case mediaType != "application/json":
				o.result = "string"
			case ref == nil:
				return fmt.Errorf("the schema of the response must be a reference or, in a list, an array of references")
			default:
				o.result = last(ref.Value)
			}
			o.mediaType = mediaType
		}
	}
	if o.status == 0 || o.isList && o.mediaType != "application/json" {
		return fmt.Errorf("unsupported response")
	}
	return nil
}

const operationsHead = `// Code generated by openapi/bundle. DO NOT EDIT.

package client

import (
	"context"
	"iter"
	"net/http"
)
`

// operationsSource returns the source of the client's methods.
func operationsSource(spec *yaml.Node) ([]byte, error) {
	operations, err := clientOperations(spec)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString(operationsHead)
	for _, o := range operations {
		o.write(&b)
	}
	return []byte(b.String()), nil
}

// write writes the method of an operation. It also writes the struct of its query
// parameters, and the iterator of a list.
func (o *clientOperation) write(b *strings.Builder) {
	name := upperFirst(o.id)
	var declared, passed string
	if len(o.args) > 0 {
		passed = ", " + strings.Join(o.args, ", ")
		declared = passed + " string"
	}
	request := fmt.Sprintf("request{operation: %q, method: http.Method%s, path: %q", o.id, upperFirst(o.method), o.path)
	if len(o.args) > 0 {
		request += ", args: []string{" + strings.TrimPrefix(passed, ", ") + "}"
	}
	if len(o.query) > 0 {
		o.writeParams(b, name)
	}
	if len(o.query) > 0 && !o.isList {
		declared += ", params " + name + "Params"
		passed += ", params"
		request += ", query: " + o.values()
	}
	if o.body != "" {
		declared += ", body " + o.body
		request += ", body: body"
	}
	if o.isForm {
		request += ", form: true"
	}
	request += fmt.Sprintf(", status: %d", o.status)
	if o.mediaType != "" {
		request += fmt.Sprintf(", accept: %q", o.mediaType)
	}
	if o.public {
		request += ", public: true"
	}
	if o.control {
		request += ", control: true"
	}
	if o.changes {
		request += ", changes: true"
	}
	if o.takesKey {
		request += ", takesKey: true"
	}
	request += "}"

	option, result, call := "CallOption", "("+o.result+", error)", ""
	switch {
	case o.isList:
		option, result, call = "ListOption", "(Page["+o.result+"], error)", "list["+o.result+"]"
		if o.hasRows {
			call = "listRows[" + o.result + "]"
		}
	case o.mediaType == "":
		result, call = "error", "sendEmpty"
	case o.mediaType == "application/json":
		call = "send[" + o.result + "]"
	default:
		call = "sendText"
	}
	description := lowerFirst(o.description)
	if o.isList {
		// clientOperations checked that the description begins with "Returns".
		description = "returns one page of " + strings.TrimPrefix(description, "returns ")
	}
	b.WriteString("\n" + doc(name+" "+description))
	if len(o.codes) > 0 {
		links := make([]string, len(o.codes))
		for i, code := range o.codes {
			links[i] = "[Code" + goName(code) + "]"
		}
		b.WriteString("//\n" + doc("Error codes that are specific to this operation: "+strings.Join(links, ", ")+"."))
	}
	fmt.Fprintf(b, "func (c *Client) %s(ctx context.Context%s, opts ...%s) %s {\n", name, declared, option, result)
	fmt.Fprintf(b, "\treturn %s(ctx, c, %s, opts)\n}\n", call, request)
	if o.isList {
		iterator := strings.TrimPrefix(name, "List")
		b.WriteString("\n" + doc(fmt.Sprintf("%s returns an iterator over the items of all pages of [Client.%s]. If a request fails, it yields the error and stops.", iterator, name)))
		fmt.Fprintf(b, "func (c *Client) %s(ctx context.Context%s, opts ...ListOption) iter.Seq2[%s, error] {\n", iterator, declared, o.result)
		fmt.Fprintf(b, "\treturn all(opts, func(opts ...ListOption) %s {\n\t\treturn c.%s(ctx%s, opts...)\n\t})\n}\n", result, name, passed)
		if o.exports {
			exporter := "Export" + iterator
			b.WriteString("\n" + doc(fmt.Sprintf("%s returns all items of [Client.%s] as a stream, which the caller must close. [Limit] does not apply; with a [Cursor], the stream begins after it.", exporter, name)))
			fmt.Fprintf(b, "func (c *Client) %s(ctx context.Context%s, format ListFormat, opts ...ListOption) (*Export, error) {\n", exporter, declared)
			fmt.Fprintf(b, "\treturn openExport(ctx, c, %s, format, opts)\n}\n", request)
		}
	}
}

// writeParams writes the struct of an operation's query parameters. That of a list,
// whose parameters are filters, is an option.
func (o *clientOperation) writeParams(b *strings.Builder, name string) {
	description := fmt.Sprintf("%sParams are the query parameters of [Client.%s]. Zero values are omitted.", name, name)
	if o.isList {
		description = fmt.Sprintf("%sParams are the filters of [Client.%s] and [Client.%s], to be passed as an option. Zero values are omitted.",
			name, name, strings.TrimPrefix(name, "List"))
	}
	fmt.Fprintf(b, "\n%stype %sParams struct {\n", doc(description), name)
	for _, p := range o.query {
		fmt.Fprintf(b, "%s\t%s %s\n", doc(p.description), p.goName, p.goType)
	}
	b.WriteString("}\n")
	if o.isList {
		fmt.Fprintf(b, "\nfunc (params %sParams) applyToList(c *call) {\n\tc.filter(%q, %s)\n}\n", name, o.id, o.values())
	}
}

// values returns a map of the operation's query parameters, in Go.
func (o *clientOperation) values() string {
	var values string
	for _, p := range o.query {
		values += fmt.Sprintf("%q: params.%s,", p.name, p.goName)
	}
	return "map[string]any{" + values + "}"
}

func last(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// takesControlToken reports whether an operation takes a token of the Control API.
func takesControlToken(op *yaml.Node) bool {
	security := get(op, "security")
	return security != nil && slices.ContainsFunc(security.Content, func(scheme *yaml.Node) bool { return get(scheme, "controlBearer") != nil })
}
