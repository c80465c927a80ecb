package client_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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

// A state can be used once, although it is sent with GET.
func TestGetThatChangesSomethingIsNotRetried(t *testing.T) {
	t.Parallel()
	for _, first := range []reply{status(502), status(503), networkDown} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{replies: []reply{first, status(400)}}
			_, err := newClient(t, f).CompleteProviderGrant(t.Context(), "zone", client.CompleteProviderGrantParams{State: "state", Code: "code"})
			if len(f.requests) != 1 || err == nil {
				t.Errorf("%d requests, error %v", len(f.requests), err)
			}
		})
	}
}

func TestWritesWithoutKeyAreRetriedOnlyAfter429(t *testing.T) {
	t.Parallel()
	gone := reply{status: 204}
	for name, tt := range map[string]struct {
		replies  []reply
		requests int
		ok       bool
	}{
		"429":        {[]reply{status(429), after(429, "2"), gone}, 3, true},
		"always 429": {[]reply{status(429)}, 4, false},
		"408":        {[]reply{status(408), gone}, 1, false},
		"502":        {[]reply{status(502), gone}, 1, false},
		"503":        {[]reply{status(503), gone}, 1, false},
		"network":    {[]reply{networkDown, gone}, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{replies: tt.replies}
				err := newClient(t, f).DeleteZone(t.Context(), "z1")
				if len(f.requests) != tt.requests || (err == nil) != tt.ok {
					t.Errorf("%d requests, want %d: %v", len(f.requests), tt.requests, err)
				}
				if key := f.requests[0].Header["Idempotency-Key"]; key != nil {
					t.Errorf("the key is %q", key)
				}
			})
		})
	}
}

// The service recognizes a repeated request by its key.
func TestWritesWithKeyAreRetried(t *testing.T) {
	t.Parallel()
	inUse := reply{status: 409, body: `{"error":"idempotency_key_in_use"}`, header: map[string]string{"Retry-After": "1"}}
	for name, tt := range map[string]struct {
		replies  []reply
		requests int
		ok       bool
	}{
		"429":           {[]reply{status(429), after(429, "2"), createdZone}, 3, true},
		"408":           {[]reply{status(408), createdZone}, 2, true},
		"502, 503, 504": {[]reply{status(502), status(503), status(504), createdZone}, 4, true},
		"network":       {[]reply{networkDown, networkDown, networkDown, createdZone}, 4, true},
		"in use":        {[]reply{networkDown, inUse, createdZone}, 3, true},
		"always down":   {[]reply{networkDown}, 4, false},
		"409":           {[]reply{status(409), createdZone}, 1, false},
		"500":           {[]reply{status(500), createdZone}, 1, false},
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
					if key := f.requests[i].Header.Get("Idempotency-Key"); len(key) < 20 || key != f.requests[0].Header.Get("Idempotency-Key") {
						t.Errorf("request %d has the key %q", i, key)
					}
				}
			})
		})
	}
}

