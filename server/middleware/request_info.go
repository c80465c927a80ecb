// Package middleware is what every request passes before its operation, in this
// order: facts (request id, headers) → trace → log → recover → limit by address →
// authenticate → authorize → limit by token → validate. Nobody who may not do a
// thing learns how to do it right, and no body is read for a stranger.
package middleware

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"caracal.run/management/store"
)

// RequestInfo is what is known of a request.
type RequestInfo struct {
	RequestID  string
	Operation  *Operation        // nil where no operation is
	Bearer     string            // as it was sent; nobody has vouched for it
	Token      *store.AdminToken // nil until it is recognised
	Method     string
	Path       string // as it was received, without the query
	Query      url.Values
	Body       []byte // as it was received, if it was what the spec admits
	Address    string // of the caller, as limits count it
	Trace      string // the W3C trace id, if the request is traced
	routeError error  // why there is no operation, where Echo would say otherwise
}

// Format prints which request it is, and nothing of what it brought: that may be
// secret.
func (f RequestInfo) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "request %s: %s %s", f.RequestID, f.Method, f.Path)
}

// MarshalText keeps the rest out of JSON too.
func (f RequestInfo) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", f), nil }

type requestInfoKey struct{}

// WithRequestInfo makes facts those of the requests that ctx belongs to.
func WithRequestInfo(ctx context.Context, info *RequestInfo) context.Context {
	return context.WithValue(ctx, requestInfoKey{}, info)
}

// RequestInfoFrom a request that has come through [RequestContext].
func RequestInfoFrom(ctx context.Context) *RequestInfo {
	info, _ := ctx.Value(requestInfoKey{}).(*RequestInfo)
	return info
}

// Cause is why a transaction of this request runs.
func (f *RequestInfo) Cause() store.Cause {
	cause := store.Cause{RequestID: f.RequestID, Method: f.Method, Path: f.Path}
	if f.Operation != nil {
		cause.Operation, cause.Status = f.Operation.ID, f.Operation.success
	}
	if f.Token != nil {
		cause.Actor = f.Token.Actor()
	}
	return cause
}

// v1 says whether a path belongs to the management API, known or not.
func v1(path string) bool { return path == "/v1" || strings.HasPrefix(path, "/v1/") }

// idPattern is how ids are formed (contract: conventions.md §6).
const idPattern = "^[A-Za-z0-9_.:-]{1,128}$"

// IsID says whether a text is formed as ids are.
func IsID(text string) bool {
	const maxLength = 128
	for i := range len(text) {
		c := text[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("_.:-", c) < 0 {
			return false
		}
	}
	return text != "" && len(text) <= maxLength
}

// address is what limits count: an IPv4 address, or the network of an IPv6
// address, of which anybody has more than can be counted.
func address(ip string) string {
	const network = 64
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Unmap().Is4() {
		return ip
	}
	prefix, err := a.WithZone("").Prefix(network)
	if err != nil {
		return ip
	}
	return prefix.Addr().String()
}

// commonHeaders are the headers of every answer below /v1.
var commonHeaders = http.Header{
	"X-Content-Type-Options": {"nosniff"},
	"Referrer-Policy":        {"no-referrer"},
	"Cache-Control":          {"no-store"},
	"Vary":                   {"Authorization"},
}

// newRequestID is a random UUID. It is no secret, so it need not cost a call to
// the operating system.
func newRequestID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // version 4, variant 10 (RFC 9562 §5.4)
	return id.String()
}

// RequestContext finds the operation, gives the request an id, and sets the headers that
// every answer has (contract: conventions.md §3).
func RequestContext(operations *Operations) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			info := &RequestInfo{Method: r.Method, Path: r.URL.EscapedPath(), Address: address(c.RealIP())}
			info.Operation, info.routeError = operations.find(c)
			if ids := r.Header.Values("X-Request-Id"); len(ids) == 1 && IsID(ids[0]) {
				info.RequestID = ids[0]
			} else {
				info.RequestID = newRequestID()
			}
			h := c.Response().Header()
			h.Set("X-Request-Id", info.RequestID)
			if v1(r.URL.Path) {
				maps.Copy(h, commonHeaders)
			}
			c.Response().Before(func() {
				if h.Get("Content-Type") == "application/json" {
					h.Set("Content-Type", "application/json; charset=utf-8")
				}
			})
			c.SetRequest(r.WithContext(WithRequestInfo(r.Context(), info)))
			return next(c)
		}
	}
}
