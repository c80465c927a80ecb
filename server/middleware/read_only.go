package middleware

import (
	"encoding/json"
	"errors"
	"reflect"
	"time"

	"caracal.run/management/gen/code"
)

// takeReadOnly removes the read-only fields from the body of an update and returns
// them: an operation has no use for them but to check them.
func (o *Operation) takeReadOnly(body any) map[string]any {
	object, ok := body.(map[string]any)
	if !ok {
		return nil
	}
	for _, field := range o.ignored {
		delete(object, field)
	}
	var taken map[string]any
	for _, field := range o.readOnly {
		value, sent := object[field]
		if !sent {
			continue
		}
		if taken == nil {
			taken = map[string]any{}
		}
		taken[field] = value
		delete(object, field)
	}
	return taken
}

// CheckReadOnly returns an error unless each read-only field in the body of the
// request has its present value, so that a client can send back what it has read.
// present is the response that describes the object.
func (info *RequestInfo) CheckReadOnly(present any) error {
	if len(info.readOnly) == 0 {
		return nil
	}
	text, err := json.Marshal(present)
	if err != nil {
		return err
	}
	decoded, err := decode(text)
	if err != nil {
		return err
	}
	fields, ok := decoded.(map[string]any)
	if !ok {
		return errors.New("the present object is not a JSON object")
	}
	codeErr := &code.Error{Code: info.Operation.invalidBody}
	for _, field := range info.Operation.readOnly {
		if value, sent := info.readOnly[field]; sent && !sameValue(value, fields[field]) {
			codeErr.Issues = append(codeErr.Issues, code.Issue{Path: []string{field}, Message: "is read-only: it must be omitted or have its present value"})
		}
	}
	if len(codeErr.Issues) > 0 {
		return codeErr
	}
	return nil
}

// sameValue reports whether two JSON values are equal. Two texts that denote the
// same time are: many clients do not keep the form in which they read it.
func sameValue(sent, present any) bool {
	if reflect.DeepEqual(sent, present) {
		return true
	}
	one, ok := sent.(string)
	other, alsoOK := present.(string)
	if !ok || !alsoOK {
		return false
	}
	at, err := time.Parse(time.RFC3339, one)
	presentAt, presentErr := time.Parse(time.RFC3339, other)
	return err == nil && presentErr == nil && at.Equal(presentAt)
}
