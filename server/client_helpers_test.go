package server_test

import (
	"net/http"
	"regexp"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

// newClient returns the client that programs use, with the bootstrap token.
func newClient(t *testing.T, a *servertest.API, transport http.RoundTripper) *client.Client {
	t.Helper()
	c, err := client.New(a.URL, servertest.Bootstrap, client.WithTransport(transport))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// operationRecorder is a transport that records which operations are called.
type operationRecorder struct {
	next  http.RoundTripper
	mu    sync.Mutex
	calls map[string]int
}

var pathParameter = regexp.MustCompile(`\\\{[^/]+\\\}`)

func (r *operationRecorder) RoundTrip(req *http.Request) (*http.Response, error) {
	for _, op := range servertest.Operations() { // paths without parameters first
		pattern := "^" + pathParameter.ReplaceAllString(regexp.QuoteMeta(op.Path), "[^/]+") + "$"
		if op.Method == req.Method && regexp.MustCompile(pattern).MatchString(req.URL.EscapedPath()) {
			r.mu.Lock()
			r.calls[op.OperationID]++
			r.mu.Unlock()
			break
		}
	}
	return r.next.RoundTrip(req)
}

// result returns a value, and fails the test if there is an error instead:
// result(c.GetZone(ctx, id))(t).
func result[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func expectCode(t *testing.T, err error, want string) {
	t.Helper()
	if got := client.Code(err); got != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
