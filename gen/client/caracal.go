package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// What the generator cannot know is written by hand, here: whom a client
// speaks for, what a refusal is in Go, how a list is walked to its end, and when
// a request may be sent again. The rest of the package is generated.

// New is a client of the service at an address such as
// https://caracal.example.com, that calls with an admin token. It sends reads
// again when that may help (see [Retry]); a [WithHTTPClient] takes its place.
func New(address, token string, options ...ClientOption) (*ClientWithResponses, error) {
	bearer := func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}
	return NewClientWithResponses(address, append([]ClientOption{
		WithHTTPClient(&http.Client{Transport: Retry(nil)}), WithRequestEditorFn(bearer),
	}, options...)...)
}

// An Error is a refusal: an answer of the service that is not what was asked
// for.
type Error struct {
	Problem
	Status int // of HTTP
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Problem.Error, e.ErrorDescription)
	if e.Details != nil {
		for _, issue := range e.Details.Issues {
			fmt.Fprintf(&b, " %s %s.", strings.Join(issue.Path, "."), issue.Message)
		}
	}
	fmt.Fprintf(&b, " (status %d, request %s)", e.Status, e.RequestID)
	return b.String()
}

// Code is the code of a refusal, such as "zone_not_found", wherever it stands in
// a chain of errors; "" if there is none.
func Code(err error) string {
	var refusal *Error
	if errors.As(err, &refusal) {
		return refusal.Problem.Error
	}
	return ""
}

// An answer is what every generated response can say of itself.
type answer interface {
	StatusCode() int
	GetBody() []byte
}

// OK is what a request that reads or changes an item has answered, or why not.
// Put the call of an operation between its parentheses.
func OK[T any](resp interface {
	answer
	GetJSON200() *T
}, err error) (T, error) {
	if err := Done(resp, err); err != nil {
		return *new(T), err
	}
	return promised(resp, resp.GetJSON200())
}

// Created is what a request that makes an item has answered, or why not. Put the
// call of an operation between its parentheses.
func Created[T any](resp interface {
	answer
	GetJSON201() *T
}, err error) (T, error) {
	if err := Done(resp, err); err != nil {
		return *new(T), err
	}
	return promised(resp, resp.GetJSON201())
}

// Done says why a request that answers nothing was not fulfilled. Put the call
// of an operation between its parentheses.
func Done(resp answer, err error) error {
	if err != nil {
		return err
	}
	return check(resp)
}

func promised[T any](resp answer, value *T) (T, error) {
	if value == nil {
		return *new(T), fmt.Errorf("the service answered %d, which this operation does not promise", resp.StatusCode())
	}
	return *value, nil
}

// check makes an [*Error] of an answer that is one.
func check(resp answer) error {
	status := resp.StatusCode()
	if status < 400 {
		return nil
	}
	refusal := &Error{Status: status}
	if json.Unmarshal(resp.GetBody(), &refusal.Problem) != nil || refusal.Problem.Error == "" {
		refusal.Problem.Error, refusal.ErrorDescription = http.StatusText(status), "Something between here and the service answered."
	}
	return refusal
}

// all walks the pages of a list. Where the next one is, the Link header says
// (RFC 8288).
func all[T any](page func(cursor *string) (*[]T, *http.Response, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for cursor := (*string)(nil); ; {
			rows, resp, err := page(cursor)
			if err != nil {
				yield(none, err)
				return
			}
			if rows != nil {
				for _, row := range *rows {
					if !yield(row, nil) {
						return
					}
				}
			}
			next, found := nextCursor(resp.Header.Get("Link"))
			if !found {
				return
			}
			cursor = &next
		}
	}
}

func nextCursor(link string) (string, bool) {
	target, relation, found := strings.Cut(strings.TrimPrefix(link, "<"), ">")
	if !found || !strings.Contains(relation, `rel="next"`) {
		return "", false
	}
	next, err := url.Parse(target)
	if err != nil || !next.Query().Has("cursor") {
		return "", false
	}
	return next.Query().Get("cursor"), true
}

// Retry sends a GET or HEAD again, three times at the most, when the network
// fails or the answer is 408, 425, 429, 502, 503 or 504. It waits for as long as
// Retry-After says, if that is half a minute or less, and otherwise a little
// longer each time; it stops when the request's context ends. Writes are sent
// once. A nil next is [http.DefaultTransport].
func Retry(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return retry{next}
}

type retry struct{ next http.RoundTripper }

func (t retry) RoundTrip(r *http.Request) (*http.Response, error) {
	const tries = 4
	for n := 1; ; n++ {
		resp, err := t.next.RoundTrip(r)
		if n == tries || !safe(r) || !worthIt(resp, err) {
			return resp, err
		}
		pause := time.NewTimer(waitBefore(n, resp))
		if resp != nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
			_ = resp.Body.Close()
		}
		select {
		case <-pause.C:
		case <-r.Context().Done():
			pause.Stop()
			return nil, r.Context().Err()
		}
	}
}

func safe(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.Body == nil || r.Body == http.NoBody)
}

func worthIt(resp *http.Response, err error) bool {
	if err != nil {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func waitBefore(n int, resp *http.Response) time.Duration {
	const first, timeout = 100 * time.Millisecond, 30 * time.Second
	if resp != nil {
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if said := time.Duration(seconds) * time.Second; err == nil && said > 0 && said <= timeout {
			return said
		}
	}
	usual := first << (n - 1)
	return usual + rand.N(usual)
}
