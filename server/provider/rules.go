package provider

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// A rule validates a value and returns it in the normalized form in which it is
// stored. Of the other values, those that earlier rules have checked are normalized.
type rule func(value any, others map[string]any) (normalized any, ok bool)

var (
	token     = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.6.2
	parameter = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)
	scheme    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]*$`)

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
)

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
	u, ok := parse(s)
	return ok && u.Scheme == "https" && u.User == nil && hasHost(u)
}

func isAbsolute(s string) bool {
	u, ok := parse(s)
	return ok && u.Scheme != "" && (u.Scheme != "http" && u.Scheme != "https" || hasHost(u))
}

// parse parses a URL. It rejects characters that browsers and Go parse differently
// (browsers remove line breaks and treat \ as /), because a URL that two parsers
// disagree on can bypass a check of its host.
func parse(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	ambiguous := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' }
	return u, err == nil && !strings.ContainsFunc(s, ambiguous)
}

// hasHost reports whether a URL has a host without characters that are forbidden in
// host names, and no port above 65535.
func hasHost(u *url.URL) bool {
	_, err := strconv.ParseUint(u.Port(), 10, 16)
	name := u.Hostname()
	return name != "" && !strings.ContainsAny(name, "<>^|%\"`{}[]") && (u.Port() == "" || err == nil)
}
