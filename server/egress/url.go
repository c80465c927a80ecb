package egress

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// A target is a valid URL and the host and port in it.
type target struct {
	url  *url.URL // contains the normalized host, and the port unless it is 443
	host string   // a DNS name in lower-case ASCII, without a final dot
	port uint16
}

// parse parses a URL and checks the rules that need no network: https, no user name
// or password, a port from 1 to 65535, and a host in allowedHosts. Hosts are
// compared in canonical form, without surrounding space. An IP address is rejected
// even if it is public: an allow list contains names, and IP addresses have many
// spellings. The error is an [*Error].
func parse(rawURL string, allowedHosts []string) (target, error) {
	u, err := url.Parse(strings.TrimSpace(rawURL))
	if err != nil {
		return target{}, &Error{Kind: InvalidURL} // without the cause, which quotes the URL
	}
	if u.Scheme != "https" {
		return target{}, &Error{Kind: NotHTTPS, Host: u.Hostname()}
	}
	if u.User != nil {
		return target{}, &Error{Kind: HasUserinfo, Host: u.Hostname()}
	}
	if u.Hostname() == "" {
		return target{}, &Error{Kind: InvalidURL}
	}
	host, ok := canonical(u.Hostname())
	if !ok {
		return target{}, &Error{Kind: HostNotAName, Host: u.Hostname()}
	}
	port := uint64(443)
	if u.Port() != "" {
		port, err = strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return target{}, &Error{Kind: InvalidURL, Host: host}
		}
	}
	if !slices.ContainsFunc(allowedHosts, func(allowed string) bool {
		name, ok := canonical(strings.TrimSpace(allowed))
		return ok && name == host
	}) {
		return target{}, &Error{Kind: HostNotAllowed, Host: host}
	}
	u.Host = host
	if port != 443 {
		u.Host += ":" + strconv.FormatUint(port, 10)
	}
	u.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20") // a raw space would end the URL in the request line
	return target{u, host, uint16(port)}, nil
}

// profile converts names as browsers do. It allows hyphens where IDNA reserves them,
// because many real names have them there.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckHyphens(false), idna.VerifyDNSLength(true))

// canonical returns the canonical form of a DNS name: in lower case, in ASCII (IDNA,
// UTS 46) and without a final dot. It rejects every spelling of an IP address: the
// last label must begin with a letter, as all top-level domains do (RFC 1123 §2.1),
// which no IPv4 address does, whether decimal, octal, hexadecimal or shortened;
// and an IPv6 address has characters that no label may have.
func canonical(host string) (name string, ok bool) {
	name, err := profile.ToASCII(host)
	name = strings.TrimSuffix(name, ".") // after ToASCII, which converts the full stops of other scripts to dots
	last := name[strings.LastIndexByte(name, '.')+1:]
	return name, err == nil && last != "" && 'a' <= last[0] && last[0] <= 'z'
}
