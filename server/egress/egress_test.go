package egress_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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

func TestDoSendsTheRequestToTheResolvedAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %s %d", q.Method, q.Host, q.TLS.ServerName, q.RequestURI, q.ContentLength))
		w.Header().Set("X-Sent", fmt.Sprint(q.Header["Authorization"], q.Header["Accept-Encoding"], q.Header["Cookie"]))
		w.WriteHeader(http.StatusBadRequest)
		w.Write(body)
	}, answers(here, there))
	sent := post("https://Token.Example.com.:8443/oauth%2Ftoken?tenant=a b#top")
	got, err := r.Do(t.Context(), sent)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != http.StatusBadRequest || string(got.Body) != string(sent.Body) || got.Duration <= 0 {
		t.Errorf("got %d %q after %v", got.Status, got.Body, got.Duration)
	}
	if seen, want := got.Header.Get("X-Seen"), "POST token.example.com:8443 token.example.com /oauth%2Ftoken?tenant=a%20b 29"; seen != want {
		t.Errorf("the server saw %q, want %q", seen, want)
	}
	if seen, want := got.Header.Get("X-Sent"), "[Basic Zm9vOmJhcg==] [] []"; seen != want {
		t.Errorf("the server saw %q, want %q", seen, want)
	}
	if !slices.Equal(r.asked, []string{"token.example.com."}) {
		t.Errorf("looked up %q", r.asked)
	}
	r.expectDialled(t, "93.184.215.14:8443")
}

func TestCallsShareNothing(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	peers := map[string]bool{}
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		peers[q.RemoteAddr] = true
		mu.Unlock()
		if q.Header.Get("Cookie") != "" {
			t.Error("a cookie came back")
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
	})
	const calls = 4
	var all sync.WaitGroup
	for range calls {
		all.Go(func() {
			if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(peers) != calls || len(r.asked) != calls || len(r.dialled) != calls {
		t.Errorf("%d calls: %d connections, %d look-ups, %d dials", calls, len(peers), len(r.asked), len(r.dialled))
	}
}

func TestRefusedURLsAreNotLookedUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for url, want := range map[string]error{
		"http://token.example.com/":           egress.NotHTTPS,
		"https://user:pw@token.example.com/":  egress.HasUserinfo,
		"https://other.example.com/":          egress.HostNotAllowed,
		"https://127.0.0.1/":                  egress.HostNotAName,
		"https://token.example.com:0/":        egress.InvalidURL,
		"https://token.example.com/%zz?key=1": egress.InvalidURL,
	} {
		if _, err := r.Do(t.Context(), post(url)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", url, err, want)
		}
		if _, err := r.Probe(t.Context(), url, []string{host}); !errors.Is(err, want) {
			t.Errorf("%s, probed: got %v, want %v", url, err, want)
		}
	}
	if len(r.asked) > 0 {
		t.Errorf("looked up %q", r.asked)
	}
	r.expectDialled(t)
}

func TestOneAddressThatIsNotPublicSpoilsTheAnswer(t *testing.T) {
	t.Parallel()
	for _, blockedPrefixes := range []string{
		"127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
		"::1", "::", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
	} {
		for name, addrs := range map[string][]netip.Addr{
			"alone":  {netip.MustParseAddr(blockedPrefixes)},
			"first":  {netip.MustParseAddr(blockedPrefixes), here},
			"last":   {here, there, netip.MustParseAddr(blockedPrefixes)},
			"behind": append(slices.Repeat([]netip.Addr{here}, 20), netip.MustParseAddr(blockedPrefixes)),
		} {
			t.Run(blockedPrefixes+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, nil, answers(addrs...))
				_, err := r.Do(t.Context(), post("https://token.example.com/"))
				if !errors.Is(err, egress.AddressNotPublic) {
					t.Errorf("got %v", err)
				}
				r.expectDialled(t)
			})
		}
	}
	t.Run("no address at all", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil, answers(netip.Addr{}))
		if _, err := r.Do(t.Context(), post("https://token.example.com/")); !errors.Is(err, egress.AddressNotPublic) {
			t.Errorf("got %v", err)
		}
		r.expectDialled(t)
	})
}

