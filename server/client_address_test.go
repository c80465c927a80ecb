package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestClientAddress(t *testing.T) {
	t.Parallel()
	xff := func(lines ...string) http.Header { return http.Header{"X-Forwarded-For": lines} }
	fwd := func(lines ...string) http.Header { return http.Header{"Forwarded": lines} }
	for _, tt := range []struct {
		name    string
		trust   string // TRUST_PROXY
		header  string // TRUST_PROXY_HEADER
		remote  string
		headers http.Header
		want    string
	}{
		{"no proxy", "false", "", "192.0.2.1:5000", xff("10.9.9.9"), "192.0.2.1"},
		{"zero proxies", "0", "", "192.0.2.1:5000", xff("10.9.9.9"), "192.0.2.1"},
		{"no proxy, IPv6", "false", "", "[2001:db8::1]:5000", nil, "2001:db8::1"},
		{"an address that is none", "true", "", "@", xff("10.9.9.9"), "@"},

		{"one proxy", "true", "", "10.0.0.1:5000", xff("192.0.2.1"), "192.0.2.1"},
		{"one proxy, forged entries", "1", "", "10.0.0.1:5000", xff("6.6.6.6, 192.0.2.1"), "192.0.2.1"},
		{"one proxy, forged lines", "1", "", "10.0.0.1:5000", xff("6.6.6.6", "7.7.7.7, 192.0.2.1"), "192.0.2.1"},
		{"one proxy without the header", "1", "", "10.0.0.1:5000", nil, "10.0.0.1"},
		{"one proxy, another header", "1", "", "10.0.0.1:5000", fwd("for=6.6.6.6"), "10.0.0.1"},
		{"two proxies", "2", "", "10.0.0.1:5000", xff("6.6.6.6, 192.0.2.1, 10.0.0.2"), "192.0.2.1"},
		{"two proxies, one was bypassed", "2", "", "10.0.0.1:5000", xff("192.0.2.1"), "192.0.2.1"},
		{"three proxies", "3", "", "10.0.0.1:5000", xff("192.0.2.1,10.0.0.3,10.0.0.2"), "192.0.2.1"},

		{"networks", "10.0.0.0/8", "", "10.0.0.1:5000", xff("6.6.6.6, 192.0.2.1, 10.0.0.2"), "192.0.2.1"},
		{"an address", "10.0.0.1", "", "10.0.0.1:5000", xff("192.0.2.1, 10.0.0.2"), "10.0.0.2"},
		{"several networks", " 127.0.0.0/8 , 10.0.0.1, fd00::/8", "", "10.0.0.1:5000", xff("6.6.6.6, 192.0.2.1, fd00::7"), "192.0.2.1"},
		{"a client that connects directly", "10.0.0.0/8", "", "192.0.2.1:5000", xff("10.9.9.9"), "192.0.2.1"},
		{"only trusted addresses", "10.0.0.0/8", "", "10.0.0.1:5000", xff("10.0.0.3, 10.0.0.2"), "10.0.0.3"},
		{"IPv4 in IPv6", "10.0.0.0/8", "", "[::ffff:10.0.0.1]:5000", xff("::ffff:192.0.2.1"), "192.0.2.1"},

		{"a port", "1", "", "10.0.0.1:5000", xff("192.0.2.1:4711"), "192.0.2.1"},
		{"IPv6", "1", "", "10.0.0.1:5000", xff("2001:db8::1"), "2001:db8::1"},
		{"IPv6 in brackets", "1", "", "10.0.0.1:5000", xff("[2001:db8::1]"), "2001:db8::1"},
		{"IPv6 with a port", "1", "", "10.0.0.1:5000", xff("[2001:db8::1]:4711"), "2001:db8::1"},
		{"not an address", "1", "", "10.0.0.1:5000", xff("6.6.6.6, unknown"), "10.0.0.1"},
		{"not an address further away", "10.0.0.0/8", "", "10.0.0.1:5000", xff("6.6.6.6, unknown, 10.0.0.2"), "10.0.0.2"},
		{"an empty entry", "1", "", "10.0.0.1:5000", xff("6.6.6.6,"), "10.0.0.1"},
		{"an open bracket", "1", "", "10.0.0.1:5000", xff("[2001:db8::1"), "10.0.0.1"},

		{"Forwarded", "1", "Forwarded", "10.0.0.1:5000", fwd("for=192.0.2.1"), "192.0.2.1"},
		{"Forwarded, with more parameters", "1", "forwarded", "10.0.0.1:5000", fwd(`proto=https;By=10.0.0.1; FOR="192.0.2.1:4711" ;host=x`), "192.0.2.1"},
		{"Forwarded, IPv6", "1", "Forwarded", "10.0.0.1:5000", fwd(`for="[2001:db8:cafe::17]:4711"`), "2001:db8:cafe::17"},
		{"Forwarded, a list", "2", "Forwarded", "10.0.0.1:5000", fwd("for=6.6.6.6", "for=192.0.2.1, for=10.0.0.2"), "192.0.2.1"},
		{"Forwarded, a comma in quotes", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;host="a,for=7.7.7.7\",";by=x, for=192.0.2.1`), "192.0.2.1"},
		{"Forwarded, obfuscated", "1", "Forwarded", "10.0.0.1:5000", fwd("for=6.6.6.6, for=_hidden"), "10.0.0.1"},
		{"Forwarded without for", "1", "Forwarded", "10.0.0.1:5000", fwd("for=6.6.6.6, proto=https"), "10.0.0.1"},
		{"Forwarded, an open quote before the proxy's element", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;x=", for=192.0.2.1`), "10.0.0.1"},
		{"Forwarded, an open quote before quoted IPv6", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;x=", for="[2001:db8::1]:4711"`), "10.0.0.1"},
		{"Forwarded, an open quote before an even number of quotes", "2", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6, for=7.7.7.7;x=", for="[2001:db8::1]", for="[2001:db8::2]";x="`), "10.0.0.1"},
		{"Forwarded, an open quote in the client's line", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;x="`, "for=192.0.2.1"), "192.0.2.1"},
		{"Forwarded, an open quote in the line of a proxy further away", "2", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;x=", for=192.0.2.1`, "for=10.0.0.2"), "10.0.0.2"},
		{"Forwarded, a trailing backslash", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;x="a\`, "for=192.0.2.1"), "192.0.2.1"},
		{"Forwarded, a trailing backslash before the proxy's element", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;x="a\, for="192.0.2.1"`), "10.0.0.1"},
		{"Forwarded, a trailing backslash outside quotes", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6;x=\, for=192.0.2.1`), "10.0.0.1"},
		{"Forwarded, only an open quote", "1", "Forwarded", "10.0.0.1:5000", fwd(`for="6.6.6.6`), "10.0.0.1"},
		{"Forwarded, a quote after a value", "1", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6"", for=192.0.2.1`), "10.0.0.1"},
		{"Forwarded, IPv6 without quotes", "1", "Forwarded", "10.0.0.1:5000", fwd("for=[2001:db8::1]"), "10.0.0.1"},
		{"Forwarded, quoted IPv6 in a list", "2", "Forwarded", "10.0.0.1:5000", fwd(`for=6.6.6.6,for="[2001:db8::1]";by="[2001:db8::2]:443",for="[2001:db8::3]"`), "2001:db8::1"},
		{"Forwarded, escaped characters", "1", "Forwarded", "10.0.0.1:5000", fwd(`for="192\.0.2.\1"`), "192.0.2.1"},
		{"Forwarded, twice in an element", "1", "Forwarded", "10.0.0.1:5000", fwd("for=192.0.2.1;for=6.6.6.6"), "10.0.0.1"},
		{"Forwarded, empty elements", "1", "Forwarded", "10.0.0.1:5000", fwd(", ;, for=192.0.2.1;"), "192.0.2.1"},
		{"Forwarded, an empty last element", "1", "Forwarded", "10.0.0.1:5000", fwd("for=6.6.6.6,"), "10.0.0.1"},
		{"Forwarded, another header", "1", "Forwarded", "10.0.0.1:5000", xff("6.6.6.6"), "10.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var trusted TrustedProxies
			if err := trusted.UnmarshalText([]byte(tt.trust)); err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr = tt.remote
			if tt.headers != nil {
				r.Header = tt.headers
			}
			if got := clientAddress(trusted, tt.header)(r); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
