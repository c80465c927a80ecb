// Package middleware contains the middleware that every request passes through
// before its operation. The order is: request info (id, headers), trace, log,
// recover, limit by address, authenticate (with an admin token or a token of a Control
// key), authorize, limit by token, validate, deadline, idempotency.
//
// Authorization comes before validation: a caller without access gets no
// validation errors, and the body of its request is never read.
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
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"caracal.run/management/store"
)

// RequestInfo is what the middleware knows about a request.
type RequestInfo struct {
	RequestID    string
	Operation    *Operation        // nil: the request matches no operation
	Bearer       string            // as it was sent; not verified
	Credentials  []string          // the values of the header Authorization, as they were sent
	Token        *store.AdminToken // nil: not authenticated with an admin token
	Control      *ControlCaller    // nil: not authenticated with a token of a Control key
	Method       string
	Path         string // as it was received, without the query
	PublicURL    string // of the service, without a trailing slash; "" if it is not configured
	Query        url.Values
	Precondition store.Precondition       // of If-Match
	Idempotent   *store.IdempotentRequest // nil: it has no Idempotency-Key; see Idempotency
	Body         []byte                   // without its content coding; nil unless it is valid
	Document     any                      // the decoded body of an operation that validates it itself
	Address      string                   // identifies the client to rate limits; see address
	WantsHTML    bool                     // the operation has pages, and the request prefers them
	WantsYAML    bool                     // the operation has a document, and the request accepts it as YAML
	WantsStream  bool                     // the operation can send a stream of events, and the request asks for it
	LastEventID  string                   // of the last event that the client has received; "" if it is not given
	Trace        string                   // the W3C trace id; "" if the request has none
	routeError   error                    // not nil: Echo routes the request although it matches no operation
	limited      limited                  // by a rate limit
	readOnly     map[string]any           // the read-only fields of the body; see CheckReadOnly
	key          string                   // the Idempotency-Key; "": none
}

// Format prints id, method and path. Everything else in a request may be secret.
func (info RequestInfo) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "request %s: %s %s", info.RequestID, info.Method, info.Path)
}

// MarshalText returns what Format prints, so that JSON contains no more than that.
func (info RequestInfo) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", info), nil }

type requestInfoKey struct{}

// WithRequestInfo returns a context that carries info.
func WithRequestInfo(ctx context.Context, info *RequestInfo) context.Context {
	return context.WithValue(ctx, requestInfoKey{}, info)
}

// RequestInfoFrom returns the request info that ctx carries, or nil. Every request
// that has passed [RequestContext] has one.
func RequestInfoFrom(ctx context.Context) *RequestInfo {
	info, _ := ctx.Value(requestInfoKey{}).(*RequestInfo)
	return info
}

// Cause returns the cause of the request's transactions, with the status of a
// successful response of the operation.
func (info *RequestInfo) Cause() store.Cause {
	cause := store.Cause{RequestID: info.RequestID, Method: info.Method, Path: info.Path, Idempotent: info.Idempotent}
	if info.Operation != nil {
		cause.Operation, cause.Status = info.Operation.ID, info.Operation.success
	}
	switch {
	case info.Token != nil:
		cause.Actor = info.Token.Actor()
	case info.Control != nil:
		cause.Actor = info.Control.Actor()
	}
	return cause
}

// Filters returns the query parameters that the operation declares, except those that
// do not select rows (limit, cursor, format and fields), in a form that is the same whenever
// they are.
func (info *RequestInfo) Filters() string {
	filters := url.Values{}
	for _, p := range info.Operation.queryParams {
		if name := p.Value.Name; !slices.Contains([]string{"limit", "cursor", "format", "fields"}, name) && info.Query.Has(name) {
			filters[name] = info.Query[name]
		}
	}
	return filters.Encode()
}

// isExport reports whether the request exports a list: its query names a format other
// than JSON.
func (info *RequestInfo) isExport() bool {
	return info.Operation != nil && info.Operation.exports && info.Query.Has("format") && info.Query.Get("format") != "json"
}

