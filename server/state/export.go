package state

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/provider"
	"caracal.run/management/store"
	"caracal.run/management/store/controlkey"
)

// An Exported is a zone as a document, whose plan is empty. It has no IDs and no secrets.
type Exported struct {
	Objects []ExportedObject `json:"objects"`
	notes   []string         // the objects that the document leaves out; empty: none
}

// An ExportedObject is an object of the zone, as a document has it.
type ExportedObject struct {
	Kind Kind   `json:"kind"`
	Spec any    `json:"spec"`
	note string // what the document cannot express; "": nothing
}

// The exported specs have the fields in the order of the spec of the API.
type (
	exportedZone struct {
		DCREnabled            bool `json:"dcr_enabled"`
		OperatorCoauthorBadge bool `json:"operator_coauthor_badge"`
		OpenRegistration      bool `json:"open_registration"`
	}
	exportedApplication struct {
		Name   string    `json:"name"`
		Traits *[]string `json:"traits,omitempty"`
	}
	exportedProvider struct {
		Identifier string         `json:"identifier"`
		Name       string         `json:"name"`
		Kind       string         `json:"kind"`
		Config     map[string]any `json:"config"`
	}
	exportedResource struct {
		Identifier           string          `json:"identifier"`
		Name                 string          `json:"name"`
		UpstreamURL          *string         `json:"upstream_url,omitempty"`
		Scopes               []string        `json:"scopes"`
		CredentialProvider   string          `json:"credential_provider,omitempty"`
		GatewayApplication   string          `json:"gateway_application,omitempty"`
		Operations           json.RawMessage `json:"operations"`
		OperationEnforcement string          `json:"operation_enforcement"`
	}
	exportedPolicy struct {
		Name          string  `json:"name"`
		Description   *string `json:"description,omitempty"`
		OwnerType     string  `json:"owner_type"`
		SchemaVersion string  `json:"schema_version"`
		Content       string  `json:"content"`
	}
	exportedPolicySet struct {
		Name        string   `json:"name"`
		Description *string  `json:"description,omitempty"`
		Policies    []string `json:"policies,omitempty"`
		Activate    *bool    `json:"activate,omitempty"`
	}
	exportedGrant struct {
		Application string   `json:"application"`
		UserID      string   `json:"user_id"`
		Resource    string   `json:"resource"`
		Scopes      []string `json:"scopes"`
	}
)

// MaxExportedGrants is the maximum number of grants in an exported document.
const MaxExportedGrants = 2000

// Export returns the objects of some kinds of a zone as a document: those that the actor
// could manage with it, in the order of their kinds, names and identifiers. It returns
// zone_not_found, or state_not_exportable if a document cannot name an object.
func (e *Engine) Export(ctx context.Context, actor store.Actor, zone string, kinds []Kind) (Exported, error) {
	from := e.Store.For(actor)
	has := func(kind Kind) bool { return slices.Contains(kinds, kind) }
	read := store.StateKinds{
		Applications: has(Application) || has(Resource) || has(Policy) || has(Grant), Providers: has(Provider) || has(Resource),
		Resources: has(Resource) || has(Grant), Policies: has(Policy) || has(PolicySet), PolicySets: has(PolicySet),
	}
	read.Registered = has(Application)
	if has(Grant) {
		read.MaxGrants = MaxExportedGrants + 1
	}
	live, err := from.ZoneState(ctx, zone, read)
	if err != nil {
		return Exported{}, err
	}
	if len(live.Grants) > MaxExportedGrants {
		return Exported{}, code.StateNotExportable.Saying(fmt.Sprintf("The zone has more than %d active grants, which is too many for a document. Export the other kinds.", MaxExportedGrants))
	}
	var versions []string
	for _, p := range live.Policies {
		if has(Policy) {
			versions = append(versions, p.VersionID)
		}
	}
	contents, err := from.PolicyContents(ctx, zone, versions)
	if err != nil {
		return Exported{}, err
	}
	x := exporter{index: newIndex(live), actor: actor}
	for _, export := range []struct {
		kind Kind
		add  func()
	}{
		{Zone, x.zone}, {Application, x.exportApplications}, {Provider, x.exportProviders}, {Resource, x.exportResources},
		{Policy, func() { x.exportPolicies(contents) }}, {PolicySet, x.exportPolicySets}, {Grant, x.exportGrants},
	} {
		if has(export.kind) {
			export.add()
		}
	}
	return Exported{append([]ExportedObject{}, x.objects...), x.notes}, x.err
}

// An exporter collects the objects of a document.
type exporter struct {
	index
	actor   store.Actor
	objects []ExportedObject
	notes   []string
	err     error // the first one
}

func (x *exporter) add(kind Kind, spec any, note string) {
	x.objects = append(x.objects, ExportedObject{kind, spec, note})
}

func (x *exporter) zone() {
	z := x.Zone
	x.add(Zone, exportedZone{z.DCREnabled, z.OperatorCoauthorBadge, z.OpenRegistration}, "")
}

// omitted adds that a document leaves some objects out.
func (x *exporter) omitted(objects string, n int) {
	if n > 0 {
		x.notes = append(x.notes, fmt.Sprintf("%s: %d", objects, n))
	}
}

func (x *exporter) exportApplications() {
	x.omitted("registered applications, which clients create", int(x.Registered))
	for _, a := range sortedBy(x.Applications, func(a db.ListStateApplicationsRow) string { return a.Name }) {
		if _, isKey, err := controlkey.Parse(a.Traits); isKey || err != nil || store.CheckReservedName(x.actor, store.ApplicationName, a.Name) != nil {
			continue
		}
		spec := exportedApplication{Name: x.application(a.ID)}
		if x.actor.Global() { // which alone may see traits
			spec.Traits = new(append([]string{}, slices.Sorted(slices.Values(a.Traits))...))
		}
		x.add(Application, spec, "")
	}
}

