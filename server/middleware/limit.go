package middleware

import (
	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/limiter"
)

// LimitByAddress admits so many requests below /v1 from one address, known
// operation or not.
func LimitByAddress(limit *limiter.Limiter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			if v1(r.URL.Path) && !limit.Allow("ip:"+RequestInfoFrom(r.Context()).Address) {
				return code.RateLimited
			}
			return next(c)
		}
	}
}

// LimitByToken admits so many requests with one token, from wherever.
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
