package store

import (
	"strings"
	"unicode"

	"caracal.run/management/gen/code"
)

// A namespace is the prefix under which names belong to Caracal itself
// (contract: conventions.md §13).
type namespace string

const (
	zoneName        namespace = "caracal.sys/"
	zoneSlug        namespace = "caracal-sys-"
	applicationName namespace = "caracal.sys/"

	providerIdentifier namespace = "provider://caracal-sys-"
	resourceIdentifier namespace = "caracal-sys://"
)

// reserved says whether a name belongs to Caracal itself. Case and surrounding
// white space make no difference.
func reserved(ns namespace, name string) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimFunc(name, IsSpace)), string(ns))
}

// IsSpace says whether a character is white space to the contract: Unicode's,
// and the byte order mark.
func IsSpace(r rune) bool { return unicode.IsSpace(r) || r == '\uFEFF' }

// checkReservedName refuses a reserved name to everybody but the bootstrap token.
func (tx *Tx) checkReservedName(ns namespace, name string) error {
	if reserved(ns, name) && !tx.cause.Actor.Bootstrap {
		return code.ReservedNamespace.With("detail", "the 'caracal.sys' namespace is reserved for Caracal internal systems")
	}
	return nil
}
