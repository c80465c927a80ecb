package client

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// An Error is any response except the success response of the operation.
type Error struct {
	Operation   string         // operationId, such as "createZone"
	Status      int            // HTTP status, which is that of a success if the response is invalid otherwise
	Code        string         // error code, such as [CodeZoneNotFound]; "" if the response does not come from the API
	Description string         // human-readable message
	Fields      []FieldError   // invalid fields of the request
	RequestID   string         // identifies the request in the server logs
	RetryAfter  time.Duration  // delay before a retry; 0 if the response has no Retry-After
	Extra       map[string]any // other fields of the response, such as "live_dcr_applications"; numbers are float64
	Body        string         // if there is no code, the first printable characters of the response, unless it can contain a secret

	cause error // of a response that could not be read or decoded
}

// Unwrap returns the cause if the response could not be read or decoded, such as
// [io.ErrUnexpectedEOF], or nil.
func (e *Error) Unwrap() error { return e.cause }

// A FieldError describes an invalid field, parameter or header.
type FieldError struct {
	Path    string // field names and array indexes, separated by dots, such as "operations.0.path"
	Message string // follows the name of the field, such as "must not be empty"
}

// Error returns one line with the operation, code, status, message, invalid fields
// and request ID. Without a code, it contains Body.
func (e *Error) Error() string {
	var b strings.Builder
	name := e.Code
	switch {
	case name != "":
	case e.Status >= 400:
		name = cmp.Or(http.StatusText(e.Status), "error")
	default:
		name = "unexpected response"
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
		if e.Body == "" && (name != "issues" || issues == nil) {
			fmt.Fprintf(&b, " %s: %v.", name, e.Extra[name])
		}
	}
	text := printable(b.String(), maxText)
	if e.Body != "" {
		text += ": " + e.Body
	}
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(" (retry after %v)", e.RetryAfter.Round(time.Second))
	}
	if e.RequestID != "" {
		text += fmt.Sprintf(" (request %s)", e.RequestID)
	}
	return text
}

// A failure is an error of a call that ended without a response.
type failure struct {
	operation string
	err       error
	last      *Error // the response to an earlier attempt, or nil
}

func (f *failure) Error() string {
	text := printable(f.operation+": "+f.err.Error(), maxText)
	if f.last != nil {
		text += "; before that: " + f.last.Error()
	}
	return text
}

func (f *failure) Unwrap() []error {
	if f.last == nil {
		return []error{f.err}
	}
	return []error{f.err, f.last}
}

// The maximum size in bytes of the parts of an error that can come from any server.
const (
	maxText      = 4 << 10
	maxExcerpt   = 512
	maxRequestID = 128
)

// printable returns a text with one space in place of each sequence of spaces and
// characters that are not printable. It truncates what is longer than limit bytes.
func printable(text string, limit int) string {
	var b strings.Builder
	space := false
	for _, r := range text {
		if r == ' ' || r == utf8.RuneError || !unicode.IsPrint(r) {
			space = b.Len() > 0
			continue
		}
		if b.Len() >= limit {
			b.WriteString("…")
			break
		}
		if space {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
		space = false
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

// errorCode matches error codes. The errors of most proxies do not match.
var errorCode = regexp.MustCompile(`^[a-z][a-z0-9_]{0,99}$`)

// parse sets the fields from an error response, and reports whether the response
// contains an error of the API, which has a code. A JSON object without one is of a
// health check or of another program: its fields are in Extra. A field of another
// type than that of the API is ignored.
func (e *Error) parse(body string) bool {
	var all map[string]any
	if json.Unmarshal([]byte(body), &all) != nil || all == nil {
		return false
	}
	code, hasCode := all["error"].(string)
	if envelope, ok := all["error"].(map[string]any); ok { // of the Control API
		return e.parseEnvelope(all, envelope)
	}
	if all["error"] != nil && !(hasCode && errorCode.MatchString(code)) {
		return false
	}
	e.Code = code
	e.Description, _ = all["error_description"].(string)
	if id, _ := all["requestId"].(string); id != "" {
		e.RequestID = printable(id, maxRequestID)
	}
	details, _ := all["details"].(map[string]any)
	e.addIssues(details["issues"])
	for _, name := range []string{"error", "error_description", "requestId", "details", "type", "title", "status"} {
		delete(all, name)
	}
	if len(all) > 0 {
		e.Extra = all
	}
	if hasCode {
		e.Body = ""
	}
	return true
}

// parseEnvelope sets the fields from an error response of the Control API. Its kind of
// error, and what to do, are in Extra.
func (e *Error) parseEnvelope(all, envelope map[string]any) bool {
	code, hasCode := envelope["problem"].(string)
	if !hasCode || !errorCode.MatchString(code) {
		return false
	}
	e.Code, e.Body = code, ""
	e.Description, _ = envelope["reason"].(string)
	if id, _ := all["requestId"].(string); id != "" {
		e.RequestID = printable(id, maxRequestID)
	}
	e.addIssues(envelope["issues"])
	e.Extra = map[string]any{}
	for _, name := range []string{"code", "remediation"} {
		if value, given := envelope[name]; given {
			e.Extra[name] = value
		}
	}
	return true
}

func (e *Error) addIssues(value any) {
	issues, _ := value.([]any)
	for _, issue := range issues {
		if f, ok := fieldError(issue); ok {
			e.Fields = append(e.Fields, f)
		}
	}
}

// fieldError returns an element of details.issues, and reports whether it is valid.
func fieldError(issue any) (FieldError, bool) {
	fields, _ := issue.(map[string]any)
	path, isPath := fields["path"].([]any)
	message, isMessage := fields["message"].(string)
	names := make([]string, len(path))
	for i, name := range path {
		names[i] = fmt.Sprint(name)
	}
	return FieldError{strings.Join(names, "."), message}, isPath && isMessage
}
