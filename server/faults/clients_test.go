//go:build faults

package faults_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"caracal.run/management/gen/code"
)

// Timeouts of a service with bad clients.
const (
	requestTimeout = 1500 * time.Millisecond
	writeTimeout   = requestTimeout + connectTimeout + statementTimeout // as server.Run sets it
)

// withBadClients starts a service with a load and runs bad clients at the same
// time. It checks that no request of the load fails or is slow, and that the
// service then has no goroutine and no database connection of the bad clients.
func withBadClients(t *testing.T, badClients func(t *testing.T, s *service, l *load)) {
	t.Helper()
	b := newBackends(t)
	s := b.start("api", fmt.Sprintf("REQUEST_TIMEOUT_MS=%d", requestTimeout.Milliseconds()))
	l := b.startLoadOn(s)
	l.takeCounts()
	badClients(t, s, l)
	time.Sleep(300 * time.Millisecond) // more requests of the load
	during := l.takeCounts()
	l.stop()
	b.waitIdle(s)
	b.checkInvariants(l)
	s.terminate()
	if during.slowest > maxLatency {
		t.Errorf("with bad clients, a request of the load took %v, want at most %v", during.slowest, maxLatency)
	}
	t.Logf("load with bad clients: %v", during)
}

// dial opens a connection to the service. The end of the test closes it.
func dial(t *testing.T, s *service) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

const newZone = `{"name": "Created by a bad client", "slug": "created-by-a-bad-client"}`

// requestHead returns the request line and the headers of a request whose body has
// the length.
func requestHead(method, path string, length int) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, path, token, length)
}

func TestSlowClientsAreDisconnected(t *testing.T) {
	t.Parallel()
	withBadClients(t, func(t *testing.T, s *service, l *load) {
		const clients = 40
		var all sync.WaitGroup
		var longest atomic.Int64
		for n := range clients {
			// Half of the clients are slow with the head, half with the body.
			sentAtOnce, sentSlowly := "", requestHead(http.MethodPost, "/v1/zones", len(newZone))
			if n%2 == 1 {
				sentAtOnce, sentSlowly = sentSlowly, newZone
			}
			conn := dial(t, s)
			all.Go(func() {
				began := time.Now()
				_, _ = io.WriteString(conn, sentAtOnce)
				done := make(chan struct{})
				go func() {
					defer close(done)
					_ = conn.SetReadDeadline(began.Add(requestTimeout + 5*time.Second))
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
							t.Error("the service did not close the connection")
						}
						return
					}
					body, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err != nil || resp.StatusCode < 400 || resp.StatusCode >= 500 || codeOf(string(body)) == "" {
						t.Errorf("got status %d %s, want status 4xx with an error code", resp.StatusCode, body)
					}
					if !resp.Close {
						t.Error("the response keeps the connection open")
					}
				}()
				ticker := time.NewTicker(time.Second)
				defer ticker.Stop()
				for i := 0; i < len(sentSlowly); i++ {
					_, _ = conn.Write([]byte{sentSlowly[i]})
					select {
					case <-done:
						i = len(sentSlowly)
					case <-ticker.C:
					}
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			})
		}
		all.Wait()
		if took := time.Duration(longest.Load()); took > requestTimeout+time.Second {
			t.Errorf("the last connection was closed after %v, want at most %v", took, requestTimeout+time.Second)
		} else {
			t.Logf("the last connection was closed after %v", took.Round(time.Millisecond))
		}
		if n := column[int](l.b, "SELECT count(*) FROM zones WHERE slug = 'created-by-a-bad-client'")[0]; n > 0 {
			t.Errorf("incomplete requests created %d zones, want 0", n)
		}
	})
}

func TestClientsThatDoNotReadAreDisconnected(t *testing.T) {
	t.Parallel()
	withBadClients(t, func(t *testing.T, s *service, l *load) {
		const clients, requests = 10, 200
		// The responses are large enough to fill every buffer on the way to the client.
		pipelined := strings.Repeat(requestHead(http.MethodGet, "/openapi.json", 0)+requestHead(http.MethodGet, "/v1/zones", 0), requests)
		began := time.Now()
		var all sync.WaitGroup
		var stuck atomic.Int64
		for range clients {
			conn := dial(t, s)
			if err := conn.SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				_ = conn.SetWriteDeadline(began.Add(writeTimeout + 9*time.Second))
				// The service stops reading, so the write buffers fill up too. Then
				// writes block until the service closes the connection.
				for {
					if _, err := io.WriteString(conn, pipelined); err != nil {
						if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
							stuck.Add(1)
						}
						return
					}
				}
			})
		}
		all.Wait()
		if n := stuck.Load(); n > 0 {
			t.Errorf("the service did not close %d of %d connections", n, clients)
		}
		t.Logf("the last connection was closed after %v", time.Since(began).Round(time.Millisecond))
	})
}

