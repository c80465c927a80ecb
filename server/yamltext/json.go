package yamltext

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
)

// CheckJSON returns an [Error] if a text is not one JSON value, or has a field twice, which
// package encoding/json allows.
func CheckJSON(text []byte) error {
	var value json.RawMessage
	err := json.Unmarshal(text, &value)
	if syntax, invalid := errors.AsType[*json.SyntaxError](err); invalid {
		end := len(bytes.TrimRight(text, " \t\r\n"))
		if end == 0 {
			return &Error{Message: empty}
		}
		line, column := position(text, min(end, int(syntax.Offset))-1)
		return &Error{Message: "must be JSON: " + syntax.Error(), Line: line, Column: column}
	}
	if err != nil {
		return err
	}
	r := jsonReader{text, json.NewDecoder(bytes.NewReader(text))}
	if twice := r.findTwice(); twice != nil {
		return twice
	}
	return nil
}

// A jsonReader reads a text that is valid JSON.
type jsonReader struct {
	text    []byte
	decoder *json.Decoder
}

// findTwice reads a value, and returns the first field in it that an object has twice.
func (r jsonReader) findTwice() *Error {
	token, _ := r.decoder.Token()
	switch token {
	case json.Delim('{'):
		names := map[json.Token]bool{}
		for r.decoder.More() {
			before := int(r.decoder.InputOffset())
			name, _ := r.decoder.Token()
			field, _ := name.(string)
			if names[name] {
				start := before + bytes.IndexByte(r.text[before:], '"')
				line, column := position(r.text, start)
				return &Error{Path: []string{field}, Message: givenTwice, Line: line, Column: column}
			}
			names[name] = true
			if twice := r.findTwice(); twice != nil {
				return twice.inside(field)
			}
		}
	case json.Delim('['):
		for i := 0; r.decoder.More(); i++ {
			if twice := r.findTwice(); twice != nil {
				return twice.inside(strconv.Itoa(i))
			}
		}
	default:
		return nil
	}
	_, _ = r.decoder.Token() // the end of the object or array
	return nil
}
