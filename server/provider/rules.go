package provider

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A rule says whether a value may be, and how it is stored. The other members
// are those that were accepted before, and whatever else the body has.
type rule func(value any, others map[string]any) (any, bool)

var (
	token     = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.6.2
	parameter = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)
	scheme    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)

	// The contract's pattern lets IP addresses pass; whoever connects refuses them.
	host = regexp.MustCompile(`^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

var (
	text        = trimmed(func(string) bool { return true })
	headerName  = trimmed(token.MatchString)
	paramName   = trimmed(parameter.MatchString)
	authScheme  = trimmed(scheme.MatchString)
	httpsURL    = trimmed(isHTTPS)
	absoluteURI = trimmed(isAbsolute)
)

// trim takes white space off both ends: Unicode's, and the byte order mark
// (contract: conventions.md, "Notation").
func trim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '\uFEFF' })
}

// trimmed takes a string that is not blank and has a form, and trims it.
func trimmed(form func(string) bool) rule {
	return func(value any, _ map[string]any) (any, bool) {
		s, ok := value.(string)
		s = trim(s)
		return s, ok && s != "" && form(s)
	}
}

// nonBlank takes a string that is not blank, and keeps its white space.
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

// hostName takes the name of a host without a port, and writes it in lower case.
func hostName(value any, _ map[string]any) (any, bool) {
	s, ok := value.(string)
	s = trim(s)
	return strings.ToLower(s), ok && host.MatchString(s) && !strings.Contains(s, "..")
}

// listOf takes a list that is not empty.
func listOf(item rule) rule {
	return func(value any, others map[string]any) (any, bool) {
		list, ok := value.([]any)
		normal := make([]any, len(list))
		for i := range list {
			var fits bool
			normal[i], fits = item(list[i], others)
			ok = ok && fits
		}
		return normal, ok && len(list) > 0
	}
}

// paramsExcept takes parameters by name, but not those that the protocol itself
// sends.
func paramsExcept(reserved ...string) rule {
	return func(value any, others map[string]any) (any, bool) {
		params, ok := value.(map[string]any)
		normal := make(map[string]any, len(params))
		for name, v := range params {
			var fits bool
			normal[name], fits = text(v, others)
			ok = ok && fits && parameter.MatchString(name) && !slices.Contains(reserved, name)
		}
		return normal, ok
	}
}

// onAllowedHost takes a URL whose host is one of allowed_token_hosts; its port
// is free, as it is where the token is fetched.
func onAllowedHost(value any, others map[string]any) (any, bool) {
	u, err := url.Parse(value.(string))
	hosts := others["allowed_token_hosts"].([]any)
	return value, err == nil && slices.Contains(hosts, any(strings.ToLower(u.Hostname())))
}

func isHTTPS(s string) bool {
	u, ok := parse(s)
	return ok && u.Scheme == "https" && u.User == nil && hasHost(u)
}

func isAbsolute(s string) bool {
	u, ok := parse(s)
	return ok && u.Scheme != "" && (u.Scheme != "http" && u.Scheme != "https" || hasHost(u))
}

// parse takes less than browsers do, which drop line breaks and read \ as /:
// where two parsers disagree on the host, one of them is deceived.
func parse(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	odd := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' }
	return u, err == nil && !strings.ContainsFunc(s, odd)
}

// hasHost says whether a URL has a host that no standard forbids, and a port
// that there is.
func hasHost(u *url.URL) bool {
	_, err := strconv.ParseUint(u.Port(), 10, 16)
	name := u.Hostname()
	return name != "" && !strings.ContainsAny(name, "<>^|%\"`{}[]") && (u.Port() == "" || err == nil)
}
