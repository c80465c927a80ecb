package egress_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"caracal.run/management/server/egress"
)

func TestDoSendsTheRequestToTheResolvedAddress(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.Header().Set("X-Seen", fmt.Sprintf("%s %s %s %s %d", q.Method, q.Host, q.TLS.ServerName, q.RequestURI, q.ContentLength))
		w.Header().Set("X-Sent", fmt.Sprint(q.Header["Authorization"], q.Header["Accept-Encoding"], q.Header["Cookie"]))
		w.WriteHeader(http.StatusBadRequest)
		w.Write(body)
	}, resolvesTo(here, there))
	sent := post("https://Token.Example.com.:8443/oauth%2Ftoken?tenant=a b#top")
	got, err := r.Do(t.Context(), sent)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != http.StatusBadRequest || string(got.Body) != string(sent.Body) || got.Duration <= 0 {
		t.Errorf("got %d %q after %v", got.Status, got.Body, got.Duration)
	}
	if seen, want := got.Header.Get("X-Seen"), "POST token.example.com:8443 token.example.com /oauth%2Ftoken?tenant=a%20b 29"; seen != want {
		t.Errorf("the server received %q, want %q", seen, want)
	}
	if seen, want := got.Header.Get("X-Sent"), "[Basic Zm9vOmJhcg==] [] []"; seen != want {
		t.Errorf("the server received %q, want %q", seen, want)
	}
	if !slices.Equal(r.lookups, []string{"token.example.com."}) {
		t.Errorf("looked up %q", r.lookups)
	}
	r.expectDialed(t, "93.184.215.14:8443")
}

func TestRequestsShareNoState(t *testing.T) {
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
	if len(peers) != calls || len(r.lookups) != calls || len(r.dials) != calls {
		t.Errorf("%d requests: %d connections, %d lookups, %d dials", calls, len(peers), len(r.lookups), len(r.dials))
	}
}

func TestBodyOfMaximumSizeIsRead(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 100)) },
		func(o *egress.Options) { o.MaxBody = 100 })
	if got, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil || len(got.Body) != 100 {
		t.Errorf("read %d bytes: %v", len(got.Body), err)
	}
}

// A compressed body is not decompressed, so that a small response cannot become large.
func TestCompressedBodiesAreNotDecompressed(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write([]byte("\x1f\x8b and so on"))
	})
	if got, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil || string(got.Body) != "\x1f\x8b and so on" {
		t.Errorf("got %q, %v", got.Body, err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
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
				if calls.Load() != 1 || len(r.lookups) != 1 {
					t.Errorf("%d requests, looked up %q", calls.Load(), r.lookups)
				}
				r.expectDialed(t, "93.184.215.14:443")
			})
		}
	}
}

func TestEnvironmentProxiesAreIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(http.ResponseWriter, *http.Request) {})
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Error(err)
	}
	r.expectDialed(t, "93.184.215.14:443")
	if n := proxied.Load(); n > 0 {
		t.Errorf("%d connections to the proxy", n)
	}
}

func TestOldTLSVersionsAreRejected(t *testing.T) {
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

func TestProbeSendsNoSecret(t *testing.T) {
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
				t.Errorf("the server received %q, want %q", seen, want)
			}
		})
	}
}

// Neither error nor detail contains the secret parts of a URL, and the detail contains
// no internal address.
func TestErrorsContainNoSecret(t *testing.T) {
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
		var failure *egress.Error
		if !errors.As(err, &failure) {
			t.Fatalf("%s: %v", url, err)
		}
		if strings.Contains(err.Error()+failure.Detail(), "swordfish") {
			t.Errorf("%s: %v; %s", url, err, failure.Detail())
		}
		if strings.Contains(failure.Detail(), "10.0.0") {
			t.Errorf("%s: %s", url, failure.Detail())
		}
	}
}

func TestEveryErrorKindHasDetail(t *testing.T) {
	t.Parallel()
	for _, kind := range []egress.Kind{
		egress.InvalidURL, egress.NotHTTPS, egress.HasUserinfo, egress.HostNotAName, egress.HostNotAllowed, egress.NotResolved, egress.AddressNotPublic,
		egress.NotConnected, egress.TLSFailed, egress.InvalidResponse, egress.BodyTooLarge, egress.TimedOut, egress.Canceled,
	} {
		if egress.Details[kind] == "" {
			t.Errorf("%v has no detail", kind)
		}
	}
}
