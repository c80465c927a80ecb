package provider

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"caracal.run/management/server/weburl"
)

// A rule validates a value and returns it in the normalized form in which it is
// stored. Of the other values, those that earlier rules have checked are normalized.
type rule func(value any, others map[string]any) (normalized any, ok bool)

var (
	token     = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.6.2
	parameter = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)

	// An authentication scheme is a token (RFC 9110, section 11.1). Some services put the credential into a parameter, so
	// the beginning of a parameter may follow, as in "Token token=".
	scheme = regexp.MustCompile("^[A-Za-z][!#$%&'*+.^_`|~0-9A-Za-z-]*(?:(?: [!#$%&'*+.^_`|~0-9A-Za-z-]+)?=)?$")

	// The pattern matches IPv4 addresses, too. The egress client rejects them.
	host = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

var (
	text        = trimmed(func(string) bool { return true })
	headerName  = trimmed(token.MatchString)
	paramName   = trimmed(parameter.MatchString)
	authScheme  = trimmed(scheme.MatchString)
	httpsURL    = trimmed(isHTTPS)
	absoluteURI = trimmed(isAbsolute)

	notReserved     = trimmed(func(name string) bool { return !slices.Contains(reservedHeaders, strings.ToLower(name)) })
	withoutFragment = trimmed(func(uri string) bool { return !strings.Contains(uri, "#") })
	safeRedirect    = trimmed(isSafeRedirect)
	issuerURL       = trimmed(func(s string) bool { return isHTTPS(s) && !strings.ContainsAny(s, "?#") }) // RFC 8414, section 2
)

// reservedHeaders are the headers that HTTP itself sets, for the connection or the
// message (RFC 9110, sections 7.2, 7.6.1 and 8.6; RFC 9112, section 6).
var reservedHeaders = []string{
	"connection", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
	"te", "trailer", "transfer-encoding", "upgrade",
}

// trim removes Unicode white space and byte order marks from both ends.
func trim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '\uFEFF' })
}

// trimmed trims a string, and accepts it if it is then valid and not empty.
func trimmed(valid func(string) bool) rule {
	return func(value any, _ map[string]any) (any, bool) {
		s, ok := value.(string)
		s = trim(s)
		return s, ok && s != "" && valid(s)
	}
}

// nonBlank accepts a string that is not blank, and does not trim it.
func nonBlank(value any, _ map[string]any) (any, bool) {
	s, ok := value.(string)
	return value, ok && trim(s) != ""
}

func boolean(value any, _ map[string]any) (any, bool) {
	_, ok := value.(bool)
	return value, ok
}

func oneOf(values ...any) rule {
	return func(value any, _ map[string]any) (any, bool) {
		s, ok := value.(string)
		return s, ok && slices.Contains(values, value)
	}
}

// hostName accepts a host name without a port, and converts it to lower case.
func hostName(value any, _ map[string]any) (any, bool) {
	s, ok := value.(string)
	s = trim(s)
	return strings.ToLower(s), ok && host.MatchString(s) && !strings.Contains(s, "..")
}

// listOf accepts a non-empty list of valid items.
func listOf(item rule) rule {
	return func(value any, others map[string]any) (any, bool) {
		list, ok := value.([]any)
		normalized := make([]any, len(list))
		for i := range list {
			var valid bool
			normalized[i], valid = item(list[i], others)
			ok = ok && valid
		}
		return normalized, ok && len(list) > 0
	}
}

// separator accepts what services separate scopes with. It is not trimmed: a space is one.
func separator(value any, _ map[string]any) (any, bool) {
	const maxLength = 3
	s, ok := value.(string)
	return value, ok && s != "" && len(s) <= maxLength && strings.Trim(s, " ,;+|") == ""
}

