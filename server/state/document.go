// Package state is declarative management: it compares a document, which lists the
// objects that a zone should have, with the zone, and changes the zone accordingly.
//
// [Decode] turns a parsed document into a [Document], and reports everything that is
// wrong with it. [Make] is a pure function that plans what to change. An [Engine] reads
// the zone, plans, and carries a plan out in one transaction.
//
// The package does not depend on HTTP: the caller parses the text of a document, and
// checks it against the schemas of the spec.
package state

import (
	"encoding/json"

	"caracal.run/management/store"
)

// A Kind is a kind of objects.
type Kind string

// The kinds.
const (
	Zone        Kind = "zone"
	Application Kind = "application"
	Provider    Kind = "identity-provider"
	Resource    Kind = "resource"
	Policy      Kind = "policy"
	PolicySet   Kind = "policy-set"
	Grant       Kind = "grant"
)

// A Document lists the objects that a zone should have. It is valid by itself, but may
// contradict the zone.
type Document struct {
	Owner   string // who manages the objects; "": not given
	Prune   Prune
	Objects []Object
}

// Prune says which objects that a document does not contain are archived.
type Prune struct {
	Enabled  bool
	Kinds    []Kind  // of which every object is archived; of the other kinds, those of the owner
	MaxShare float64 // of the objects of a kind that can be pruned without confirmation
}

// An Object is an object that a zone should have.
type Object struct {
	Kind Kind
	Spec Spec
}

// A Spec is what an object should be. A field that is nil is not compared.
type Spec interface {
	// Identity returns the name or identifier by which the object is found in the zone, and
	// the name of the field that contains it, or "" if it consists of several.
	Identity() (value, field string)
}

// Identity returns the name or identifier by which the object is found in the zone.
func (o Object) Identity() string {
	value, _ := o.Spec.Identity()
	return value
}

// key identifies the object in its document. The identity of a grant does not, because names
// and users can contain slashes.
func (o Object) key() any {
	if grant, isGrant := o.Spec.(*GrantSpec); isGrant {
		return grant.key()
	}
	return objectKey{o.Kind, o.Identity()}
}

// newSpec returns an empty spec of a kind, or nil if there is no such kind.
func newSpec(kind Kind) Spec {
	switch kind {
	case Zone:
		return &ZoneSpec{}
	case Application:
		return &ApplicationSpec{}
	case Provider:
		return &ProviderSpec{}
	case Resource:
		return &ResourceSpec{}
	case Policy:
		return &PolicySpec{}
	case PolicySet:
		return &PolicySetSpec{}
	case Grant:
		return &GrantSpec{}
	}
	return nil
}

// A ZoneSpec has the settings of the zone itself.
type ZoneSpec struct {
	Name                  *string `json:"name"`
	Slug                  *string `json:"slug"`
	DCREnabled            *bool   `json:"dcr_enabled"`
	OperatorCoauthorBadge *bool   `json:"operator_coauthor_badge"`
	OpenRegistration      *bool   `json:"open_registration"`
	DCRShutdown           *string `json:"dcr_shutdown"`
}

// Identity implements [Spec].
func (s *ZoneSpec) Identity() (value, field string) { return "zone", "" }

// disablesDCR reports whether applications cannot register dynamically.
func (s *ZoneSpec) disablesDCR() bool { return s.DCREnabled != nil && !*s.DCREnabled }

// An ApplicationSpec is the spec of a managed application.
type ApplicationSpec struct {
	Name   string    `json:"name"`
	Traits *[]string `json:"traits"`
}

// Identity implements [Spec].
func (s *ApplicationSpec) Identity() (value, field string) { return s.Name, "name" }

// A ProviderSpec is the spec of a provider.
type ProviderSpec struct {
	Identifier string          `json:"identifier"`
	Name       *string         `json:"name"`
	Kind       *string         `json:"kind"`
	Config     json.RawMessage `json:"config"` // with secrets; nil: not given
	Rotate     []string        `json:"rotate"` // the names of secrets to replace
}

