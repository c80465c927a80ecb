package middleware

import (
	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/auth"
	"caracal.run/management/store"
)

// Authorize checks the token against the operation's access rule (x-access) and
// the zone in the path. If approveWithWrite is true, write permission includes
// approval permission. It returns admin_token_read_only, admin_token_cannot_approve or
// admin_token_zone_mismatch.
func Authorize(verifier *auth.Verifier, approveWithWrite bool) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			info := RequestInfoFrom(c.Request().Context())
			if info.Token == nil || info.Operation == nil {
				return next(c)
			}
			zone, _ := pathParam(c, "zoneId") // "" if it is malformed, which matches the zone of no token
			if err := info.Operation.authorize(info.Token, zone, approveWithWrite); err != nil {
				return err
			}
			verifier.MarkUsed(info.Token.ID)
			return next(c)
		}
	}
}

// authorize returns an error unless the token may call the operation on the zone.
func (o *Operation) authorize(token *store.AdminToken, zone string, approveWithWrite bool) error {
	actor := token.Actor()
	switch {
	case o.write && !token.MayWrite():
		return code.AdminTokenReadOnly
	case o.approve && !token.CanApprove && !(approveWithWrite && token.MayWrite()):
		return code.AdminTokenCannotApprove
	case !actor.Global() && (o.global || o.inZone && zone != actor.Zone):
		return code.AdminTokenZoneMismatch
	}
	return nil
}
