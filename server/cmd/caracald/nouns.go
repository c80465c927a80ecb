package main

import (
	"context"
	"encoding/json"
	"strings"

	"caracal.run/management/gen/client"
)

// A noun is a kind of objects that the API has, and the operations that it has for them. A
// field that is nil is an operation that it does not have.
type noun struct {
	name    string // singular, as typed
	manyAs  string // plural, if it is not the name with an s
	id      string // the field that identifies an object, if not "id"
	about   string // what these objects are
	global  bool   // the objects belong to no zone
	columns string // fields of the table
	filters string // fields by which list can filter
	example string // flags of create
	patch   string // flags of update, in the example
	revokes bool   // delete is called revoke

	filter                      func(map[string]string) client.ListOption
	list                        lister
	get, create, update, delete operation
	actions                     []action
}

// An action is another operation on an object.
type action struct {
	name     string
	does     string // its summary, as a sentence without a period
	about    string // more of its description
	call     operation
	listed   lister // instead of call, if the action lists what an object has
	columns  string // of what is listed
	body     string // flags of the body, in the example; "": none
	optional bool   // the body can be omitted
	noID     bool   // it concerns no object
}

// A lister requests a page, of what an object has if it has an ID, and returns the cursor
// of the next one.
type lister func(ctx context.Context, c *client.Client, zone, id string, opts ...client.ListOption) (next string, err error)

// An operation is one that concerns an object, or all of a zone. Without a type for its
// result and its body: options pass them as JSON.
type operation func(ctx context.Context, c *client.Client, zone, id string, opts ...client.CallOption) error

