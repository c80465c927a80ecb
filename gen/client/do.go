package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A request is an operation with its arguments. Generated methods create it.
type request struct {
	operation string // operationId
	method    string
	path      string         // template, such as /v1/zones/{zoneId}
	args      []string       // values of the path parameters, in order
	query     map[string]any // zero values are omitted
	body      any            // nil: none
	form      bool           // the body is sent as a form, not as JSON
	status    int            // of the successful response
	accept    string         // media type of the successful response
	public    bool           // requires no token
	control   bool           // requires a token of the Control API
	changes   bool           // changes something, although the method is GET
	takesKey  bool           // takes an Idempotency-Key
}

// A call is a request with its options applied.
type call struct {
	request
	url     string
	content []byte // of the body; nil: none
	header  http.Header
	params  url.Values       // of the query
	etag    *string          // where to store the ETag of the response
	json    *json.RawMessage // where to store the body of the response
	err     error            // of an option
}

// fail records the first error of an option.
func (c *call) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// setHeader sets a header. The error of an invalid one does not contain the value,
// which may be a secret.
func (c *call) setHeader(name, value string) {
	switch key := http.CanonicalHeaderKey(name); {
	case !headerName.MatchString(name):
		c.fail(fmt.Errorf("the header name %q is invalid", name))
	case slices.Contains(transportHeaders, key):
		c.fail(fmt.Errorf("the header %s cannot be set", key))
	case !validHeaderValue(value):
		c.fail(fmt.Errorf("the value of the header %s contains control characters", key))
	}
	c.header.Set(name, value)
}

// headerName matches a token (RFC 9110, section 5.6.2).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// transportHeaders are the headers that net/http sets, and takes from no request.
var transportHeaders = []string{"Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}

func validHeaderValue(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == '\x7f' })
}

// send performs an operation that returns JSON.
func send[T any](ctx context.Context, c *Client, r request, opts []CallOption) (T, error) {
	return decode[T](c.do(ctx, r, apply(opts)))
}

// sendText performs an operation that returns text.
func sendText(ctx context.Context, c *Client, r request, opts []CallOption) (string, error) {
	resp, err := c.do(ctx, r, apply(opts))
	if err != nil {
		return "", err
	}
	return string(resp.body), nil
}

// sendEmpty performs an operation that returns nothing.
func sendEmpty(ctx context.Context, c *Client, r request, opts []CallOption) error {
	_, err := c.do(ctx, r, apply(opts))
	return err
}

// apply returns a function that applies options to a call.
func apply[O ListOption](opts []O) func(*call) {
	return func(c *call) {
		for _, opt := range opts {
			if any(opt) == nil {
				c.fail(errNilOption)
				continue
			}
			opt.applyToList(c)
		}
	}
}

var errNilOption = errors.New("an option is nil")

// do sends a request, with retries, and returns the success response. It returns any
// other response as an *Error.
func (c *Client) do(parent context.Context, r request, options func(*call)) (*response, error) {
	return c.retrying(parent, r, options, c.attempt)
}

// retrying calls attempt until it succeeds, or another attempt is of no use.
func (c *Client) retrying(parent context.Context, r request, options func(*call), attempt func(context.Context, *call) (*response, error)) (*response, error) {
	call, err := c.newCall(r, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.operation, err)
	}
	ctx, cancel := parent, func() {}
	if c.timeout > 0 {
		ctx, cancel = context.WithTimeout(parent, c.timeout)
	}
	defer cancel()
	var last *Error // the last response
	for retries := 0; ; retries++ {
		resp, err := attempt(ctx, call)
		if err == nil {
			return resp, nil
		}
		e, isResponse := errors.AsType[*Error](err)
		if isResponse {
			last = e
		}
		wait, retry := c.retry(ctx, c.repeatable(call), retries, err)
		switch {
		case retry: // after the wait
		case isResponse:
			return nil, err
		case ctx.Err() != nil && parent.Err() == nil:
			return nil, &failure{r.operation, fmt.Errorf("exceeded the client's timeout of %v: %w", c.timeout, err), last}
		default:
			return nil, &failure{r.operation, err, last}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, &failure{r.operation, withContext(ctx, ctx.Err()), last}
		}
	}
}

