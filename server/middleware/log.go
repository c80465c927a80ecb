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

// hungUp is the status, for log and metrics only, of a caller who left before
// the answer.
const hungUp = 499

// Log answers an error, writes one line a request, and has an authenticated
// caller's refusal recorded. Neither query nor body nor header is logged: they
// may hold secrets.
func Log(log *slog.Logger, observe func(operation string, status int, refusal code.Code, took time.Duration), refused func(store.Cause, string)) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			start := time.Now()
			err := next(c)
			r := c.Request()
			facts := FactsOf(r.Context())
			if err != nil {
				answer(c, facts, err)
			}
			took := time.Since(start)
			status := c.Response().Status
			if errors.Is(r.Context().Err(), context.Canceled) {
				status = hungUp
			}
			operation := ""
			if facts.Operation != nil {
				operation = facts.Operation.ID
			}
			var refusal code.Code
			if err != nil {
				refusal = problem.Code(err)
			}
			observe(operation, status, refusal, took)
			if status >= 400 && status < hungUp && facts.Token != nil {
				cause := facts.Cause()
				cause.Status = status
				refused(cause, c.Param("zoneId"))
			}
			level := slog.LevelInfo
			if status >= 500 {
				level = slog.LevelError
			}
			if !log.Enabled(r.Context(), level) {
				return nil
			}
			attrs := make([]slog.Attr, 0, 10)
			attrs = append(attrs,
				slog.String("request_id", facts.RequestID), slog.String("operation", operation),
				slog.String("method", facts.Method), slog.String("path", facts.Path),
				slog.Int("status", status), slog.Float64("duration_ms", float64(took.Microseconds())/1000), slog.Int64("bytes", c.Response().Size))
			if facts.Trace != "" {
				attrs = append(attrs, slog.String("trace_id", facts.Trace))
			}
			if facts.Token != nil {
				attrs = append(attrs, slog.String("actor", facts.Token.ID))
			}
			if err != nil {
				attrs = append(attrs, slog.String("error", string(refusal)))
				if status >= 500 {
					attrs = append(attrs, slog.String("cause", err.Error()))
				}
			}
			log.LogAttrs(r.Context(), level, "request", attrs...)
			return nil
		}
	}
}

func answer(c echo.Context, facts *Facts, err error) {
	if c.Response().Committed {
		return // too late to say anything but in the log
	}
	_ = problem.Write(c.Response(), c.Request(), facts.RequestID, err) // a caller who has left is no news
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
