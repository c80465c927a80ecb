package middleware

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/problem"
	"caracal.run/management/store"
)

// statusClientClosedRequest is the status of a request whose client disconnected
// before the response, in the log and in metrics only. nginx uses 499, too.
const statusClientClosedRequest = 499

// A DeniedRequest is a request of an authenticated caller that received a 4xx
// response, as the audit log records it.
type DeniedRequest struct {
	Cause                store.Cause
	Zone                 string // in the path; "" if there is none
	EntityKind, EntityID string // in the path; "" if there is none
}

// Log writes the error response of a request that fails, as a page if writePage does,
// and one log line per request. It calls observe for each request, and onDenied for each
// denied request of an authenticated caller. If a request fails after a part of its
// response was sent, Log closes the connection. It does not log the query, the body and the headers,
// which may contain secrets.
func Log(
	log *slog.Logger, observe func(operation string, status int, errCode code.Code, duration time.Duration), onDenied func(DeniedRequest), writePage ErrorPage,
) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start := time.Now()
			err := next(c)
			r := c.Request()
			info := RequestInfoFrom(r.Context())
			interrupted := err != nil && c.Response().Committed // a part of the response may have been sent
			if err != nil && !interrupted {
				writeError(c, info, err, writePage)
			}
			duration := time.Since(start)
			status := c.Response().Status
			if interrupted {
				status = code.Table[problem.Code(err)].Status // which the client did not get
			}
			if errors.Is(r.Context().Err(), context.Canceled) {
				status = statusClientClosedRequest
			}
			operation := ""
			if info.Operation != nil {
				operation = info.Operation.ID
			}
			var errCode code.Code
			if err != nil {
				errCode = problem.Code(err)
			}
			observe(operation, status, errCode, duration)
			if status >= 400 && status < statusClientClosedRequest && info.Token != nil {
				denied := DeniedRequest{Cause: info.Cause()}
				denied.Cause.Status = status
				denied.Zone, _ = pathParam(c, "zoneId")
				denied.EntityKind, denied.EntityID = info.Operation.entity(c)
				onDenied(denied)
			}
			level := logLevel(status, err)
			if interrupted { // the client must not take what it got for the whole response
				defer panic(http.ErrAbortHandler)
			}
			if !log.Enabled(r.Context(), level) {
				return nil
			}
			attrs := make([]slog.Attr, 0, 10)
			attrs = append(attrs,
				slog.String("request_id", info.RequestID), slog.String("operation", operation),
				slog.String("method", info.Method), slog.String("path", info.Path),
				slog.Int("status", status), slog.Float64("duration_ms", float64(duration.Microseconds())/1000), slog.Int64("bytes", c.Response().Size))
			if info.Trace != "" {
				attrs = append(attrs, slog.String("trace_id", info.Trace))
			}
			if info.Token != nil {
				attrs = append(attrs, slog.String("actor", info.Token.ID))
			}
			if err != nil {
				attrs = append(attrs, slog.String("error", string(errCode)))
				if status >= 500 {
					attrs = append(attrs, slog.String("cause", err.Error()))
				}
			}
			log.LogAttrs(r.Context(), level, "request", attrs...)
			return nil
		}
	}
}

// logLevel returns the level at which a request is logged: error if it failed
// inside the service. An operation may also return a 5xx response without an error,
// as /ready does while it drains. That is expected and must not cause an alert.
func logLevel(status int, err error) slog.Level {
	switch {
	case status < 500:
		return slog.LevelInfo
	case err == nil:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// An ErrorPage writes the response for an error as a page, or returns false.
type ErrorPage func(w http.ResponseWriter, r *http.Request, err error) bool

func writeError(c echo.Context, info *RequestInfo, err error, writePage ErrorPage) {
	if writePage(c.Response(), c.Request(), err) {
		return
	}
	_ = problem.Write(c.Response(), c.Request(), info.RequestID, err) // fails only if the client has disconnected
}

// Recover turns a panic into internal_error, with the stack in the log.
func Recover() echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) (err error) {
			defer func() {
				if p := recover(); p != nil {
					if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
						panic(p) // net/http then closes the connection
					}
					err = code.InternalError.Because(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
				}
			}()
			return next(c)
		}
	}
}
