package state

import (
	"context"
	"slices"

	"caracal.run/management/store"
)

// grant plans a grant.
func (p *planner) grant(a *Action, spec *GrantSpec) {
	application, resource := p.find(Application, spec.Application, "application"), p.find(Resource, spec.Resource, "resource")
	if application == nil || resource == nil {
		return
	}
	declared := p.scopesOf(spec.Resource)
	for _, scope := range spec.Scopes {
		if !slices.Contains(declared, scope) {
			p.issue("must contain only scopes of the resource, which has no scope "+scope, "scopes")
			return
		}
	}
	step := changeGrant{spec: spec, application: application, resource: resource}
	present := p.zone.grants[grantKey{application.id, spec.UserID, resource.id}]
	if len(present) == 0 || application.id == "" || resource.id == "" {
		a.Verb, a.step = Create, step
		a.changed("application", nil, spec.Application)
		a.changed("user_id", nil, spec.UserID)
		a.changed("resource", nil, spec.Resource)
		a.changed("scopes", nil, spec.Scopes)
		return
	}
	var before []string
	for _, g := range present {
		a.ID = g.ID // the newest, unless one is as the spec says
		for _, scope := range g.Scopes {
			if !slices.Contains(before, scope) {
				before = append(before, scope)
			}
		}
	}
	for _, g := range present {
		if step.keeps == "" && sameSet(g.Scopes, spec.Scopes) {
			a.ID, step.keeps = g.ID, g.ID
			continue
		}
		step.revokes = append(step.revokes, g.ID)
	}
	if len(step.revokes) == 0 {
		return
	}
	a.Verb, a.step = Update, step
	a.changed("scopes", before, spec.Scopes)
}

// scopesOf returns the scopes of a resource after the plan is carried out.
func (p *planner) scopesOf(resource string) []string {
	if i, declared := p.declared[objectKey{Resource, resource}]; declared {
		if spec := p.document.Objects[i].Spec.(*ResourceSpec); spec.Scopes != nil {
			return *spec.Scopes
		}
	}
	if present := p.zone.resources[resource]; present != nil {
		return present.Scopes
	}
	return nil
}

// A changeGrant creates a grant, and revokes others for the same application, user and
// resource. The new grant comes first, so that sessions that it permits are not revoked.
type changeGrant struct {
	unsealed
	spec                  *GrantSpec
	application, resource *reference
	keeps                 string   // ID of the grant that is as the spec says; "": creates one
	revokes               []string // IDs
}

func (s changeGrant) effect() any { return [2]any{s.keeps, s.revokes} }

func (s changeGrant) run(ctx context.Context, x *execution) (Result, error) {
	result := Result{ID: s.keeps}
	if s.keeps == "" {
		created, err := x.tx.CreateGrant(ctx, x.zone, store.NewGrant{
			ApplicationID: x.id(s.application), UserID: s.spec.UserID, ResourceID: x.id(s.resource), Scopes: s.spec.Scopes,
		})
		if err != nil {
			return result, err
		}
		result.ID = created.ID
	}
	for _, id := range s.revokes {
		if err := x.tx.RevokeGrant(ctx, x.zone, id, store.Precondition{}); err != nil {
			return result, err
		}
	}
	return result, nil
}
