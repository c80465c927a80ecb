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

// proxied counts the connections to the proxy that the environment of every
// test here names.
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

// A rig is a client in an internet of one server: each name leads to a public
// address, and each address to the server. It notes what the client asked for.
type rig struct {
	*egress.Client
	server *httptest.Server

	mu      sync.Mutex
	asked   []string // names that were looked up
	dialled []string // addresses
}

func newRig(t *testing.T, handle http.HandlerFunc, change ...func(*egress.Options)) *rig {
	t.Helper()
	r := &rig{server: httptest.NewUnstartedServer(handle)}
	r.server.Config.ErrorLog = nobody
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(r.server.Certificate())
	o := egress.Options{
		Timeout: time.Minute, // for a machine that is busy; what is slow sets its own
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
	lookUp, dial := o.Resolver, o.Dial
	o.Resolver = resolver(func(ctx context.Context, network, name string) ([]netip.Addr, error) {
		r.note(&r.asked, name)
		return lookUp.LookupNetIP(ctx, network, name)
	})
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		r.note(&r.dialled, address)
		return dial(ctx, network, address)
	}
	r.Client = egress.New(o)
	return r
}

func (r *rig) note(list *[]string, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, what)
}

// expectDialled holds the addresses that were dialled, in order.
func (r *rig) expectDialled(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.dialled, want) {
		t.Errorf("dialled %q, want %q", r.dialled, want)
	}
}

func post(url string) egress.Request {
	return egress.Request{
		Method: http.MethodPost, URL: url, AllowedHosts: []string{host},
		Header: http.Header{"Authorization": {"Basic Zm9vOmJhcg=="}, "Content-Type": {"application/x-www-form-urlencoded"}},
		Body:   []byte("grant_type=client_credentials"),
	}
}

func answers(addrs ...netip.Addr) func(*egress.Options) {
	return func(o *egress.Options) {
		o.Resolver = resolver(func(context.Context, string, string) ([]netip.Addr, error) { return addrs, nil })
	}
}

func waitUntil(timeout time.Duration) func(*egress.Options) {
	return func(o *egress.Options) { o.Timeout = timeout }
}

// expect holds an error against its kind; "" is none.
func expect(t *testing.T, err error, want egress.Kind) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got %v", err)
		}
		return
	}
	var failed *egress.Error
	if !errors.As(err, &failed) || failed.Kind != want || !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
		return
	}
	if failed.Detail() != egress.Details[want] || strings.Contains(err.Error(), "swordfish") {
		t.Errorf("%v; %s", err, failed.Detail())
	}
}

// silent is an address that never answers.
func silent(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// raw answers with these bytes and hangs up.
func raw(text string) http.HandlerFunc {
	return speak(func(w *bufio.Writer) { w.WriteString(text) })
}

// endless answers with a beginning, and with more until nobody listens.
func endless(begin, more string) http.HandlerFunc {
	return speak(func(w *bufio.Writer) {
		w.WriteString(begin)
		for {
			if _, err := w.WriteString(more); err != nil {
				return
			}
		}
	})
}

// slow answers with a beginning, and with a byte now and then until nobody listens.
func slow(begin string) http.HandlerFunc {
	return speak(func(w *bufio.Writer) {
		w.WriteString(begin)
		for w.Flush() == nil {
			w.WriteByte('a')
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func speak(say func(*bufio.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		say(buffered.Writer)
		buffered.Flush()
	}
}

// nobody reads what a server says of handshakes that are meant to fail.
var nobody = log.New(io.Discard, "", 0)
