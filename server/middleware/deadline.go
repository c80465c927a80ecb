package middleware

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"
)

// Deadline limits the duration of an operation, so that a stalled database does not
// keep a client waiting. An export can take longer, and a stream of events has no end.
//
// It comes after [Validate], which reads the body, so that the time to receive the
// body does not count. The HTTP server's ReadTimeout limits that.
func Deadline(timeout, exportTimeout time.Duration) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			limit := timeout
			switch info := RequestInfoFrom(r.Context()); {
			case info == nil:
			case info.WantsStream:
				return next(c)
			case info.isExport():
				limit = exportTimeout
			}
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			c.SetRequest(r.WithContext(ctx))
			defer c.SetRequest(r) // [Log] checks its context to find out whether the client has disconnected
			return next(c)
		}
	}
}