func TestInterruptedRequestsAreAtomic(t *testing.T) {
	t.Parallel()
	withBadClients(t, func(t *testing.T, s *service, l *load) {
		const clients, requests = 8, 40
		var all sync.WaitGroup
		for n := range clients {
			r := rand.New(rand.NewPCG(l.seed, uint64(2000+n)))
			all.Go(func() {
				for i := range requests {
					conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
					if err != nil {
						t.Error(err)
						return
					}
					body := fmt.Sprintf(`{"name": "Created by a bad client %d %d"}`, n, i)
					request := requestHead(http.MethodPost, "/v1/zones", len(body)) + body
					if r.IntN(4) == 0 {
						request = request[:r.IntN(len(request))]
					}
					_, _ = io.WriteString(conn, request)
					time.Sleep(time.Duration(r.IntN(60_000)) * time.Microsecond) // to disconnect at a random moment of the request
					if r.IntN(2) == 0 {
						_ = conn.(*net.TCPConn).SetLinger(0) // close with a reset (RST)
					}
					_ = conn.Close()
				}
			})
		}
		all.Wait()
		// A zone and its audit entry are atomic: withBadClients checks that.
		created := column[int](l.b, "SELECT count(*) FROM zones WHERE name LIKE 'Created by a bad client%'")[0]
		if created == 0 || created == clients*requests {
			t.Errorf("%d of %d requests created a zone, want some but not all, so that the clients disconnect during requests", created, clients*requests)
		}
		t.Logf("%d of %d requests created a zone", created, clients*requests)
	})
}

// A request that waits for a zone lock fails after the statement timeout. Other
// requests do not wait for it, even if many requests wait.
func TestRequestsForALockedZoneTimeOutAndBlockNoOtherRequest(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	s := b.start("api")
	l := b.startLoad(denseInterval, func() string { return s.url })
	l.stop()
	zones := column[string](b, "SELECT id FROM zones WHERE dcr_enabled AND archived_at IS NULL ORDER BY id")
	tx, err := b.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('zone:' || $1, 0))", zones[0]); err != nil {
		t.Fatal(err)
	}
	createApplication := func(zone string) (int, code.Code, time.Duration) {
		began := time.Now()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/zones/"+zone+"/applications", strings.NewReader(`{"name": "x", "registration_method": "managed"}`))
		if err != nil {
			t.Error(err)
			return 0, "", 0
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/json")
		resp, err := (&http.Client{Timeout: 20 * time.Second}).Do(r)
		if err != nil {
			t.Error(err)
			return 0, "", 0
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, codeOf(string(body)), time.Since(began)
	}
	// Four times as many requests as the pool has connections wait for the lock.
	var all sync.WaitGroup
	var longest atomic.Int64
	for range 4 * poolMax {
		all.Go(func() {
			status, errorCode, took := createApplication(zones[0])
			if status != http.StatusServiceUnavailable || errorCode != code.ServiceUnavailable {
				t.Errorf("a request for the locked zone returned %d %q, want %d %q", status, errorCode, http.StatusServiceUnavailable, code.ServiceUnavailable)
			}
			longest.Store(max(longest.Load(), int64(took)))
		})
	}
	eventually(t, 5*time.Second, "a request waits for the zone lock", func() bool {
		return column[int](b, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")[0] > 0
	})
	began := time.Now()
	if status, body := s.get("/v1/zones"); status != http.StatusOK || time.Since(began) > maxLatency {
		t.Errorf("with waiting requests, a read returned %d after %v, want %d after at most %v: %s", status, time.Since(began), http.StatusOK, maxLatency, body)
	}
	all.Wait()
	if took := time.Duration(longest.Load()); took > maxRequestTime {
		t.Errorf("the last waiting request returned after %v, want at most %v", took, maxRequestTime)
	} else {
		t.Logf("the last waiting request returned after %v", took.Round(time.Millisecond))
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, _, took := createApplication(zones[0]); status != http.StatusCreated {
		t.Errorf("after the lock was released, a request returned %d after %v, want %d", status, took, http.StatusCreated)
	}
	b.waitIdle(s)
	b.checkInvariants(l)
	s.terminate()
}
