package server

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"

	"github.com/google/uuid"

	"caracal.run/management/gen/code"
)

// jsonErrorListener gives the error responses that net/http itself writes the same
// JSON body as all others. Examples are the responses to a malformed path or to
// headers that are too large. No handler sees such a request, and net/http has no
// hook for the response, so the connection replaces it when net/http writes it.
type jsonErrorListener struct{ net.Listener }

// Accept waits for the next connection.
func (l jsonErrorListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return jsonErrorConn{conn}, nil
}

type jsonErrorConn struct{ net.Conn }

// netHTTPError is the end of the header of an error response that net/http itself
// writes, in one call together with the status line and the body. No response of
// this service has this header.
var netHTTPError = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// Write writes b. If b is an error response of net/http, it writes a JSON error
// response instead.
func (c jsonErrorConn) Write(b []byte) (int, error) {
	statusLine, _, found := bytes.Cut(b, netHTTPError)
	if !found || !bytes.HasPrefix(statusLine, []byte("HTTP/1.1 ")) || bytes.Contains(statusLine, []byte("\r\n")) {
		return c.Conn.Write(b)
	}
	errCode := code.InvalidRequest
	if bytes.HasPrefix(statusLine, []byte("HTTP/1.1 431")) {
		errCode = code.HeaderTooLarge
	}
	if err := writeErrorResponse(c.Conn, errCode); err != nil {
		return 0, err
	}
	return len(b), nil
}

// writeErrorResponse writes a complete HTTP response with an error.
func writeErrorResponse(w io.Writer, errCode code.Code) error {
	entry, requestID := code.Table[errCode], uuid.NewString()
	body, err := json.Marshal(map[string]string{"error": string(errCode), "error_description": entry.Sentence, "requestId": requestID})
	if err != nil {
		return err
	}
	response := http.Response{
		StatusCode: entry.Status, ProtoMajor: 1, ProtoMinor: 1, Close: true,
		Header:        http.Header{"Content-Type": {"application/json; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}, "X-Request-Id": {requestID}},
		ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
	}
	return response.Write(w)
}
