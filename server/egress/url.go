package egress

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// A target is where a URL leads that has passed every rule.
type target struct {
	url  *url.URL // the host as below, the port only if it is not 443
	host string   // a DNS name, lower case, in ASCII, without a dot at its end
	port uint16
}

// parse says whether a URL keeps the rules that need no network: https, no user
// name or password, a port from 1 to 65535, and a host that is one of
// allowedHosts, exactly but for case, surrounding space, a final dot and the
// spelling of an internationalized name (UTS 46). No address is a host, not even
// a public one: an allow-list holds names, and refusing all is simpler than
// telling apart the many ways to write one. Its error is an [*Error].
func parse(rawURL string, allowedHosts []string) (target, error) {
	u, err := url.Parse(strings.TrimSpace(rawURL))
	if err != nil {
		return target{}, &Error{Kind: InvalidURL} // without its cause, which quotes the URL
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
	if !slices.ContainsFunc(allowedHosts, func(one string) bool {
		name, ok := canonical(strings.TrimSpace(one))
		return ok && name == host
	}) {
		return target{}, &Error{Kind: HostNotAllowed, Host: host}
	}
	u.Host = host
	if port != 443 {
		u.Host += ":" + strconv.FormatUint(port, 10)
	}
	u.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20") // a bare one would end the URL in the request's first line
	return target{u, host, uint16(port)}, nil
}

// names spells a name as a browser does: hyphens may stand where IDNA reserves
// them, as they do in many a real name.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckHyphens(false), idna.VerifyDNSLength(true))

// canonical is the one spelling of a DNS name, if it is one. Its last label
// begins with a letter, as every top-level domain does (RFC 1123 §2.1). None of
// the ways to write an IPv4 address does, be it in decimal, octal, hex or cut
// short, and no IPv6 address is of the letters, digits and hyphens that a label
// may have.
func canonical(host string) (name string, ok bool) {
	name, err := names.ToASCII(host)
	name = strings.TrimSuffix(name, ".") // now that the full stops of other scripts are dots
	last := name[strings.LastIndexByte(name, '.')+1:]
	return name, err == nil && last != "" && 'a' <= last[0] && last[0] <= 'z'
}
