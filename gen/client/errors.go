package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// An Error is any response except the success response of the operation.
type Error struct {
	Operation   string         // operationId, such as "createZone"
	Status      int            // HTTP status
	Code        string         // error code, such as [CodeZoneNotFound]; "" if the response does not come from the API
	Description string         // human-readable message
	Fields      []FieldError   // invalid fields of the request
	RequestID   string         // identifies the request in the server logs
	RetryAfter  time.Duration  // delay before a retry; 0 if the response has no Retry-After
	Extra       map[string]any // other fields of the response, such as "live_dcr_applications"; numbers are float64
}

// A FieldError describes an invalid field, parameter or header.
type FieldError struct {
	Path    string // field names and array indexes, separated by dots, such as "operations.0.path"
	Message string // follows the name of the field, such as "must not be empty"
}

// Error returns the operation, code, status, message and invalid fields.
func (e *Error) Error() string {
	var b strings.Builder
	name := e.Code
	if name == "" {
		name = http.StatusText(e.Status)
	}
	fmt.Fprintf(&b, "%s: %s (%d)", e.Operation, name, e.Status)
	if e.Description != "" {
		b.WriteString(": " + e.Description)
	}
	for _, f := range e.Fields {
		fmt.Fprintf(&b, " %s: %s.", f.Path, f.Message)
	}
	issues := PolicyIssues(e)
	for _, issue := range issues {
		fmt.Fprintf(&b, " %d:%d: %s", issue.Row, issue.Column, issue.Message)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Extra)) {
		if name != "issues" || issues == nil {
			fmt.Fprintf(&b, " %s: %v.", name, e.Extra[name])
		}
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Code returns the error code of an error that is or wraps an [*Error], such as
// [CodeZoneNotFound], or "" if there is none.
func Code(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// PolicyIssues returns what is wrong with the content of policies, of an error that is
// or wraps an [*Error] such as [CodeInvalidRego], or nil if there is nothing.
func PolicyIssues(err error) []PolicyIssue {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Extra["issues"] == nil {
		return nil
	}
	text, err := json.Marshal(e.Extra["issues"])
	if err != nil {
		return nil
	}
	var issues []PolicyIssue
	if json.Unmarshal(text, &issues) != nil {
		return nil
	}
	return issues
}

// check returns nil for the success response of the operation. It returns any other
// response as an *Error.
func (r *response) check() error {
	want := r.call.accept
	if r.status == r.call.status && (want == "" || r.mediaType() == want) {
		return nil
	}
	e := &Error{
		Operation:  r.call.operation,
		Status:     r.status,
		RequestID:  r.header.Get("X-Request-Id"),
		RetryAfter: retryAfter(r.header),
	}
	if r.status >= 400 && r.isJSON() && e.parse(r.body) {
		return e
	}
	switch contentType := r.header.Get("Content-Type"); {
	case r.status == r.call.status:
		e.Description = fmt.Sprintf("unexpected content type %q instead of %s", contentType, want)
	case r.status >= 300 && r.status < 400:
		e.Description = "unexpected redirect" + location(r.header) + ", which the client does not follow"
	default:
		e.Description = fmt.Sprintf("unexpected response with content type %q", contentType)
	}
	return e
}

// location describes the target of a redirect without its path and query, which
// may contain secrets.
func location(h http.Header) string {
	target, err := url.Parse(h.Get("Location"))
	if err != nil || target.Host == "" {
		return ""
	}
	return " to " + target.Scheme + "://" + target.Host
}

// errorCode matches error codes. The errors of most proxies do not match.
var errorCode = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// parse sets the fields from an error response, and reports whether the
// response contains an error of the API.
func (e *Error) parse(body []byte) bool {
	var known struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
		RequestID   string `json:"requestId"`
		Details     struct {
			Issues []struct {
				Path    []string `json:"path"`
				Message string   `json:"message"`
			} `json:"issues"`
		} `json:"details"`
	}
	var all map[string]any
	if json.Unmarshal(body, &known) != nil || json.Unmarshal(body, &all) != nil {
		return false
	}
	if known.Code != "" && !errorCode.MatchString(known.Code) {
		return false
	}
	for _, name := range []string{"error", "error_description", "requestId", "details", "type", "title", "status"} {
		delete(all, name)
	}
	e.Code, e.Description = known.Code, known.Description
	if known.RequestID != "" {
		e.RequestID = known.RequestID
	}
	for _, issue := range known.Details.Issues {
		e.Fields = append(e.Fields, FieldError{strings.Join(issue.Path, "."), issue.Message})
	}
	if len(all) > 0 {
		e.Extra = all
	}
	return true
}