// nouns are all kinds of objects. To add one, add a line with its methods.
var nouns = []*noun{
	{
		name: "zone", about: "Zones, each of which has its own objects. A deleted zone is archived: its slug stays reserved.", global: true, columns: "id name slug dcr_enabled created_at",
		example: "--set name=Production", patch: "--set name=Staging",
		filters: "name slug", filter: func(f map[string]string) client.ListOption {
			return client.ListZonesParams{Name: f["name"], Slug: f["slug"]}
		},
		list: globalList((*client.Client).ListZones), get: globalGet((*client.Client).GetZone), create: globalCreate((*client.Client).CreateZone),
		update: globalUpdate((*client.Client).UpdateZone), delete: globalDelete((*client.Client).DeleteZone),
		actions: []action{
			{name: "overview", does: "Print counts of what a zone contains", call: globalGet((*client.Client).GetOverview)},
			{name: "rotate-signing-key", does: "Sign the tokens of a zone with a new key", call: globalGet((*client.Client).RotateSigningKey)},
		},
	},
	{
		name: "application", about: "Applications, which are the OAuth clients of a zone.", columns: "id name registration_method traits expires_at created_at",
		example: "--set name=Billing --set registration_method=managed", patch: "--set name=Invoices",
		filters: "name registration_method", filter: func(f map[string]string) client.ListOption {
			return client.ListApplicationsParams{Name: f["name"], RegistrationMethod: client.RegistrationMethod(f["registration_method"])}
		},
		list: zoneList((*client.Client).ListApplications), get: zoneGet((*client.Client).GetApplication), create: zoneCreate((*client.Client).CreateApplication),
		update: zoneUpdate((*client.Client).UpdateApplication), delete: zoneDelete((*client.Client).DeleteApplication),
		actions: []action{
			{name: "rotate-secret", does: "Replace the client secret of an application", about: "Prints the new secret, which the API returns only this time.", call: zoneUpdate((*client.Client).RotateApplicationSecret), body: "--set overlap_seconds=3600", optional: true},
		},
	},
	{
		name: "provider", about: "Providers of the credentials with which resources are called.", columns: "id identifier name kind secret_config_keys updated_at",
		example: "--set name=Mandates --set kind=caracal_mandate", patch: "--set name=Tokens",
		filters: "name identifier kind", filter: func(f map[string]string) client.ListOption {
			return client.ListProvidersParams{Name: f["name"], Identifier: f["identifier"], Kind: client.ProviderKind(f["kind"])}
		},
		list: zoneList((*client.Client).ListProviders), get: zoneGet((*client.Client).GetProvider), create: zoneCreate((*client.Client).CreateProvider),
		update: zoneUpdate((*client.Client).UpdateProvider), delete: zoneDelete((*client.Client).DeleteProvider),
		actions: []action{
			{name: "test", does: "Test the configuration of a provider", call: zoneGet((*client.Client).TestProvider)},
		},
	},
	{
		name: "resource", about: "Resources, which are the APIs that agents call.", columns: "id identifier name scopes upstream_url updated_at",
		example: "-f invoices.yaml", patch: `--set 'scopes=["invoices:read"]'`,
		filters: "name identifier", filter: func(f map[string]string) client.ListOption {
			return client.ListResourcesParams{Name: f["name"], Identifier: f["identifier"]}
		},
		list: zoneList((*client.Client).ListResources), get: zoneGet((*client.Client).GetResource), create: zoneCreate((*client.Client).CreateResource),
		update: zoneUpdate((*client.Client).UpdateResource), delete: zoneDelete((*client.Client).DeleteResource),
	},
	{
		name: "policy", manyAs: "policies", about: "Policies in Rego, which have versions.", columns: "id name description created_by created_at",
		example: "--set name=Grants --set-file content=grants.rego",
		filters: "name", filter: func(f map[string]string) client.ListOption {
			return client.ListPoliciesParams{Name: f["name"]}
		},
		list: zoneList((*client.Client).ListPolicies), get: getPolicy, create: zoneCreate((*client.Client).CreatePolicy), delete: zoneDelete((*client.Client).DeletePolicy),
		actions: []action{
			{name: "versions", does: "List the versions of a policy", listed: zoneListOf((*client.Client).ListPolicyVersions), columns: "id version schema_version content_sha256 created_at"},
			{name: "add-version", does: "Add a version to a policy", call: zoneUpdate((*client.Client).AddPolicyVersion), body: "--set-file content=grants.rego"},
		},
	},
	{
		name: "policy-set", about: "Policy sets: combinations of versions of policies, one of which is active in a zone.", columns: "id name active_version_id description created_at",
		example: "--set name=Production",
		filters: "name", filter: func(f map[string]string) client.ListOption {
			return client.ListPolicySetsParams{Name: f["name"]}
		},
		list: zoneList((*client.Client).ListPolicySets), get: zoneGet((*client.Client).GetPolicySet), create: zoneCreate((*client.Client).CreatePolicySet), delete: zoneDelete((*client.Client).DeletePolicySet),
		actions: []action{
			{name: "versions", does: "List the versions of a policy set", listed: zoneListOf((*client.Client).ListPolicySetVersions), columns: "id version schema_version manifest_sha256 created_at"},
			{name: "add-version", does: "Add a version to a policy set", call: zoneUpdate((*client.Client).AddPolicySetVersion), body: "-f manifest.yaml"},
			{name: "activate", does: "Make a version of a policy set the active one of the zone", call: zoneUpdate((*client.Client).ActivatePolicySet), body: "--set version_id=0198c0de-0000-7000-8000-000000000010"},
			{name: "deactivate", does: "Deactivate a policy set, so that the zone has no active one", call: zoneGet((*client.Client).DeactivatePolicySet)},
			{name: "rollback", does: "Restore what was active before the active policy set", call: zoneGet((*client.Client).RollbackPolicySet)},
			{name: "status", does: "Print which version is active, and whether it is loaded", call: getActivationStatus},
			{name: "simulate", does: "Evaluate a version of a policy set for a request, and print the decision", about: "Changes nothing.", call: zoneUpdate((*client.Client).SimulatePolicySet), body: "-f request.yaml"},
		},
	},
	{
		name: "grant", about: "Grants, with which users allow applications to use scopes of resources.", columns: "id user_id application_name resource_name scopes status updated_at",
		example: "--set user_id=ada --set application_id=$APP --set resource_id=$RESOURCE --set 'scopes=[\"invoices:read\"]'", revokes: true,
		filters: "application_id resource_id provider_id user_id subject_id status", filter: func(f map[string]string) client.ListOption {
			return client.ListGrantsParams{ApplicationID: f["application_id"], ResourceID: f["resource_id"], ProviderID: f["provider_id"], UserID: f["user_id"], SubjectID: f["subject_id"], Status: f["status"]}
		},
		list: zoneList((*client.Client).ListGrants), get: zoneGet((*client.Client).GetGrant), create: zoneCreate((*client.Client).CreateGrant), delete: zoneDelete((*client.Client).RevokeGrant),
	},
	{
		name: "provider-grant", about: "Provider grants: tokens of users at external providers, which are never returned.", columns: "id user_id resource_id provider_id scopes status expires_at",
		example: "-f provider-grant.yaml",
		filters: "user_id resource_id provider_id status", filter: func(f map[string]string) client.ListOption {
			return client.ListProviderGrantsParams{UserID: f["user_id"], ResourceID: f["resource_id"], ProviderID: f["provider_id"], Status: client.ProviderGrantStatus(f["status"])}
		},
		list: zoneList((*client.Client).ListProviderGrants), get: zoneGet((*client.Client).GetProviderGrant), create: zoneCreate((*client.Client).CreateProviderGrant),
		actions: []action{
			{name: "revoke", does: "Revoke the provider grant of a user", call: zoneCreate((*client.Client).RevokeProviderGrant), body: "--set user_id=ada --set resource_id=$RESOURCE --set provider_id=$PROVIDER", noID: true},
		},
	},
	{
		name: "control-key", about: "Control keys, with which programs call the Control API.", columns: "id name allowed_scopes max_ttl_seconds expires_at created_at",
		example: "-f control-key.yaml", revokes: true,
		list: zoneList((*client.Client).ListControlKeys), get: zoneGet((*client.Client).GetControlKey), create: zoneCreate((*client.Client).CreateControlKey), delete: zoneDelete((*client.Client).DeleteControlKey),
	},
	{
		name: "registration-token", about: "Registration tokens, with which OAuth clients register themselves.", columns: "id name uses max_uses expires_at created_at",
		example: "--set name=Partners", revokes: true,
		list: zoneList((*client.Client).ListRegistrationTokens), create: zoneCreate((*client.Client).CreateRegistrationToken), delete: zoneDelete((*client.Client).DeleteRegistrationToken),
	},
	{
		name: "session", about: "Sessions of users and applications.", columns: "id session_type subject_id application_id status expires_at",
		filters: "status subject_id", filter: func(f map[string]string) client.ListOption {
			return client.ListSessionsParams{Status: client.SessionStatus(f["status"]), SubjectID: f["subject_id"]}
		},
		list: zoneList((*client.Client).ListSessions),
	},
	{
		name: "agent-session", about: "Sessions of agents.", columns: "id application_id lifecycle status labels child_count last_active_at",
		filters: "status lifecycle application_id parent_id label", filter: func(f map[string]string) client.ListOption {
			return client.ListAgentSessionsParams{Status: client.AgentSessionStatus(f["status"]), Lifecycle: client.AgentLifecycle(f["lifecycle"]), ApplicationID: f["application_id"], ParentID: f["parent_id"], Label: f["label"]}
		},
		list: zoneList((*client.Client).ListAgentSessions),
	},
	{
		name: "challenge", about: "Step-up challenges, which a person approves or rejects.", columns: "id challenge_type status session_id expires_at created_at",
		filters: "status", filter: func(f map[string]string) client.ListOption {
			return client.ListStepUpChallengesParams{Status: client.StepUpChallengeStatus(f["status"])}
		},
		list: zoneList((*client.Client).ListStepUpChallenges), get: zoneGet((*client.Client).GetStepUpChallenge),
		actions: []action{
			{name: "satisfy", does: "Approve what a challenge is about", about: "The token must have approval permission.", call: zoneGet((*client.Client).SatisfyStepUpChallenge)},
			{name: "reject", does: "Reject what a challenge is about", about: "The token must have approval permission.", call: zoneUpdate((*client.Client).RejectStepUpChallenge), body: "--set reason='Not expected.'"},
		},
	},
	{
		name: "audit-entry", manyAs: "audit-entries", about: "The audit log of a zone: an entry for each object that was changed, and for each denied request.", columns: "occurred_at actor_name operation entity_type entity_id status_code request_id",
		filters: "since until actor_id entity_type entity_id method request_id", filter: func(f map[string]string) client.ListOption {
			return client.ListAuditEntriesParams{Since: f["since"], Until: f["until"], ActorID: f["actor_id"], EntityType: f["entity_type"], EntityID: f["entity_id"], Method: client.AuditMethod(f["method"]), RequestID: f["request_id"]}
		},
		list: zoneList((*client.Client).ListAuditEntries),
	},
	{
		name: "audit-event", about: "Authorization audit events of a zone: the decisions about the requests of agents.", columns: "occurred_at event_type decision evaluation_status request_id id",
		filters: "since until request_id decision event_type application_id agent_session_id session_id label", filter: func(f map[string]string) client.ListOption {
			return client.ListAuditEventsParams{
				Since: f["since"], Until: f["until"], RequestID: f["request_id"], Decision: client.AuditDecision(f["decision"]), EventType: f["event_type"],
				ApplicationID: f["application_id"], AgentSessionID: f["agent_session_id"], SessionID: f["session_id"], Label: f["label"],
			}
		},
		list: zoneList((*client.Client).ListAuditEvents),
	},
	{
		name: "policy-activation", about: "The history of activations of policy sets.", columns: "number action policy_set_id version_id shadow_version_id activated_by created_at", id: "number",
		list: zoneList((*client.Client).ListPolicyActivations),
	},
	{
		name: "dead-letter", about: "Events that Redis rejected and that are not published.", global: true, columns: "id zone_id stream attempts last_error dead_at",
		list: globalList((*client.Client).ListDeadLetters), delete: globalDelete((*client.Client).DiscardDeadLetter),
		actions: []action{
			{name: "rearm", does: "Publish a dead letter again", call: globalDelete((*client.Client).RearmDeadLetter)},
		},
	},
	{
		name: "token", about: "Admin tokens, which are the credentials of this API.", global: true, columns: "id name scope zone_id capability can_approve expires_at last_used_at revoked_at",
		example: "--set name=deploy --set scope=global --set expires_in=86400", patch: "--set name=deploy-eu", revokes: true,
		filters: "name", filter: func(f map[string]string) client.ListOption {
			return client.ListAdminTokensParams{Name: f["name"]}
		},
		list: globalList((*client.Client).ListAdminTokens), get: globalGet((*client.Client).GetAdminToken), create: globalCreate((*client.Client).CreateAdminToken),
		update: globalUpdate((*client.Client).UpdateAdminToken), delete: globalDelete((*client.Client).DeleteAdminToken),
		actions: []action{
			{name: "show", does: "Print which token the credential is, with its zone, permissions and expiry", call: noObject((*client.Client).GetOwnAdminToken), noID: true},
		},
	},
}

func (n *noun) plural() string {
	if n.manyAs != "" {
		return n.manyAs
	}
	return n.name + "s"
}

// many returns the plural as words.
func (n *noun) many() string { return strings.ReplaceAll(n.plural(), "-", " ") }

// words returns the name as words, such as "policy set".
func (n *noun) words() string { return strings.ReplaceAll(n.name, "-", " ") }

// one returns the name with its article, such as "a policy set".
func (n *noun) one() string {
	if strings.ContainsRune("aeiou", rune(n.name[0])) {
		return "an " + n.words()
	}
	return "a " + n.words()
}

// idOf returns what identifies an object.
func (n *noun) idOf(object json.RawMessage) string {
	var fields map[string]json.RawMessage
	if json.Unmarshal(object, &fields) != nil {
		return "-"
	}
	if n.id != "" {
		return cell(fields[n.id])
	}
	return cell(fields["id"])
}
