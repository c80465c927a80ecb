package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"

	"github.com/google/uuid"

	"caracal.run/management/gen/code"
)

// jsonErrorListener gives the errors that net/http answers by itself, before any handler
// sees the request, the one shape of all errors. They cannot be had otherwise:
// a request whose path is badly percent-encoded or whose headers are too large
// never becomes a request.
func jsonErrorListener(l net.Listener) net.Listener { return jsonListener{l} }

type jsonListener struct{ net.Listener }

func (l jsonListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return jsonErrorConn{conn}, nil
}

type jsonErrorConn struct{ net.Conn }

// netHTTPError is how net/http ends the head of an error of its own, and of
// nothing else: no answer of ours is text/plain and closes the connection. It
// writes head and text in one call.
var netHTTPError = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

func (c jsonErrorConn) Write(b []byte) (int, error) {
	head, _, found := bytes.Cut(b, netHTTPError)
	if !found || !bytes.HasPrefix(head, []byte("HTTP/1.1 ")) || bytes.Contains(head, []byte("\r\n")) {
		return c.Conn.Write(b)
	}
	deniedRequest := code.InvalidRequest
	if bytes.HasPrefix(head, []byte("HTTP/1.1 431")) {
		deniedRequest = code.HeaderTooLarge
	}
	if _, err := c.Conn.Write(errorResponse(deniedRequest)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// errorResponse is a whole HTTP answer.
func errorResponse(deniedRequest code.Code) []byte {
	entry, id := code.Table[deniedRequest], uuid.NewString()
	body, err := json.Marshal(map[string]string{"error": string(deniedRequest), "error_description": entry.Sentence, "requestId": id})
	if err != nil {
		panic(err) // three strings
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: application/json; charset=utf-8\r\nX-Request-Id: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		entry.Status, "Refused", id, len(body), body)
}
