package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"caracal.run/management/gen/client"
)

var (
	okZone      = reply{status: 200, body: zoneJSON}
	createdZone = reply{status: 201, body: zoneJSON}
	networkDown = reply{err: errors.New("connection refused")}
)

func status(n int) reply { return reply{status: n, body: `{"error":"failed"}`} }

func after(n int, seconds string) reply {
	r := status(n)
	r.header = map[string]string{"Retry-After": seconds}
	return r
}

func TestReadsAreRetried(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		replies  []reply
		requests int
		ok       bool
	}{
		"success":                  {[]reply{okZone}, 1, true},
		"408":                      {[]reply{status(408), okZone}, 2, true},
		"425":                      {[]reply{status(425), okZone}, 2, true},
		"429":                      {[]reply{status(429), okZone}, 2, true},
		"502, 503, 504":            {[]reply{status(502), status(503), status(504), okZone}, 4, true},
		"network":                  {[]reply{networkDown, networkDown, networkDown, okZone}, 4, true},
		"always 503":               {[]reply{status(503)}, 4, false},
		"always down":              {[]reply{networkDown}, 4, false},
		"404":                      {[]reply{status(404)}, 1, false},
		"500":                      {[]reply{status(500)}, 1, false},
		"501":                      {[]reply{status(501)}, 1, false},
		"Retry-After 5":            {[]reply{after(503, "5"), okZone}, 2, true},
		"Retry-After too long":     {[]reply{after(503, "31"), okZone}, 1, false},
		"Retry-After far too long": {[]reply{after(503, "9999999999999"), okZone}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				_, f, err := get(t, tt.replies...)
				if len(f.requests) != tt.requests || (err == nil) != tt.ok {
					t.Errorf("%d requests, want %d: %v", len(f.requests), tt.requests, err)
				}
			})
		})
	}
}

func TestWritesAreRetriedOnlyAfter429(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		replies  []reply
		requests int
		ok       bool
	}{
		"429":        {[]reply{status(429), after(429, "2"), createdZone}, 3, true},
		"always 429": {[]reply{status(429)}, 4, false},
		"408":        {[]reply{status(408), createdZone}, 1, false},
		"502":        {[]reply{status(502), createdZone}, 1, false},
		"503":        {[]reply{status(503), createdZone}, 1, false},
		"network":    {[]reply{networkDown, createdZone}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{replies: tt.replies}
				_, err := newClient(t, f).CreateZone(t.Context(), client.NewZone{Name: "Production"})
				if len(f.requests) != tt.requests || (err == nil) != tt.ok {
					t.Errorf("%d requests, want %d: %v", len(f.requests), tt.requests, err)
				}
				for i, body := range f.bodies {
					if body != `{"name":"Production"}` {
						t.Errorf("request %d has the body %q", i, body)
					}
				}
			})
		})
	}
}

func TestRetryWaits(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		replies  []reply
		min, max time.Duration
	}{
		"Retry-After": {[]reply{after(429, "20"), okZone}, 20 * time.Second, 20 * time.Second},
		"date":        {[]reply{after(503, "Sat, 01 Jan 2000 00:00:10 GMT"), okZone}, 9 * time.Second, 10 * time.Second}, // a bubble's clock starts at 2000-01-01
		"past date":   {[]reply{after(503, "Fri, 31 Dec 1999 00:00:00 GMT"), okZone}, 100 * time.Millisecond, 200 * time.Millisecond},
		"malformed":   {[]reply{after(503, "soon"), okZone}, 100 * time.Millisecond, 200 * time.Millisecond},
		"backoff":     {[]reply{networkDown, networkDown, networkDown, okZone}, 700 * time.Millisecond, 1400 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, _, err := get(t, tt.replies...)
				if waited := time.Since(start); err != nil || waited < tt.min || waited > tt.max {
					t.Errorf("waited %v, want %v to %v: %v", waited, tt.min, tt.max, err)
				}
			})
		})
	}
}

func TestRetryOptions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{replies: []reply{status(503)}}
		_, err := newClient(t, f, client.WithoutRetry()).GetZone(t.Context(), "z1")
		if err == nil || len(f.requests) != 1 {
			t.Errorf("without retries: %d requests: %v", len(f.requests), err)
		}
		f = &fake{replies: []reply{after(503, "60")}}
		start := time.Now()
		_, err = newClient(t, f, client.WithRetry(5, time.Minute), client.WithTimeout(0)).GetZone(t.Context(), "z1")
		if err == nil || len(f.requests) != 6 || time.Since(start) != 5*time.Minute {
			t.Errorf("with 5 retries: %d requests in %v: %v", len(f.requests), time.Since(start), err)
		}
	})
}

func TestRetryDoesNotWaitBeyondTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		f := &fake{replies: []reply{after(503, "20"), okZone}}
		start := time.Now()
		_, err := newClient(t, f).GetZone(ctx, "z1")
		e, ok := errors.AsType[*client.Error](err)
		if !ok || e.RetryAfter != 20*time.Second || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestCanceledContextEndsTheWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		f := &fake{replies: []reply{after(503, "20"), okZone}}
		start := time.Now()
		_, err := newClient(t, f).GetZone(ctx, "z1")
		if !errors.Is(err, context.Canceled) || time.Since(start) != time.Second || len(f.requests) != 1 {
			t.Errorf("after %v and %d requests: %v", time.Since(start), len(f.requests), err)
		}
	})
}

// A hanging transport returns when the context of the request ends.
type hanging struct{}

func (hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestCallHasATimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for want, opts := range map[time.Duration][]client.Option{
			30 * time.Second: nil,
			time.Second:      {client.WithTimeout(time.Second)},
		} {
			c, err := client.New("https://caracal.example.com", token, append(opts, client.WithTransport(hanging{}))...)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = c.GetZone(t.Context(), "z1")
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != want || !strings.Contains(err.Error(), "timeout of "+want.String()) {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		}
	})
}

func TestInterruptedResponseOfAReadIsRetried(t *testing.T) {
	t.Parallel()
	requests := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Header().Set("Content-Type", "application/json")
		if requests == 1 {
			w.Header().Set("Content-Length", "1000")
		}
		_, _ = io.WriteString(w, zoneJSON)
	}))
	defer s.Close()
	c, err := client.New(s.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	if zone, err := c.GetZone(t.Context(), "z1"); err != nil || zone.ID != "z1" || requests != 2 {
		t.Errorf("%+v, %v, %d requests", zone, err, requests)
	}
}

func TestConnectionIsReused(t *testing.T) {
	t.Parallel()
	addresses := map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addresses[r.RemoteAddr] = true
		w.Header().Set("Content-Type", "application/json")
		if len(r.URL.Path)%2 == 0 {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, strings.Repeat(" ", 100_000)+`{"id":"z1","error":"zone_not_found"}`)
	}))
	defer s.Close()
	c, err := client.New(s.URL, token, client.WithTransport(&http.Transport{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "ab", "abc", "abcd"} {
		if _, err := c.GetZone(t.Context(), id); err != nil && client.Code(err) != client.CodeZoneNotFound {
			t.Fatal(err)
		}
	}
	if len(addresses) != 1 {
		t.Errorf("4 calls used %d connections", len(addresses))
	}
}
