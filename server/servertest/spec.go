package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"caracal.run/management/gen"
	"caracal.run/management/gen/code"
)

// An Operation is an operation of the spec.
type Operation struct {
	*openapi3.Operation
	Method, Path string
	route        *routers.Route
	pattern      *regexp.Regexp
}

// The document in YAML and pages are any text to their schemas.
func init() {
	openapi3filter.RegisterBodyDecoder("application/yaml", openapi3filter.PlainBodyDecoder)
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.PlainBodyDecoder)
}

// Operations returns all operations of the spec, sorted by path.
var Operations = sync.OnceValue(func() []Operation {
	spec, err := openapi3.NewLoader().LoadFromData(gen.OpenAPI)
	if err != nil {
		panic(err) // the spec is generated and checked before
	}
	var all []Operation
	for path, item := range spec.Paths.Map() {
		pattern := regexp.MustCompile("^" + regexp.MustCompile(`\\\{[^/]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "$")
		for method, op := range item.Operations() {
			op.Parameters = slices.Concat(item.Parameters, op.Parameters)
			route := &routers.Route{Spec: spec, Path: path, PathItem: item, Method: method, Operation: op}
			all = append(all, Operation{op, method, path, route, pattern})
		}
	}
	// A path without parameters goes before one that would match it too.
	slices.SortFunc(all, func(a, b Operation) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	slices.SortStableFunc(all, func(a, b Operation) int { return strings.Count(a.Path, "{") - strings.Count(b.Path, "{") })
	return all
})

// Codes returns the error codes that the operation declares for a status.
func (o Operation) Codes(status string) []string {
	response := o.Responses.Value(status)
	if response == nil {
		return nil
	}
	var codes []string
	if media := response.Value.Content.Get("application/json"); media != nil {
		for _, part := range media.Schema.Value.AllOf {
			if field := part.Value.Properties["error"]; field != nil {
				if inEnvelope := field.Value.Properties["problem"]; inEnvelope != nil {
					field = inEnvelope
				}
				for _, c := range field.Value.Enum {
					codes = append(codes, fmt.Sprint(c))
				}
			}
		}
	}
	return codes
}

// Streams returns the Redis streams that the operation declares to publish on.
func (o Operation) Streams() (all []string) {
	declared, _ := o.Extensions["x-events"].([]any)
	for _, event := range declared {
		all = append(all, event.(map[string]any)["stream"].(string))
	}
	return all
}

// AuditKinds returns the kinds of objects that the operation declares to record
// audit entries of.
func (o Operation) AuditKinds() (all []string) {
	declared, _ := o.Extensions["x-audit"].([]any)
	for _, kind := range declared {
		all = append(all, kind.(string))
	}
	return all
}

// Matches reports whether a request is one of the operation, or of another with the same
// method and a path that matches too.
func (o Operation) Matches(r *http.Request) bool {
	return o.Method == r.Method && o.pattern.MatchString(r.URL.EscapedPath())
}

func operationOf(method, path string) (Operation, bool) {
	get := method
	if method == http.MethodHead {
		get = http.MethodGet
	}
	for _, op := range Operations() {
		if op.Method == get && op.pattern.MatchString(path) {
			return op, method == get || op.Extensions["x-head"] != false
		}
	}
	return Operation{}, false
}

// Transport returns a transport that validates every response against the spec,
// and fails the test if one is not valid.
func (a *API) Transport() http.RoundTripper { return validatingTransport{a.TB} }

type validatingTransport struct{ tb testing.TB }

func (c validatingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err := validateResponse(r, resp, body); err != nil {
		c.tb.Errorf("%s %s returned %d, which the spec does not allow: %.2000v\n%.2000s", r.Method, r.URL.Path, resp.StatusCode, err, body)
	}
	return resp, nil
}

func validateResponse(r *http.Request, resp *http.Response, body []byte) error {
	if resp.Header.Get("X-Request-Id") == "" {
		return fmt.Errorf("the header X-Request-Id is missing")
	}
	path := r.URL.EscapedPath()
	if strings.HasPrefix(path, "/v1/") && !strings.HasPrefix(resp.Header.Get("Cache-Control"), "no-store") {
		return fmt.Errorf("Cache-Control: no-store is missing")
	}
	// No browser may interpret as HTML what is in a response, except the pages that are HTML.
	if resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		return fmt.Errorf("X-Content-Type-Options: nosniff is missing")
	}
	kind := resp.Header.Get("Content-Type")
	switch {
	case kind == "" && len(body) > 0:
		return fmt.Errorf("Content-Type is missing")
	case strings.HasPrefix(kind, "text/html") && resp.Header.Get("Content-Security-Policy") == "":
		return fmt.Errorf("Content-Security-Policy is missing on a page")
	}
	op, known := operationOf(r.Method, path)
	if !known {
		return validateUnrouted(resp, body)
	}
	status := strconv.Itoa(resp.StatusCode)
	if resp.StatusCode == http.StatusNoContent && len(body) > 0 {
		return fmt.Errorf("the body is not empty")
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: op.route},
		Status:                 resp.StatusCode, Header: resp.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, ExcludeResponseBody: r.Method == http.MethodHead || isExport(resp)},
	}
	input.SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(context.Background(), input); err != nil {
		return err
	}
	if isExport(resp) {
		if err := validateExport(op, resp, body); err != nil {
			return err
		}
	}
	errorCode := ""
	if op.Codes(status) != nil {
		errorCode = string(codeOf(body))
	}
	seen.record(responseOutcome(op.OperationID, status, errorCode))
	return nil
}

// validateUnrouted validates a response to a request that matches no operation.
func validateUnrouted(resp *http.Response, body []byte) error {
	if len(body) == 0 {
		return nil // HEAD
	}
	errorCode := codeOf(body)
	entry, known := code.Table[errorCode]
	if !known || entry.Status != resp.StatusCode {
		return fmt.Errorf("%q is not an error code of this status", errorCode)
	}
	return nil
}

// codeOf returns the error code in a response body; "" if it is not an error.
func codeOf(body []byte) code.Code {
	var problem struct{ Error json.RawMessage }
	_ = json.Unmarshal(body, &problem) // any other body has no error code
	var text code.Code
	if json.Unmarshal(problem.Error, &text) == nil {
		return text
	}
	var envelope struct{ Problem code.Code }
	_ = json.Unmarshal(problem.Error, &envelope)
	return envelope.Problem
}
