package client_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"caracal.run/management/gen/client"
)

// reset ends the connection of a request with a reset, after the first bytes of a
// response.
func reset(t *testing.T, w http.ResponseWriter, response string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.WriteString(conn, response)
	if response != "" {
		time.Sleep(20 * time.Millisecond) // else the reset discards what was written
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

func TestResetConnection(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
	for name, response := range map[string]string{
		"before the response": "",
		"in the status line":  "HTTP/1.1 2",
		"in the header":       head[:30],
		"in the body":         head + zoneJSON,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) < 3 {
					reset(t, w, response)
					return
				}
				responds(200, zoneJSON, "Content-Type", "application/json")(w, r)
			}, client.WithTransport(&http.Transport{}))
			if zone, err := c.GetZone(t.Context(), "z1"); err != nil || zone.ID != "z1" || requests.Load() != 3 {
				t.Errorf("read: %+v, %v, %d requests", zone, err, requests.Load())
			}
			requests.Store(0)
			if zone, err := c.UpdateZone(t.Context(), "z1", client.ZonePatch{Name: new("Production")}); err != nil || zone.ID != "z1" || requests.Load() != 3 {
				t.Errorf("write with a key: %+v, %v, %d requests", zone, err, requests.Load())
			}
			requests.Store(0)
			err := c.DeleteZone(t.Context(), "z1")
			if err == nil || !strings.HasPrefix(err.Error(), "deleteZone: ") || requests.Load() != 1 {
				t.Errorf("write without a key: %v, %d requests", err, requests.Load())
			}
			if name == "in the body" {
				failure(t, err, 200)
			}
		})
	}
}

func TestIdleConnectionThatTheServerHasClosed(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	created := map[string]bool{} // keys
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		created[r.Header.Get("Idempotency-Key")] = true
		responds(201, zoneJSON, "Content-Type", "application/json")(w, r)
	}))
	s.Config.IdleTimeout = time.Millisecond
	s.Start()
	defer s.Close()
	c, err := client.New(s.URL, token, client.WithTransport(&http.Transport{}))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		if _, err := c.CreateZone(t.Context(), client.NewZone{Name: "Production"}); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
		time.Sleep(time.Duration(i%5) * 500 * time.Microsecond)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(created) != 50 {
		t.Errorf("50 calls created %d zones", len(created))
	}
}

// overHTTP2 returns a client of an HTTP/2 server.
func overHTTP2(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c, err := client.New(s.URL, token, client.WithHTTPClient(s.Client()))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestResetStream(t *testing.T) {
	t.Parallel()
	for name, partial := range map[string]string{"before the response": "", "in the body": zoneJSON} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			c := overHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if r.ProtoMajor != 2 {
					t.Errorf("the protocol is %s", r.Proto)
				}
				if requests.Add(1) < 3 {
					if partial != "" {
						_, _ = io.WriteString(w, partial)
						_ = http.NewResponseController(w).Flush()
					}
					panic(http.ErrAbortHandler)
				}
				_, _ = io.WriteString(w, zoneJSON)
			})
			if zone, err := c.GetZone(t.Context(), "z1"); err != nil || zone.ID != "z1" || requests.Load() != 3 {
				t.Errorf("read: %+v, %v, %d requests", zone, err, requests.Load())
			}
			requests.Store(0)
			if zone, err := c.UpdateZone(t.Context(), "z1", client.ZonePatch{Name: new("Production")}); err != nil || zone.ID != "z1" || requests.Load() != 3 {
				t.Errorf("write with a key: %+v, %v, %d requests", zone, err, requests.Load())
			}
			requests.Store(0)
			if err := c.DeleteZone(t.Context(), "z1"); err == nil || requests.Load() != 1 {
				t.Errorf("write without a key: %v, %d requests", err, requests.Load())
			}
		})
	}
}

// A goingAway is a listener of HTTP/2 connections. It ends each of the first ones
// with a GOAWAY frame, without a response to the first request.
type goingAway struct {
	net.Listener
	left atomic.Int32 // connections to end
	code uint32       // of the error
}

func (l *goingAway) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.left.Add(-1) < 0 {
			return conn, err
		}
		go l.end(conn)
	}
}

