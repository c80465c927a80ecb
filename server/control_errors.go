package server

import (
	"cmp"
	"errors"
	"net/http"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/jsonresponse"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/problem"
)

// A controlFailure is the body of an error response of the Control API.
type controlFailure struct {
	OK        bool               `json:"ok"`
	Error     controlFailureInfo `json:"error"`
	RequestID string             `json:"requestId"`
}

type controlFailureInfo struct {
	Code        string          `json:"code"`
	Reason      string          `json:"reason"`
	Problem     code.Code       `json:"problem"`
	Remediation string          `json:"remediation,omitempty"`
	Issues      []problem.Issue `json:"issues,omitempty"`
}

// kindOfStatus returns the kind of an error of the Control API.
func kindOfStatus(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "unauthenticated"
	case http.StatusForbidden:
		return "denied"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusConflict:
		return "conflict"
	case http.StatusTooManyRequests:
		return "rate_limited"
	case http.StatusServiceUnavailable:
		return "unavailable"
	}
	if status >= http.StatusInternalServerError {
		return "upstream"
	}
	return "invalid"
}

// writeEnvelope writes the response for an error as an envelope, if the operation of the
// request has envelopes.
func writeEnvelope(w http.ResponseWriter, r *http.Request, err error) bool {
	info := middleware.RequestInfoFrom(r.Context())
	if !info.Operation.Envelope() {
		return false
	}
	errCode := problem.Code(err)
	entry := code.Table[errCode]
	body := controlFailure{RequestID: info.RequestID, Error: controlFailureInfo{Code: kindOfStatus(entry.Status), Reason: entry.Sentence, Problem: errCode}}
	if errCode == code.ControlZoneMismatch {
		body.Error.Code = "zone_mismatch"
	}
	var codeErr *code.Error
	if errors.As(err, &codeErr) {
		body.Error.Reason = cmp.Or(codeErr.Sentence, body.Error.Reason)
		body.Error.Remediation, _ = codeErr.Fields["remediation"].(string)
		body.Error.Issues = problem.Issues(codeErr.Issues)
	}
	text, err := jsonresponse.Marshal(body)
	if err != nil {
		return false
	}
	if entry.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	problem.SetRetryAfter(w.Header(), errCode)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(entry.Status)
	_, _ = w.Write(append(text, '\n')) // fails only if the client has disconnected
	return true
}
