// Package control has the catalog of the Control API: the commands that a Control key
// can invoke, their flags and the scopes that they require. It turns an invocation into a
// [Call] of the operation of the Management API that the command stands for.
//
// Values of flags never become a part of a URL: a Call has the values of parameters, and
// an identifier must match the pattern of identifiers.
package control

import "slices"

// A Command is a command of the catalog.
type Command struct {
	Name, Summary string
	Subcommands   []Subcommand
}

// A Subcommand is a subcommand of a command. One without a name belongs to a command that
// has no subcommands.
type Subcommand struct {
	Name, Summary string
	Scope         string // that the token must have; "": any valid token
	Flags         []Flag
	operation     string         // ID of the operation that it calls; "": [describe]
	constants     map[string]any // fields of the body that no flag sets
	declares      bool           // it compares objects with the zone, and requires the scopes of their kinds
	applies       bool           // it declares, and changes the zone
}

// A Kind is the kind of the value of a flag.
type Kind string

// The kinds of flags. Numbers and booleans can also be given as text, and lists as text
// with commas.
const (
	Text    Kind = "text"
	Number  Kind = "number"
	Boolean Kind = "boolean"
	List    Kind = "list"   // of texts
	Object  Kind = "object" // text that contains a JSON object
	Array   Kind = "array"  // text that contains a JSON array
)

// A Flag is a flag of a subcommand.
type Flag struct {
	Name, Summary string
	Kind          Kind
	Required      bool
	Nullable      bool // null removes the value
	isID          bool // the text, or each text of the list, is the ID of an object
	target        target
	field         string // name of the parameter or field that it sets
	element       string // not "": each text of a list becomes an object with this field
}

type target int

const (
	inBody target = iota
	inQuery
	inPath
)

// The flags that several subcommands have.
var (
	id     = Flag{Name: "id", Summary: "ID of the object.", Kind: Text, Required: true, isID: true, target: inPath, field: "id"}
	limit  = query(Flag{Name: "limit", Summary: "Maximum number of items.", Kind: Number}, "limit")
	cursor = query(Flag{Name: "cursor", Summary: "next_cursor of the previous page.", Kind: Text}, "cursor")
)

func query(f Flag, field string) Flag {
	f.target, f.field = inQuery, field
	return f
}

func text(name, field, summary string) Flag {
	return Flag{Name: name, Summary: summary, Kind: Text, field: field}
}

// objectID returns a flag for the ID of an object.
func objectID(name, field, summary string) Flag {
	return Flag{Name: name, Summary: summary, Kind: Text, isID: true, field: field}
}

func (f Flag) of(kind Kind) Flag { f.Kind = kind; return f }

func (f Flag) required() Flag { f.Required = true; return f }

func (f Flag) nullable() Flag { f.Nullable = true; return f }

// The verbs of scopes.
const (
	read   = "read"
	write  = "write"
	remove = "delete"
)

// sub returns a subcommand of a command, with the scope control:<command>:<verb>.
func sub(command, name, verb, operation, summary string, flags ...Flag) Subcommand {
	return Subcommand{Name: name, Summary: summary, Scope: "control:" + command + ":" + verb, Flags: flags, operation: operation}
}

func (s Subcommand) with(field string, value any) Subcommand {
	s.constants = map[string]any{field: value}
	return s
}

var (
	resourceFlags = []Flag{
		text("name", "name", "Name of the resource."),
		text("identifier", "identifier", "Identifier of the resource: the audience of its tokens."),
		text("scopes", "scopes", "Scopes of the resource.").of(List),
		text("upstream-url", "upstream_url", "URL of the upstream service.").nullable(),
		objectID("gateway-application-id", "gateway_application_id", "ID of the application that exchanges tokens at the gateway.").nullable(),
		objectID("credential-provider-id", "credential_provider_id", "ID of the credential provider.").nullable(),
		text("operations", "operations", "Operations of the resource: a JSON array of objects with method, path and scope.").of(Array),
		text("operation-enforcement", "operation_enforcement", "enforced or transport_uniform."),
	}
	policyContent = []Flag{
		text("content", "content", "Rego document.").required(),
		text("schema-version", "schema_version", "Version of the schema of the document."),
	}
	description = text("description", "description", "What it is for.")
)

