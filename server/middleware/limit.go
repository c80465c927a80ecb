package middleware

import (
	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/limiter"
)

// LimitByAddress limits the requests to the API from one address, whether or not the path
// has an operation. It returns rate_limited.
func LimitByAddress(limit *limiter.Limiter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			if isAPI(r.URL.Path) && !limit.Allow("ip:"+RequestInfoFrom(r.Context()).Address) {
				return code.RateLimited
			}
			return next(c)
		}
	}
}

// LimitByToken limits the requests with one token, from any address. It returns
// rate_limited.
func LimitByToken(limit *limiter.Limiter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if info := RequestInfoFrom(c.Request().Context()); info.Token != nil && !limit.Allow("actor:"+info.Token.ID) {
				return code.RateLimited
			}
			return next(c)
		}
	}
}