// headers accepts an object of additional headers, except those that HTTP or the request
// itself sets.
func headers(value any, others map[string]any) (any, bool) {
	sent, ok := value.(map[string]any)
	normalized, seen := make(map[string]any, len(sent)), map[string]bool{}
	for name, v := range sent {
		text, isText := text(v, others)
		normalized[name] = text
		_, isValue := fieldValue(text, others)
		lower := strings.ToLower(name)
		ok = ok && isText && isValue && token.MatchString(name) && !seen[lower] &&
			!slices.Contains(reservedHeaders, lower) && !slices.Contains([]string{"authorization", "content-type", "cookie"}, lower)
		seen[lower] = true
	}
	return normalized, ok
}

// renames accepts an object that gives some of the standard parameters other names, which
// must not be those of the others.
func renames(allowed, standard []string) rule {
	standard = append(slices.Clone(standard), resourceParam)
	return func(value any, others map[string]any) (any, bool) {
		names, ok := value.(map[string]any)
		normalized, seen := make(map[string]any, len(names)), map[any]bool{}
		for from, v := range names {
			to, valid := paramName(v, others)
			normalized[from] = to
			ok = ok && valid && slices.Contains(allowed, from) && !slices.ContainsFunc(standard, func(name string) bool { return name == to }) && !seen[to]
			seen[to] = true
		}
		return normalized, ok
	}
}

// paramsExcept accepts an object of additional parameters, except those that the
// protocol itself sends.
func paramsExcept(reserved ...string) rule {
	return func(value any, others map[string]any) (any, bool) {
		params, ok := value.(map[string]any)
		normalized := make(map[string]any, len(params))
		for name, v := range params {
			var valid bool
			normalized[name], valid = text(v, others)
			ok = ok && valid && parameter.MatchString(name) && !slices.Contains(reserved, name)
		}
		return normalized, ok
	}
}

// onAllowedHost accepts a URL whose host is in allowed_token_hosts, with any port, as
// the egress client does. Earlier rules must have accepted both fields.
func onAllowedHost(value any, others map[string]any) (any, bool) {
	u, err := url.Parse(value.(string))
	hosts := others["allowed_token_hosts"].([]any)
	return value, err == nil && slices.Contains(hosts, any(strings.ToLower(u.Hostname())))
}

func isHTTPS(s string) bool {
	u, err := weburl.Parse(s)
	return err == nil && u.Scheme == "https" && u.User == nil
}

func isAbsolute(s string) bool {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		_, err = weburl.Parse(s)
	}
	ambiguous := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' }
	return err == nil && u.Scheme != "" && !strings.ContainsFunc(s, ambiguous)
}

// isSafeRedirect reports whether an absolute URI is one that an authorization server may
// send a code to: https, http on the same machine (RFC 8252, section 7.3), or a scheme
// that an application registered. A browser itself handles the other schemes, and some
// of them run the URI as a script.
func isSafeRedirect(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.User != nil {
		return false
	}
	switch u.Scheme {
	case "http":
		address, err := netip.ParseAddr(u.Hostname())
		return strings.EqualFold(u.Hostname(), "localhost") || err == nil && address.IsLoopback()
	case "about", "blob", "data", "file", "filesystem", "ftp", "javascript", "vbscript", "view-source", "ws", "wss":
		return false
	}
	return true
}

// fieldValue accepts a secret that can be the value of a header: without control
// characters, such as line breaks, and white space at its ends (RFC 9110, section 5.5).
func fieldValue(value any, _ map[string]any) (any, bool) {
	s, ok := value.(string)
	return value, ok && s == trim(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// privateKey accepts a PEM text with a private key that can sign a client assertion.
func privateKey(value any, _ map[string]any) (any, bool) {
	text, _ := value.(string)
	_, ok := parsePrivateKey(text)
	return value, ok
}

// parsePrivateKey parses a PEM text with a private key: RSA of at least 2048 bits (RFC
// 7518, section 3.3), an elliptic curve, or Ed25519.
func parsePrivateKey(text string) (crypto.Signer, bool) {
	const minBits = 2048
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue // such as the parameters of the curve, before the key
		}
		if rsaKey, ok := key.(*rsa.PrivateKey); ok && err == nil {
			return rsaKey, rsaKey.N.BitLen() >= minBits
		}
		signer, signs := key.(crypto.Signer)
		return signer, err == nil && signs
	}
	return nil, false
}