// Commands is the catalog.
var Commands = []Command{
	{"app", "Applications.", []Subcommand{
		sub("app", "list", read, "listApplications", "List the applications.", limit, cursor),
		sub("app", "get", read, "getApplication", "Retrieve an application.", id),
		sub("app", "create", write, "createApplication", "Create a managed application. Its client secret is returned once.",
			text("name", "name", "Name of the application.").required()).with("registration_method", "managed"),
		sub("app", "patch", write, "updateApplication", "Update an application.", id,
			text("name", "name", "Name of the application."), text("client-secret", "client_secret", "New client secret.")),
		sub("app", "delete", remove, "deleteApplication", "Archive an application.", id),
		sub("app", "dcr", write, "registerApplication", "Register an application that expires.",
			text("name", "name", "Name of the application.").required(), text("expires-in", "expires_in", "Seconds until it expires: 1 to 3600.").of(Number)),
	}},
	{"resource", "Resources.", []Subcommand{
		sub("resource", "list", read, "listResources", "List the resources.", limit, cursor),
		sub("resource", "get", read, "getResource", "Retrieve a resource.", id),
		sub("resource", "create", write, "createResource", "Create a resource.", withoutNull(resourceFlags)...),
		sub("resource", "patch", write, "updateResource", "Update a resource.", slices.Concat([]Flag{id}, resourceFlags)...),
		sub("resource", "delete", remove, "deleteResource", "Archive a resource.", id),
	}},
	{"identity-provider", "Credential providers.", []Subcommand{
		sub("identity-provider", "list", read, "listProviders", "List the providers.", limit, cursor),
		sub("identity-provider", "get", read, "getProvider", "Retrieve a provider.", id),
		sub("identity-provider", "create", write, "createProvider", "Create a provider.",
			text("name", "name", "Name of the provider.").required(), text("identifier", "identifier", "Identifier of the provider."),
			text("kind", "kind", "Kind of the provider.").required(), text("config", "config_json", "Configuration: a JSON object.").of(Object)),
		sub("identity-provider", "patch", write, "updateProvider", "Update a provider.", id,
			text("name", "name", "Name of the provider."), text("identifier", "identifier", "Identifier of the provider."),
			text("kind", "kind", "Kind of the provider."), text("config", "config_json", "Configuration: a JSON object.").of(Object)),
		sub("identity-provider", "delete", remove, "deleteProvider", "Archive a provider.", id),
	}},
	{"policy", "Policies.", []Subcommand{
		sub("policy", "list", read, "listPolicies", "List the policies.", limit, cursor),
		sub("policy", "get", read, "getPolicy", "Retrieve a policy.", id),
		sub("policy", "validate", read, "validatePolicy", "Validate the content of a policy.", policyContent...),
		sub("policy", "create", write, "createPolicy", "Create a policy.", slices.Concat(
			[]Flag{text("name", "name", "Name of the policy.").required()}, policyContent,
			[]Flag{description, text("owner-type", "owner_type", "Who owns the policy.")})...),
		sub("policy", "version", write, "addPolicyVersion", "Add a version of a policy.", slices.Concat([]Flag{id}, policyContent)...),
		sub("policy", "delete", remove, "deletePolicy", "Archive a policy.", id),
	}},
	{"policy-set", "Policy sets.", []Subcommand{
		sub("policy-set", "list", read, "listPolicySets", "List the policy sets.", limit, cursor),
		sub("policy-set", "get", read, "getPolicySet", "Retrieve a policy set.", id),
		sub("policy-set", "simulate", read, "simulatePolicySet", "Decide about an input with a version of a policy set.", id,
			objectID("version", "version_id", "ID of the version.").required(), text("input", "input", "Input: a JSON object.").of(Object)),
		sub("policy-set", "create", write, "createPolicySet", "Create a policy set.",
			text("name", "name", "Name of the policy set.").required(), description),
		sub("policy-set", "version", write, "addPolicySetVersion", "Add a version of a policy set.", id,
			Flag{Name: "policy-versions", Summary: "IDs of the policy versions.", Kind: List, Required: true, isID: true, field: "manifest", element: "policy_version_id"}),
		sub("policy-set", "activate", write, "activatePolicySet", "Activate a version of a policy set.", id,
			objectID("version", "version_id", "ID of the version.").required(), objectID("shadow", "shadow_version_id", "ID of the shadow version.")),
		sub("policy-set", "delete", remove, "deletePolicySet", "Archive a policy set.", id),
	}},
	{"state", "Declarative management: a document with the objects that the zone should have.", []Subcommand{
		declarative("apply", "Change the zone so that it is as the document says.", true, document, prune, mode, dryRun),
		declarative("plan", "Return what apply would change.", false, document, prune, mode),
		declarative("verify", "The same as plan, to check the zone: drift is false if it is as the document says.", false, document, prune, mode),
	}},
	{"ensure", "Declarative management of one object.", ensure()},
	{"catalog", "This catalog.", []Subcommand{
		{Name: "describe", Summary: "List the commands, their flags and the scopes that they require."},
	}},
	{"session", "Sessions of users and applications.", []Subcommand{
		sub("session", "list", read, "listSessions", "List the sessions.",
			query(text("subject", "", "ID of a user or an application."), "subject_id"), query(text("status", "", "Status of the sessions."), "status"), limit, cursor),
	}},
	{"audit", "Audit events.", []Subcommand{
		sub("audit", "tail", read, "listAuditEvents", "List the latest audit events.",
			query(text("since", "", "Earliest time, in RFC 3339 format."), "since"), query(text("until", "", "Latest time, in RFC 3339 format."), "until"),
			query(text("decision", "", "allow or deny."), "decision"), query(text("event-type", "", "Type of the events."), "event_type"),
			query(objectID("request-id", "", "ID of a request."), "request_id"), limit, cursor),
	}},
	{"explain", "Why a request was allowed or denied.", []Subcommand{
		sub("explain", "", read, "explainRequest", "Explain the decision about a request.",
			Flag{Name: "request-id", Summary: "ID of the request.", Kind: Text, Required: true, isID: true, target: inPath, field: "requestId"}),
	}},
	{"grant", "Grants.", []Subcommand{
		sub("grant", "list", read, "listGrants", "List the grants.",
			query(objectID("application-id", "", "ID of an application."), "application_id"), query(text("user-id", "", "ID of a user."), "user_id"),
			query(objectID("resource-id", "", "ID of a resource."), "resource_id"), limit, cursor),
		sub("grant", "get", read, "getGrant", "Retrieve a grant.", id),
		sub("grant", "create", write, "createGrant", "Create a grant.",
			objectID("application-id", "application_id", "ID of the application.").required(), text("user-id", "user_id", "ID of the user.").required(),
			objectID("resource-id", "resource_id", "ID of the resource.").required(), text("scopes", "scopes", "Scopes that the application may request.").of(List)),
		sub("grant", "revoke", remove, "revokeGrant", "Revoke a grant.", id),
	}},
}

func withoutNull(flags []Flag) []Flag {
	all := slices.Clone(flags)
	for i := range all {
		all[i].Nullable = false
	}
	return all
}

// Reasons why commands that are not in the catalog are denied.
const (
	notExposed  = `command "%s" not exposed`
	localOnly   = `command "%s" is available only on the local control plane`
	notZoneOnly = `command "%s" is not available through zone-bound Control`
)

// elsewhere has the commands that other interfaces of Caracal have, and why they are denied.
var elsewhere = map[string]string{
	"doctor": notZoneOnly, "zone": notZoneOnly, "manifest": notExposed, "debug": notExposed, "completion": notExposed, "control": localOnly,
	"agent": notExposed, "delegation": notExposed, // a Coordinator has them
}
