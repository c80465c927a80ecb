package middleware

import (
	"errors"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/auth"
	"caracal.run/management/server/limiter"
)

// Authenticate recognises the caller of everything below /v1, known operation
// or not. An address that fails too often is told so.
func Authenticate(verifier *auth.Verifier, failures *limiter.Limiter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			info := RequestInfoFrom(r.Context())
			info.Bearer = auth.Bearer(r.Header.Values("Authorization"))
			if info.Operation.public() || info.Operation == nil && !v1(r.URL.Path) {
				return next(c)
			}
			token, err := verifier.Verify(r.Context(), info.Bearer)
			if errors.Is(err, code.InvalidAdminToken) && !failures.Allow(info.Address) {
				return code.RateLimited
			}
			if err != nil {
				return err
			}
			info.Token = &token
			return next(c)
		}
	}
}
