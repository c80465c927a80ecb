package store

import (
	"strings"

	"caracal.run/management/gen/code"
)

// A namespace is a prefix of names that are reserved for Caracal itself.
type namespace string

const (
	zoneName        namespace = "caracal.sys/"
	zoneSlug        namespace = "caracal-sys-"
	applicationName namespace = "caracal.sys/"
	policyName      namespace = "caracal.sys/"
	policySetName   namespace = "caracal.sys/"

	providerIdentifier namespace = "provider://caracal-sys-"
	resourceIdentifier namespace = "caracal-sys://"
)

// reserved reports whether a name is in a reserved namespace, or looks as if it were.
func reserved(ns namespace, name string) bool {
	return strings.HasPrefix(skeleton(name), string(ns))
}

// checkReservedName returns reserved_namespace if a name is reserved and the actor
// is not allowed to use reserved names.
func (tx *Tx) checkReservedName(ns namespace, name string) error {
	if reserved(ns, name) && !tx.cause.Actor.Bootstrap {
		return code.ReservedNamespace.With("detail", "the 'caracal.sys' namespace is reserved for Caracal internal systems")
	}
	return nil
}
