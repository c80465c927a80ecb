package server

import (
	"errors"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// TrustedProxies are the proxies in front of the service whose information about the
// client is trusted: a number of them, or those in some networks. The zero value
// trusts none.
type TrustedProxies struct {
	hops     int
	networks []netip.Prefix
}

// UnmarshalText reads the setting TRUST_PROXY: false, true (one proxy), a number of
// proxies, or addresses and networks, separated by commas.
func (p *TrustedProxies) UnmarshalText(text []byte) error {
	*p = TrustedProxies{}
	setting := strings.TrimSpace(string(text))
	if hops, err := strconv.ParseUint(setting, 10, 8); err == nil {
		p.hops = int(hops)
		return nil
	}
	if trusted, err := parseBool(setting); err == nil {
		if trusted == true {
			p.hops = 1
		}
		return nil
	}
	for element := range strings.SplitSeq(setting, ",") {
		network, err := parseNetwork(strings.TrimSpace(element))
		if err != nil {
			return errors.New("must be true, false, a number of proxies, or a list of IP addresses and networks such as 10.0.0.0/8, separated by commas")
		}
		p.networks = append(p.networks, network)
	}
	return nil
}

// parseNetwork parses a network such as 10.0.0.0/8, or an address.
func parseNetwork(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap()
		return addr.Prefix(addr.BitLen())
	}
	network, err := netip.ParsePrefix(text)
	if err != nil || network.Addr().Is4In6() {
		return network, errors.New("must be a network")
	}
	return network.Masked(), nil
}

// trusts reports whether a proxy is trusted, given the number of proxies between it
// and this service.
func (p TrustedProxies) trusts(addr netip.Addr, between int) bool {
	if between < p.hops {
		return true
	}
	for _, network := range p.networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// clientAddress returns a function that returns the address of the client of a
// request: that of the connection or, if it belongs to a trusted proxy, the last one
// in a header, and so on. A client can forge what precedes the entries of the trusted
// proxies. If an entry is not an address, the last known address counts.
//
// Only one header is read, X-Forwarded-For or Forwarded (RFC 7239): a proxy usually
// appends to one of them and passes the other one as the client sent it.
func clientAddress(trusted TrustedProxies, header string) func(*http.Request) string {
	if trusted.hops == 0 && len(trusted.networks) == 0 {
		return echo.ExtractIPDirect()
	}
	entries := forwardedFor
	if strings.EqualFold(header, "Forwarded") {
		entries = forwarded
	}
	return func(r *http.Request) string {
		addr, ok := parseAddress(r.RemoteAddr)
		if !ok {
			return r.RemoteAddr
		}
		var proxies []string
		for between := 0; trusted.trusts(addr, between); between++ {
			if between == 0 {
				proxies = entries(r.Header)
			}
			last := len(proxies) - 1 - between
			if last < 0 {
				break
			}
			next, ok := parseAddress(proxies[last])
			if !ok {
				break
			}
			addr = next
		}
		return addr.String()
	}
}

// forwardedFor returns the entries of the X-Forwarded-For headers.
func forwardedFor(h http.Header) []string {
	lines := h.Values("X-Forwarded-For")
	if len(lines) == 0 {
		return nil
	}
	return strings.Split(strings.Join(lines, ","), ",")
}

// forwarded returns the values of "for" in the elements of the Forwarded headers. It is
// "" in an element without one.
//
// A proxy may append its element to the line of the client, in which a quoted string
// without an end would include it. So nothing counts in a line that is not well-formed:
// it has one value, "".
func forwarded(h http.Header) []string {
	var all []string
	for _, line := range h.Values("Forwarded") {
		clients, ok := parseForwarded(line)
		if !ok {
			clients = []string{""}
		}
		all = append(all, clients...)
	}
	return all
}

// forwardedPair matches an optional parameter in a Forwarded header, and what ends it.
var forwardedPair = regexp.MustCompile("^[ \t]*(?:(" + headerToken + ")=(?:(" + headerToken + `)|"((?:[^"\\]|\\.)*)")[ \t]*)?([;,]|$)`)

// headerToken matches a token (RFC 9110, section 5.6.2).
const headerToken = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"

// parseForwarded returns the values of "for" in the elements of a line of a Forwarded
// header, and whether the line is well-formed (RFC 7239, section 4). White space is
// allowed around parameters.
func parseForwarded(line string) (clients []string, ok bool) {
	client := ""
	for {
		pair := forwardedPair.FindStringSubmatch(line)
		if pair == nil {
			return nil, false
		}
		name, value, quoted, end := pair[1], pair[2], pair[3], pair[4]
		if strings.EqualFold(name, "for") {
			if client != "" {
				return nil, false
			}
			client = value + unescape(quoted)
		}
		if end != ";" {
			clients, client = append(clients, client), ""
		}
		if end == "" {
			return clients, true
		}
		line = line[len(pair[0]):]
	}
}

// unescape returns the value of a quoted string (RFC 9110, section 5.6.4), given what
// is between the quotes.
func unescape(quoted string) string { return quotedPair.ReplaceAllString(quoted, "$1") }

var quotedPair = regexp.MustCompile(`\\(.)`)

// parseAddress parses an IP address, possibly with a port: 192.0.2.1,
// 192.0.2.1:8080, 2001:db8::1, [2001:db8::1] or [2001:db8::1]:8080. It returns an
// IPv4 address in IPv6 form as IPv4.
func parseAddress(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap(), true
	}
	if inner, found := strings.CutPrefix(text, "["); found {
		if text, found = strings.CutSuffix(inner, "]"); !found {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(text)
	return addr.Unmap(), err == nil
}
