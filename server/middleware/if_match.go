package middleware

import (
	"regexp"
	"strconv"
	"strings"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// entityTag matches an entity tag at the start of a list (RFC 9110, section 8.8.3).
var entityTag = regexp.MustCompile(`^(?:W/)?"([\x21\x23-\x7e\x80-\xff]*)"`)

// proxySuffix matches what compressing proxies append to an entity tag: Apache
// "1-gzip" and "1-br", Jetty "1--gzip", others "1;gzip" and "1:gzip".
var proxySuffix = regexp.MustCompile(`(?:--?|[;:])(?:gzip|br|zstd|deflate)$`)

// parseIfMatch parses the lines of an If-Match header (RFC 9110, section 13.1.1). It
// returns invalid_if_match if the header is malformed. A tag that this service never
// issued matches no version.
//
// It compares tags weakly, although the RFC requires the strong comparison, and
// ignores the suffixes of compressing proxies: these change the tag on its way to
// the client, which can only send back what it received.
func parseIfMatch(lines []string) (store.Precondition, error) {
	if len(lines) == 0 {
		return store.Precondition{}, nil
	}
	rest := strings.Join(lines, ",") // a list may be sent as several lines (RFC 9110, section 5.3)
	if strings.Trim(rest, " \t") == "*" {
		return store.Precondition{}, nil
	}
	p := store.Precondition{Present: true}
	for tags := 0; ; tags++ {
		separated := strings.TrimLeft(rest, " \t,") // a list may have empty elements
		if separated == "" && tags > 0 {
			return p, nil
		}
		tag := entityTag.FindStringSubmatch(separated)
		if tag == nil || tags > 0 && !strings.Contains(rest[:len(rest)-len(separated)], ",") {
			return p, code.InvalidIfMatch
		}
		if version, ok := versionOf(tag[1]); ok {
			p.Versions = append(p.Versions, version)
		}
		rest = separated[len(tag[0]):]
	}
}

// versionOf returns the version of a row in an opaque tag: its decimal number, as
// [ETag] writes it, possibly with the suffix of a proxy.
func versionOf(opaque string) (int64, bool) {
	opaque = proxySuffix.ReplaceAllString(opaque, "")
	version, err := strconv.ParseInt(opaque, 10, 64)
	return version, err == nil && strconv.FormatInt(version, 10) == opaque
}

// ETag returns a row's version as an entity tag.
func ETag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }
