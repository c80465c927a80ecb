package egress_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"caracal.run/management/server/egress"
)

func TestDeniedURLsAreNotResolved(t *testing.T) {
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
	if len(r.lookups) > 0 {
		t.Errorf("looked up %q", r.lookups)
	}
	r.expectDialed(t)
}

func TestOneNonPublicAddressDeniesTheHost(t *testing.T) {
	t.Parallel()
	for _, blocked := range []string{
		"127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255",
		"::1", "::", "fe80::1%eth0", "fd00:ec2::254", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
	} {
		for name, addrs := range map[string][]netip.Addr{
			"alone":  {netip.MustParseAddr(blocked)},
			"first":  {netip.MustParseAddr(blocked), here},
			"last":   {here, there, netip.MustParseAddr(blocked)},
			"behind": append(slices.Repeat([]netip.Addr{here}, 20), netip.MustParseAddr(blocked)),
		} {
			t.Run(blocked+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, nil, resolvesTo(addrs...))
				_, err := r.Do(t.Context(), post("https://token.example.com/"))
				if !errors.Is(err, egress.AddressNotPublic) {
					t.Errorf("got %v", err)
				}
				r.expectDialed(t)
			})
		}
	}
	t.Run("no address at all", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil, resolvesTo(netip.Addr{}))
		if _, err := r.Do(t.Context(), post("https://token.example.com/")); !errors.Is(err, egress.AddressNotPublic) {
			t.Errorf("got %v", err)
		}
		r.expectDialed(t)
	})
}

// With DNS rebinding, a name resolves to a public address when it is checked and to
// an internal one when it is used. Each request resolves it only once.
func TestDNSRebinding(t *testing.T) {
	t.Parallel()
	var lookups atomic.Int64
	r := newRig(t, func(http.ResponseWriter, *http.Request) {}, func(o *egress.Options) {
		o.Resolver = resolver(func(context.Context, string, string) ([]netip.Addr, error) {
			if lookups.Add(1) == 1 {
				return []netip.Addr{here}, nil
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		})
	})
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Fatal(err)
	}
	if lookups.Load() != 1 {
		t.Errorf("%d lookups for one request", lookups.Load())
	}
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); !errors.Is(err, egress.AddressNotPublic) {
		t.Errorf("got %v", err)
	}
	r.expectDialed(t, "93.184.215.14:443")
}

// net.Resolver returns the IPv4 addresses of the hosts file in IPv6-mapped form.
func TestMappedAddressesAreDialedAsIPv4(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(http.ResponseWriter, *http.Request) {}, resolvesTo(netip.MustParseAddr("::ffff:93.184.215.14")))
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Fatal(err)
	}
	r.expectDialed(t, "93.184.215.14:443")
}

// The dialer of production checks the address even if all other rules are bypassed.
func TestControlChecksTheSocketAddress(t *testing.T) {
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
	for address, allowed := range map[string]bool{
		"93.184.215.14:443": true, "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443": true,
		"10.0.0.1:443": false, "[::1]:443": false, "[fe80::1%eth0]:443": false, "[::ffff:8.8.8.8]:443": false, "localhost:443": false, "": false,
	} {
		if err := egress.Control("tcp", address, nil); (err == nil) != allowed {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestNextAddressIsTriedWithinTheTimeout(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(http.ResponseWriter, *http.Request) {}, resolvesTo(there, here), func(o *egress.Options) {
		dial := o.Dial
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !strings.HasPrefix(address, "[") {
				return dial(ctx, network, address)
			}
			if deadline, _ := ctx.Deadline(); time.Until(deadline) > o.Timeout/2 {
				t.Errorf("the first of two addresses has %v", time.Until(deadline))
			}
			return nil, errors.New("unreachable")
		}
	})
	if _, err := r.Do(t.Context(), post("https://token.example.com/")); err != nil {
		t.Error(err)
	}
	r.expectDialed(t, "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:443", "93.184.215.14:443")
}

func TestAtMostEightAddressesAreTried(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, resolvesTo(slices.Repeat([]netip.Addr{here}, 100)...), func(o *egress.Options) {
		o.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
	})
	_, err := r.Do(t.Context(), post("https://token.example.com/"))
	expect(t, err, egress.NotConnected)
	r.expectDialed(t, slices.Repeat([]string{"93.184.215.14:443"}, 8)...)
}
