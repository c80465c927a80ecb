package middleware

import (
	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/limiter"
)

// LimitByAddress admits so many requests from one address, known operation or
// not; readiness has a limit of its own.
func LimitByAddress(management, readiness *limiter.Limiter) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			limit := readiness
			switch path := c.Request().URL.Path; {
			case v1(path):
				limit = management
			case path != "/ready":
				return next(c)
			}
			if !limit.Admit("ip:" + c.RealIP()) {
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
			if facts := FactsOf(c.Request().Context()); facts.Token != nil && !limit.Admit("actor:"+facts.Token.ID) {
				return code.RateLimited
			}
			return next(c)
		}
	}
}
