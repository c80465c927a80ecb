package server

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// Handler returns the handler with all middleware.
func (s *Server) Handler() http.Handler { return s.handler() }

// Bare returns the handler without middleware: every request has full access, and
// nothing is validated, limited, measured or logged.
func (s *Server) Bare() http.Handler {
	e := echo.New()
	token := &store.AdminToken{AdminToken: db.AdminToken{ZoneID: store.NoZone, Capability: "write"}}
	e.Use(func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			c.SetRequest(r.WithContext(middleware.WithRequestInfo(r.Context(), &middleware.RequestInfo{Method: r.Method, Token: token})))
			return next(c)
		}
	})
	api.RegisterHandlers(e, api.NewStrictHandler(s, nil))
	return e
}
