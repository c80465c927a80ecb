package server_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
)

// The status line of an error that net/http would write itself has the reason
// phrase of its status (RFC 9110 §15).
func TestErrorBeforeTheHandlerHasAStandardStatusLine(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct{ name, request, want string }{
		{"malformed path", "GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request"},
		{"header too large", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "HTTP/1.1 431 Request Header Fields Too Large"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() { _, _ = io.WriteString(conn, tt.request) }() // the server may close before it has read all
			line, err := bufio.NewReader(conn).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(line); got != tt.want {
				t.Errorf("the status line is %q, want %q", got, tt.want)
			}
		})
	}
}
