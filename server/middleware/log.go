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

// statusClientClosedRequest is the status, for log and metrics only, of a caller who left before
// the answer.
const statusClientClosedRequest = 499

// Log answers an error, writes one line a request, and has an authenticated
// caller's refusal recorded. Neither query nor body nor header is logged: they
// may hold secrets.
func Log(log *slog.Logger, observe func(operation string, status int, deniedRequest code.Code, duration time.Duration), onDenied func(store.Cause, string)) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start := time.Now()
			err := next(c)
			r := c.Request()
			info := RequestInfoFrom(r.Context())
			if err != nil {
				writeError(c, info, err)
			}
			duration := time.Since(start)
			status := c.Response().Status
			if errors.Is(r.Context().Err(), context.Canceled) {
				status = statusClientClosedRequest
			}
			operation := ""
			if info.Operation != nil {
				operation = info.Operation.ID
			}
			var deniedRequest code.Code
			if err != nil {
				deniedRequest = problem.Code(err)
			}
			observe(operation, status, deniedRequest, duration)
			if status >= 400 && status < statusClientClosedRequest && info.Token != nil {
				cause := info.Cause()
				cause.Status = status
				onDenied(cause, c.Param("zoneId"))
			}
			level := logLevel(status, err)
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
				attrs = append(attrs, slog.String("error", string(deniedRequest)))
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
// inside the service. An operation may also return a 5xx response of its own, as
// /ready does while it drains: that is a report, and alerts nobody.
func logLevel(status int, err error) slog.Level {
	switch {
	case status < 500:
		return slog.LevelInfo
	case err == nil:
		return slog.LevelWarn
	}
	return slog.LevelError
}

func writeError(c echo.Context, info *RequestInfo, err error) {
	if c.Response().Committed {
		return // too late to say anything but in the log
	}
	_ = problem.Write(c.Response(), c.Request(), info.RequestID, err) // a caller who has left is no news
}

// Recover makes a panic an internal_error, with its stack in the log.
func Recover() echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) (err error) {
			defer func() {
				if p := recover(); p != nil {
					if failure, ok := p.(error); ok && errors.Is(failure, http.ErrAbortHandler) {
						panic(p) // net/http's own way to hang up
					}
					err = code.InternalError.Because(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
				}
			}()
			return next(c)
		}
	}
}
