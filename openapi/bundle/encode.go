package main

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// writeEncoders generates a JSON encoder for each type of out/api that a response
// contains. The order of the fields comes from the spec. Their names, their types
// and whether they can be omitted come from the types that oapi-codegen generated,
// so that an encoder writes what encoding/json would.
func writeEncoders(out string) error {
	var document yaml.Node
	if err := load(filepath.Join(out, "openapi.yaml"), &document); err != nil {
		return err
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(out, "api", "api.gen.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	e := newEncoders(document.Content[0], file)
	if err := e.addResponses(); err != nil {
		return err
	}
	source, err := format.Source(e.source())
	if err != nil {
		return fmt.Errorf("generated encoders: %w", err)
	}
	table, err := format.Source(e.table())
	if err != nil {
		return fmt.Errorf("generated table of encoders: %w", err)
	}
	return writeAll(map[string]string{
		filepath.Join(out, "api", "encode.gen.go"):      string(source),
		filepath.Join(out, "api", "encode.gen_test.go"): string(table),
	})
}

// encoders collects the encoders of the types of one package.
type encoders struct {
	spec    *yaml.Node
	types   map[string]*ast.TypeSpec
	bodies  map[string]string // the encoder of each type, by the type's name
	imports map[string]bool
}

func newEncoders(spec *yaml.Node, file *ast.File) *encoders {
	e := &encoders{spec: spec, types: map[string]*ast.TypeSpec{}, bodies: map[string]string{}, imports: map[string]bool{}}
	for _, decl := range file.Decls {
		if group, ok := decl.(*ast.GenDecl); ok && group.Tok == token.TYPE {
			for _, spec := range group.Specs {
				e.types[spec.(*ast.TypeSpec).Name.Name] = spec.(*ast.TypeSpec)
			}
		}
	}
	return e
}

// addResponses adds the types of all JSON responses that are not errors. Free-form
// objects have no encoder, nor have documents that are also sent as YAML.
func (e *encoders) addResponses() error {
	for path, item := range pairs(get(e.spec, "paths")) {
		for method, op := range pairs(item) {
			for status, response := range pairs(get(op, "responses")) {
				schema := get(get(get(response, "content"), "application/json"), "schema")
				if schema == nil || get(response, "x-problem") != nil || get(get(response, "content"), yamlType) != nil {
					continue
				}
				if items := get(schema, "items"); items != nil {
					schema = items
				}
				ref := get(schema, "$ref")
				if ref == nil {
					return fmt.Errorf("%s %s: the schema of response %s must be a reference or an array of references", method, path, status)
				}
				if len(e.properties(schema)) == 0 {
					continue
				}
				if err := e.add(last(ref.Value), schema); err != nil {
					return fmt.Errorf("%s %s: %w", method, path, err)
				}
			}
		}
	}
	return nil
}

// resolve follows references within the spec.
func (e *encoders) resolve(schema *yaml.Node) *yaml.Node {
	for get(schema, "$ref") != nil {
		schema = get(get(get(e.spec, "components"), "schemas"), last(get(schema, "$ref").Value))
	}
	return schema
}

// A property is a field of an object schema.
type property struct {
	name   string
	schema *yaml.Node
}

// properties returns the fields of an object schema in the order of the spec.
func (e *encoders) properties(schema *yaml.Node) (all []property) {
	schema = e.resolve(schema)
	if parts := get(schema, "allOf"); parts != nil {
		for _, part := range parts.Content {
			all = append(all, e.properties(part)...)
		}
	}
	for name, value := range pairs(get(schema, "properties")) {
		all = append(all, property{name, value})
	}
	return all
}

// A field is a field of a Go struct.
type field struct {
	goName    string
	typ       ast.Expr
	omitEmpty bool
}

// fields returns the fields of a struct by their JSON names.
func fields(name string, object *ast.StructType) (map[string]field, error) {
	all := map[string]field{}
	for _, f := range object.Fields.List {
		var tag string
		if f.Tag != nil {
			text, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				return nil, err
			}
			tag = reflect.StructTag(text).Get("json")
		}
		jsonName, options, _ := strings.Cut(tag, ",")
		if len(f.Names) != 1 || jsonName == "" || jsonName == "-" || options != "" && options != "omitempty" {
			return nil, fmt.Errorf("%s: unsupported field with JSON tag %q", name, tag)
		}
		all[jsonName] = field{f.Names[0].Name, f.Type, options == "omitempty"}
	}
	return all, nil
}

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// add generates the encoder of a struct type and of the types in it. It returns
// an error if the type and its schema disagree on the fields, or if a field has
// a type that is not supported.
func (e *encoders) add(name string, schema *yaml.Node) error {
	if _, done := e.bodies[name]; done {
		return nil
	}
	e.bodies[name] = "" // ends the recursion if a type contains itself
	declared := e.types[name]
	if declared == nil {
		return fmt.Errorf("%s: no such type in api.gen.go", name)
	}
	object, ok := declared.Type.(*ast.StructType)
	if !ok {
		return fmt.Errorf("%s: must be a struct", name)
	}
	fields, err := fields(name, object)
	if err != nil {
		return err
	}
	properties := e.properties(schema)
	if len(properties) != len(fields) {
		return fmt.Errorf("%s: has %d fields and its schema %d", name, len(fields), len(properties))
	}
	b := &strings.Builder{}
	fmt.Fprintf(b, "// AppendJSON appends v as JSON and returns the extended buffer.\nfunc (v %s) AppendJSON(b []byte) []byte {\n", name)
	// If the first field may be omitted, each field begins with a comma, and the
	// first comma written is replaced by the brace.
	firstMayBeOmitted := fields[properties[0].name].omitEmpty
	separator := "{"
	if firstMayBeOmitted {
		separator = ","
		b.WriteString("start := len(b)\n")
	}
	for _, p := range properties {
		f, ok := fields[p.name]
		if !ok || !plainName.MatchString(p.name) {
			return fmt.Errorf("%s: unsupported field %q", name, p.name)
		}
		if f.omitEmpty {
			condition, err := e.notEmpty("v."+f.goName, f.typ)
			if err != nil {
				return fmt.Errorf("%s.%s: %w", name, p.name, err)
			}
			fmt.Fprintf(b, "if %s {\n", condition)
		}
		fmt.Fprintf(b, "b = append(b, `%s%q:`...)\n", separator, p.name)
		if err := e.value(b, value{"v." + f.goName, f.typ, p.schema, f.omitEmpty, 0}); err != nil {
			return fmt.Errorf("%s.%s: %w", name, p.name, err)
		}
		if f.omitEmpty {
			b.WriteString("}\n")
		}
		separator = ","
	}
	if firstMayBeOmitted {
		b.WriteString("if len(b) == start {\nb = append(b, ',')\n}\nb[start] = '{'\n")
	}
	b.WriteString("return append(b, '}')\n}\n")
	e.bodies[name] = b.String()
	return nil
}

// A value is a Go expression that an encoder appends.
type value struct {
	expr    string
	typ     ast.Expr
	schema  *yaml.Node
	notNull bool // the generated code has checked that the pointer is not nil
	depth   int  // number of loops around it
}

// value generates the code that appends v.
func (e *encoders) value(b *strings.Builder, v value) error {
	switch t := v.typ.(type) {
	case *ast.Ident:
		return e.named(b, v, t.Name)
	case *ast.StarExpr:
		pointed := v
		pointed.expr, pointed.typ, pointed.notNull = "*"+v.expr, t.X, false
		if v.notNull {
			return e.value(b, pointed)
		}
		fmt.Fprintf(b, "if %s == nil {\nb = append(b, \"null\"...)\n} else {\n", v.expr)
		defer b.WriteString("}\n")
		return e.value(b, pointed)
	case *ast.ArrayType:
		if t.Len != nil {
			break
		}
		index, item := loopVariable("i", v.depth), loopVariable("item", v.depth)
		fmt.Fprintf(b, "b = append(b, '[')\nfor %s, %s := range %s {\nif %s > 0 {\nb = append(b, ',')\n}\n", index, item, v.expr, index)
		defer b.WriteString("}\nb = append(b, ']')\n")
		return e.value(b, value{item, t.Elt, get(e.resolve(v.schema), "items"), false, v.depth + 1})
	case *ast.MapType:
		if key, ok := t.Key.(*ast.Ident); !ok || key.Name != "string" {
			break
		}
		e.imports["maps"], e.imports["slices"] = true, true
		index, key := loopVariable("i", v.depth), loopVariable("key", v.depth)
		fmt.Fprintf(b, "b = append(b, '{')\nfor %s, %s := range slices.Sorted(maps.Keys(%s)) {\nif %s > 0 {\nb = append(b, ',')\n}\n", index, key, v.expr, index)
		fmt.Fprintf(b, "b = append(jsonresponse.AppendString(b, %s), ':')\n", key)
		defer b.WriteString("}\nb = append(b, '}')\n")
		of := strings.TrimPrefix(v.expr, "*")
		if of != v.expr {
			of = "(" + v.expr + ")"
		}
		return e.value(b, value{of + "[" + key + "]", t.Value, get(e.resolve(v.schema), "additionalProperties"), false, v.depth + 1})
	case *ast.SelectorExpr:
		switch types.ExprString(t) {
		case "json.RawMessage":
			fmt.Fprintf(b, "b = jsonresponse.AppendRaw(b, %s)\n", v.expr)
			return nil
		case "timestamp.Time", "jsonresponse.Encoder":
			fmt.Fprintf(b, "b = %s.AppendJSON(b)\n", strings.TrimPrefix(v.expr, "*"))
			return nil
		}
	}
	return fmt.Errorf("unsupported type %s", types.ExprString(v.typ))
}

// named generates the code that appends a value of a basic type or of a type that
// api.gen.go declares.
func (e *encoders) named(b *strings.Builder, v value, name string) error {
	switch name {
	case "string":
		fmt.Fprintf(b, "b = jsonresponse.AppendString(b, string(%s))\n", v.expr)
		return nil
	case "bool":
		e.imports["strconv"] = true
		fmt.Fprintf(b, "b = strconv.AppendBool(b, bool(%s))\n", v.expr)
		return nil
	case "int", "int8", "int16", "int32", "int64":
		e.imports["strconv"] = true
		fmt.Fprintf(b, "b = strconv.AppendInt(b, int64(%s), 10)\n", v.expr)
		return nil
	}
	declared := e.types[name]
	if declared == nil {
		return fmt.Errorf("unsupported type %s", name)
	}
	if _, ok := declared.Type.(*ast.StructType); !ok {
		v.typ = declared.Type
		return e.value(b, v)
	}
	fmt.Fprintf(b, "b = %s.AppendJSON(b)\n", strings.TrimPrefix(v.expr, "*"))
	return e.add(name, v.schema)
}

func loopVariable(name string, depth int) string {
	if depth == 0 {
		return name
	}
	return name + strconv.Itoa(depth)
}

// notEmpty returns the condition under which encoding/json does not omit a field
// with the option omitempty.
func (e *encoders) notEmpty(expr string, t ast.Expr) (string, error) {
	switch t := t.(type) {
	case *ast.StarExpr:
		return expr + " != nil", nil
	case *ast.ArrayType, *ast.MapType:
		return "len(" + expr + ") > 0", nil
	case *ast.SelectorExpr:
		if types.ExprString(t) == "json.RawMessage" {
			return "len(" + expr + ") > 0", nil
		}
	case *ast.Ident:
		if t.Name == "string" {
			return expr + ` != ""`, nil
		}
		if declared := e.types[t.Name]; declared != nil {
			return e.notEmpty(expr, declared.Type)
		}
	}
	return "", fmt.Errorf("unsupported optional type %s", types.ExprString(t))
}

// source returns the encoders as a Go file.
func (e *encoders) source() []byte {
	var b strings.Builder
	b.WriteString("// Code generated by openapi/bundle. DO NOT EDIT.\n\npackage api\n\nimport (\n")
	for _, name := range slices.Sorted(maps.Keys(e.imports)) {
		fmt.Fprintf(&b, "%q\n", name)
	}
	b.WriteString("\n\"caracal.run/management/server/jsonresponse\"\n)\n")
	for _, name := range slices.Sorted(maps.Keys(e.bodies)) {
		b.WriteString("\n" + e.bodies[name])
	}
	return []byte(b.String())
}

// table returns the list of all types with an encoder, for the tests of package
// api, as a Go file.
func (e *encoders) table() []byte {
	var b strings.Builder
	b.WriteString("// Code generated by openapi/bundle. DO NOT EDIT.\n\npackage api\n\nimport \"caracal.run/management/server/jsonresponse\"\n\n")
	b.WriteString("// encoders holds a value of each type that has an encoder.\nvar encoders = []jsonresponse.Encoder{\n")
	for _, name := range slices.Sorted(maps.Keys(e.bodies)) {
		fmt.Fprintf(&b, "%s{},\n", name)
	}
	b.WriteString("}\n")
	return []byte(b.String())
}
