// Package problem answers errors. Every error that leaves the house has one
// shape and is looked up in one table, the generated [code.Table]; what has no
// code is internal_error, and only the log learns more.
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
)

// Code is the code of any error.
func Code(err error) code.Code {
	var deniedRequest code.Code
	if errors.As(err, &deniedRequest) {
		return deniedRequest
	}
	if errors.Is(err, context.Canceled) {
		return code.ServiceUnavailable // the caller has left, or we are leaving: nobody reads this
	}
	var routing *echo.HTTPError
	if errors.As(err, &routing) {
		switch routing.Code {
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

// Write answers an error.
func Write(w http.ResponseWriter, r *http.Request, requestID string, err error) error {
	deniedRequest := Code(err)
	entry := code.Table[deniedRequest]
	body := map[string]any{}
	var full *code.Error
	if errors.As(err, &full) {
		for member, value := range full.Fields {
			body[member] = value
		}
		if len(full.Issues) > 0 {
			body["details"] = map[string]any{"issues": toIssues(full.Issues)}
		}
	}
	body["error"] = string(deniedRequest)
	body["error_description"] = entry.Sentence
	body["requestId"] = requestID
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	if wantsRFC9457(r) {
		body["type"] = "urn:caracal:problem:" + string(deniedRequest)
		body["title"] = entry.Sentence
		body["status"] = entry.Status
		h.Set("Content-Type", "application/problem+json")
	}
	switch entry.Status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(retryAfter(deniedRequest)))
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	text = append(text, '\n') // as every other answer ends
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(entry.Status)
	_, err = w.Write(text)
	return err
}

// retryAfter is in how many seconds another try is worth it.
func retryAfter(deniedRequest code.Code) int {
	const minute = 60
	switch deniedRequest {
	case code.RateLimited:
		return minute - time.Now().Second() // windows begin with the minute
	case code.DCRLimitExceeded:
		return minute // when some will have expired is for the zone to know
	}
	return 1
}

type issue struct {
	Path    []string `json:"path"`
	Message string   `json:"message"`
}

func toIssues(all []code.Issue) []issue {
	result := make([]issue, len(all))
	for i, one := range all {
		result[i] = issue{Path: append([]string{}, one.Path...), Message: one.Message}
	}
	return result
}

func wantsRFC9457(r *http.Request) bool {
	for _, accepted := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(accepted, ",") {
			if kind, _, err := mime.ParseMediaType(one); err == nil && kind == "application/problem+json" {
				return true
			}
		}
	}
	return false
}
