package store

import (
	"strings"

	"caracal.run/management/gen/code"
)

// A Namespace is a prefix of names that are reserved for Caracal itself.
type Namespace string

// The namespaces of the kinds of objects.
const (
	ZoneName        Namespace = "caracal.sys/"
	ZoneSlug        Namespace = "caracal-sys-"
	ApplicationName Namespace = "caracal.sys/"
	PolicyName      Namespace = "caracal.sys/"
	PolicySetName   Namespace = "caracal.sys/"

	ProviderIdentifier Namespace = "provider://caracal-sys-"
	ResourceIdentifier Namespace = "caracal-sys://"
)

// reserved reports whether a name is in a reserved namespace, or looks as if it were.
func reserved(ns Namespace, name string) bool {
	return strings.HasPrefix(skeleton(name), string(ns))
}

// CheckReservedName returns reserved_namespace if a name is reserved and the actor
// is not allowed to use reserved names.
func CheckReservedName(actor Actor, ns Namespace, name string) error {
	if reserved(ns, name) && !actor.Bootstrap {
		return code.ReservedNamespace.With("detail", "the 'caracal.sys' namespace is reserved for Caracal internal systems")
	}
	return nil
}

func (tx *Tx) checkReservedName(ns Namespace, name string) error {
	return CheckReservedName(tx.cause.Actor, ns, name)
}