// TestChangingAnswersAreNotBelieved is DNS rebinding: the name leads to a public
// address when it is checked, and to us when it is used.
func TestChangingAnswersAreNotBelieved(t *testing.T) {
	t.Parallel()
	var lookUps atomic.Int64
	r := newRig(t, func(http.ResponseWriter, *http.Request) {}, func(o *egress.Options) {
		o.Resolver = resolver(func(context.Context, string, string) ([]netip.Addr, error) {
			if lookUps.Add(1) == 1 {
				return []netip.Addr{here}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		})
	})
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Fatal(err)
	}
	if lookUps.Load() != 1 {
		t.Errorf("%d look-ups for one request", lookUps.Load())
	}
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); !errors.Is(err, egress.AddressNotPublic) {
		t.Errorf("got %v", err)
	}
	r.expectDialled(t, "93.184.215.14:443")
}

// TestMappedAnswersAreDialledAsIPv4 because net.Resolver writes the hosts file so.
func TestMappedAnswersAreDialledAsIPv4(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(http.ResponseWriter, *http.Request) {}, answers(netip.MustParseAddr("::ffff:93.184.215.14")))
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Fatal(err)
	}
	r.expectDialled(t, "93.184.215.14:443")
}

// TestTheSocketIsCheckedToo dials as production does, beyond all the other rules.
func TestTheSocketIsCheckedToo(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	dial := egress.DialOf(egress.New(egress.Options{}))
	if conn, err := dial(t.Context(), "tcp", listener.Addr().String()); err == nil {
		conn.Close()
		t.Error("connected to loopback")
	}
	for address, open := range map[string]bool{
		"93.184.215.14:443": true, "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443": true,
		"10.0.0.1:443": false, "[::1]:443": false, "[fe80::1%eth0]:443": false, "[::ffff:8.8.8.8]:443": false, "localhost:443": false, "": false,
	} {
		if err := egress.Control("tcp", address, nil); (err == nil) != open {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestFailuresOnTheWay(t *testing.T) {
	t.Parallel()
	gone := errors.New("no route to 10.1.2.3 from 10.1.2.4")
	// plain says this without TLS, once it has heard something, and hangs up.
	plain := func(say string) func(*egress.Options) {
		return func(o *egress.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					theirs.Read(make([]byte, 4096))
					io.WriteString(theirs, say)
				}()
				return ours, nil
			}
		}
	}
	tests := []struct {
		name    string
		url     string
		handle  http.HandlerFunc
		change  func(*egress.Options)
		want    egress.Kind
		because error
	}{
		{name: "no such name", want: egress.NotResolved, because: gone, change: func(o *egress.Options) {
			o.Resolver = resolver(func(context.Context, string, string) ([]netip.Addr, error) { return nil, gone })
		}},
		{name: "no address", want: egress.NotResolved, change: answers()},
		{name: "no connection", want: egress.NotConnected, because: gone, change: func(o *egress.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, gone }
		}},
		{name: "certificate for another name", want: egress.TLSFailed, url: "https://token.example.org/"},
		{name: "certificate of nobody", want: egress.TLSFailed, change: func(o *egress.Options) { o.RootCAs = x509.NewCertPool() }},
		{name: "certificate unknown to the system", want: egress.TLSFailed, change: func(o *egress.Options) { o.RootCAs = nil }},
		{name: "no TLS", want: egress.TLSFailed, change: plain("HTTP/1.1 200 OK\r\n\r\n")},
		{name: "hung up", want: egress.TLSFailed, change: plain("")},
		{name: "hung up before the answer", want: egress.NoAnswer, handle: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{name: "hung up in the answer", want: egress.NoAnswer, handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			w.Write([]byte("half"))
		}},
		{name: "no HTTP", want: egress.NoAnswer, handle: raw("220 mail.example.com ESMTP\r\n")},
		{name: "huge header", want: egress.NoAnswer, handle: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Huge", strings.Repeat("a", 64<<10))
		}},
		{name: "endless header", want: egress.NoAnswer, handle: endless("HTTP/1.1 200 OK\r\n", "X-Again: and again\r\n")},
		{name: "endless line of a header", want: egress.NoAnswer, handle: endless("HTTP/1.1 200 OK\r\nX: ", "and again ")},
		{name: "endless early answers", want: egress.NoAnswer, handle: endless("", "HTTP/1.1 103 Early Hints\r\n\r\n")},
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
			if tt.because != nil && !errors.Is(err, tt.because) {
				t.Errorf("%v does not lead to its cause", err)
			}
			if got.Status != 0 || got.Header != nil || got.Body != nil || got.Duration <= 0 {
				t.Errorf("a failure has the response %+v", got)
			}
		})
	}
}

func TestTheLargestBodyIsRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 100)) },
		func(o *egress.Options) { o.MaxBody = 100 })
	if got, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil || len(got.Body) != 100 {
		t.Errorf("read %d bytes: %v", len(got.Body), err)
	}
}

// TestCompressedBodiesStayCompressed so that a small answer cannot unfold.
func TestCompressedBodiesStayCompressed(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write([]byte("\x1f\x8b and so on"))
	})
	if got, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil || string(got.Body) != "\x1f\x8b and so on" {
		t.Errorf("got %q, %v", got.Body, err)
	}
}

func TestEverythingEndsInTime(t *testing.T) {
	t.Parallel()
	const timeout = 250 * time.Millisecond
	tests := []struct {
		name   string
		handle http.HandlerFunc
		change func(*egress.Options)
	}{
		{name: "look-up", change: func(o *egress.Options) {
			o.Resolver = resolver(func(ctx context.Context, _, _ string) ([]netip.Addr, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}},
		{name: "connection", change: func(o *egress.Options) { o.Dial = silent }},
		{name: "handshake", change: func(o *egress.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go io.Copy(io.Discard, theirs)
				return ours, nil
			}
		}},
		{name: "header that does not come", handle: func(_ http.ResponseWriter, q *http.Request) {
			io.Copy(io.Discard, q.Body) // the server notices a hang-up only then
			<-q.Context().Done()
			panic(http.ErrAbortHandler) // or it answers after all
		}},
		{name: "header byte by byte", handle: slow("HTTP/1.1 200 OK\r\nX: ")},
		{name: "body byte by byte", handle: slow("HTTP/1.1 200 OK\r\n\r\n")},
		{name: "body byte by byte, with a length", handle: slow("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")},
		{name: "chunks byte by byte", handle: slow("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			change := []func(*egress.Options){waitUntil(timeout)}
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

func TestTheCallersContextIsHonoured(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	r := newRig(t, func(_ http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		asked <- struct{}{}
		<-q.Context().Done()
		panic(http.ErrAbortHandler)
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := r.Do(ctx, post("https://token.example.com/"))
		expect(t, err, egress.TimedOut)
	})
	t.Run("cancelled", func(t *testing.T) {
		select { // what the run before may have left
		case <-asked:
		default:
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		_, err := r.Do(ctx, post("https://token.example.com/"))
		expect(t, err, egress.Canceled)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not lead to context.Canceled", err)
		}
	})
}

func TestTheNextAddressIsTriedInTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(http.ResponseWriter, *http.Request) {}, answers(there, here), func(o *egress.Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !strings.HasPrefix(address, "[") {
				return dial(ctx, network, address)
			}
			if deadline, _ := ctx.Deadline(); time.Until(deadline) > o.Timeout/2 {
				t.Errorf("the first of two addresses has %v", time.Until(deadline))
			}
			return nil, errors.New("gone")
		}
	})
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Error(err)
	}
	r.expectDialled(t, "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443", "93.184.215.14:443")
}

func TestFewAddressesAreTried(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, answers(slices.Repeat([]netip.Addr{here}, 100)...), func(o *egress.Options) {
		o.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
	})
	_, err := r.Do(t.Context(), post("https://token.example.com/"))
	expect(t, err, egress.NotConnected)
	r.expectDialled(t, slices.Repeat([]string{"93.184.215.14:443"}, 8)...)
}

