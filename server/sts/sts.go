// Package sts asks the security token service (STS), which loads the policies of
// zones, what it has loaded. The requests are signed (policy-evaluation.md §8.2).
//
// An operator configures the URL, so it may be an internal address: the rules of
// package egress do not apply. Redirects are not followed, and time and size are
// bounded.
package sts

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
)

// maxBody is the maximum size of a response.
const maxBody = 64 << 10

// A Client sends requests to the STS. It is safe for concurrent use.
type Client struct {
	base    string // without a slash at the end
	key     []byte
	timeout time.Duration
	http    *http.Client
}

// New returns a client of the STS at a base URL, which signs with a key. A request
// takes at most the timeout; 0 is 5 seconds.
func New(base string, key []byte, timeout time.Duration) *Client {
	const maxHeader = 16 << 10
	return &Client{
		base: strings.TrimRight(base, "/"), key: key, timeout: cmp.Or(timeout, 5*time.Second),
		http: &http.Client{
			Transport:     &http.Transport{MaxResponseHeaderBytes: maxHeader, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// CheckURL returns an error unless the base URL is http or https, with a host and
// without user name, query and fragment.
func CheckURL(base string) error {
	u, err := url.Parse(base)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("must be an http or https URL with a host and without user name, query and fragment")
	}
	return nil
}

// A Status is what the STS reports about the policies of a zone. A field that it
// does not report, or not with the right type, is nil.
type Status struct {
	Loaded             bool
	ZoneID             *string
	PolicySetVersionID *string
	ManifestSHA256     *string
	LoadedAt           *string
	AgeSeconds         *int64
}

// An Error reports that the STS returned an error or an invalid response or, if
// Unreachable is true, none. Detail contains no address, so clients may see it; the
// cause is for the log.
type Error struct {
	Unreachable bool
	Detail      string
	Cause       error
}

func (e *Error) Error() string {
	if e.Cause == nil {
		return "sts: " + e.Detail
	}
	return "sts: " + e.Cause.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Status returns what the STS has loaded of a zone. An error is always an [*Error].
func (c *Client) Status(ctx context.Context, zone string) (Status, error) {
	fields, err := c.do(ctx, http.MethodGet, "/internal/policy/status/"+url.PathEscape(zone), nil)
	if err != nil {
		return Status{}, err
	}
	s := Status{ZoneID: text(fields["zone_id"]), PolicySetVersionID: text(fields["policy_set_version_id"]), ManifestSHA256: text(fields["manifest_sha256"]), LoadedAt: text(fields["loaded_at"])}
	s.Loaded, _ = fields["loaded"].(bool)
	const maxExact = 1 << 53 // up to here, a float64 represents every integer
	if age, ok := fields["age_seconds"].(float64); ok && age >= -maxExact && age <= maxExact {
		s.AgeSeconds = new(int64(age))
	}
	return s, nil
}

// text returns a string, or nil if the value has another type.
func text(value any) *string {
	if s, ok := value.(string); ok {
		return &s
	}
	return nil
}

// do sends a signed request and returns the object in the response. The path is
// encoded.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (map[string]any, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, strings.NewReader(string(body)))
	if err != nil {
		return nil, &Error{Detail: "the request is invalid", Cause: err}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, &Error{Detail: "no request ID", Cause: err}
	}
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	r.Header.Set("Accept", "application/json")
	r.Header.Set("X-Caracal-Gateway-Timestamp", timestamp)
	r.Header.Set("X-Caracal-Gateway-Request", id.String())
	r.Header.Set("X-Caracal-Gateway-Signature", Sign(c.key, timestamp, id.String(), method, r.URL.EscapedPath(), body))
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, c.unreachable(err)
	}
	return parse(resp.StatusCode, content)
}

// Sign returns the signature of a request, in hexadecimal. The path is encoded.
func Sign(key []byte, timestamp, requestID, method, path string, body []byte) string {
	digest := sha256.Sum256(body)
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(strings.Join([]string{timestamp, requestID, method, path, hex.EncodeToString(digest[:])}, "\n")))
	return hex.EncodeToString(mac.Sum(nil))
}

// unreachable returns the error of a request without a response.
func (c *Client) unreachable(cause error) *Error {
	detail := "connection failed"
	var errno syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.As(cause, &dns):
		detail = "the host cannot be resolved"
	case errors.Is(cause, context.DeadlineExceeded), os.IsTimeout(cause):
		detail = fmt.Sprintf("no response within %v", c.timeout)
	case errors.Is(cause, context.Canceled):
		detail = "the request was canceled"
	case errors.As(cause, &errno):
		detail = errno.Error()
	}
	return &Error{Unreachable: true, Detail: detail, Cause: cause}
}

// parse returns the object in a response, or an error unless its status is 2xx.
func parse(status int, content []byte) (map[string]any, error) {
	var fields map[string]any
	err := json.Unmarshal(content, &fields)
	switch {
	case len(content) > maxBody:
		err = fmt.Errorf("larger than %d bytes", maxBody)
	case err == nil && fields == nil:
		err = errors.New("not an object")
	}
	if err != nil {
		return nil, &Error{Detail: "invalid STS response: " + err.Error(), Cause: fmt.Errorf("invalid response with status %d: %w", status, err)}
	}
	if status >= 200 && status < 300 {
		return fields, nil
	}
	for _, name := range []string{"detail", "error_description", "error"} {
		if detail := text(fields[name]); detail != nil && *detail != "" {
			return nil, &Error{Detail: *detail}
		}
	}
	return nil, &Error{Detail: strconv.Itoa(status)}
}
