package client

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"strings"
)

// The maximum size of the success response of an operation, and of any other
// response, both before and after decompression.
const (
	maxSuccess = 64 << 20
	maxOther   = 1 << 20
)

// A response is an HTTP response whose body was read.
type response struct {
	call   *call
	status int
	header http.Header
	body   []byte // its beginning, if err is not nil
	err    error  // of reading the body
}

// decode decodes a JSON response, and stores its ETag and its text if the call asks for
// them. It
// returns an error if the response, or an item of it, has none of the fields of T.
func decode[T any](resp *response, err error) (T, error) {
	var value T
	if err != nil {
		return value, err
	}
	if err := json.Unmarshal(resp.body, &value); err != nil {
		return *new(T), resp.fail("the JSON is invalid", err)
	}
	decoded := reflect.ValueOf(&value).Elem()
	isForeign := decoded.IsZero()
	for i := 0; decoded.Kind() == reflect.Slice && i < decoded.Len(); i++ {
		isForeign = isForeign || decoded.Index(i).IsZero()
	}
	if isForeign {
		return *new(T), resp.fail("the JSON has none of the expected fields", nil)
	}
	if resp.call.etag != nil {
		*resp.call.etag = resp.header.Get("ETag")
	}
	if resp.call.json != nil {
		*resp.call.json = resp.body
	}
	return value, nil
}

// receive reads the body, and stores it with the error of reading it.
func (r *response) receive(ctx context.Context, body io.Reader) {
	var err error
	if r.body, err = r.read(body); err != nil {
		r.err = withContext(ctx, err)
	}
}

// read reads the body. It decompresses what the transport has not decompressed,
// which is everything if the transport is not that of net/http.
func (r *response) read(body io.Reader) ([]byte, error) {
	if r.status == http.StatusSwitchingProtocols {
		return nil, nil // what follows is no body, and reading it would ignore the context
	}
	limit := maxOther
	if r.isDeclared() {
		limit = maxSuccess
	}
	content, err := readAll(body, limit)
	encoding := strings.ToLower(r.header.Get("Content-Encoding"))
	switch {
	case encoding == "", encoding == "identity", len(content) == 0:
		return content, err
	case encoding != "gzip" && encoding != "x-gzip":
		return nil, encodingError(encoding)
	case err != nil:
		return nil, err
	}
	decoder, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return readAll(decoder, limit)
}

// readAll reads up to limit bytes. If there are more, it returns a sizeError too.
func readAll(r io.Reader, limit int) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if len(content) > limit {
		return content[:limit], sizeError(limit)
	}
	return content, err
}

type sizeError int

func (e sizeError) Error() string { return fmt.Sprintf("it exceeds %d MiB", int(e)>>20) }

type encodingError string

func (e encodingError) Error() string {
	return fmt.Sprintf("unsupported content encoding %q", string(e))
}

// isDeclared reports whether the response has the status and the content type of
// the operation's success response.
func (r *response) isDeclared() bool {
	return r.status == r.call.status && (r.call.accept == "" || r.mediaType() == r.call.accept)
}

// check returns nil for the success response of the operation. It returns any other
// response as an *Error.
func (r *response) check() error {
	switch isDeclared, contentType := r.isDeclared(), r.header.Get("Content-Type"); {
	case isDeclared && r.err != nil:
		return r.fail("the body could not be read", r.err)
	case isDeclared && r.call.accept != "" && len(bytes.TrimSpace(r.body)) == 0:
		return r.fail("the body is empty", nil)
	case isDeclared:
		return nil
	case r.status == r.call.status:
		return r.fail(fmt.Sprintf("content type %q instead of %s", contentType, r.call.accept), r.err)
	case r.status >= 300 && r.status < 400:
		return r.fail(fmt.Sprintf("a redirect%s, which the client does not follow", location(r.header)), r.err)
	case r.status < 400:
		return r.fail(fmt.Sprintf("content type %q, and not the status %d", contentType, r.call.status), r.err)
	}
	if r.isJSON() && r.err == nil {
		if e := r.fail("", nil); e.parse(r.excerpt()) {
			e.Description += r.hint()
			return e
		}
	}
	return r.fail(fmt.Sprintf("not an error of the API, with content type %q", r.header.Get("Content-Type"))+r.hint(), r.err)
}

// hint returns the likely reason why a path does not exist, or "".
func (r *response) hint() string {
	if r.status == http.StatusNotFound && strings.Contains(r.call.url, "/v1/v1/") {
		return " (the client adds /v1 to the base URL)"
	}
	return ""
}

// fail returns the response as an *Error without a code. The cause can be nil.
func (r *response) fail(description string, cause error) *Error {
	if cause != nil {
		description += ": " + cause.Error()
	}
	e := &Error{
		Operation:   r.call.operation,
		Status:      r.status,
		Description: r.redact(description),
		RequestID:   printable(r.redact(r.header.Get("X-Request-Id")), maxRequestID),
		RetryAfter:  retryAfter(r.header),
		cause:       cause,
	}
	// The success response of a write can contain a new secret, and a redirect the
	// secrets of its target.
	isRedirect, isSuccess := r.status/100 == 3, r.status/100 == 2
	if !isRedirect && !(isSuccess && r.call.method != http.MethodGet && r.isJSON()) {
		e.Body = printable(r.excerpt(), maxExcerpt)
	}
	return e
}

// excerpt returns the body without the token, up to maxOther bytes.
func (r *response) excerpt() string {
	return r.redact(string(r.body[:min(len(r.body), maxOther)]))
}

// redact removes the token from a text, since a server that prints its requests
// returns it.
func (r *response) redact(text string) string {
	_, token, _ := strings.Cut(r.call.header.Get("Authorization"), " ")
	if len(token) < 8 { // too short to be a token of the API
		return text
	}
	return strings.ReplaceAll(text, token, "[token]")
}

// mediaType returns the content type without parameters, or "" if it is invalid or
// has a charset other than UTF-8.
func (r *response) mediaType() string {
	t, params, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return ""
	}
	return t
}

func (r *response) isJSON() bool {
	t := r.mediaType()
	return t == "application/json" || strings.HasSuffix(t, "+json")
}

// location describes the target of a redirect without its path and query, which
// may contain secrets.
func location(h http.Header) string {
	target, err := url.Parse(h.Get("Location"))
	if err != nil || target.Host == "" {
		return ""
	}
	return " to " + target.Scheme + "://" + target.Host
}

// A redirectKeeper is a transport of which http.Client returns every redirect. It
// removes a malformed Location, because of which http.Client would return an error
// without the status.
type redirectKeeper struct{ transport http.RoundTripper }

func (k redirectKeeper) RoundTrip(r *http.Request) (*http.Response, error) {
	transport := k.transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	resp, err := transport.RoundTrip(r)
	if err == nil && resp != nil { // http.Client reports a missing response
		if _, invalid := url.Parse(resp.Header.Get("Location")); invalid != nil {
			resp.Header.Del("Location")
		}
	}
	return resp, err
}
