package provider

import "regexp"

var identifier = regexp.MustCompile(`^provider://[a-z0-9]+(?:-[a-z0-9]+)*$`)

// ValidIdentifier reports whether a text is a valid identifier of a provider:
// provider://, then groups of lower-case letters and digits joined by hyphens.
func ValidIdentifier(s string) bool { return identifier.MatchString(s) }
