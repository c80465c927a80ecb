package state

import (
	"context"

	"caracal.run/management/store"
)

// application plans an application.
func (p *planner) application(a *Action, spec *ApplicationSpec) {
	present := p.zone.applications[spec.Name]
	switch {
	case len(present) > 1:
		p.issue("must be unique: the zone has several managed applications with this name", "name")
		return
	case len(present) == 0:
		a.Verb, a.step = Create, createApplication{spec: spec}
		a.changed("name", nil, spec.Name)
		given(a, "traits", spec.Traits)
		p.check(store.CheckReservedName(p.Actor, store.ApplicationName, spec.Name), "name")
		p.checkTraits(spec)
		return
	}
	a.ID = present[0].ID
	if !differsAsSet(a, "traits", present[0].Traits, spec.Traits) {
		return
	}
	a.Verb, a.step = Update, updateApplication{id: a.ID, traits: *spec.Traits}
	if !p.Actor.Global() { // which alone may see traits
		a.Changes[0] = Change{Field: "traits", Sensitive: true}
	}
	if p.check(store.CheckTraitAccess(p.Actor, present[0].Traits), "traits") {
		p.checkTraits(spec)
	}
}

func (p *planner) checkTraits(spec *ApplicationSpec) {
	if spec.Traits != nil {
		p.check(store.CheckTraits(p.Actor, *spec.Traits), "traits")
	}
}

type createApplication struct {
	unsealed
	spec *ApplicationSpec
}

func (s createApplication) run(ctx context.Context, x *execution) (Result, error) {
	n := store.NewApplication{Name: s.spec.Name}
	if s.spec.Traits != nil {
		n.Traits = *s.spec.Traits
	}
	created, secret, err := x.tx.CreateApplication(ctx, x.zone, n)
	return Result{ID: created.ID, ClientSecret: secret}, err
}

func (s createApplication) effect() any { return s.spec.Traits }

type updateApplication struct {
	unsealed
	id     string
	traits []string
}

func (s updateApplication) effect() any { return s.traits }

func (s updateApplication) run(ctx context.Context, x *execution) (Result, error) {
	_, err := x.tx.UpdateApplication(ctx, x.zone, s.id, store.Precondition{}, store.ApplicationPatch{Traits: append([]string{}, s.traits...)})
	return Result{ID: s.id}, err
}