// isV1 reports whether a path is below /v1, whether or not it has an operation.
func isV1(path string) bool { return path == "/v1" || strings.HasPrefix(path, "/v1/") }

// isAPI reports whether a path is one that clients of the API send requests to: below /v1,
// or a path of OAuth. Others are for operators.
func isAPI(path string) bool {
	return isV1(path) || strings.HasPrefix(path, "/oauth/") || strings.HasPrefix(path, "/.well-known/")
}

// idPattern is the pattern of ids in the spec.
const idPattern = "^[A-Za-z0-9_.:-]{1,128}$"

// IsID reports whether a text matches the pattern of ids. It is faster than a regular
// expression.
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

// address returns the address that identifies a client to rate limits: an IPv4
// address itself, or the /64 network of an IPv6 address, because a client usually
// has all addresses of such a network.
func address(ip string) string {
	const networkBits = 64
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Unmap().Is4() {
		return ip
	}
	prefix, err := a.WithZone("").Prefix(networkBits)
	if err != nil {
		return ip
	}
	return prefix.Addr().String()
}

// prefersHTML reports whether a request accepts HTML by name, and JSON at most by a
// range.
func prefersHTML(h http.Header) bool {
	return accepts(h, "text/html") && !accepts(h, "application/json")
}

// accepts reports whether a request accepts a media type by name.
func accepts(h http.Header, mediaType string) bool {
	return strings.Contains(strings.ToLower(strings.Join(h.Values("Accept"), ",")), mediaType)
}

// commonHeaders are the headers of every response of the API. The responses depend on
// Accept-Encoding because package coding compresses them.
var commonHeaders = http.Header{
	"Referrer-Policy": {"no-referrer"},
	"Cache-Control":   {"no-store"},
	"Vary":            {"Authorization, Accept-Encoding"},
}

// nosniff keeps browsers from interpreting any response as HTML unless its Content-Type
// says so: JSON is not escaped for HTML.
var nosniff = []string{"nosniff"}

// newRequestID returns a random UUID. It uses math/rand, which makes no system call:
// a request id is not a secret.
func newRequestID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // version 4, variant 10 (RFC 9562 §5.4)
	return id.String()
}

// RequestContext finds the operation, stores the public URL of the service, sets the request id (the value of X-Request-Id
// if that is valid, otherwise a new one) and sets the common response headers.
func RequestContext(operations *Operations, publicURL string) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			info := &RequestInfo{Method: r.Method, Path: r.URL.EscapedPath(), PublicURL: publicURL, Address: address(c.RealIP()), Credentials: r.Header.Values("Authorization")}
			info.Operation, info.routeError = operations.find(c)
			info.WantsHTML = info.Operation != nil && info.Operation.hasPages && prefersHTML(r.Header)
			info.WantsYAML = info.Operation != nil && info.Operation.hasDocument && accepts(r.Header, yamlType)
			if info.Operation != nil && info.Operation.streams {
				info.WantsStream = accepts(r.Header, "text/event-stream")
				info.LastEventID = strings.Join(r.Header.Values("Last-Event-Id"), ",")
			}
			if ids := r.Header.Values("X-Request-Id"); len(ids) == 1 && IsID(ids[0]) {
				info.RequestID = ids[0]
			} else {
				info.RequestID = newRequestID()
			}
			h := c.Response().Header()
			h.Set("X-Request-Id", info.RequestID)
			h["X-Content-Type-Options"] = nosniff
			if isAPI(r.URL.Path) {
				maps.Copy(h, commonHeaders)
			} else {
				h.Set("Vary", "Accept-Encoding")
			}
			c.Response().Before(func() {
				info.limited.setHeaders(h, c.Response().Status)
				if h.Get("Content-Type") == "application/json" {
					h.Set("Content-Type", "application/json; charset=utf-8")
				}
				if c.Response().Status == http.StatusUnauthorized && info.Operation != nil && info.Operation.challenge != "" {
					h.Set("WWW-Authenticate", info.Operation.challenge)
				}
			})
			c.SetRequest(r.WithContext(WithRequestInfo(r.Context(), info)))
			return next(c)
		}
	}
}
