package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

// sendSlowly sends the header and the first half of a createZone request, waits,
// then sends the second half and returns the response. A wait of 0 never sends
// the second half.
func sendSlowly(t *testing.T, a *servertest.API, wait time.Duration) *http.Response {
	t.Helper()
	const body = `{"name":"Sent slowly"}`
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	write := func(format string, args ...any) {
		if _, err := fmt.Fprintf(conn, format, args...); err != nil {
			t.Fatal(err)
		}
	}
	write("POST /v1/zones HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		servertest.Bootstrap, len(body), body[:len(body)/2])
	if wait > 0 {
		time.Sleep(wait)
		write("%s", body[len(body)/2:])
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func expectResponse(t *testing.T, resp *http.Response, status int, want code.Code) {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, servertest.RawResponse{Response: resp, Body: body}, status, want)
}

// A body that arrives within REQUEST_TIMEOUT_MS may take longer than the
// statements of its operation may.
func TestDeadlineStartsAfterTheBodyIsRead(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "REQUEST_TIMEOUT_MS=20000", "DB_STATEMENT_TIMEOUT_MS=1500", "DB_CONNECTION_TIMEOUT_MS=1500")
	expectResponse(t, sendSlowly(t, a, 3200*time.Millisecond), http.StatusCreated, "")
}

// A body that does not arrive within REQUEST_TIMEOUT_MS is the client's fault,
// even if it takes longer than the operation may.
func TestUnfinishedBodyIsInvalidJSON(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "REQUEST_TIMEOUT_MS=4000", "DB_STATEMENT_TIMEOUT_MS=1500", "DB_CONNECTION_TIMEOUT_MS=1500")
	expectResponse(t, sendSlowly(t, a, 0), 0, code.InvalidJSON)
}