func (l *goingAway) end(conn net.Conn) {
	defer conn.Close()
	const preface, headersFrame = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1
	if _, err := io.CopyN(io.Discard, conn, int64(len(preface))); err != nil {
		return
	}
	_, _ = conn.Write([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0}) // an empty SETTINGS frame
	for {
		var head [9]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return
		}
		size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		if _, err := io.CopyN(io.Discard, conn, size); err != nil {
			return
		}
		if head[3] == headersFrame {
			break
		}
	}
	// No stream was processed.
	_, _ = conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0}, l.code))
	_, _ = io.Copy(io.Discard, conn) // until the client closes the connection
}

func TestServerThatGoesAway(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]uint32{"no error": 0, "internal error": 2, "enhance your calm": 11} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var protocols http.Protocols
			protocols.SetUnencryptedHTTP2(true)
			var requests atomic.Int32
			s := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				status := http.StatusOK
				if r.Method == http.MethodPost {
					status = http.StatusCreated
				}
				responds(status, zoneJSON, "Content-Type", "application/json")(w, r)
			})}
			away := &goingAway{Listener: listener, code: code}
			go func() { _ = s.Serve(away) }()
			t.Cleanup(func() { _ = s.Close() })
			connect := func() *client.Client {
				c, err := client.New("http://"+listener.Addr().String(), token, client.WithTransport(&http.Transport{Protocols: &protocols}))
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			away.left.Store(2)
			if zone, err := connect().GetZone(t.Context(), "z1"); err != nil || zone.ID != "z1" || requests.Load() != 1 {
				t.Errorf("read: %+v, %v, %d requests", zone, err, requests.Load())
			}
			requests.Store(0)
			away.left.Store(1)
			_, err = connect().CreateZone(t.Context(), client.NewZone{Name: "Production"})
			if n := requests.Load(); n > 1 || (err == nil) != (n == 1) {
				t.Errorf("write: %v, %d requests", err, n)
			}
		})
	}
}

func TestProxyWithoutItsServer(t *testing.T) {
	t.Parallel()
	const page = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><center>nginx/1.27.0</center></body></html>\r\n"
	var requests atomic.Int32
	c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
		if n := requests.Add(1); n < 3 {
			responds(502, page, "Content-Type", "text/html", "Retry-After", "1")(w, r)
			return
		}
		responds(200, zoneJSON, "Content-Type", "application/json")(w, r)
	})
	start := time.Now()
	if zone, err := c.GetZone(t.Context(), "z1"); err != nil || zone.ID != "z1" || requests.Load() != 3 || time.Since(start) < 2*time.Second {
		t.Errorf("read: %+v, %v, %d requests in %v", zone, err, requests.Load(), time.Since(start))
	}
	requests.Store(0)
	if zone, err := c.UpdateZone(t.Context(), "z1", client.ZonePatch{Name: new("Production")}); err != nil || zone.ID != "z1" || requests.Load() != 3 {
		t.Errorf("write with a key: %+v, %v, %d requests", zone, err, requests.Load())
	}
	requests.Store(0)
	err := c.DeleteZone(t.Context(), "z1")
	if e := failure(t, err, 502); e.RetryAfter != time.Second || !strings.Contains(e.Body, "<title>502 Bad Gateway</title>") || requests.Load() != 1 {
		t.Errorf("write: %+v, %d requests", e, requests.Load())
	}
}

func TestDeadlineEndsACallAtAnyPoint(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int // of the error
		h      http.HandlerFunc
	}{
		"before the header":         {0, func(http.ResponseWriter, *http.Request) {}},
		"in the body":               {200, responds(200, zoneJSON[:20], "Content-Type", "application/json", "X-Request-Id", "r1")},
		"in the body of an error":   {500, responds(500, `{"error":`, "Content-Type", "application/json", "X-Request-Id", "r1")},
		"in the body of a stranger": {403, responds(403, `<html>`, "Content-Type", "text/html", "X-Request-Id", "r1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := stranger(t, func(w http.ResponseWriter, r *http.Request) {
				tt.h(w, r)
				if tt.status != 0 {
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			})
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := c.GetZone(ctx, "z1")
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
				t.Fatalf("%v after %v", err, time.Since(start))
			}
			if tt.status == 0 {
				return
			}
			if e := failure(t, err, tt.status); e.RequestID != "r1" || e.Body == "" {
				t.Errorf("got %+v", e)
			}
		})
	}
}
