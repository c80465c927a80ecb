package middleware

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/yamltext"
)

// Validate checks path, query and body against the spec, so that an operation
// receives valid input only. The operation takes its request from the value that was
// validated, and does not decode the body again.
func Validate(bodyLimit int64) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			info := RequestInfoFrom(c.Request().Context())
			op := info.Operation
			switch {
			case info.routeError != nil:
				return info.routeError
			case op == nil:
				return next(c)
			}
			if err := op.checkParameters(c); err != nil {
				return err
			}
			if op.body != nil || op.ignoresBody {
				value, text, source, err := op.readBody(c.Response(), c.Request(), bodyLimit)
				if err != nil {
					return err
				}
				if info.Body, info.readOnly = text, op.takeReadOnly(value); op.decodesBody {
					info.Document, value = value, nil
				}
				c.Request().Body = validatedBody{value}
				return source.locate(next(c))
			}
			return next(c)
		}
	}
}

// validatedBody replaces the body of a request after it was read. The generated
// code takes the validated value from it instead of decoding the text again.
type validatedBody struct{ value any }

func (v validatedBody) ValidatedValue() any    { return v.value }
func (validatedBody) Read([]byte) (int, error) { return 0, io.EOF }
func (validatedBody) Close() error             { return nil }

// pathParam returns a path parameter, decoded. The server routes by the encoded
// path, so this is the only decoding.
func pathParam(c echo.Context, name string) (string, error) {
	return url.PathUnescape(c.Param(name))
}

// checkParameters validates the path and query parameters, If-Match and Idempotency-Key.
// It returns invalid_params, invalid_if_match, invalid_idempotency_key, or invalid_query or
// the code that the operation has instead.
func (o *Operation) checkParameters(c echo.Context) error {
	r := c.Request()
	for _, p := range o.pathParams {
		value, err := pathParam(c, p.Value.Name)
		if err != nil {
			return code.InvalidParams.At(percentEncoding, p.Value.Name)
		}
		schema := p.Value.Schema.Value
		if schema.Pattern == idPattern && IsID(value) {
			continue // faster than the schema, which has no other rule
		}
		if err := schema.VisitJSON(value); err != nil {
			return withIssues(code.InvalidParams, err, p.Value.Name)
		}
	}
	if o.takesIfMatch {
		precondition, err := parseIfMatch(r.Header.Values("If-Match"))
		if err != nil {
			return err
		}
		RequestInfoFrom(r.Context()).Precondition = precondition
	}
	if o.TakesKey {
		key, err := parseIdempotencyKey(r.Header.Values(idempotencyKeyHeader))
		if err != nil {
			return err
		}
		RequestInfoFrom(r.Context()).key = key
	}
	strict := !o.isPublic && prefersStrict(r.Header["Prefer"])
	if len(o.queryParams) == 0 && !strict {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return o.invalidQuery.At(percentEncoding)
	}
	if strict {
		c.Response().Header().Set("Preference-Applied", "handling=strict")
		if err := o.rejectUnknown(query); err != nil {
			return err
		}
	}
	normalized, err := o.normalizeQuery(query)
	if err != nil {
		return err
	}
	if normalized {
		r.URL.RawQuery = query.Encode() // from which the operation's parameters are decoded
	}
	RequestInfoFrom(r.Context()).Query = query
	input := &openapi3filter.RequestValidationInput{
		Request: r, QueryParams: query, Route: o.route,
		Options: &openapi3filter.Options{SkipSettingDefaults: true},
	}
	for _, p := range o.queryParams {
		values := query[p.Value.Name]
		if len(values) > 1 && !p.Value.Schema.Value.Type.Is("array") {
			return o.invalidQuery.At("must not be repeated", p.Value.Name)
		}
		for _, v := range values {
			switch {
			case !utf8.ValidString(v):
				return o.invalidQuery.At(notUTF8, p.Value.Name)
			case strings.ContainsRune(v, 0):
				return o.invalidQuery.At(nulCharacter, p.Value.Name)
			case v == "":
				return o.invalidQuery.At("must not be empty", p.Value.Name)
			}
		}
		if err := openapi3filter.ValidateParameter(r.Context(), input, p.Value); err != nil {
			return withIssues(o.invalidQuery, err, p.Value.Name)
		}
	}
	return nil
}

// readBody reads and validates the body. It returns the value and the text, which is JSON or
// a form without content coding, and where the fields of a YAML body are.
func (o *Operation) readBody(w http.ResponseWriter, r *http.Request, limit int64) (value any, text []byte, source yamlText, err error) {
	switch absent := r.ContentLength == 0 && r.Header.Get("Content-Type") == ""; {
	case absent && o.ignoresBody:
		return nil, nil, source, nil
	case absent:
		return nil, nil, source, o.invalidBody.At("is required")
	}
	const documentFactor = 8 // a document has what other operations take one by one
	if o.decodesBody {
		limit *= documentFactor
	}
	if o.mediaTypes[0] == formType {
		limit = min(limit, maxForm)
	}
	text, mediaType, err := readText(w, r, limit, o.mediaTypes)
	if err != nil {
		return nil, nil, source, err
	}
	switch mediaType {
	case formType:
		value, err = o.decodeForm(r, text)
	case yamlType:
		if value, source, err = decodeYAML(text); err == nil {
			value, err = o.sanitize(value)
		}
		if err == nil {
			text, err = jsonresponse.Marshal(value)
		}
	default:
		value, err = o.decodeJSON(text)
	}
	if err != nil || o.ignoresBody {
		return nil, nil, source, source.locate(err)
	}
	if issues := o.body.Check(value); len(issues) > 0 {
		return nil, nil, source, source.locate(&code.Error{Code: o.invalidBody, Issues: issues})
	}
	return value, text, source, nil
}

