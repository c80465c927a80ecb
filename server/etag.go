package server

import (
	"strconv"
	"strings"

	"caracal.run/management/store"
)

// etag returns a row's version as an entity tag (RFC 9110 §8.8.3).
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// precondition parses an If-Match header (RFC 9110 §13.1.1). A tag that this
// service never issued matches no version.
func precondition(header *string) store.Precondition {
	if header == nil || strings.TrimSpace(*header) == "*" {
		return store.Precondition{}
	}
	m := store.Precondition{Present: true}
	for tag := range strings.SplitSeq(*header, ",") {
		tag = strings.TrimSpace(tag)
		version, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
		if err == nil && tag == etag(version) {
			m.Versions = append(m.Versions, version)
		}
	}
	return m
}
