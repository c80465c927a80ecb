// Package problem writes error responses. Every error response has the same JSON
// fields, and those of RFC 9457 if the request accepts them. Status and sentence
// come from the generated [code.Table]. An error without a code becomes
// internal_error; its details are for the log only.
package problem

import (
	"cmp"
	"context"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/jsonresponse"
)

// Code returns the code of an error, or internal_error if it has none.
func Code(err error) code.Code {
	var errCode code.Code
	if errors.As(err, &errCode) {
		return errCode
	}
	if errors.Is(err, context.Canceled) {
		return code.ServiceUnavailable // the client has disconnected, or the service is shutting down
	}
	var routeError *echo.HTTPError
	if errors.As(err, &routeError) {
		switch routeError.Code {
		case http.StatusNotFound:
			return code.NotFound
		case http.StatusMethodNotAllowed:
			return code.MethodNotAllowed
		case http.StatusBadRequest:
			return code.InvalidRequest
		}
	}
	return code.InternalError
}

// Write writes the response for an error. It fails if the client has disconnected.
func Write(w http.ResponseWriter, r *http.Request, requestID string, err error) error {
	errCode := Code(err)
	entry := code.Table[errCode]
	body := response{Error: errCode, Description: entry.Sentence, RequestID: requestID}
	var codeErr *code.Error
	if errors.As(err, &codeErr) {
		body.Description = cmp.Or(codeErr.Sentence, body.Description)
		entry.Status = cmp.Or(codeErr.Status, entry.Status)
		if len(codeErr.Issues) > 0 {
			body.Details = &details{Issues(codeErr.Issues)}
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if wantsRFC9457(r) {
		body.Type, body.Title, body.Status = "urn:caracal:problem:"+string(errCode), entry.Sentence, entry.Status
		h.Set("Content-Type", "application/problem+json")
	}
	switch entry.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusUnsupportedMediaType:
		h.Set("Accept-Encoding", "gzip") // RFC 9110, section 12.5.3
	}
	SetRetryAfter(h, errCode)
	text, err := jsonresponse.Marshal(body)
	if err != nil {
		return err
	}
	if codeErr != nil && len(codeErr.Fields) > 0 {
		extra, err := jsonresponse.Marshal(codeErr.Fields)
		if err != nil {
			return err
		}
		text = append(append(text[:len(text)-1], ','), extra[1:]...)
	}
	text = append(text, '\n') // like every other response
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(entry.Status)
	_, err = w.Write(text)
	return err
}

// SetRetryAfter sets the header of a response that says when to retry, if the code has
// one.
func SetRetryAfter(h http.Header, errCode code.Code) {
	switch status := code.Table[errCode].Status; {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable, errCode == code.IdempotencyKeyInUse:
		h.Set("Retry-After", strconv.Itoa(retryAfter(errCode)))
	}
}

// retryAfter returns the number of seconds to wait before retrying.
func retryAfter(errCode code.Code) int {
	const minute = 60
	switch errCode {
	case code.RateLimited:
		return minute - time.Now().Second() // until the next window, which begins with the minute
	case code.DCRLimitExceeded:
		return minute // an estimate, because the time at which the next registration expires is not looked up
	}
	return 1
}

// A response is the body of an error response, in the order of the spec. [Write]
// appends the Fields of the [code.Error].
type response struct {
	Error       code.Code `json:"error"`
	Description string    `json:"error_description"`
	RequestID   string    `json:"requestId"`
	Details     *details  `json:"details,omitempty"`

	// RFC 9457
	Type   string `json:"type,omitempty"`
	Title  string `json:"title,omitempty"`
	Status int    `json:"status,omitempty"`
}

type details struct {
	Issues []Issue `json:"issues"`
}

// An Issue is the JSON form of a [code.Issue].
type Issue struct {
	Path    []string `json:"path"`
	Message string   `json:"message"`
	Line    int      `json:"line,omitempty"`
	Column  int      `json:"column,omitempty"`
}

// Issues converts issues to their JSON form. A path is never null.
func Issues(from []code.Issue) []Issue {
	issues := make([]Issue, len(from))
	for i, f := range from {
		issues[i] = Issue{Path: append([]string{}, f.Path...), Message: f.Message, Line: f.Line, Column: f.Column}
	}
	return issues
}

// wantsRFC9457 reports whether the request accepts application/problem+json by name
// (RFC 9110, section 12.5.1).
func wantsRFC9457(r *http.Request) bool {
	for _, accepted := range r.Header.Values("Accept") {
		for mediaRange := range strings.SplitSeq(accepted, ",") {
			mediaType, params, err := mime.ParseMediaType(mediaRange)
			if err != nil || mediaType != "application/problem+json" {
				continue
			}
			quality, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
			return err == nil && quality > 0
		}
	}
	return false
}
