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

// ValidIdentifier says whether a provider may be identified so.
func ValidIdentifier(s string) bool { return identifier.MatchString(s) }

// BaseIdentifier makes the identifier of a provider that has only a name. It is
// valid, but others may have it (contract: providers.md, "Identifier
// generation").
func BaseIdentifier(name string) string {
	slug := strings.ToLower(strings.TrimPrefix(trim(name), identifierPrefix))
	slug = strings.Trim(notSlug.ReplaceAllString(slug, "-"), "-")
	if slug == "" {
		slug = "provider"
	}
	return identifierPrefix + slug
}
