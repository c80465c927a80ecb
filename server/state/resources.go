package state

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store"
)

const defaultEnforcement = "enforced"

// resource plans a resource.
func (p *planner) resource(a *Action, spec *ResourceSpec) {
	p.check(p.CheckResourceIdentifier(spec.Identifier), "identifier")
	credential, hasCredential := p.reference(Provider, "credential_provider", spec.CredentialProvider, spec.CredentialProviderID)
	gateway, hasGateway := p.reference(Application, "gateway_application", spec.GatewayApplication, spec.GatewayApplicationID)
	present := p.zone.resources[spec.Identifier]
	step := changeResource{spec: spec}
	if present != nil {
		a.ID, step.id = present.ID, present.ID
		if !hasCredential {
			p.refers(Provider, present.CredentialProviderID, "credential_provider")
		}
		if !hasGateway && present.GatewayApplicationID != nil {
			p.refers(Application, *present.GatewayApplicationID, "gateway_application")
		}
		if !p.compareResource(a, &step, present, credential, gateway) {
			return
		}
		a.Verb = Update
	} else {
		a.Verb = Create
		a.changed("identifier", nil, spec.Identifier)
		given(a, "name", spec.Name)
		given(a, "upstream_url", spec.UpstreamURL)
		given(a, "scopes", spec.Scopes)
		step.credential, step.gateway = credential, gateway
		given(a, "credential_provider", identityOf(credential))
		given(a, "gateway_application", identityOf(gateway))
		given(a, "operation_enforcement", spec.OperationEnforcement)
		for _, field := range []struct {
			name  string
			given bool
		}{{"upstream_url", spec.UpstreamURL != nil}, {"scopes", spec.Scopes != nil}, {"credential_provider", hasCredential}, {"gateway_application", hasGateway}} {
			if !field.given {
				p.issue("is required in a new resource", field.name)
			}
		}
		if operations, ok := p.operations(valueOr(spec.Operations, nil), valueOr(spec.Scopes, nil)); ok && spec.Operations != nil {
			a.changed("operations", nil, operations)
		}
	}
	if present == nil || spec.UpstreamURL != nil && *spec.UpstreamURL != valueOr(present.UpstreamURL, "") {
		p.check(p.CheckUpstreamURL(spec.UpstreamURL), "upstream_url") // a stored URL may be older than a rule that it violates
	}
	a.step = step
}

// compareResource adds the fields that differ to the action, and sets those that the step
// changes. It reports whether there are any.
func (p *planner) compareResource(a *Action, step *changeResource, present *db.ListStateResourcesRow, credential, gateway *reference) bool {
	spec := step.spec
	if differs(a, "name", present.Name, spec.Name) {
		step.patch.Name = spec.Name
	}
	if differs(a, "upstream_url", valueOr(present.UpstreamURL, ""), spec.UpstreamURL) {
		step.patch.UpstreamURL = &spec.UpstreamURL
	}
	scopes := present.Scopes
	if differsAsSet(a, "scopes", present.Scopes, spec.Scopes) {
		step.patch.Scopes, scopes = *spec.Scopes, *spec.Scopes
	}
	if credential != nil && credential.id != present.CredentialProviderID {
		step.credential = credential
		a.changed(fieldOf("credential_provider", spec.CredentialProvider), p.shown(Provider, spec.CredentialProvider, present.CredentialProviderID), shownReference(credential, spec.CredentialProvider))
	}
	if gateway != nil && gateway.id != valueOr(present.GatewayApplicationID, "") {
		step.gateway = gateway
		a.changed(fieldOf("gateway_application", spec.GatewayApplication), p.shown(Application, spec.GatewayApplication, valueOr(present.GatewayApplicationID, "")), shownReference(gateway, spec.GatewayApplication))
	}
	if differs(a, "operation_enforcement", present.OperationEnforcement, spec.OperationEnforcement) {
		step.patch.OperationEnforcement = spec.OperationEnforcement
	}
	var stored []store.ResourceOperation
	if err := json.Unmarshal(present.Operations, &stored); err != nil {
		p.check(err)
		return false
	}
	wanted := stored
	if spec.Operations != nil {
		wanted = *spec.Operations
	}
	operations, valid := p.operations(wanted, scopes)
	if valid && spec.Operations != nil && differsAsSet(a, "operations", stored, &operations) {
		step.patch.Operations = operations
	}
	if len(a.Changes) > 0 && gateway == nil && present.GatewayApplicationID == nil {
		p.issue("is required: the gateway application of the resource was archived", "gateway_application")
	}
	return len(a.Changes) > 0
}

// operations returns operations in the form in which they are stored. If one is invalid,
// it adds an issue and returns false.
func (p *planner) operations(operations []store.ResourceOperation, scopes []string) ([]store.ResourceOperation, bool) {
	normalized, err := store.NormalizeOperations(operations, scopes)
	if e := (*code.Error)(nil); errors.As(err, &e) && len(e.Issues) > 0 {
		return normalized, p.check(err) // which names the field, operations or scopes
	}
	return normalized, p.check(err, "operations")
}

