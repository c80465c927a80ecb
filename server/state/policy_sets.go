package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/policy"
	"caracal.run/management/store"
)

// A listedPolicy is a policy version in a manifest, as a plan shows it.
type listedPolicy struct {
	Policy  string `json:"policy"`
	Version int32  `json:"version"`
}

// policySet plans a policy set.
func (p *planner) policySet(a *Action, spec *PolicySetSpec) {
	present := p.zone.policySets[spec.Name]
	step := changePolicySet{spec: spec}
	if present == nil {
		a.Verb = Create
		a.changed("name", nil, spec.Name)
		given(a, "description", spec.Description)
		p.check(store.CheckReservedName(p.Actor, store.PolicySetName, spec.Name), "name")
		present = &db.ListStatePolicySetsRow{}
	} else {
		a.ID, step.id, step.shadow = present.ID, present.ID, present.ShadowVersionID
		p.cannotChange(a, "description", present.Description, spec.Description)
	}
	if len(p.activated) > 1 && valueOr(spec.Activate, false) && p.at != p.activated[0] {
		p.issue(fmt.Sprintf("must not be true, because objects[%d] is activated, and a zone has one active policy set", p.activated[0]), "activate")
	}
	active := valueOr(present.ActiveVersionID, "")
	if !p.selectVersion(a, &step, present.ID, active, spec) {
		return
	}
	p.planActivation(a, &step, active)
	if len(a.Changes) == 0 {
		a.Version = step.version
		return
	}
	if a.Verb == Unchanged {
		a.Verb = Update
	}
	a.step = step
}

// selectVersion sets the version of the policy set that the spec describes, or the
// manifest of a version to add. It returns false if the spec is invalid.
func (p *planner) selectVersion(a *Action, step *changePolicySet, set, active string, spec *PolicySetSpec) bool {
	step.version = p.zone.newest[set]
	if spec.Policies == nil {
		if valueOr(spec.Activate, false) && step.version == "" {
			p.issue("is required to activate a policy set without versions", "policies")
			return false
		}
		for _, m := range p.zone.manifests[step.version] {
			if present := p.zone.policies[m.PolicyName]; present != nil {
				p.refers(Policy, present.ID, "policies")
			}
			step.manifest = append(step.manifest, policyVersion{policy: m.PolicyName, number: m.PolicyVersionNumber, id: m.PolicyVersionID})
		}
		return true
	}
	if !p.resolveManifest(step, spec.Policies) {
		return false
	}
	stays := valueOr(spec.Activate, len(p.activated) == 0) // active
	for _, version := range []string{active, step.version} {
		if version == active && version != step.version && !stays {
			continue // afterwards, the newest version is compared
		}
		if version != "" && sameSet(versionIDs(p.zone.manifests[version]), manifestIDs(step.manifest)) {
			step.version = version
			return true
		}
	}
	var before any
	if step.version != "" {
		before = listed(p.zone.manifests[step.version])
	}
	step.version, step.adds = "", true
	var after []listedPolicy
	for _, v := range step.manifest {
		after = append(after, listedPolicy{v.policy, v.number})
	}
	a.changed("policies", before, after)
	return true
}

// resolveManifest sets the newest versions of policies, which are given by their names, as
// the manifest. It returns false if the names are invalid.
func (p *planner) resolveManifest(step *changePolicySet, names []string) bool {
	valid := true
	for i, name := range names {
		at := []string{"policies", strconv.Itoa(i)}
		name, problem := store.NormalizeName(name)
		if problem != "" || name == "" {
			p.issue("must be the name of a policy", at...)
			valid = false
			continue
		}
		if slices.ContainsFunc(step.manifest, func(v policyVersion) bool { return v.policy == name }) {
			p.issue("must not be listed twice", at...)
			valid = false
			continue
		}
		version, planned := p.newest[name]
		if !planned {
			if p.find(Policy, name, at...) == nil {
				valid = false
				continue
			}
			if present := p.zone.policies[name]; present != nil {
				version = policyVersion{name, present.VersionNumber, present.VersionID, present.SchemaVersion, nil}
			} else {
				return false // the policy is in the document, and has an issue
			}
		}
		if len(step.manifest) > 0 && version.schemaVersion != step.manifest[0].schemaVersion {
			p.issue("must have the schema version of the others, "+step.manifest[0].schemaVersion, at...)
			valid = false
		}
		step.manifest = append(step.manifest, version)
	}
	return valid
}

// planActivation adds whether the policy set has to be activated or deactivated.
func (p *planner) planActivation(a *Action, step *changePolicySet, active string) {
	switch {
	case step.spec.Activate == nil:
		if active != "" && step.adds {
			a.Warnings = append(a.Warnings, "the new version is not activated: set activate")
		}
	case *step.spec.Activate && (active == "" || active != step.version):
		if active == "" { // otherwise another version becomes active, which the policies say
			a.changed("activate", false, true)
		} else if !step.adds {
			a.changed("activate", active, step.version)
		}
		step.activates = true
		for _, other := range p.zone.PolicySets {
			if other.ActiveVersionID != nil && other.ID != a.ID {
				a.Warnings = append(a.Warnings, "the policy set "+other.Name+" is deactivated")
			}
		}
	case !*step.spec.Activate && active != "":
		a.changed("activate", true, false)
		step.deactivates = len(p.activated) == 0 // the activation of another one deactivates it
	}
}

