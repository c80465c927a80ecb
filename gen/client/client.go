package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// A Client calls the API with one token. It is safe for concurrent use. Create
// it with [New].
type Client struct {
	base      string // without a trailing slash
	http      *http.Client
	transport http.RoundTripper // nil: the transport of http
	authorize func(http.Header) // a closure, so that no fmt verb prints the token
	// controlToken returns a new token of the Control API; nil: that of the client is one
	controlToken func(context.Context) (string, error)
	userAgent    string
	timeout      time.Duration
	maxRetries   int
	maxWait      time.Duration
}

// New returns a client for the service at a base URL, such as
// https://caracal.example.com. The URL can have a path, if a proxy serves the API
// below one; it does not include /v1. The token can be empty if only operations that
// require no token are called, such as [Client.GetHealth]. New sends no request. It
// returns an error if the URL, the token or an option is invalid.
func New(baseURL, token string, opts ...Option) (*Client, error) {
	base, err := parseBaseURL(baseURL)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if err := checkToken(token); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &Client{
		base:       base,
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
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("client: option %d is nil", i)
		}
		if err := opt(c); err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
	}
	if c.transport != nil {
		c.http.Transport = c.transport
	}
	c.http.Transport = redirectKeeper{c.http.Transport}
	// A followed redirect would send the token to an address that the caller did
	// not choose. The redirect itself becomes an Error.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// parseBaseURL returns a base URL without its trailing slash. The error does not
// contain what may be a secret in the URL.
func parseBaseURL(text string) (string, error) {
	if text == "" {
		return "", errors.New("the base URL is empty")
	}
	base, err := url.Parse(text)
	switch scheme, _, _ := strings.Cut(strings.ToLower(text), "://"); {
	case strings.ContainsAny(text, "?#@"):
		return "", errors.New("the base URL must not have user information, a query or a fragment")
	case scheme != "http" && scheme != "https":
		return "", fmt.Errorf("the base URL %q must begin with http:// or https://", text)
	case err != nil || base.Hostname() == "":
		return "", fmt.Errorf("the base URL %q must be valid and contain a host, such as https://caracal.example.com", text)
	}
	if port, err := strconv.ParseUint(cmp.Or(base.Port(), "80"), 10, 16); err != nil || port == 0 {
		return "", fmt.Errorf("the base URL %q has an invalid port", text)
	}
	return strings.TrimRight(base.String(), "/"), nil
}

// checkToken returns an error if a token cannot be sent in a header as it is. The
// error does not contain the token.
func checkToken(token string) error {
	if strings.HasPrefix(strings.ToLower(token), "bearer ") {
		return errors.New(`the token must not begin with "Bearer ", which the client adds`)
	}
	for i, r := range token {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("the token contains white space, or a character that is not printable ASCII, at byte %d of %d", i+1, len(token))
		}
	}
	return nil
}

// String returns a description of the client without its token.
func (c *Client) String() string { return "caracal client of " + c.base }

// An Option configures a [Client].
type Option func(*Client) error

// WithHTTPClient sends requests with a copy of an HTTP client. The Timeout of the
// HTTP client, if set, limits each attempt. Its CheckRedirect is ignored.
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

// WithTransport sends requests with a transport, for example one that traces them.
// The transport sends each attempt of a retried request. It replaces the transport
// of [WithHTTPClient].
func WithTransport(rt http.RoundTripper) Option {
	return func(c *Client) error {
		if rt == nil {
			return fmt.Errorf("WithTransport: the transport is nil")
		}
		c.transport = rt
		return nil
	}
}

// WithUserAgent sets the User-Agent header. The default is caracal-go/<version>.
func WithUserAgent(ua string) Option {
	return func(c *Client) error {
		if !validHeaderValue(ua) {
			return fmt.Errorf("WithUserAgent: %q contains control characters", ua)
		}
		c.userAgent = ua
		return nil
	}
}

// WithTimeout sets the maximum duration of a call, including retries. The default
// is 30 seconds. In an iterator, it applies to each page. With zero, only the
// context limits the duration.
func WithTimeout(d time.Duration) Option {
	return func(c *Client) error {
		if d < 0 {
			return fmt.Errorf("WithTimeout: %v is negative", d)
		}
		c.timeout = d
		return nil
	}
}

// WithRetry sets the maximum number of retries, and the longest Retry-After delay
// after which the client retries. The defaults are 3 and 30 seconds.
func WithRetry(retries int, maxWait time.Duration) Option {
	return func(c *Client) error {
		if retries < 0 || maxWait < 0 {
			return fmt.Errorf("WithRetry: %d retries and %v must not be negative", retries, maxWait)
		}
		c.maxRetries, c.maxWait = retries, maxWait
		return nil
	}
}

