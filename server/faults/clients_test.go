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

// What a service that meets bad clients is told.
const (
	requestTimeout = 1500 * time.Millisecond
	writeTimeout   = requestTimeout + statementTimeout
)

// badClients runs clients beside an honest load, and wants the load to notice
// nothing and the clients to leave nothing behind.
func badClients(t *testing.T, how func(t *testing.T, s *service, l *load)) {
	t.Helper()
	w := newWorld(t)
	s := w.start("api", fmt.Sprintf("REQUEST_TIMEOUT_MS=%d", requestTimeout.Milliseconds()))
	l := w.on(s)
	l.take()
	how(t, s, l)
	time.Sleep(300 * time.Millisecond) // of the load
	during := l.take()
	l.stop()
	w.settles(s)
	w.keeps(l)
	s.terminate()
	if during.slowest > unhurried {
		t.Errorf("beside them, a request took %v", during.slowest)
	}
	t.Logf("beside them: %v", during)
}

func dial(t *testing.T, s *service) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

const newZone = `{"name": "Made by a bad client", "slug": "made-by-a-bad-client"}`

func head(method, path string, length int) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, path, token, length)
}

func TestClientsThatSendOneByteASecondAreCutOff(t *testing.T) {
	t.Parallel()
	badClients(t, func(t *testing.T, s *service, l *load) {
		const mapSlice = 20
		var all sync.WaitGroup
		var longest atomic.Int64
		for n := range 2 * mapSlice {
			// Half of them are slow with the head, half with the body.
			quick, slow := "", head(http.MethodPost, "/v1/zones", len(newZone))
			if n%2 == 1 {
				quick, slow = slow, newZone
			}
			conn := dial(t, s)
			all.Go(func() {
				began := time.Now()
				_, _ = io.WriteString(conn, quick)
				over := make(chan struct{})
				go func() {
					defer close(over)
					_ = conn.SetReadDeadline(began.Add(requestTimeout + 5*time.Second))
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						if failed, ok := err.(net.Error); ok && failed.Timeout() {
							t.Error("it was never cut off")
						}
						return
					}
					body, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					if err != nil || resp.StatusCode < 400 || resp.StatusCode >= 500 || codeOf(string(body)) == "" {
						t.Errorf("it was answered %d %s", resp.StatusCode, body)
					}
					if !resp.Close {
						t.Error("its connection was kept")
					}
				}()
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for i := 0; i < len(slow); i++ {
					_, _ = conn.Write([]byte{slow[i]})
					select {
					case <-over:
						i = len(slow)
					case <-tick.C:
					}
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			})
		}
		all.Wait()
		if took := time.Duration(longest.Load()); took > requestTimeout+time.Second {
			t.Errorf("the last was cut off after %v", took)
		} else {
			t.Logf("the last was cut off after %v", took.Round(time.Millisecond))
		}
		if n := column[int](l.w, "SELECT count(*) FROM zones WHERE slug = 'made-by-a-bad-client'")[0]; n > 0 {
			t.Error("half a request made a zone")
		}
	})
}

func TestClientsThatNeverReadHoldNothingOfTheDatabase(t *testing.T) {
	t.Parallel()
	badClients(t, func(t *testing.T, s *service, l *load) {
		const many, requests = 10, 200
		// Answers long enough to fill whatever is between us.
		ask := strings.Repeat(head(http.MethodGet, "/openapi.json", 0)+head(http.MethodGet, "/v1/zones", 0), requests)
		began := time.Now()
		var all sync.WaitGroup
		var stuck atomic.Int64
		for range many {
			conn := dial(t, s)
			if err := conn.SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				_ = conn.SetWriteDeadline(began.Add(writeTimeout + 10*time.Second))
				// What the service does not read fills up too; then it hangs up.
				for {
					if _, err := io.WriteString(conn, ask); err != nil {
						if failed, ok := err.(net.Error); ok && failed.Timeout() {
							stuck.Add(1)
						}
						return
					}
				}
			})
		}
		all.Wait()
		if n := stuck.Load(); n > 0 {
			t.Errorf("%d were never cut off", n)
		}
		t.Logf("the last was cut off after %v", time.Since(began).Round(time.Millisecond))
	})
}

func TestClientsThatDisconnectInTheMiddleLeaveAllOrNothing(t *testing.T) {
	t.Parallel()
	badClients(t, func(t *testing.T, s *service, l *load) {
		const many, requests = 8, 40
		var all sync.WaitGroup
		for n := range many {
			r := rand.New(rand.NewPCG(l.seed, uint64(2000+n)))
			all.Go(func() {
				for i := range requests {
					conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
					if err != nil {
						t.Error(err)
						return
					}
					body := fmt.Sprintf(`{"name": "Made by a bad client %d %d"}`, n, i)
					ask := head(http.MethodPost, "/v1/zones", len(body)) + body
					if r.IntN(4) == 0 {
						ask = ask[:r.IntN(len(ask))] // not even all of it
					}
					_, _ = io.WriteString(conn, ask)
					time.Sleep(time.Duration(r.IntN(60_000)) * time.Microsecond) // whatever it is doing just then
					if r.IntN(2) == 0 {
						_ = conn.(*net.TCPConn).SetLinger(0) // a reset, not a goodbye
					}
					_ = conn.Close()
				}
			})
		}
		all.Wait()
		made := column[int](l.w, "SELECT count(*) FROM zones WHERE name LIKE 'Made by a bad client%'")[0]
		if made == 0 || made == many*requests {
			t.Errorf("%d of %d became zones: that was no middle", made, many*requests)
		}
		t.Logf("%d of %d requests became zones, whole ones", made, many*requests)
	})
}

// Who waits for what another holds is refused after a while; nobody waits
// behind those who wait.
func TestABusyZoneKeepsNobodyElseWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.start("api")
	l := w.load(dense, func() string { return s.url })
	l.stop()
	zones := column[string](w, "SELECT id FROM zones WHERE dcr_enabled AND archived_at IS NULL ORDER BY id")
	tx, err := w.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('zone:' || $1, 0))", zones[0]); err != nil {
		t.Fatal(err)
	}
	ask := func(zone string) (int, code.Code, time.Duration) {
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
	// Four times as many as there are connections want into the busy zone.
	var all sync.WaitGroup
	var longest atomic.Int64
	for range 4 * poolMax {
		all.Go(func() {
			status, deniedRequest, took := ask(zones[0])
			if status != http.StatusServiceUnavailable || deniedRequest != code.ServiceUnavailable {
				t.Errorf("who waited was answered %d %q", status, deniedRequest)
			}
			longest.Store(max(longest.Load(), int64(took)))
		})
	}
	eventually(t, 5*time.Second, "somebody waits", func() bool {
		return column[int](w, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")[0] > 0
	})
	began := time.Now()
	if status, body := s.get("/v1/zones"); status != http.StatusOK || time.Since(began) > unhurried {
		t.Errorf("a read meanwhile was answered %d after %v: %s", status, time.Since(began), body)
	}
	all.Wait()
	if took := time.Duration(longest.Load()); took > bound {
		t.Errorf("the last of those who waited was answered after %v", took)
	} else {
		t.Logf("the last of those who waited was answered after %v", took.Round(time.Millisecond))
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, _, took := ask(zones[0]); status != http.StatusCreated {
		t.Errorf("afterwards, it answers %d after %v", status, took)
	}
	w.settles(s)
	w.keeps(l)
	s.terminate()
}
