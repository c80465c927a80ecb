package middleware

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"
)

// Deadline bounds how long an operation may take, so that a database that has
// stalled does not keep a client waiting.
//
// It comes after [Validate], which reads the body, so that the time that a body
// takes to arrive does not count. The HTTP server's ReadTimeout bounds that.
func Deadline(timeout time.Duration) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			ctx, cancel := context.WithTimeout(r.Context(), timeout)
			defer cancel()
			c.SetRequest(r.WithContext(ctx))
			defer c.SetRequest(r) // [Log] reads from its context whether the client has disconnected
			return next(c)
		}
	}
}