// application returns the name of an application, or "" if it is not a managed one. It
// fails if a document cannot name it.
func (x *exporter) application(id string) string {
	name := x.byID[objectKey{Application, id}]
	if len(x.applications[name]) > 1 && x.err == nil {
		x.err = &code.Error{
			Code: code.StateNotExportable, Sentence: "Several managed applications have the same name, so that a document cannot name one of them. Rename the others. See object.",
			Fields: map[string]any{"object": map[string]any{"kind": Application, "identity": name}},
		}
	}
	return name
}

func (x *exporter) exportProviders() {
	for _, p := range sortedBy(x.Providers, func(p db.ListStateProvidersRow) string { return p.Identifier }) {
		if store.CheckReservedName(x.actor, store.ProviderIdentifier, p.Identifier) != nil {
			continue
		}
		config, omitted, err := provider.WithPlaceholders(p.Identifier, p.ConfigJSON, p.SecretConfigKeys)
		if err != nil {
			x.err = cmp.Or(x.err, err)
			return
		}
		note := ""
		if len(omitted) > 0 {
			note = "config has other secrets, which are omitted: " + strings.Join(omitted, ", ")
		}
		x.add(Provider, exportedProvider{p.Identifier, p.Name, p.Kind, config}, note)
	}
}

func (x *exporter) exportResources() {
	for _, r := range sortedBy(x.Resources, func(r db.ListStateResourcesRow) string { return r.Identifier }) {
		if store.CheckReservedName(x.actor, store.ResourceIdentifier, r.Identifier) != nil {
			continue
		}
		spec := exportedResource{
			Identifier: r.Identifier, Name: r.Name, UpstreamURL: r.UpstreamURL, Scopes: append([]string{}, r.Scopes...),
			CredentialProvider: x.byID[objectKey{Provider, r.CredentialProviderID}], Operations: r.Operations, OperationEnforcement: r.OperationEnforcement,
		}
		note := ""
		if r.GatewayApplicationID != nil {
			spec.GatewayApplication = x.application(*r.GatewayApplicationID)
		}
		if spec.GatewayApplication == "" {
			note = "gateway_application is omitted: the resource has none that is a managed application"
		}
		x.add(Resource, spec, note)
	}
}

func (x *exporter) exportPolicies(contents map[string]db.ListPolicyContentsRow) {
	var references []string // IDs of applications, each followed by a reference to it by name
	for _, a := range x.Applications {
		if reference := "${application:" + a.Name + "}"; len(x.applications[a.Name]) == 1 && applicationReference.FindString(reference) == reference {
			references = append(references, a.ID, reference)
		}
	}
	names := strings.NewReplacer(references...)
	for _, p := range sortedBy(x.Policies, func(p db.ListStatePoliciesRow) string { return p.Name }) {
		if store.CheckReservedName(x.actor, store.PolicyName, p.Name) == nil {
			x.add(Policy, exportedPolicy{p.Name, p.Description, p.OwnerType, p.SchemaVersion, names.Replace(contents[p.VersionID].Content)}, "")
		}
	}
}

func (x *exporter) exportPolicySets() {
	for _, s := range sortedBy(x.PolicySets, func(s db.ListStatePolicySetsRow) string { return s.Name }) {
		if store.CheckReservedName(x.actor, store.PolicySetName, s.Name) != nil {
			continue
		}
		spec := exportedPolicySet{Name: s.Name, Description: s.Description}
		note := ""
		for _, m := range x.manifests[x.newest[s.ID]] {
			if p := x.policies[m.PolicyName]; p == nil || p.VersionID != m.PolicyVersionID {
				spec.Policies = nil
				note = "policies are omitted: the newest version of the policy set does not have the newest versions of its policies"
				break
			}
			spec.Policies = append(spec.Policies, m.PolicyName)
		}
		switch {
		case s.ActiveVersionID == nil:
			spec.Activate = new(false)
		case *s.ActiveVersionID == x.newest[s.ID]:
			spec.Activate = new(true)
		default:
			spec.Policies = nil
			note = "policies and activate are omitted: another version than the newest one is active"
		}
		x.add(PolicySet, spec, note)
	}
}

func (x *exporter) exportGrants() {
	resources := map[string]string{} // the identifiers, by their IDs
	for _, r := range x.Resources {
		resources[r.ID] = r.Identifier
	}
	var grants []exportedGrant
	foreign, repeated := 0, 0
	for key, present := range x.grants {
		grant := exportedGrant{x.application(key.application), key.user, resources[key.resource], present[0].Scopes}
		switch {
		case grant.Application == "" || grant.Resource == "":
			foreign += len(present)
		case len(present) > 1:
			repeated += len(present)
		default:
			grants = append(grants, grant)
		}
	}
	x.omitted("grants of applications that are not managed or not active, or for resources that no document can have", foreign)
	x.omitted("grants that others repeat, for the same application, user and resource", repeated)
	slices.SortFunc(grants, func(a, b exportedGrant) int {
		return cmp.Or(cmp.Compare(a.Application, b.Application), cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Resource, b.Resource))
	})
	for _, g := range grants {
		x.add(Grant, g, "")
	}
}

func sortedBy[T any](rows []T, key func(T) string) []T {
	return slices.SortedFunc(slices.Values(rows), func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}

// JSON returns the document as JSON.
func (d Exported) JSON() ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(d)
	return text.Bytes(), err
}
