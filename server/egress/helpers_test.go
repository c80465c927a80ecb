package egress_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"caracal.run/management/server/egress"
)

const host = "token.example.com" // the certificate of httptest is for *.example.com

var (
	here  = netip.MustParseAddr("93.184.215.14")
	there = netip.MustParseAddr("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
)

// proxied counts the connections to the proxy that the environment of the tests
// configures.
var proxied atomic.Int64

func TestMain(m *testing.M) {
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := proxy.Accept()
			if err != nil {
				return
			}
			proxied.Add(1)
			conn.Close()
		}
	}()
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"} {
		os.Setenv(name, "http://"+proxy.Addr().String())
	}
	os.Exit(m.Run())
}

type resolver func(ctx context.Context, network, name string) ([]netip.Addr, error)

func (r resolver) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	return r(ctx, network, name)
}

// A rig is a client with a test server: each name resolves to a public address, and
// each address connects to the server. It records lookups and dials.
type rig struct {
	*egress.Client
	server *httptest.Server

	mu      sync.Mutex
	lookups []string // names
	dials   []string // addresses
}

func newRig(t *testing.T, handle http.HandlerFunc, change ...func(*egress.Options)) *rig {
	t.Helper()
	r := &rig{server: httptest.NewUnstartedServer(handle)}
	r.server.Config.ErrorLog = discard
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(r.server.Certificate())
	o := egress.Options{
		Timeout: time.Minute, // for a busy machine; tests of timeouts set their own
		RootCAs: roots,
		Resolver: resolver(func(context.Context, string, string) ([]netip.Addr, error) {
			return []netip.Addr{here}, nil
		}),
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.server.Listener.Addr().String())
		},
	}
	for _, c := range change {
		c(&o)
	}
	resolve, dial := o.Resolver, o.Dial
	o.Resolver = resolver(func(ctx context.Context, network, name string) ([]netip.Addr, error) {
		r.record(&r.lookups, name)
		return resolve.LookupNetIP(ctx, network, name)
	})
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		r.record(&r.dials, address)
		return dial(ctx, network, address)
	}
	r.Client = egress.New(o)
	return r
}

func (r *rig) record(list *[]string, entry string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, entry)
}

// expectDialed fails unless exactly these addresses were dialed, in order.
func (r *rig) expectDialed(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.dials, want) {
		t.Errorf("dialed %q, want %q", r.dials, want)
	}
}

func post(url string) egress.Request {
	return egress.Request{
		Method: http.MethodPost, URL: url, AllowedHosts: []string{host},
		Header: http.Header{"Authorization": {"Basic Zm9vOmJhcg=="}, "Content-Type": {"application/x-www-form-urlencoded"}},
		Body:   []byte("grant_type=client_credentials"),
	}
}

// resolvesTo makes every name resolve to the given addresses.
func resolvesTo(addrs ...netip.Addr) func(*egress.Options) {
	return func(o *egress.Options) {
		o.Resolver = resolver(func(context.Context, string, string) ([]netip.Addr, error) { return addrs, nil })
	}
}

func withTimeout(timeout time.Duration) func(*egress.Options) {
	return func(o *egress.Options) { o.Timeout = timeout }
}

// expect fails unless an error has a kind; "" is no error.
func expect(t *testing.T, err error, want egress.Kind) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got %v", err)
		}
		return
	}
	var failure *egress.Error
	if !errors.As(err, &failure) || failure.Kind != want || !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
		return
	}
	if failure.Detail() != egress.Details[want] || strings.Contains(err.Error(), "swordfish") {
		t.Errorf("%v; %s", err, failure.Detail())
	}
}

// noResponse is a Dial function for an address that does not respond.
func noResponse(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// raw writes a text and closes the connection.
func raw(text string) http.HandlerFunc {
	return hijack(func(w *bufio.Writer) { w.WriteString(text) })
}

// endless writes begin, then more until the connection is closed.
func endless(begin, more string) http.HandlerFunc {
	return hijack(func(w *bufio.Writer) {
		w.WriteString(begin)
		for {
			if _, err := w.WriteString(more); err != nil {
				return
			}
		}
	})
}

// slow writes begin, then a byte from time to time until the connection is closed.
func slow(begin string) http.HandlerFunc {
	return hijack(func(w *bufio.Writer) {
		w.WriteString(begin)
		for w.Flush() == nil {
			w.WriteByte('a')
			time.Sleep(5 * time.Millisecond)
		}
	})
}

// hijack reads the request, then writes directly to the connection and closes it.
func hijack(write func(*bufio.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		write(buffered.Writer)
		buffered.Flush()
	}
}

// discard is for the errors of handshakes that are expected to fail.
var discard = log.New(io.Discard, "", 0)
