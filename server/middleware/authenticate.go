package middleware

import (
	"errors"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/auth"
	"caracal.run/management/server/limiter"
)

// Authenticate verifies the admin token of every request below /v1, whether or not
// the path has an operation. It returns invalid_admin_token, or rate_limited if
// the address has failed too often.
func Authenticate(verifier *auth.Verifier, failures *limiter.Limiter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			info := RequestInfoFrom(r.Context())
			info.Bearer = auth.Bearer(r.Header.Values("Authorization"))
			if info.Operation.public() || info.Operation == nil && !isV1(r.URL.Path) {
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
