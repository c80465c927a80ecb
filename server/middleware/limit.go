package middleware

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/limiter"
)

// A RateLimit is a limit of which responses say how much is left, in the headers
// RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10).
type RateLimit struct {
	limit  *limiter.Limiter
	policy []string // the header RateLimit-Policy; nil: there is no limit
	prefix string   // of the header RateLimit
}

// NewRateLimit returns a limit with a name for the headers.
func NewRateLimit(name string, limit *limiter.Limiter) *RateLimit {
	l := &RateLimit{limit: limit, prefix: strconv.Quote(name) + ";r="}
	if requests, window := limit.Limit(); requests > 0 {
		l.policy = []string{fmt.Sprintf("%q;q=%d;w=%d", name, requests, int64(window/time.Second))}
	}
	return l
}

// Allow counts the request for a key and reports whether it is within the limit. If the
// limit denies it, or has no more left than those that were applied before, the response
// says what is left of it.
func (info *RequestInfo) Allow(l *RateLimit, key string) bool {
	quota, allowed := l.limit.Take(key)
	if l.policy != nil && (!allowed || info.limited.by == nil || quota.Remaining <= info.limited.quota.Remaining) {
		info.limited.by, info.limited.quota, info.limited.denied = l, quota, !allowed
	}
	return allowed
}

// AllowUnstated is Allow for a limit of which responses do not say what is left.
func (info *RequestInfo) AllowUnstated(l *limiter.Limiter, key string) bool {
	quota, allowed := l.Take(key)
	if !allowed {
		info.limited.by, info.limited.quota, info.limited.denied = nil, quota, true
	}
	return allowed
}

// limited is the limit that denied a request, or of which the least is left.
type limited struct {
	by     *RateLimit // nil: none, or an unstated one
	quota  limiter.Quota
	denied bool
	header [1]string // RateLimit; part of the request info, so that it needs no allocation
}

// setHeaders sets the headers of the limit. If it denied the request, Retry-After is the time
// until its next window, which need not be a minute. A response that another limit denied
// does not say that requests are left, and one that caches share says nothing about a caller.
func (l *limited) setHeaders(h http.Header, status int) {
	reset := int64((l.quota.Reset + time.Second - 1) / time.Second)
	if l.denied {
		h.Set("Retry-After", strconv.FormatInt(reset, 10))
	}
	if l.by == nil || status == http.StatusTooManyRequests && !l.denied || strings.HasPrefix(h.Get("Cache-Control"), "public") {
		return
	}
	const maxSize = 64
	text := append(make([]byte, 0, maxSize), l.by.prefix...)
	text = strconv.AppendInt(text, l.quota.Remaining, 10)
	text = append(text, ";t="...)
	text = strconv.AppendInt(text, reset, 10)
	l.header[0] = string(text)
	h["Ratelimit-Policy"], h["Ratelimit"] = l.by.policy, l.header[:]
}

// LimitByAddress limits the requests to the API from one address, whether or not the path
// has an operation. It returns rate_limited.
func LimitByAddress(l *limiter.Limiter) echo.MiddlewareFunc {
	limit := NewRateLimit("address", l)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			if info := RequestInfoFrom(r.Context()); isAPI(r.URL.Path) && !info.Allow(limit, "ip:"+info.Address) {
				return code.RateLimited
			}
			return next(c)
		}
	}
}

// ActorLimit is the name of the limits of the requests of one caller.
const ActorLimit = "actor"

// LimitByToken limits the requests with one token, from any address. It returns
// rate_limited.
func LimitByToken(l *limiter.Limiter) echo.MiddlewareFunc {
	limit := NewRateLimit(ActorLimit, l)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if info := RequestInfoFrom(c.Request().Context()); info.Token != nil && !info.Allow(limit, "actor:"+info.Token.ID) {
				return code.RateLimited
			}
			return next(c)
		}
	}
}
