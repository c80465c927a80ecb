package middleware

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"

	"caracal.run/management/store"
)

// A ControlCaller is a Control key whose token was verified.
type ControlCaller struct {
	TokenID   string // jti
	KeyID     string
	KeyName   string
	ZoneID    string
	Scopes    []string  // of the token, as far as the key still has them
	ExpiresAt time.Time // of the token
	Used      bool      // the request has used the token up
	Recorded  bool      // the invocation has its audit event
}

// Actor returns the key as an actor in its zone.
func (c *ControlCaller) Actor() store.Actor {
	return store.Actor{ID: c.KeyID, Name: c.KeyName, Zone: c.ZoneID}
}

// AuthenticateControl authenticates the callers of operations that take a token of a
// Control key, with a function that returns the caller or the error of the response. It
// runs before the body is read. It calls rejected if the request of an authenticated caller
// fails.
func AuthenticateControl(authenticate func(context.Context, *RequestInfo) (*ControlCaller, error), rejected func(*RequestInfo, error)) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			ctx := c.Request().Context()
			info := RequestInfoFrom(ctx)
			if info.Operation == nil || !info.Operation.control {
				return next(c)
			}
			caller, err := authenticate(ctx, info)
			if err != nil {
				return err
			}
			info.Control = caller
			if err = next(c); err != nil {
				rejected(info, err)
			}
			return err
		}
	}
}
