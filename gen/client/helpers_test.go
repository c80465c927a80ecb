package client_test

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
)

const token = "cat_secret-token"

const zoneJSON = `{"id":"z1","name":"Production","slug":"production","dcr_enabled":false,"operator_coauthor_badge":true,"created_at":"2026-07-01T12:00:00.123Z","updated_at":"2026-07-01T12:00:00.123Z"}`

// A reply is a response of a fake service, or an error of its network.
type reply struct {
	status int
	header map[string]string // Content-Type: application/json by default
	body   string
	err    error
}

// A fake is a transport that returns scripted replies and repeats the last one.
type fake struct {
	mu       sync.Mutex
	replies  []reply
	requests []*http.Request
	bodies   []string
}

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	next := f.replies[min(len(f.requests), len(f.replies)-1)]
	f.requests, f.bodies = append(f.requests, r), append(f.bodies, string(body))
	if next.err != nil {
		return nil, next.err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	for name, value := range next.header {
		header.Set(name, value)
	}
	return &http.Response{StatusCode: next.status, Header: header, Body: io.NopCloser(strings.NewReader(next.body)), Request: r}, nil
}

// last returns the last request.
func (f *fake) last() *http.Request { return f.requests[len(f.requests)-1] }

// newClient returns a client of a fake service.
func newClient(t *testing.T, f *fake, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New("https://caracal.example.com", token, append([]client.Option{client.WithTransport(f)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// get calls getZone on a client of a fake service with these replies.
func get(t *testing.T, replies ...reply) (client.Zone, *fake, error) {
	t.Helper()
	f := &fake{replies: replies}
	zone, err := newClient(t, f).GetZone(t.Context(), "z1")
	return zone, f, err
}
