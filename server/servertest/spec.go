package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
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
	"caracal.run/management/store/storetest"
)

// Main runs the tests of a binary on its own servers and, if all of them ran,
// fails unless every answer that the spec declares was met.
func Main(m *testing.M) {
	os.Exit(storetest.Run(func() int {
		status := m.Run()
		if status != 0 || isPartialRun() {
			return status
		}
		if missing := missingOutcomes(); len(missing) > 0 {
			fmt.Fprintf(os.Stderr, "the spec declares answers that no test met:\n  %s\n", strings.Join(missing, "\n  "))
			return 1
		}
		return 0
	}))
}

// isPartialRun says whether somebody asked for some of the tests only.
func isPartialRun() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.bench", "test.fuzz"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	return false
}

// An Operation is one of the spec's.
type Operation struct {
	*openapi3.Operation
	Method, Path string
	route        *routers.Route
	pattern      *regexp.Regexp
}

// Operations are all operations of the spec, sorted by path.
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

// Codes are the codes that an operation declares for a status.
func (o Operation) Codes(status string) []string {
	response := o.Responses.Value(status)
	if response == nil {
		return nil
	}
	var codes []string
	if media := response.Value.Content.Get("application/json"); media != nil {
		for _, part := range media.Schema.Value.AllOf {
			if member := part.Value.Properties["error"]; member != nil {
				for _, c := range member.Value.Enum {
					codes = append(codes, fmt.Sprint(c))
				}
			}
		}
	}
	return codes
}

func operationOf(method, path string) (Operation, bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, op := range Operations() {
		if op.Method == method && op.pattern.MatchString(path) {
			return op, true
		}
	}
	return Operation{}, false
}

// outcomes is which answers were met: operationId, status, code.
var outcomes = struct {
	sync.Mutex
	answers map[string]bool
}{answers: map[string]bool{}}

func outcomeName(operation string, status, code string) string {
	return strings.TrimSpace(operation + " " + status + " " + code)
}

// shared codes come from middleware alone, which knows no operations: once is
// enough.
var shared = []code.Code{code.RateLimited, code.InternalError, code.ServiceUnavailable}

func missingOutcomes() []string {
	outcomes.Lock()
	defer outcomes.Unlock()
	var missing []string
	for _, op := range Operations() {
		for _, status := range slices.Sorted(maps.Keys(op.Responses.Map())) {
			codes := op.Codes(status)
			if codes == nil {
				codes = []string{""}
			}
			for _, c := range codes {
				if slices.Contains(shared, code.Code(c)) {
					continue
				}
				if name := outcomeName(op.OperationID, status, c); !outcomes.answers[name] {
					missing = append(missing, name)
				}
			}
		}
	}
	for _, c := range shared {
		if !outcomes.answers[string(c)] {
			missing = append(missing, string(c)+", of any operation")
		}
	}
	return missing
}

// Transport holds every answer against the spec.
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
		c.tb.Errorf("%s %s answered %d, which the spec does not admit: %.2000v\n%.2000s", r.Method, r.URL.Path, resp.StatusCode, err, body)
	}
	return resp, nil
}

func validateResponse(r *http.Request, resp *http.Response, body []byte) error {
	if resp.Header.Get("X-Request-Id") == "" {
		return fmt.Errorf("it has no X-Request-Id")
	}
	path := r.URL.EscapedPath()
	if strings.HasPrefix(path, "/v1/") && (resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff") {
		return fmt.Errorf("it lacks the headers of every answer below /v1")
	}
	op, known := operationOf(r.Method, path)
	if !known {
		return validateUnrouted(resp, body)
	}
	status := strconv.Itoa(resp.StatusCode)
	if resp.StatusCode == http.StatusNoContent && len(body) > 0 {
		return fmt.Errorf("it has a body")
	}
	input := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, Route: op.route},
		Status:                 resp.StatusCode, Header: resp.Header,
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true, ExcludeResponseBody: r.Method == http.MethodHead},
	}
	input.SetBodyBytes(body)
	if err := openapi3filter.ValidateResponse(context.Background(), input); err != nil {
		return err
	}
	deniedRequest := ""
	if op.Codes(status) != nil {
		deniedRequest = string(codeOf(body))
	}
	outcomes.Lock()
	defer outcomes.Unlock()
	outcomes.answers[outcomeName(op.OperationID, status, deniedRequest)] = true
	if deniedRequest != "" {
		outcomes.answers[deniedRequest] = true
	}
	return nil
}

// validateUnrouted checks what is answered where no operation is.
func validateUnrouted(resp *http.Response, body []byte) error {
	if len(body) == 0 {
		return nil // HEAD
	}
	deniedRequest := codeOf(body)
	entry, known := code.Table[deniedRequest]
	if !known || entry.Status != resp.StatusCode {
		return fmt.Errorf("%q is no code with that status", deniedRequest)
	}
	return nil
}

// codeOf is the code in an answer's body.
func codeOf(body []byte) code.Code {
	var problem struct{ Error string }
	_ = json.Unmarshal(body, &problem) // what is no problem has no code
	return code.Code(problem.Error)
}
