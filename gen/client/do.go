package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// maxResponse is the maximum size of a response body.
const maxResponse = 64 << 20

// firstWait is the minimum wait before the first retry. It doubles with each retry.
const firstWait = 100 * time.Millisecond

// A request is an operation with its arguments. Generated methods create it.
type request struct {
	operation string // operationId
	method    string
	path      string         // template, such as /v1/zones/{zoneId}
	args      []string       // values of the path parameters, in order
	query     map[string]any // zero values are omitted
	body      any            // nil: none
	status    int            // of the successful response
	accept    string         // media type of the successful response
	public    bool           // requires no token
}

// A call is a request with its options applied.
type call struct {
	request
	url     string
	content []byte // of the body; nil: none
	header  http.Header
	params  url.Values // of the query
	etag    *string    // where to store the ETag of the response
	err     error      // of an option
}

// fail records the first error of an option.
func (c *call) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// send performs an operation that returns JSON.
func send[T any](ctx context.Context, c *Client, r request, opts []CallOption) (T, error) {
	return decode[T](c.do(ctx, r, callOptions(opts)))
}

// sendText performs an operation that returns text.
func sendText(ctx context.Context, c *Client, r request, opts []CallOption) (string, error) {
	resp, err := c.do(ctx, r, callOptions(opts))
	if err != nil {
		return "", err
	}
	return string(resp.body), nil
}

// sendEmpty performs an operation that returns nothing.
func sendEmpty(ctx context.Context, c *Client, r request, opts []CallOption) error {
	_, err := c.do(ctx, r, callOptions(opts))
	return err
}

func callOptions(opts []CallOption) func(*call) {
	return func(c *call) {
		for _, opt := range opts {
			opt(c)
		}
	}
}

// decode decodes a JSON response, and stores its ETag if the call asks for it. It
// returns an error if the response has none of the fields of T.
func decode[T any](resp *response, err error) (T, error) {
	var value T
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(resp.body, &value); err != nil {
		return *new(T), fmt.Errorf("%s: invalid response: %w", resp.call.operation, err)
	}
	if reflect.ValueOf(&value).Elem().IsZero() {
		return value, fmt.Errorf("%s: invalid response: the JSON has none of the expected fields", resp.call.operation)
	}
	if resp.call.etag != nil {
		*resp.call.etag = resp.header.Get("ETag")
	}
	return value, nil
}

// A response is an HTTP response whose body was read.
type response struct {
	call   *call
	status int
	header http.Header
	body   []byte
}

// do sends a request, with retries, and returns the success response. It returns any
// other response as an *Error.
func (c *Client) do(parent context.Context, r request, options func(*call)) (*response, error) {
	call, err := c.newCall(r, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.operation, err)
	}
	ctx, cancel := parent, func() {}
	if c.timeout > 0 {
		ctx, cancel = context.WithTimeout(parent, c.timeout)
	}
	defer cancel()
	for retries := 0; ; retries++ {
		resp, err := c.attempt(ctx, call)
		wait, retry := c.retry(ctx, r.method, retries, resp, err)
		switch {
		case retry: // after the wait
		case err == nil:
			if err := resp.check(); err != nil {
				return nil, err
			}
			return resp, nil
		case ctx.Err() != nil && parent.Err() == nil:
			return nil, fmt.Errorf("%s: exceeded the client's timeout of %v: %w", r.operation, c.timeout, err)
		default:
			return nil, fmt.Errorf("%s: %w", r.operation, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%s: %w", r.operation, ctx.Err())
		}
	}
}

// newCall builds the URL, header and body of a request.
func (c *Client) newCall(r request, options func(*call)) (*call, error) {
	path, err := expand(r.path, r.args)
	if err != nil {
		return nil, err
	}
	call := &call{request: r, header: http.Header{}, params: url.Values{}}
	for name, value := range r.query {
		if !reflect.ValueOf(value).IsZero() {
			call.params.Set(name, fmt.Sprint(value))
		}
	}
	call.header.Set("User-Agent", c.userAgent)
	call.header.Set("Accept", cmp.Or(r.accept, "application/json"))
	if !r.public {
		c.authorize(call.header)
	}
	if r.body != nil {
		if call.content, err = json.Marshal(r.body); err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		call.header.Set("Content-Type", "application/json")
	}
	options(call)
	call.url = c.base + path
	if len(call.params) > 0 {
		call.url += "?" + call.params.Encode()
	}
	return call, call.err
}

// expand replaces the parameters of a path template. It rejects the values "", "."
// and "..", with which the path would be another one.
func expand(path string, args []string) (string, error) {
	for _, arg := range args {
		before, rest, _ := strings.Cut(path, "{")
		name, after, _ := strings.Cut(rest, "}")
		if arg == "" || arg == "." || arg == ".." {
			return "", fmt.Errorf("%s: must not be %q", name, arg)
		}
		path = before + url.PathEscape(arg) + after
	}
	return path, nil
}

// attempt sends a request once and reads the response. It fails if the body is
// larger than maxResponse.
func (c *Client) attempt(ctx context.Context, call *call) (*response, error) {
	var body io.Reader
	if call.content != nil {
		body = bytes.NewReader(call.content)
	}
	req, err := http.NewRequestWithContext(ctx, call.method, call.url, body)
	if err != nil {
		return nil, err
	}
	req.Header = call.header.Clone()
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return nil, fmt.Errorf("read the response: %w", err)
	}
	if len(content) > maxResponse {
		return nil, errTooLarge
	}
	return &response{call, resp.StatusCode, resp.Header, content}, nil
}

var errTooLarge = fmt.Errorf("the response exceeds %d MiB", maxResponse>>20)

// retry reports whether to send a request again after a response or a network error,
// and returns how long to wait before that.
func (c *Client) retry(ctx context.Context, method string, retries int, resp *response, err error) (time.Duration, bool) {
	if retries >= c.maxRetries || ctx.Err() != nil || !retryable(method, resp, err) {
		return 0, false
	}
	wait := firstWait << min(retries, 6)
	wait += rand.N(wait)
	if resp != nil {
		if requested := retryAfter(resp.header); requested > c.maxWait {
			return 0, false
		} else if requested > 0 {
			wait = requested
		}
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
		return 0, false // the deadline would pass before the next attempt
	}
	return wait, true
}

// retryable reports whether sending a request again is safe and can succeed. After
// 429, a write is safe to repeat, because the service has not processed it. After
// 503 or a network error it is not, because the service may have processed it.
func retryable(method string, resp *response, err error) bool {
	isRead := method == http.MethodGet || method == http.MethodHead
	if err != nil {
		return isRead && !errors.Is(err, errTooLarge)
	}
	switch resp.status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return isRead
	}
	return false
}

// retryAfter returns the delay in Retry-After, in seconds or until a date (RFC
// 9110, section 10.2.3), or 0 if there is none.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 1<<30)) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(time.Until(date), 0)
	}
	return 0
}

func (r *response) mediaType() string {
	t, _, _ := mime.ParseMediaType(r.header.Get("Content-Type")) // "" if it is invalid
	return t
}

func (r *response) isJSON() bool {
	t := r.mediaType()
	return t == "application/json" || strings.HasSuffix(t, "+json")
}
