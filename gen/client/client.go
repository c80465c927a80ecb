package client

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"
)

// A Client calls the API with one token. It is safe for concurrent use. Create
// it with [New].
type Client struct {
	base       string // without a trailing slash
	http       *http.Client
	transport  http.RoundTripper // nil: the transport of http
	authorize  func(http.Header) // a closure, so that no fmt verb prints the token
	userAgent  string
	timeout    time.Duration
	maxRetries int
	maxWait    time.Duration
}

// New returns a client of the service at a base URL, such as
// https://caracal.example.com. An empty token is sufficient for operations that
// require none, such as [Client.GetHealth]. New fails if the URL, the token or
// an option is invalid; it sends no request.
func New(baseURL, token string, opts ...Option) (*Client, error) {
	base, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("client: base URL: %w", err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("client: base URL %q must be http://… or https://… with a host", base.Redacted())
	}
	if base.User != nil || base.RawQuery != "" || base.ForceQuery || base.Fragment != "" {
		return nil, fmt.Errorf("client: base URL %q must not have user information, a query or a fragment", base.Redacted())
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("client: the token contains white space or other invalid characters")
	}
	c := &Client{
		base:       strings.TrimRight(base.String(), "/"),
		http:       &http.Client{},
		userAgent:  defaultUserAgent(),
		timeout:    30 * time.Second,
		maxRetries: 3,
		maxWait:    30 * time.Second,
		authorize: func(h http.Header) {
			if token != "" {
				h.Set("Authorization", "Bearer "+token)
			}
		},
	}
	for _, opt := range opts {
		if err := opt(c); err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
	}
	if c.transport != nil {
		c.http.Transport = c.transport
	}
	// A followed redirect would send the token to an address that the caller did
	// not choose. The redirect itself becomes an Error.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// String returns a description of the client without its token.
func (c *Client) String() string { return "caracal client of " + c.base }

// An Option configures a [Client].
type Option func(*Client) error

// WithHTTPClient sends requests with a copy of an HTTP client. Its Timeout, if
// set, limits each attempt. Its CheckRedirect is not used.
func WithHTTPClient(hc *http.Client) Option {
	return func(c *Client) error {
		if hc == nil {
			return fmt.Errorf("WithHTTPClient: the client is nil")
		}
		copied := *hc
		c.http = &copied
		return nil
	}
}

// WithTransport sends requests with a transport, for example one that traces
// them. Each attempt of a retried request passes through it. It replaces the
// transport of [WithHTTPClient].
func WithTransport(rt http.RoundTripper) Option {
	return func(c *Client) error {
		if rt == nil {
			return fmt.Errorf("WithTransport: the transport is nil")
		}
		c.transport = rt
		return nil
	}
}

// WithUserAgent replaces the User-Agent header, caracal-go/<version>.
func WithUserAgent(ua string) Option {
	return func(c *Client) error {
		c.userAgent = ua
		return nil
	}
}

// WithTimeout replaces the maximum duration of a call, 30 seconds. The duration
// includes retries. It applies to each page of an iterator. Zero means no limit
// other than that of the context.
func WithTimeout(d time.Duration) Option {
	return func(c *Client) error {
		if d < 0 {
			return fmt.Errorf("WithTimeout: %v is negative", d)
		}
		c.timeout = d
		return nil
	}
}

// WithRetry replaces the maximum number of retries, 3, and the maximum Retry-After
// for which the client waits, 30 seconds.
func WithRetry(retries int, maxWait time.Duration) Option {
	return func(c *Client) error {
		if retries < 0 || maxWait < 0 {
			return fmt.Errorf("WithRetry: %d retries and %v must not be negative", retries, maxWait)
		}
		c.maxRetries, c.maxWait = retries, maxWait
		return nil
	}
}

// WithoutRetry sends every request once.
func WithoutRetry() Option { return WithRetry(0, 0) }

// A CallOption changes one call. Every CallOption is also a [ListOption].
type CallOption func(*call)

// A ListOption changes the call of a list: [Limit], [Cursor], or any
// [CallOption].
type ListOption interface{ applyToList(*call) }

type listOption func(*call)

func (o listOption) applyToList(c *call) { o(c) }
func (o CallOption) applyToList(c *call) { o(c) }

// IfMatch performs a write only if the item still has this ETag; otherwise, the
// call returns [CodeVersionConflict]. An empty ETag is an error, not an
// unconditional write.
func IfMatch(etag string) CallOption {
	return func(c *call) {
		if etag == "" {
			c.fail(fmt.Errorf("IfMatch: the ETag is empty"))
		}
		c.header.Set("If-Match", etag)
	}
}

// ReadETag stores the ETag of the returned item, for [IfMatch]. It stores ""
// if the call fails, or if the item has no ETag.
func ReadETag(etag *string) CallOption {
	return func(c *call) {
		*etag = ""
		c.etag = etag
	}
}

// Header sets a header of the request. It can replace any header that the
// client sets, Authorization included: [Client.GetMetrics] requires a
// different token.
func Header(name, value string) CallOption {
	return func(c *call) { c.header.Set(name, value) }
}

// RequestID sets the id that identifies the request in the server logs and the
// audit log: 1 to 128 letters, digits and _ . : -. By default the service
// generates one. [Error.RequestID] contains it.
func RequestID(id string) CallOption { return Header("X-Request-Id", id) }

// Limit sets the number of items per page. The service defines the default and
// the maximum.
func Limit(n int) ListOption {
	return listOption(func(c *call) { c.params.Set("limit", fmt.Sprint(n)) })
}

// Cursor continues a list after the page that returned the cursor, see
// [Page.Next]. An empty cursor starts at the first page.
func Cursor(cursor string) ListOption {
	return listOption(func(c *call) {
		c.params.Del("cursor")
		if cursor != "" {
			c.params.Set("cursor", cursor)
		}
	})
}

// modulePath is the path under which programs depend on this package.
const modulePath = "caracal.run/management/gen/client"

// defaultUserAgent returns caracal-go/ and the version of this module in the
// running program.
func defaultUserAgent() string {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == modulePath && dep.Version != "" {
				version = strings.TrimPrefix(dep.Version, "v")
			}
		}
	}
	return "caracal-go/" + version
}