// withContext adds to an error that the context ended, and why, unless the error says
// so: not every transport does.
func withContext(ctx context.Context, err error) error {
	for _, reason := range []error{ctx.Err(), context.Cause(ctx)} {
		if reason != nil && !errors.Is(err, reason) {
			err = fmt.Errorf("%w: %w", err, reason)
		}
	}
	return err
}

// newCall builds the URL, header and body of a request.
func (c *Client) newCall(r request, options func(*call)) (*call, error) {
	path, err := expand(r.path, r.args)
	if err != nil {
		return nil, err
	}
	call := &call{request: r, header: http.Header{}, params: url.Values{}}
	call.setParams(r.query)
	call.header.Set("User-Agent", c.userAgent)
	call.header.Set("Accept", cmp.Or(r.accept, "application/json"))
	if !r.public {
		c.authorize(call.header)
	}
	if r.takesKey && c.repeats(call) { // otherwise, a key would only make net/http repeat the call
		call.header.Set(idempotencyKey, rand.Text())
	}
	if r.body != nil {
		if call.content, err = json.Marshal(r.body); err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		if path, found := notUTF8(reflect.ValueOf(r.body)); found {
			return nil, fmt.Errorf("%s: is not valid UTF-8", path)
		}
		call.header.Set("Content-Type", "application/json")
		if r.form {
			if call.content, err = formOf(call.content); err != nil {
				return nil, fmt.Errorf("encode the request: %w", err)
			}
			call.header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	}
	options(call)
	if !r.takesKey && call.header.Get(idempotencyKey) != "" {
		call.fail(errors.New("the operation takes no Idempotency-Key"))
	}
	call.url = c.base + path
	if len(call.params) > 0 {
		call.url += "?" + call.params.Encode()
	}
	return call, call.err
}

// formOf converts a JSON object into a form. A list is one parameter for each element.
func formOf(object []byte) ([]byte, error) {
	var fields map[string]any
	decoder := json.NewDecoder(bytes.NewReader(object))
	decoder.UseNumber()
	if err := decoder.Decode(&fields); err != nil {
		return nil, err
	}
	form := url.Values{}
	for name, value := range fields {
		list, isList := value.([]any)
		if !isList {
			list = []any{value}
		}
		for _, element := range list {
			form.Add(name, fmt.Sprint(element))
		}
	}
	return []byte(form.Encode()), nil
}

// setParams sets the query parameters that are not zero. A list is one parameter for each
// element.
func (c *call) setParams(values map[string]any) {
	for name, value := range values {
		if list, ok := value.([]string); ok {
			c.params[name] = list
		} else if !reflect.ValueOf(value).IsZero() {
			c.params.Set(name, fmt.Sprint(value))
		}
	}
}

// filter sets the filters of a list. It fails for any other list: a filter that the
// service does not know would select everything.
func (c *call) filter(operation string, values map[string]any) {
	if c.operation != operation {
		c.fail(fmt.Errorf("the filters of %s do not apply", operation))
		return
	}
	c.setParams(values)
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

// attempt sends a request once. It returns any response except the success response
// as an *Error, and a failure of the network as another error.
func (c *Client) attempt(ctx context.Context, call *call) (*response, error) {
	resp, err := c.roundTrip(ctx, call)
	if err != nil {
		return nil, withContext(ctx, err)
	}
	defer resp.Body.Close()
	r := &response{call: call, status: resp.StatusCode, header: resp.Header}
	r.receive(ctx, resp.Body)
	return r, r.check()
}

// roundTrip sends a request, and returns the response before its body is read.
func (c *Client) roundTrip(ctx context.Context, call *call) (*http.Response, error) {
	var body io.Reader
	if call.content != nil {
		body = bytes.NewReader(call.content)
	}
	req, err := http.NewRequestWithContext(ctx, call.method, call.url, body)
	if err != nil {
		return nil, err
	}
	req.Header = call.header.Clone()
	if call.control {
		req.GetBody = nil // net/http would send the request again by itself, with the same token, because it has a key
	}
	if call.control && c.controlToken != nil {
		token, err := c.controlToken(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return c.http.Do(req)
}
