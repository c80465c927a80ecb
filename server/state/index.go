package state

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"caracal.run/management/gen/db"
	"caracal.run/management/store"
)

// An index finds the objects of a zone by what documents name them by, and by their IDs.
type index struct {
	store.ZoneState
	applications map[string][]*db.ListStateApplicationsRow // by name, which need not be unique
	byID         map[objectKey]string                      // the identity of each object; identity in the key is its ID
	providers    map[string]*db.ListStateProvidersRow
	resources    map[string]*db.ListStateResourcesRow
	policies     map[string]*db.ListStatePoliciesRow
	policySets   map[string]*db.ListStatePolicySetsRow
	manifests    map[string][]db.ListStateManifestsRow // by the ID of the version
	grants       map[grantKey][]*db.ListStateGrantsRow
	newest       map[string]string              // the ID of the newest version of each policy set, by its ID
	owners       map[store.ManagedObject]string // who manages an object
}

func newIndex(zone store.ZoneState) index {
	x := index{
		ZoneState: zone, byID: map[objectKey]string{}, applications: map[string][]*db.ListStateApplicationsRow{},
		providers: map[string]*db.ListStateProvidersRow{}, resources: map[string]*db.ListStateResourcesRow{},
		policies: map[string]*db.ListStatePoliciesRow{}, policySets: map[string]*db.ListStatePolicySetsRow{},
		manifests: map[string][]db.ListStateManifestsRow{}, newest: map[string]string{}, owners: map[store.ManagedObject]string{}, grants: map[grantKey][]*db.ListStateGrantsRow{},
	}
	for i := range zone.Applications {
		a := &zone.Applications[i]
		x.applications[a.Name] = append(x.applications[a.Name], a)
		x.byID[objectKey{Application, a.ID}] = a.Name
	}
	for i := range zone.Providers {
		p := &zone.Providers[i]
		x.providers[p.Identifier] = p
		x.byID[objectKey{Provider, p.ID}] = p.Identifier
	}
	for i := range zone.Resources {
		x.resources[zone.Resources[i].Identifier] = &zone.Resources[i]
		x.byID[objectKey{Resource, zone.Resources[i].ID}] = zone.Resources[i].Identifier
	}
	for i := range zone.Policies {
		x.policies[zone.Policies[i].Name] = &zone.Policies[i]
	}
	for _, o := range zone.Owners {
		x.owners[store.ManagedObject{Kind: o.Kind, ID: o.ObjectID}] = o.Owner
	}
	for i := range zone.Grants {
		g := &zone.Grants[i]
		k := grantKey{g.ApplicationID, g.UserID, g.ResourceID}
		x.grants[k] = append(x.grants[k], g)
	}
	latest := map[string]int32{} // the number of the newest version of each policy set
	for i := range zone.PolicySets {
		x.policySets[zone.PolicySets[i].Name] = &zone.PolicySets[i]
		latest[zone.PolicySets[i].ID] = zone.PolicySets[i].LatestVersion
	}
	for _, m := range zone.Manifests {
		x.manifests[m.VersionID] = append(x.manifests[m.VersionID], m)
		if m.VersionNumber == latest[m.PolicySetID] {
			x.newest[m.PolicySetID] = m.VersionID
		}
	}
	return x
}

// A grantKey is what a grant is about: IDs, or in documents a name, a user and an identifier.
type grantKey struct{ application, user, resource string }

// revision identifies the objects of a zone and their versions.
func revision(zone store.ZoneState) string {
	var all []string
	add := func(kind Kind, id string, version int64) { all = append(all, fmt.Sprint(kind, " ", id, " ", version)) }
	for _, a := range zone.Applications {
		add(Application, a.ID, a.Version)
	}
	for _, p := range zone.Providers {
		add(Provider, p.ID, p.Version)
	}
	for _, r := range zone.Resources {
		add(Resource, r.ID, r.Version)
	}
	for _, p := range zone.Policies {
		add(Policy, p.ID, p.Version)
	}
	for _, s := range zone.PolicySets {
		add(PolicySet, s.ID+" "+strconv.Itoa(int(s.LatestVersion)), s.Version)
	}
	for _, g := range zone.Grants {
		add(Grant, g.ID, g.Version)
	}
	for _, o := range zone.Owners {
		all = append(all, fmt.Sprintf("owner %s %s %q", o.Kind, o.ObjectID, o.Owner))
	}
	if zone.Registered > 0 && zone.Zone.DCREnabled { // otherwise, they change no plan
		all = append(all, fmt.Sprintf("registered %d", zone.Registered))
	}
	add(Zone, zone.Zone.ID, zone.Zone.Version)
	slices.Sort(all)
	return digest([]byte(strings.Join(all, "\n")))
}

// id identifies what the plan changes, who manages the objects then, and the state of the
// zone that it is for. It depends on which secrets are written, but not on their values,
// which could be guessed from it.
func (p *Plan) id(owner string) string {
	type action struct {
		Kind     Kind
		Identity string
		Verb     Verb
		ID       string
		Changes  []Change
		Effect   any
	}
	actions := make([]action, len(p.Actions))
	for i, a := range p.Actions {
		actions[i] = action{a.Kind, a.Identity, a.Verb, a.ID, a.Changes, nil}
		if a.step != nil {
			actions[i].Effect = a.step.effect()
		}
	}
	slices.SortFunc(actions, func(a, b action) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.ID, b.ID))
	})
	text, err := json.Marshal(actions)
	if err != nil {
		panic(err) // cannot happen: the values came from JSON or from rows
	}
	return digest([]byte(p.Revision), []byte(owner), text)
}

// digest returns 128 bits of a hash, which is enough to detect any difference.
func digest(parts ...[]byte) string {
	const size = 16
	h := sha256.New()
	for _, part := range parts {
		_, _ = fmt.Fprintf(h, "%d\n%s", len(part), part)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:size])
}