// decodeJSON decodes a body and sanitizes it.
func (o *Operation) decodeJSON(text []byte) (any, error) {
	if o.decodesBody { // people write it
		if err := yamltext.CheckJSON(text); err != nil {
			return nil, invalidText(err)
		}
	}
	value, err := decode(text)
	if err != nil {
		return nil, err
	}
	return o.sanitize(value)
}

// sanitize checks a body for what a schema cannot express.
func (o *Operation) sanitize(value any) (any, error) {
	value, path, message := sanitize(value, 0)
	switch {
	case message == tooDeep:
		return nil, code.InvalidJSON.At(tooDeep)
	case message != "" && !o.ignoresBody:
		return nil, o.invalidBody.At(message, path...)
	}
	return value, nil
}

// decode decodes exactly one JSON value.
func decode(text []byte) (any, error) {
	if !utf8.Valid(text) {
		return nil, code.InvalidJSON.At(notUTF8)
	}
	if bytes.HasPrefix(text, []byte(byteOrderMark)) {
		return nil, code.InvalidJSON.At(startsWithMark) // RFC 8259, section 8.1
	}
	if at := loneSurrogate(text); at >= 0 {
		return nil, code.InvalidJSON.At(fmt.Sprintf("must not contain a lone surrogate, such as the escape at byte %d", at+1))
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, code.InvalidJSON.At(jsonErrorMessage(err))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, code.InvalidJSON.At("must be a single JSON value")
	}
	return value, nil
}

// loneSurrogate returns the index of the first escape in a JSON text that is half of a
// surrogate pair without the other half, or -1. Package encoding/json replaces such an
// escape by U+FFFD, which would change a value, possibly a secret, without a trace.
func loneSurrogate(text []byte) int {
	for i := 0; ; {
		next := bytes.IndexByte(text[i:], '\\')
		if next < 0 {
			return -1
		}
		i += next
		switch first := escaped(text[i:]); {
		case !utf16.IsSurrogate(first):
			i = min(i+len(`\n`), len(text)) // any escape has at least two characters
		case utf16.DecodeRune(first, escaped(text[i+len(`\ud800`):])) == utf8.RuneError:
			return i
		default:
			i += len(`\ud83d\ude00`)
		}
	}
}

// escaped returns the UTF-16 code unit of the \u escape that a text begins with, or -1
// if it begins with none.
func escaped(text []byte) rune {
	const length = len(`\u0000`)
	if len(text) < length || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:length]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(unit)
}

func jsonErrorMessage(err error) string {
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Sprintf("%s at byte %d", syntax, syntax.Offset)
	case errors.Is(err, io.EOF):
		return "must not be empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "is truncated"
	}
	return "must be JSON"
}

const (
	maxDepth = 64 // levels of nested arrays and objects

	byteOrderMark = "\ufeff"

	percentEncoding = "must use valid percent-encoding"
	notUTF8         = "must be UTF-8"
	nulCharacter    = "must not contain a NUL character"
	startsWithMark  = "must not start with a byte order mark (U+FEFF)"
)

var tooDeep = fmt.Sprintf("must not be nested deeper than %d levels", maxDepth)

// sanitize checks what a schema cannot express: NUL characters, which Postgres
// cannot store, and too deep nesting. If message is not "", it describes what is
// wrong at path. It also writes whole numbers without fraction and exponent, because
// 60.0 and 6e1 are integers in JSON Schema, but not in the generated code.
func sanitize(value any, depth int) (_ any, path []string, message string) {
	if depth > maxDepth {
		return nil, nil, tooDeep
	}
	switch v := value.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return nil, nil, nulCharacter
		}
	case json.Number:
		return canonicalNumber(v), nil, ""
	case []any:
		for i, element := range v {
			if v[i], path, message = sanitize(element, depth+1); message != "" {
				return nil, append([]string{strconv.Itoa(i)}, path...), message
			}
		}
	case map[string]any:
		for key, field := range v {
			if strings.ContainsRune(key, 0) {
				return nil, nil, "must not contain a field name with a NUL character"
			}
			if v[key], path, message = sanitize(field, depth+1); message != "" {
				return nil, append([]string{key}, path...), message
			}
		}
	}
	return value, nil, ""
}

// canonicalNumber returns a whole number without fraction and exponent, and any
// other number unchanged.
func canonicalNumber(n json.Number) json.Number {
	const maxExact = 1 << 53 // up to here, a float64 represents every integer
	if !strings.ContainsAny(string(n), ".eE") {
		return n
	}
	f, err := n.Float64()
	if err != nil || f != math.Trunc(f) || math.Abs(f) > maxExact {
		return n
	}
	return json.Number(strconv.FormatInt(int64(f), 10))
}