func versionIDs(manifest []db.ListStateManifestsRow) []string {
	ids := make([]string, len(manifest))
	for i, m := range manifest {
		ids[i] = m.PolicyVersionID
	}
	return ids
}

// manifestIDs returns the IDs of policy versions, which are "" for those that the plan adds.
func manifestIDs(manifest []policyVersion) []string {
	ids := make([]string, len(manifest))
	for i, v := range manifest {
		ids[i] = v.id
	}
	return ids
}

func listed(manifest []db.ListStateManifestsRow) []listedPolicy {
	all := make([]listedPolicy, len(manifest))
	for i, m := range manifest {
		all[i] = listedPolicy{m.PolicyName, m.PolicyVersionNumber}
	}
	return all
}

// checkManifests returns the issues of the manifests that a plan adds or activates: whether
// their policies can be used together. It takes long.
func (e *Engine) checkManifests(ctx context.Context, actor store.Actor, zone string, plan *Plan) (issues []code.Issue, err error) {
	for _, a := range plan.Actions {
		change, isSet := a.step.(changePolicySet)
		if !isSet || !change.adds && !change.activates {
			continue
		}
		modules, err := e.modules(ctx, actor, zone, change.manifest)
		if err != nil {
			return nil, err
		}
		size := 0
		for _, m := range modules {
			size += len(m.Content)
		}
		if size > store.MaxManifestBytes {
			issues = append(issues, issueAt(a.object, fmt.Sprintf("must have at most %d bytes of content in total", store.MaxManifestBytes), "policies"))
			continue
		}
		_, err = policy.Compile(ctx, modules)
		var invalid *policy.CompileError
		switch {
		case errors.As(err, &invalid):
			for _, issue := range invalid.Issues {
				message := positioned(issue)
				if invalid.ID != "" {
					message = invalid.ID + ":" + message
				}
				issues = append(issues, issueAt(a.object, message, "policies"))
			}
		case err != nil:
			return nil, err
		}
	}
	return issues, nil
}

// modules returns the contents of a manifest, with the names of the policies as IDs.
func (e *Engine) modules(ctx context.Context, actor store.Actor, zone string, manifest []policyVersion) ([]policy.Module, error) {
	var stored []string
	for _, v := range manifest {
		if v.content == nil {
			stored = append(stored, v.id)
		}
	}
	contents := map[string]db.ListPolicyContentsRow{}
	if len(stored) > 0 {
		var err error
		if contents, err = e.Store.For(actor).PolicyContents(ctx, zone, stored); err != nil {
			return nil, err
		}
	}
	modules := make([]policy.Module, len(manifest))
	for i, v := range manifest {
		if v.content != nil {
			modules[i] = policy.Module{ID: v.policy, Content: withDummyIDs(*v.content), SchemaVersion: v.schemaVersion}
		} else {
			modules[i] = policy.Module{ID: v.policy, Content: contents[v.id].Content, SchemaVersion: contents[v.id].SchemaVersion}
		}
	}
	return modules, nil
}

// A changePolicySet creates a policy set, adds a version to it, and activates or
// deactivates it.
type changePolicySet struct {
	unsealed
	id                     string // "": creates it
	spec                   *PolicySetSpec
	version                string // its ID; "" if there is none yet
	adds                   bool   // adds a version with the manifest
	manifest               []policyVersion
	activates, deactivates bool
	shadow                 *string
}

func (s changePolicySet) effect() any {
	return []any{s.version, s.adds, manifestIDs(s.manifest), s.activates, s.deactivates, s.shadow}
}

func (s changePolicySet) run(ctx context.Context, x *execution) (result Result, err error) {
	result = Result{ID: s.id, VersionID: s.version}
	if s.id == "" {
		created, err := x.tx.CreatePolicySet(ctx, x.zone, store.NewPolicySet{Name: s.spec.Name, Description: s.spec.Description})
		if err != nil {
			return result, err
		}
		result.ID = created.ID
	}
	if s.adds {
		n := store.NewPolicySetVersion{SchemaVersion: s.manifest[0].schemaVersion}
		for _, v := range s.manifest {
			if v.id == "" {
				v.id = x.versions[v.policy]
			}
			if v.id == "" {
				return result, code.PolicyVersionNotFound // it could not be added
			}
			n.Manifest = append(n.Manifest, v.id)
		}
		n.ManifestSHA256 = store.ManifestSHA256(n.Manifest)
		added, err := x.tx.AddPolicySetVersion(ctx, x.zone, result.ID, n)
		if err != nil {
			return result, err
		}
		result.VersionID = added.ID
	}
	switch {
	case s.activates:
		_, err = x.tx.ActivatePolicySet(ctx, x.zone, store.PolicyBinding{PolicySetID: result.ID, VersionID: result.VersionID, ShadowVersionID: s.shadow})
	case s.deactivates:
		_, err = x.tx.DeactivatePolicySet(ctx, x.zone, result.ID)
	}
	return result, err
}