// Identity implements [Spec].
func (s *ProviderSpec) Identity() (value, field string) { return s.Identifier, "identifier" }

// A ResourceSpec is the spec of a resource.
type ResourceSpec struct {
	Identifier           string                     `json:"identifier"`
	Name                 *string                    `json:"name"`
	UpstreamURL          *string                    `json:"upstream_url"`
	Scopes               *[]string                  `json:"scopes"`
	CredentialProvider   *string                    `json:"credential_provider"` // its identifier
	CredentialProviderID *string                    `json:"credential_provider_id"`
	GatewayApplication   *string                    `json:"gateway_application"` // its name
	GatewayApplicationID *string                    `json:"gateway_application_id"`
	Operations           *[]store.ResourceOperation `json:"operations"`
	OperationEnforcement *string                    `json:"operation_enforcement"`
}

// Identity implements [Spec].
func (s *ResourceSpec) Identity() (value, field string) { return s.Identifier, "identifier" }

// A PolicySpec is the spec of a policy.
type PolicySpec struct {
	Name          string  `json:"name"`
	Content       *string `json:"content"`
	SchemaVersion *string `json:"schema_version"`
	Description   *string `json:"description"`
	OwnerType     *string `json:"owner_type"`
}

// Identity implements [Spec].
func (s *PolicySpec) Identity() (value, field string) { return s.Name, "name" }

// A PolicySetSpec is the spec of a policy set.
type PolicySetSpec struct {
	Name        string   `json:"name"`
	Description *string  `json:"description"`
	Policies    []string `json:"policies"` // names; nil: not given
	Activate    *bool    `json:"activate"`
}

// Identity implements [Spec].
func (s *PolicySetSpec) Identity() (value, field string) { return s.Name, "name" }

// A GrantSpec is the spec of a grant.
type GrantSpec struct {
	Application string   `json:"application"` // its name
	UserID      string   `json:"user_id"`
	Resource    string   `json:"resource"` // its identifier
	Scopes      []string `json:"scopes"`
}

// Identity implements [Spec].
func (s *GrantSpec) Identity() (value, field string) {
	return s.Application + "/" + s.UserID + "/" + s.Resource, ""
}

func (s *GrantSpec) key() grantKey { return grantKey{s.Application, s.UserID, s.Resource} }

// Kinds returns the kinds of objects that must be read to compare the document: those in
// it, and those that its objects refer to.
func (d Document) Kinds() store.StateKinds {
	var kinds store.StateKinds
	for _, o := range d.Objects {
		switch o.Kind {
		case Zone:
			kinds.Registered = o.Spec.(*ZoneSpec).disablesDCR()
		case Grant:
			kinds.Applications, kinds.Resources = true, true
			kinds.GrantsOf = append(kinds.GrantsOf, o.Spec.(*GrantSpec).UserID)
		case Application:
			kinds.Applications = true
		case Provider:
			kinds.Providers = true
		case Resource:
			kinds.Applications, kinds.Providers, kinds.Resources = true, true, true
		case Policy:
			kinds.Policies = true
			if content := o.Spec.(*PolicySpec).Content; content != nil && applicationReference.MatchString(*content) {
				kinds.Applications = true
			}
		case PolicySet:
			kinds.Policies, kinds.PolicySets = true, true
		}
	}
	if kinds.Owner = d.Owner; d.Prune.Enabled && d.Owner != "" {
		kinds.Applications, kinds.Providers, kinds.Resources, kinds.Policies, kinds.PolicySets = true, true, true, true, true
	}
	for _, kind := range d.Prune.Kinds {
		kinds.Applications = kinds.Applications || kind == Application
		kinds.Providers = kinds.Providers || kind == Provider
		kinds.Resources = kinds.Resources || kind == Resource || kind == Provider || kind == Application // which resources refer to
		kinds.Policies = kinds.Policies || kind == Policy
		kinds.PolicySets = kinds.PolicySets || kind == PolicySet || kind == Policy
	}
	return kinds
}
