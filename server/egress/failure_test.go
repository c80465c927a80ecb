package egress_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/egress"
)

func TestFailureKinds(t *testing.T) {
	t.Parallel()
	cause := errors.New("no route to 10.1.2.3 from 10.1.2.4")
	// plain reads something, writes a text without TLS and closes the connection.
	plain := func(text string) func(*egress.Options) {
		return func(o *egress.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				go func() {
					defer server.Close()
					server.Read(make([]byte, 4096))
					io.WriteString(server, text)
				}()
				return client, nil
			}
		}
	}
	tests := []struct {
		name   string
		url    string
		handle http.HandlerFunc
		change func(*egress.Options)
		want   egress.Kind
		cause  error
	}{
		{name: "no such name", want: egress.NotResolved, cause: cause, change: func(o *egress.Options) {
			o.Resolver = resolver(func(context.Context, string, string) ([]netip.Addr, error) { return nil, cause })
		}},
		{name: "no address", want: egress.NotResolved, change: resolvesTo()},
		{name: "no connection", want: egress.NotConnected, cause: cause, change: func(o *egress.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, cause }
		}},
		{name: "certificate for another name", want: egress.TLSFailed, url: "https://token.example.org/"},
		{name: "certificate of an unknown authority", want: egress.TLSFailed, change: func(o *egress.Options) { o.RootCAs = x509.NewCertPool() }},
		{name: "certificate unknown to the system", want: egress.TLSFailed, change: func(o *egress.Options) { o.RootCAs = nil }},
		{name: "no TLS", want: egress.TLSFailed, change: plain("HTTP/1.1 200 OK\r\n\r\n")},
		{name: "closed connection", want: egress.TLSFailed, change: plain("")},
		{name: "closed before the response", want: egress.InvalidResponse, handle: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{name: "closed within the response", want: egress.InvalidResponse, handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("half"))
		}},
		{name: "not HTTP", want: egress.InvalidResponse, handle: raw("220 mail.example.com ESMTP\r\n")},
		{name: "huge header", want: egress.InvalidResponse, handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Huge", strings.Repeat("a", 64<<10))
		}},
		{name: "endless header", want: egress.InvalidResponse, handle: endless("HTTP/1.1 200 OK\r\n", "X-Again: and again\r\n")},
		{name: "endless line of a header", want: egress.InvalidResponse, handle: endless("HTTP/1.1 200 OK\r\nX: ", "and again ")},
		{name: "endless informational responses", want: egress.InvalidResponse, handle: endless("", "HTTP/1.1 103 Early Hints\r\n\r\n")},
		{name: "endless body", want: egress.BodyTooLarge, handle: endless("HTTP/1.1 200 OK\r\n\r\n", "and again ")},
		{name: "endless body in chunks", want: egress.BodyTooLarge, handle: endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nagain\r\n")},
		{name: "large body with a length", want: egress.BodyTooLarge, handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Write(make([]byte, 64<<10+1))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var change []func(*egress.Options)
			if tt.change != nil {
				change = append(change, tt.change)
			}
			r := newRig(t, tt.handle, change...)
			request := post("https://token.example.com/oauth/token?key=swordfish")
			if tt.url != "" {
				request.URL, request.AllowedHosts = tt.url, []string{"token.example.org"}
			}
			got, err := r.Do(t.Context(), request)
			expect(t, err, tt.want)
			if tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("%v does not wrap its cause", err)
			}
			if got.Status != 0 || got.Header != nil || got.Body != nil || got.Duration <= 0 {
				t.Errorf("a failure has the response %+v", got)
			}
		})
	}
}

// A server can send back what it received. The error of a malformed response quotes
// nothing of it.
func TestFailureQuotesNoResponse(t *testing.T) {
	t.Parallel()
	const secret = "code=swordfish"
	for name, response := range map[string]string{
		"not HTTP":            secret + "\r\n\r\n",
		"malformed status":    "HTTP/1.1 " + secret + "\r\n\r\n",
		"malformed version":   "HTTP/" + secret + " 200 OK\r\n\r\n",
		"malformed header":    "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n",
		"malformed length":    "HTTP/1.1 200 OK\r\nContent-Length: " + secret + "\r\n\r\n",
		"two lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: " + secret + "\r\n\r\n",
		"unknown encoding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + secret + "\r\n\r\n",
		"malformed chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + secret + "\r\n\r\n",
		"malformed trailer":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n" + secret + "\r\n\r\n",
		"early hints, broken": "HTTP/1.1 103 Early Hints\r\n" + secret + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newRig(t, raw(response)).Do(t.Context(), post("https://token.example.com/"))
			expect(t, err, egress.InvalidResponse) // without swordfish
		})
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	const timeout = 250 * time.Millisecond
	tests := []struct {
		name   string
		handle http.HandlerFunc
		change func(*egress.Options)
	}{
		{name: "lookup", change: func(o *egress.Options) {
			o.Resolver = resolver(func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}},
		{name: "connection", change: func(o *egress.Options) { o.Dial = noResponse }},
		{name: "handshake", change: func(o *egress.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				client, server := net.Pipe()
				go io.Copy(io.Discard, server)
				return client, nil
			}
		}},
		{name: "no header", handle: func(_ http.ResponseWriter, q *http.Request) {
			io.Copy(io.Discard, q.Body) // only then does the server notice a closed connection
			<-q.Context().Done()
			panic(http.ErrAbortHandler) // otherwise, the server sends a response
		}},
		{name: "header byte by byte", handle: slow("HTTP/1.1 200 OK\r\nX: ")},
		{name: "body byte by byte", handle: slow("HTTP/1.1 200 OK\r\n\r\n")},
		{name: "body byte by byte, with a length", handle: slow("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")},
		{name: "chunks byte by byte", handle: slow("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			change := []func(*egress.Options){withTimeout(timeout)}
			if tt.change != nil {
				change = append(change, tt.change)
			}
			r := newRig(t, tt.handle, change...)
			got, err := r.Do(t.Context(), post("https://token.example.com/"))
			expect(t, err, egress.TimedOut)
			if got.Duration < timeout {
				t.Errorf("it took %v", got.Duration)
			}
		})
	}
}

func TestCallerContext(t *testing.T) {
	t.Parallel()
	received := make(chan struct{}, 1)
	r := newRig(t, func(_ http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		received <- struct{}{}
		<-q.Context().Done()
		panic(http.ErrAbortHandler)
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := r.Do(ctx, post("https://token.example.com/"))
		expect(t, err, egress.TimedOut)
	})
	t.Run("canceled", func(t *testing.T) {
		select { // the test before may have left a value
		case <-received:
		default:
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-received
			cancel()
		}()
		_, err := r.Do(ctx, post("https://token.example.com/"))
		expect(t, err, egress.Canceled)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not wrap context.Canceled", err)
		}
	})
}