// WithoutRetry disables retries.
func WithoutRetry() Option { return WithRetry(0, 0) }

// A CallOption configures one call. Every CallOption is also a [ListOption].
type CallOption func(*call)

// A ListOption configures one call of a list: [Limit], [Cursor], or any
// [CallOption].
type ListOption interface{ applyToList(*call) }

type listOption func(*call)

func (o listOption) applyToList(c *call) { o(c) }

func (o CallOption) applyToList(c *call) {
	if o == nil {
		c.fail(errNilOption)
		return
	}
	o(c)
}

// IfMatch performs a write only if the object still has this ETag. Otherwise, the
// call returns an error with [CodeVersionConflict]. If the ETag is empty, the call
// returns an error and sends no request.
func IfMatch(etag string) CallOption {
	return func(c *call) {
		if etag == "" {
			c.fail(errors.New("IfMatch: the ETag is empty"))
		}
		c.setHeader("If-Match", etag)
	}
}

// ReadETag stores the ETag of the returned object in *etag, for [IfMatch]. It stores
// "" if the call fails, or if the object has no ETag.
func ReadETag(etag *string) CallOption {
	return func(c *call) {
		if etag == nil {
			c.fail(errors.New("ReadETag: the pointer is nil"))
			return
		}
		*etag = ""
		c.etag = etag
	}
}

// RequestJSON sends a JSON text as the body of the request, in place of the argument of
// the method, for a program that reads bodies from files. The service checks it: the
// error of an invalid one names its fields. The call returns an error and sends no request
// if the text is not JSON, or if the operation has no JSON body.
func RequestJSON(text json.RawMessage) CallOption {
	return func(c *call) {
		switch {
		case c.body == nil || c.form:
			c.fail(errors.New("RequestJSON: the operation has no JSON body"))
		case !json.Valid(text) || !utf8.Valid(text):
			c.fail(errors.New("RequestJSON: the text is not JSON"))
		}
		c.content = text
	}
}

// ResponseJSON stores the body of the success response in *text, with the fields that this
// version of the package does not know. It stores nil if the call fails, or if the response
// is no JSON.
func ResponseJSON(text *json.RawMessage) CallOption {
	return func(c *call) {
		if text == nil {
			c.fail(errors.New("ResponseJSON: the pointer is nil"))
			return
		}
		*text = nil
		c.json = text
	}
}

// Header sets a header of the request. It replaces a header that the client itself
// sets, including Authorization: [Client.GetMetrics] and [Client.RegisterClient] require
// a token other than the client's. The call returns an error and sends no request if the
// name or the value is invalid, or if net/http sets the header itself, as it does with
// Host.
func Header(name, value string) CallOption {
	return func(c *call) { c.setHeader(name, value) }
}

// RequestID sets the ID that identifies the request in the server logs and the audit
// log: 1 to 128 letters, digits, and any of "_.:-". Otherwise, the call returns an
// error and sends no request. By default, the service generates an ID.
// [Error.RequestID] contains the ID of a failed request.
func RequestID(id string) CallOption {
	return func(c *call) {
		if !requestID.MatchString(id) {
			c.fail(fmt.Errorf("RequestID: %q must be 1 to 128 letters, digits, and any of _.:-", id))
		}
		c.setHeader("X-Request-Id", id)
	}
}

var requestID = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,128}$`)

const idempotencyKey = "Idempotency-Key"

// IdempotencyKey sets the key by which the service recognizes a repeated request: 1 to
// 255 visible ASCII characters. Otherwise, the call returns an error and sends no
// request. By default, each call that the client can retry has a random key. Set a key to
// repeat a call later, for example after a restart of the program. It must not be used for
// another call, and the call returns an error if the operation takes no key.
func IdempotencyKey(key string) CallOption {
	return func(c *call) {
		if !validKey.MatchString(key) {
			c.fail(errors.New("IdempotencyKey: the key must have 1 to 255 visible ASCII characters"))
		}
		c.setHeader(idempotencyKey, key)
	}
}

var validKey = regexp.MustCompile(`^[!-~]{1,255}$`)

// Limit sets the number of items per page. The service defines the default and
// the maximum.
func Limit(n int) ListOption {
	return listOption(func(c *call) { c.params.Set("limit", fmt.Sprint(n)) })
}

// Cursor returns the page at a cursor, which is the [Page.Next] of the previous page.
// An empty cursor returns the first page.
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
