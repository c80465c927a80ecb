package store

import (
	"strings"

	"caracal.run/management/gen/code"
)

// A namespace is the prefix under which names belong to Caracal itself
// (contract: conventions.md §13).
type namespace string

const (
	zoneName        namespace = "caracal.sys/"
	zoneSlug        namespace = "caracal-sys-"
	applicationName namespace = "caracal.sys/"
)

// reserved says whether a name belongs to Caracal itself. Case and surrounding
// white space make no difference.
func reserved(space namespace, name string) bool {
	return strings.HasPrefix(strings.ToLower(strings.TrimSpace(name)), string(space))
}

// mayName refuses a reserved name to everybody but the bootstrap token.
func (tx *Tx) mayName(space namespace, name string) error {
	if reserved(space, name) && !tx.cause.Actor.Bootstrap {
		return code.ReservedNamespace.With("detail", "the 'caracal.sys' namespace is reserved for Caracal internal systems")
	}
	return nil
}
