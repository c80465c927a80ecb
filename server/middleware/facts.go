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
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"caracal.run/management/store"
)

// Facts is what is known of a request.
type Facts struct {
	RequestID string
	Operation *Operation        // nil where no operation is
	Bearer    string            // as it was sent; nobody has vouched for it
	Token     *store.AdminToken // nil until it is recognised
	Method    string
	Path      string // as it was received, without the query
	Query     url.Values
	Body      []byte // as it was received, if it was what the spec admits
	Address   string // of the caller, as limits count it
	Trace     string // the W3C trace id, if the request is traced
	misrouted error  // why there is no operation, where Echo would say otherwise
}

// Format prints which request it is, and nothing of what it brought: that may be
// secret.
func (f Facts) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "request %s: %s %s", f.RequestID, f.Method, f.Path)
}

// MarshalText keeps the rest out of JSON too.
func (f Facts) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", f), nil }

type factsKey struct{}

// WithFacts makes facts those of the requests that ctx belongs to.
func WithFacts(ctx context.Context, facts *Facts) context.Context {
	return context.WithValue(ctx, factsKey{}, facts)
}

// FactsOf a request that has come through [Begin].
func FactsOf(ctx context.Context) *Facts {
	facts, _ := ctx.Value(factsKey{}).(*Facts)
	return facts
}

// Cause is why a transaction of this request runs.
func (f *Facts) Cause() store.Cause {
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
	const most = 128
	for i := range len(text) {
		c := text[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("_.:-", c) < 0 {
			return false
		}
	}
	return text != "" && len(text) <= most
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

// always are the headers of every answer below /v1.
var always = http.Header{
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

// Begin finds the operation, gives the request an id, and sets the headers that
// every answer has (contract: conventions.md §3). It has a deadline from here on:
// a Postgres that has stalled keeps nobody for longer.
func Begin(operations *Operations, deadline time.Duration) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			facts := &Facts{Method: r.Method, Path: r.URL.EscapedPath(), Address: address(c.RealIP())}
			facts.Operation, facts.misrouted = operations.of(c)
			if ids := r.Header.Values("X-Request-Id"); len(ids) == 1 && IsID(ids[0]) {
				facts.RequestID = ids[0]
			} else {
				facts.RequestID = newRequestID()
			}
			h := c.Response().Header()
			h.Set("X-Request-Id", facts.RequestID)
			if v1(r.URL.Path) {
				maps.Copy(h, always)
			}
			c.Response().Before(func() {
				if h.Get("Content-Type") == "application/json" {
					h.Set("Content-Type", "application/json; charset=utf-8")
				}
			})
			ctx, cancel := context.WithTimeout(WithFacts(r.Context(), facts), deadline)
			defer cancel()
			c.SetRequest(r.WithContext(ctx))
			return next(c)
		}
	}
}
