// Package weburl parses http and https URLs by the rules that browsers and Node.js
// follow, the WHATWG URL Standard, without the repairs that the standard allows: what
// one parser repairs and another does not can bypass a check of the host. A URL that
// the package accepts has the same host for every parser.
package weburl

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

var (
	errCharacter = errors.New("URL contains a space, a control character or a backslash")
	errScheme    = errors.New("URL is not http or https")
	errHost      = errors.New("URL has no valid host")
	errPort      = errors.New("URL has no valid port")
)

// Parse parses an absolute http or https URL. It returns an error if another parser
// may reject the URL or read it differently. The error does not quote the URL, which
// can contain a password.
func Parse(text string) (*url.URL, error) {
	repaired := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' }
	if strings.ContainsFunc(text, repaired) {
		return nil, errCharacter
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("malformed URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errScheme
	case !validHost(u):
		return nil, errHost
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errPort
		}
	}
	return u, nil
}

// validHost reports whether the host of a URL is a domain, an IPv4 address or an IPv6
// address without a zone (URL Standard, section 3.5, "host parser").
func validHost(u *url.URL) bool {
	host := u.Hostname()
	if strings.HasPrefix(u.Host, "[") {
		address, err := netip.ParseAddr(host)
		return err == nil && address.Is6() && address.Zone() == ""
	}
	if host == "" || !utf8.ValidString(host) || strings.ContainsFunc(host, isIgnored) || emptyPunycode.MatchString(host) {
		return false
	}
	ascii, err := profile.ToASCII(host)
	if err != nil || ascii == "" || strings.ContainsAny(ascii, forbidden) || strings.ContainsFunc(ascii, unicode.IsControl) {
		return false
	}
	return !endsInNumber(ascii) || isIPv4(ascii)
}

// profile converts domains to ASCII as browsers do.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false),
	idna.BidiRule(), idna.CheckJoiners(true), idna.CheckHyphens(false), idna.VerifyDNSLength(false))

// isIgnored reports whether a character has no effect in a domain. A browser removes it,
// other parsers may not.
func isIgnored(r rune) bool {
	const nonJoiner, joiner = '\u200C', '\u200D' // package idna checks these
	return r != nonJoiner && r != joiner && unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// emptyPunycode matches domains with a label that is Punycode of nothing or of a label
// that is not ASCII. Package idna accepts both.
var emptyPunycode = regexp.MustCompile(`(?i)(^|[.。．｡])xn--($|[.。．｡]|[^.。．｡]*[^\x00-\x7f.。．｡])`)

// forbidden are the printable characters that no domain may contain, even after its
// conversion to ASCII: a full-width < becomes one of them.
const forbidden = " #/:<>?@[\\]^|%"

// endsInNumber reports whether the last label of a domain is a number, so that the
// domain must be an IPv4 address.
func endsInNumber(domain string) bool {
	domain = strings.TrimSuffix(domain, ".")
	last := domain[strings.LastIndexByte(domain, '.')+1:]
	if _, ok := number(last); ok {
		return true
	}
	return last != "" && strings.Trim(last, "0123456789") == "" // such as 08
}

// isIPv4 reports whether a domain is an IPv4 address: up to four decimal, octal or
// hexadecimal numbers, of which the last stands for all remaining bytes.
func isIPv4(domain string) bool {
	parts := strings.Split(strings.TrimSuffix(domain, "."), ".")
	if len(parts) > 4 {
		return false
	}
	for i, part := range parts {
		limit := uint64(1) << 8
		if i == len(parts)-1 {
			limit = 1 << (8 * (5 - len(parts)))
		}
		if n, ok := number(part); !ok || n >= limit {
			return false
		}
	}
	return true
}

// number parses a part of an IPv4 address. It returns false if the part is not a
// number. A number that is too large for any address is returned as the largest one.
func number(part string) (n uint64, ok bool) {
	digits, base := part, 10
	switch {
	case strings.HasPrefix(part, "0x"):
		digits, base = part[2:], 16
	case len(part) > 1 && part[0] == '0':
		digits, base = part[1:], 8
	}
	if digits == "" {
		return 0, base == 16 // 0x is zero
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if errors.Is(err, strconv.ErrRange) {
		return n, true
	}
	return n, err == nil && digits[0] != '+'
}