func TestRedirectsAreAnswers(t *testing.T) {
	t.Parallel()
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308} {
		for _, location := range []string{"/again", "https://elsewhere.example.com/", "http://169.254.169.254/latest/meta-data/", "https://127.0.0.1/"} {
			t.Run(fmt.Sprint(status, location), func(t *testing.T) {
				t.Parallel()
				var calls atomic.Int64
				r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
					calls.Add(1)
					w.Header().Set("Location", location)
					w.WriteHeader(status)
				})
				got, err := r.Do(t.Context(), post("https://token.example.com/"))
				if err != nil || got.Status != status || got.Header.Get("Location") != location {
					t.Errorf("got %d to %q, %v", got.Status, got.Header.Get("Location"), err)
				}
				if calls.Load() != 1 || len(r.asked) != 1 {
					t.Errorf("%d calls, looked up %q", calls.Load(), r.asked)
				}
				r.expectDialled(t, "93.184.215.14:443")
			})
		}
	}
}

func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Error(err)
	}
	r.expectDialled(t, "93.184.215.14:443")
	if n := proxied.Load(); n > 0 {
		t.Errorf("%d connections to the proxy", n)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	for version, want := range map[uint16]egress.Kind{tls.VersionTLS11: egress.TLSFailed, tls.VersionTLS12: "", tls.VersionTLS13: ""} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(http.ResponseWriter, *http.Request) {})
			r.server.TLS.MinVersion, r.server.TLS.MaxVersion = version, version
			_, err := r.Do(t.Context(), post("https://token.example.com/"))
			expect(t, err, want)
		})
	}
}

func TestProbeSendsNothingSecret(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 302, 400, 401, 404, 405, 500} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				body, _ := io.ReadAll(q.Body)
				delete(q.Header, "User-Agent")
				delete(q.Header, "Connection")
				w.Header().Set("X-Seen", fmt.Sprintf("%s %s %v %d", q.Method, q.RequestURI, q.Header, len(body)))
				w.WriteHeader(status)
			})
			got, err := r.Probe(t.Context(), "https://token.example.com/oauth?client_secret=swordfish#x?y", []string{host})
			if err != nil || got.Status != status || got.Duration <= 0 {
				t.Errorf("got %d after %v, %v", got.Status, got.Duration, err)
			}
			if seen, want := got.Header.Get("X-Seen"), "HEAD /oauth map[] 0"; seen != want {
				t.Errorf("the server saw %q, want %q", seen, want)
			}
		})
	}
}

// TestErrorsKeepSecrets holds both what the log and what the caller sees against
// the secret parts of a URL, and what the caller sees against our network too.
func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, func(o *egress.Options) {
		o.Resolver = resolver(func(context.Context, string, string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.53:53"}
		})
	})
	for _, url := range []string{
		"https://token.example.com/?key=swordfish",
		"https://token.example.com/%zz?key=swordfish",
		"https://user:swordfish@token.example.com/",
		"https://token.example.com:swordfish/",
		"http://token.example.com/?key=swordfish",
		"https://10.0.0.1/?key=swordfish",
		"swordfish\x00",
	} {
		_, err := r.Do(t.Context(), post(url))
		var failed *egress.Error
		if !errors.As(err, &failed) {
			t.Fatalf("%s: %v", url, err)
		}
		if strings.Contains(err.Error()+failed.Detail(), "swordfish") {
			t.Errorf("%s: %v; %s", url, err, failed.Detail())
		}
		if strings.Contains(failed.Detail(), "10.0.0") {
			t.Errorf("%s: %s", url, failed.Detail())
		}
	}
}

func TestEveryKindHasASentence(t *testing.T) {
	t.Parallel()
	for _, kind := range []egress.Kind{
		egress.InvalidURL, egress.NotHTTPS, egress.HasUserinfo, egress.HostNotAName, egress.HostNotAllowed, egress.NotResolved, egress.AddressNotPublic,
		egress.NotConnected, egress.TLSFailed, egress.NoAnswer, egress.BodyTooLarge, egress.TimedOut, egress.Canceled,
	} {
		if egress.Details[kind] == "" {
			t.Errorf("%v has none", kind)
		}
	}
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
