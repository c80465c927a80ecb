package provider

import (
	"regexp"
	"strings"
)

const identifierPrefix = "provider://"

var (
	identifier = regexp.MustCompile(`^provider://[a-z0-9]+(?:-[a-z0-9]+)*$`)
	notSlug    = regexp.MustCompile(`[^a-z0-9]+`)
)

// ValidIdentifier reports whether a text is a valid identifier of a provider:
// provider://, then groups of lower-case letters and digits joined by hyphens.
func ValidIdentifier(s string) bool { return identifier.MatchString(s) }

// BaseIdentifier derives an identifier from a provider's name. It is valid, but
// may be in use by another provider.
func BaseIdentifier(name string) string {
	slug := strings.ToLower(strings.TrimPrefix(trim(name), identifierPrefix))
	slug = strings.Trim(notSlug.ReplaceAllString(slug, "-"), "-")
	if slug == "" {
		slug = "provider"
	}
	return identifierPrefix + slug
}
