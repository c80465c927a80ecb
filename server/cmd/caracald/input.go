package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caracal.run/management/server/secret"
)

// An input is the body of a request: a file, and fields that replace those of the file.
type input struct {
	file     string
	values   []string // field=value
	fromFile []string // field=file
	optional bool     // without any, the body is an empty object

	document document // the file
}

// inputAbout is the part of the help about these flags.
const inputAbout = `
With --set, a value that is JSON is sent as JSON, and any other one as a text: --set 'name="42"'
sends a text. a.b is the field b of the object a. Secrets are not accepted as arguments: use
-f, or --set-file with a file. The file - is the standard input.
`

func (in *input) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&in.file, "file", "f", "", "`file` with the fields as JSON or YAML; - is the standard input")
	flags.StringArrayVar(&in.values, "set", nil, "`field=value` to send; can be repeated")
	flags.StringArrayVar(&in.fromFile, "set-file", nil, "`field=file` with the text of the field; can be repeated")
}

// isSecret reports whether the value of a field is a secret, which must not be an argument:
// other users see the arguments of a process, and shells keep them.
func isSecret(field string) bool { return secret.IsName(field[strings.LastIndexByte(field, '.')+1:]) }

// body returns the body as JSON.
func (in *input) body(cmd *cobra.Command) (json.RawMessage, error) {
	if !in.optional && in.file == "" && len(in.values)+len(in.fromFile) == 0 {
		return nil, invalidUsage(cmd, "the fields are required: use -f, --set or --set-file")
	}
	text := json.RawMessage("{}")
	if in.file != "" {
		var err error
		if in.document, err = readDocument(cmd, in.file); err != nil {
			return nil, err
		}
		text = in.document.json
	}
	if len(in.values)+len(in.fromFile) == 0 {
		return text, nil
	}
	value, err := decodeJSON(text)
	object, isObject := value.(map[string]any)
	if err != nil || !isObject {
		return nil, invalidUsage(cmd, "--set requires that %s is an object", in.file)
	}
	for _, pair := range in.values {
		name, text, found := strings.Cut(pair, "=")
		if !found {
			return nil, invalidUsage(cmd, "--set %s: must be field=value", name)
		}
		var value any = text
		if decoded, err := decodeJSON([]byte(text)); err == nil {
			value = decoded
		}
		if hasSecret(name, value) {
			return nil, invalidUsage(cmd, "--set %s: a secret must not be an argument: use --set-file or -f", name)
		}
		if err := setField(object, name, value); err != nil {
			return nil, invalidUsage(cmd, "--set %v", err)
		}
	}
	for _, pair := range in.fromFile {
		name, file, found := strings.Cut(pair, "=")
		if !found {
			return nil, invalidUsage(cmd, "--set-file %s: must be field=file", name)
		}
		text, err := readInput(cmd, file)
		if err != nil {
			return nil, err
		}
		value := string(text)
		if isSecret(name) {
			value = strings.TrimRight(value, "\r\n")
		}
		if err := setField(object, name, value); err != nil {
			return nil, invalidUsage(cmd, "--set-file %v", err)
		}
	}
	return json.Marshal(object)
}

// locate adds positions in the file to the invalid fields of an error, unless flags have
// replaced fields of the file.
func (in *input) locate(err error) error {
	if len(in.values)+len(in.fromFile) > 0 {
		return err
	}
	return in.document.locate(err)
}

// decodeJSON decodes one JSON value, and keeps numbers as they are.
func decodeJSON(text []byte) (value any, err error) {
	if !json.Valid(text) {
		return nil, errors.New("not JSON")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	err = decoder.Decode(&value)
	return value, err
}

// hasSecret reports whether a field with this name and value contains a secret that is not
// null.
func hasSecret(name string, value any) bool {
	switch value := value.(type) {
	case nil:
		return false
	case map[string]any:
		for inner, v := range value {
			if hasSecret(inner, v) {
				return true
			}
		}
		return false
	case []any:
		return slices.ContainsFunc(value, func(v any) bool { return hasSecret(name, v) })
	}
	return isSecret(name)
}

// setField sets a field of an object. The names of nested fields are separated by dots.
func setField(object map[string]any, path string, value any) error {
	first, rest, nested := strings.Cut(path, ".")
	if first == "" || nested && rest == "" {
		return errors.New("the name of the field is empty")
	}
	if !nested {
		object[first] = value
		return nil
	}
	inner, isObject := object[first].(map[string]any)
	if !isObject {
		if object[first] != nil {
			return fmt.Errorf("%s: is not an object", first)
		}
		inner = map[string]any{}
		object[first] = inner
	}
	return setField(inner, rest, value)
}