// A token of the Control API is for one invocation.
func TestInvocationIsRetriedOnlyWithAnotherToken(t *testing.T) {
	t.Parallel()
	issued := reply{status: 200, body: `{"access_token":"x","token_type":"Bearer","expires_in":900,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token","scope":"control:app:read"}`}
	invoked := reply{status: 200, body: `{"ok":true,"result":[]}`}
	for name, tt := range map[string]struct {
		opts     []client.Option
		replies  []reply
		requests int
		ok       bool
	}{
		"its own token": {nil, []reply{networkDown, invoked}, 1, false},
		"a key":         {[]client.Option{client.WithControlKey("id", "secret", client.ControlScopeControlAppRead)}, []reply{issued, networkDown, issued, invoked}, 4, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{replies: tt.replies}
				_, err := newClient(t, f, tt.opts...).InvokeControl(t.Context(), client.ControlInvocation{Command: new("app"), Subcommand: new("list")})
				if len(f.requests) != tt.requests || (err == nil) != tt.ok {
					t.Errorf("%d requests, want %d: %v", len(f.requests), tt.requests, err)
				}
				for _, r := range f.requests {
					if strings.HasSuffix(r.URL.Path, "/invoke") && r.GetBody != nil {
						t.Error("net/http can send the request again, with the same token")
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

func TestDelayThatIsTooLongIsAnErrorAtOnce(t *testing.T) {
	t.Parallel()
	const inAnHour, in20Seconds = "Sat, 01 Jan 2000 01:00:00 GMT", "Sat, 01 Jan 2000 00:00:20 GMT" // a bubble's clock starts at 2000-01-01
	for name, tt := range map[string]struct {
		status        int
		value, date   string
		min, max      time.Duration
		retriedAtOnce bool
	}{
		"seconds":              {status: 503, value: "31", min: 31 * time.Second, max: 31 * time.Second},
		"seconds of 429":       {status: 429, value: "3600", min: time.Hour, max: time.Hour},
		"beyond an integer":    {status: 503, value: "99999999999999999999999", min: 1 << 30 * time.Second, max: 1 << 30 * time.Second},
		"date":                 {status: 503, value: inAnHour, min: time.Hour, max: time.Hour},
		"date of 429":          {status: 429, value: inAnHour, min: time.Hour, max: time.Hour},
		"obsolete date":        {status: 429, value: "Saturday, 01-Jan-00 01:00:00 GMT", min: time.Hour, max: time.Hour},
		"date of another year": {status: 503, value: "Fri, 31 Dec 9999 23:59:59 GMT", min: 1 << 30 * time.Second, max: 1 << 30 * time.Second},
		"clock of the server":  {status: 503, value: in20Seconds, date: "Fri, 31 Dec 1999 23:00:20 GMT", min: time.Hour, max: time.Hour},
		"slow clock":           {status: 503, value: inAnHour, date: "Sat, 01 Jan 2000 01:00:00 GMT", retriedAtOnce: true},
		"negative":             {status: 503, value: "-60", retriedAtOnce: true},
		"fraction":             {status: 503, value: "3600.5", retriedAtOnce: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := after(tt.status, tt.value)
				r.header["X-Request-Id"] = "r1"
				if tt.date != "" {
					r.header["Date"] = tt.date
				}
				bodies := []string{`{"error":"rate_limited"}`, `<html>`}
				if tt.retriedAtOnce {
					bodies = bodies[:1] // the clock advances with the retry
				}
				for _, body := range bodies {
					r.body = body
					start := time.Now()
					_, f, err := get(t, r, okZone)
					if tt.retriedAtOnce {
						if err != nil || len(f.requests) != 2 || time.Since(start) > 200*time.Millisecond {
							t.Errorf("%v, %d requests", err, len(f.requests))
						}
						return
					}
					e := failure(t, err, tt.status)
					if len(f.requests) != 1 || time.Since(start) != 0 || e.RetryAfter < tt.min || e.RetryAfter > tt.max || e.RequestID != "r1" || (e.Code != "") == (body == "<html>") {
						t.Errorf("%+v, %d requests after %v", e, len(f.requests), time.Since(start))
					}
				}
			})
		})
	}
}

func TestEndOfACallKeepsTheLastResponse(t *testing.T) {
	t.Parallel()
	limited := reply{status: 429, body: `{"error":"rate_limited"}`, header: map[string]string{"Retry-After": "5", "X-Request-Id": "r1"}}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := newClient(t, &fake{replies: []reply{limited}}).GetZone(ctx, "z1")
		if e := failure(t, err, 429); !errors.Is(err, context.Canceled) || e.RequestID != "r1" || client.Code(err) != client.CodeRateLimited || !strings.Contains(err.Error(), "before that: getZone: rate_limited (429)") {
			t.Errorf("canceled: %v", err)
		}
		_, _, err = get(t, limited, networkDown)
		if e := failure(t, err, 429); !errors.Is(err, networkDown.err) || e.RequestID != "r1" || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("network: %v", err)
		}
	})
}

func TestWhatCannotSucceedIsNotRetried(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	count := func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	start := func(start func(*httptest.Server)) *httptest.Server {
		s := httptest.NewUnstartedServer(responds(200, zoneJSON, "Content-Type", "application/json"))
		s.Config.ConnState, s.Config.ErrorLog = count, log.New(io.Discard, "", 0)
		start(s)
		t.Cleanup(s.Close)
		return s
	}
	encrypted, plain := start((*httptest.Server).StartTLS), start((*httptest.Server).Start)
	for name, tt := range map[string]struct{ url, want string }{
		"untrusted certificate": {encrypted.URL, "certificate"},
		"HTTPS to a plain port": {strings.Replace(plain.URL, "http:", "https:", 1), "HTTP response to HTTPS client"},
		"HTTP to a TLS port":    {strings.Replace(encrypted.URL, "https:", "http:", 1), "HTTP request to an HTTPS server"},
	} {
		connections.Store(0)
		c, err := client.New(tt.url, token)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.GetZone(t.Context(), "z1")
		if err == nil || !strings.Contains(err.Error(), tt.want) || connections.Load() != 1 {
			t.Errorf("%s: %v after %d connections", name, err, connections.Load())
		}
	}
}

func TestErrorOfAnEndedContextHasTheContextsErrorAndItsCause(t *testing.T) {
	t.Parallel()
	shutdown := errors.New("the program shuts down")
	for name, transport := range map[string]http.RoundTripper{
		"in the request": hanging{},
		"in the wait":    &fake{replies: []reply{after(503, "20")}},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(shutdown) })
			c, err := client.New("https://caracal.example.com", token, client.WithTransport(transport))
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.GetZone(ctx, "z1")
			if !errors.Is(err, context.Canceled) || !errors.Is(err, shutdown) || !strings.Contains(err.Error(), shutdown.Error()) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for _, partial := range []string{"", zoneJSON[:20]} {
		ctx, cancel := context.WithCancelCause(t.Context())
		c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
			if partial != "" {
				responds(200, partial, "Content-Type", "application/json")(w, r)
				_ = http.NewResponseController(w).Flush()
			}
			time.AfterFunc(50*time.Millisecond, func() { cancel(shutdown) })
			<-r.Context().Done()
		})
		if _, err := c.GetZone(ctx, "z1"); !errors.Is(err, context.Canceled) || !errors.Is(err, shutdown) {
			t.Errorf("after %q: %v", partial, err)
		}
	}
}