// reference finds an object that a spec refers to in a field by its identity, or in the
// field with the suffix _id by its ID. It returns nil if neither is given or the object
// does not exist; in the latter case, it adds an issue. given reports whether one is given.
func (p *planner) reference(kind Kind, field string, identity, id *string) (found *reference, given bool) {
	switch {
	case identity != nil && id != nil:
		p.issue("must not be set together with "+field, field+"_id")
	case identity != nil:
		found = p.find(kind, *identity, field)
	case id != nil:
		name, exists := p.zone.byID[objectKey{kind, *id}]
		if !exists {
			p.issue("no "+string(kind)+" of the zone has this ID", field+"_id")
			return nil, true
		}
		found = &reference{objectKey{kind, name}, *id}
		p.refers(kind, *id, field+"_id")
	}
	return found, identity != nil || id != nil
}

// find returns the object with an identity, of the zone or of the document. If there is
// none, it adds an issue about a field and returns nil.
func (p *planner) find(kind Kind, identity string, field ...string) *reference {
	var ids []string
	switch kind {
	case Application:
		for _, a := range p.zone.applications[identity] {
			ids = append(ids, a.ID)
		}
	case Provider:
		if present := p.zone.providers[identity]; present != nil {
			ids = append(ids, present.ID)
		}
	case Resource:
		if present := p.zone.resources[identity]; present != nil {
			ids = append(ids, present.ID)
		}
	case Policy:
		if present := p.zone.policies[identity]; present != nil {
			ids = append(ids, present.ID)
		}
	}
	_, declared := p.declared[objectKey{kind, identity}]
	switch {
	case len(ids) > 1:
		p.issue("must be unique: the zone has several managed applications with this name", field...)
		return nil
	case len(ids) == 0 && !declared:
		p.issue("must be that of the zone or of the document: there is no such "+string(kind), field...)
		return nil
	case len(ids) == 0:
		return &reference{objectKey: objectKey{kind, identity}}
	}
	p.refers(kind, ids[0], field...)
	return &reference{objectKey{kind, identity}, ids[0]}
}

// refers records that the present object refers to an object of the zone in a field of its
// spec, so that the plan does not archive that.
func (p *planner) refers(kind Kind, id string, field ...string) {
	o := store.ManagedObject{Kind: string(kind), ID: id}
	issue := issueAt(p.at, "refers to an object that would be archived: add it to the document", field...)
	if n := len(p.referenced[o]); n > 0 && slices.Equal(p.referenced[o][n-1].Path, issue.Path) {
		return // a content can refer to an application many times
	}
	p.referenced[o] = append(p.referenced[o], issue)
}

// fieldOf returns the name of the field that refers to an object: by its identity, if that
// is given, or by its ID.
func fieldOf(field string, identity *string) string {
	if identity == nil {
		return field + "_id"
	}
	return field
}

// shown returns an object that the zone refers to as the spec refers to it. It returns nil
// if there is none.
func (p *planner) shown(kind Kind, identity *string, id string) any {
	if id == "" {
		return nil
	}
	if name, known := p.zone.byID[objectKey{kind, id}]; known && identity != nil {
		return name
	}
	return id
}

func shownReference(r *reference, identity *string) any {
	if identity == nil {
		return r.id
	}
	return r.identity
}

func identityOf(r *reference) *string {
	if r == nil {
		return nil
	}
	return &r.identity
}

// A changeResource creates a resource, or updates one.
type changeResource struct {
	unsealed
	explicit
	id                  string // "": creates it
	spec                *ResourceSpec
	patch               store.ResourcePatch // without references
	credential, gateway *reference          // nil: unchanged
}

func (s changeResource) run(ctx context.Context, x *execution) (Result, error) {
	if s.id == "" {
		n := store.NewResource{
			Name: s.spec.Name, Identifier: &s.spec.Identifier, UpstreamURL: s.spec.UpstreamURL, Scopes: *s.spec.Scopes,
			CredentialProviderID: x.id(s.credential), GatewayApplicationID: new(x.id(s.gateway)),
			Operations: valueOr(s.spec.Operations, nil), OperationEnforcement: valueOr(s.spec.OperationEnforcement, defaultEnforcement),
		}
		created, err := x.tx.CreateResource(ctx, x.zone, n)
		return Result{ID: created.ID}, err
	}
	patch := s.patch
	if s.credential != nil {
		patch.CredentialProviderID = new(x.id(s.credential))
	}
	if s.gateway != nil {
		patch.GatewayApplicationID = new(new(x.id(s.gateway)))
	}
	_, err := x.tx.UpdateResource(ctx, x.zone, s.id, store.Precondition{}, patch)
	return Result{ID: s.id}, err
}

func valueOr[T any](value *T, fallback T) T {
	if value == nil {
		return fallback
	}
	return *value
}
