package middleware

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"

	"caracal.run/management/gen/code"
)

// messages maps a keyword of a schema, as kin-openapi names it, to the message for a
// value that violates it. A message is read after the name of the field. It does not
// quote the value, which may be secret.
var messages = map[string]func(*openapi3.Schema) string{
	"type":        typeMessage,
	"nullable":    func(*openapi3.Schema) string { return "must not be null" },
	"enum":        enumMessage,
	"minLength":   minLengthMessage,
	"maxLength":   func(s *openapi3.Schema) string { return "must be at most " + count(*s.MaxLength, "character") },
	"pattern":     func(s *openapi3.Schema) string { return "must match the pattern " + s.Pattern },
	"format":      formatMessage,
	"minimum":     func(s *openapi3.Schema) string { return "must be at least " + number(*s.Min) },
	"maximum":     func(s *openapi3.Schema) string { return "must be at most " + number(*s.Max) },
	"minItems":    func(s *openapi3.Schema) string { return "must have at least " + count(s.MinItems, "item") },
	"maxItems":    func(s *openapi3.Schema) string { return "must have at most " + count(*s.MaxItems, "item") },
	"uniqueItems": func(*openapi3.Schema) string { return "must not have an item twice" },
	"required":    func(*openapi3.Schema) string { return "is required" },
	"properties":  func(*openapi3.Schema) string { return "unknown field" }, // additionalProperties: false
	"anyOf":       func(*openapi3.Schema) string { return "must match one of the allowed schemas" },
}

func typeMessage(s *openapi3.Schema) string {
	switch {
	case s.Type.Is(openapi3.TypeArray), s.Type.Is(openapi3.TypeObject), s.Type.Is(openapi3.TypeInteger):
		return "must be an " + s.Type.Slice()[0]
	}
	return "must be a " + strings.Join(s.Type.Slice(), " or a ")
}

func enumMessage(s *openapi3.Schema) string {
	values := make([]string, len(s.Enum))
	for i, value := range s.Enum {
		values[i] = fmt.Sprint(value)
	}
	if len(values) == 1 {
		return "must be " + values[0]
	}
	return "must be one of " + strings.Join(values, ", ")
}

func minLengthMessage(s *openapi3.Schema) string {
	if s.MinLength == 1 {
		return "must not be empty"
	}
	return "must be at least " + count(s.MinLength, "character")
}

func formatMessage(s *openapi3.Schema) string {
	switch s.Format {
	case "int32":
		return "must be a 32-bit integer"
	case "int64":
		return "must be a 64-bit integer"
	}
	return "must be a valid " + s.Format
}

// number formats a number without an exponent.
func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func count(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.FormatUint(n, 10) + " " + noun
}

// withIssues returns an error with a code, and with the issues in an error of
// kin-openapi. The path is that of the value that was validated.
func withIssues(errCode code.Code, err error, path ...string) error {
	codeErr := &code.Error{Code: errCode}
	addIssues(codeErr, err, path)
	return codeErr
}

// addIssues adds the issues in an error of kin-openapi to codeErr.
func addIssues(codeErr *code.Error, err error, path []string) {
	var errs openapi3.MultiError // also of the schemas in an allOf
	if errors.As(err, &errs) {
		for _, err := range errs {
			addIssues(codeErr, err, path)
		}
		return
	}
	issue := code.Issue{Path: path, Message: "is invalid"}
	var schemaErr *openapi3.SchemaError
	var parseErr *openapi3filter.ParseError
	var requestErr *openapi3filter.RequestError
	switch {
	case errors.As(err, &schemaErr):
		issue.Path = append(append([]string{}, path...), schemaErr.JSONPointer()...)
		if name, ok := unknownField(schemaErr); ok {
			issue.Path = append(issue.Path, name)
		}
		if message := messages[schemaErr.SchemaField]; message != nil {
			issue.Message = message(schemaErr.Schema)
		}
	case errors.As(err, &parseErr) && errors.As(err, &requestErr):
		issue.Message = parseMessage(parseErr, requestErr.Parameter.Schema.Value)
	}
	codeErr.Issues = append(codeErr.Issues, issue)
}

// parseMessage returns the message for a parameter that is not of its type. An
// integer that does not fit into 64 bits is outside the limits of the schema.
func parseMessage(err *openapi3filter.ParseError, s *openapi3.Schema) string {
	if text, _ := err.Value.(string); errors.Is(err, strconv.ErrRange) {
		switch negative := strings.HasPrefix(text, "-"); {
		case negative && s.Min != nil:
			return messages["minimum"](s)
		case !negative && s.Max != nil:
			return messages["maximum"](s)
		}
	}
	return typeMessage(s)
}

// unknownField returns the name of an unknown field. kin-openapi states it only in
// the text of the reason.
func unknownField(e *openapi3.SchemaError) (name string, ok bool) {
	quoted, found := strings.CutPrefix(e.Reason, "property ")
	quoted, unsupported := strings.CutSuffix(quoted, " is unsupported")
	if !found || !unsupported {
		return "", false
	}
	name, err := strconv.Unquote(quoted)
	return name, err == nil
}
