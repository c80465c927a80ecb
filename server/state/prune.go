package state

import (
	"context"
	"fmt"
	"slices"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// prune adds the objects to archive, which the document does not contain, to a plan.
func (p *planner) prune(plan *Plan) {
	prune, owner := p.document.Prune, p.document.Owner
	if !prune.Enabled {
		return
	}
	if owner == "" && len(prune.Kinds) == 0 {
		p.issues = append(p.issues, code.Issue{Path: []string{"prune"}, Message: "requires owner or prune_kinds"})
		return
	}
	for _, kind := range []Kind{Grant, PolicySet, Policy, Resource, Provider, Application} {
		all, pruned := 0, 0
		for _, a := range p.present(kind) {
			managed := owner != "" && p.zone.owners[store.ManagedObject{Kind: string(kind), ID: a.ID}] == owner
			if !managed && !slices.Contains(prune.Kinds, kind) {
				continue
			}
			all++
			var key any = objectKey{kind, a.Identity}
			if kind == Grant {
				key = a.grant
			}
			if _, declared := p.declared[key]; declared {
				continue
			}
			pruned++
			p.issues = append(p.issues, p.referenced[store.ManagedObject{Kind: string(kind), ID: a.ID}]...)
			a.Kind, a.Verb, a.object = kind, Archive, -1
			a.step = archive{kind: kind, id: a.ID}
			plan.Actions = append(plan.Actions, a)
		}
		const few = 5
		if pruned > few && float64(pruned) > prune.MaxShare*float64(all) {
			message := fmt.Sprintf("%d of %d objects of kind %s would be pruned", pruned, all, kind)
			plan.exceeded = append(plan.exceeded, code.Issue{Path: []string{}, Message: message})
			first := &plan.Actions[len(plan.Actions)-pruned]
			first.Warnings = append(first.Warnings, message+", which requires confirm_prune")
		}
	}
	p.checkUses(plan)
}

// checkUses marks objects that cannot be archived as failed: providers to which a resource of
// the zone refers that is not in the document, and policies in the active policy set. It warns
// of resources that lose their gateway application.
func (p *planner) checkUses(plan *Plan) {
	archived := map[objectKey]*Action{} // by ID
	for i := range plan.Actions {
		if a := &plan.Actions[i]; a.Verb == Archive {
			archived[objectKey{a.Kind, a.ID}] = a
		}
	}
	for _, r := range p.zone.Resources {
		_, declared := p.declared[objectKey{Resource, r.Identifier}]
		if declared || archived[objectKey{Resource, r.ID}] != nil {
			continue
		}
		if a := archived[objectKey{Provider, r.CredentialProviderID}]; a != nil && a.Failure == nil {
			a.Failure = &Failure{"conflict", "provider_in_use: the resource " + r.Identifier + " refers to it"}
		}
		if a := archived[objectKey{Application, valueOr(r.GatewayApplicationID, "")}]; a != nil {
			a.Warnings = append(a.Warnings, "the resource "+r.Identifier+" loses its gateway application")
		}
	}
	set, policies := p.enforced(plan)
	for id, version := range policies {
		if a := archived[objectKey{Policy, id}]; a != nil && a.Failure == nil {
			a.Failure = &Failure{"conflict", "policy_in_use: the " + version + " version of the active policy set " + set + " contains it"}
		}
	}
}

// enforced returns the name of the policy set that is active when the plan is carried out,
// and for the ID of each policy in it the version that contains it, active or shadow.
func (p *planner) enforced(plan *Plan) (set string, policies map[string]string) {
	active, shadow, added := "", "", []policyVersion(nil) // a version, or the manifest of one that the plan adds
	for _, s := range p.zone.PolicySets {
		if s.ActiveVersionID != nil {
			set, active, shadow = s.Name, *s.ActiveVersionID, valueOr(s.ShadowVersionID, "")
		}
	}
	for _, a := range plan.Actions {
		if a.Kind != PolicySet {
			continue
		}
		change, changes := a.step.(changePolicySet)
		switch {
		case changes && change.activates:
			set, active, shadow, added = a.Identity, change.version, valueOr(change.shadow, ""), nil
			if change.adds {
				added = change.manifest
			}
		case a.Identity == set && (a.Verb == Archive || changes && change.deactivates):
			set, active, shadow = "", "", ""
		}
	}
	policies = map[string]string{}
	for _, m := range p.zone.manifests[shadow] {
		policies[m.PolicyID] = "shadow"
	}
	for _, m := range p.zone.manifests[active] {
		policies[m.PolicyID] = "active"
	}
	for _, v := range added {
		if present := p.zone.policies[v.policy]; present != nil {
			policies[present.ID] = "active"
		}
	}
	return set, policies
}

// present returns the objects of a kind that can be pruned, the newest first. Objects that
// Caracal itself or clients create are not among them.
func (p *planner) present(kind Kind) (all []Action) {
	add := func(id, identity string, ns store.Namespace) {
		if store.CheckReservedName(store.Actor{}, ns, identity) == nil {
			all = append(all, Action{ID: id, Identity: identity})
		}
	}
	switch kind {
	case Application:
		for _, a := range p.zone.Applications {
			if store.CheckTraitAccess(store.Actor{}, a.Traits) == nil { // not a Control key
				add(a.ID, a.Name, store.ApplicationName)
			}
		}
	case Provider:
		for _, x := range p.zone.Providers {
			if !store.IsNoneProvider(p.zone.Zone.ID, x.ID, x.Identifier) {
				add(x.ID, x.Identifier, store.ProviderIdentifier)
			}
		}
	case Resource:
		for _, r := range p.zone.Resources {
			add(r.ID, r.Identifier, store.ResourceIdentifier)
		}
	case Policy:
		for _, x := range p.zone.Policies {
			add(x.ID, x.Name, store.PolicyName)
		}
	case PolicySet:
		for _, s := range p.zone.PolicySets {
			add(s.ID, s.Name, store.PolicySetName)
			if last := len(all) - 1; s.ActiveVersionID != nil && last >= 0 && all[last].ID == s.ID && len(p.activated) == 0 {
				all[last].Warnings = append(all[last].Warnings, "the policy set is active: no policies apply afterwards")
			}
		}
	case Grant:
		for _, g := range p.zone.Grants {
			spec := GrantSpec{
				Application: p.zone.byID[objectKey{Application, g.ApplicationID}], UserID: g.UserID, Resource: p.zone.byID[objectKey{Resource, g.ResourceID}],
			}
			all = append(all, Action{ID: g.ID, Identity: Object{Grant, &spec}.Identity(), grant: spec.key()})
		}
	}
	slices.Reverse(all)
	return all
}

// An archive archives an object, or revokes it if it is a grant.
type archive struct {
	unsealed
	explicit
	kind Kind
	id   string
}

func (s archive) run(ctx context.Context, x *execution) (Result, error) {
	remove := map[Kind]func(context.Context, string, string, store.Precondition) error{
		Application: x.tx.DeleteApplication, Provider: x.tx.DeleteProvider, Resource: x.tx.DeleteResource,
		Policy: x.tx.DeletePolicy, PolicySet: x.tx.DeletePolicySet, Grant: x.tx.RevokeGrant,
	}[s.kind]
	if err := remove(ctx, x.zone, s.id, store.Precondition{}); err != nil {
		return Result{}, err
	}
	return Result{ID: s.id}, nil
}
