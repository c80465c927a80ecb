# The decision contract (policy-evaluation.md §5): whether a principal gets a token
# for a resource, and if not, why.
#
# It reads the documents of a zone as data, so that nothing in them can change a
# rule of this package. They are in data.caracal.documents, in this form:
#
#   owners          {application id: {key of app_ids}}
#   grants          {resource identifier: {"application": key, "roles": {role: {scope}}}}
#   confinement     [{"label_prefix": text, "scopes": {scope}}]
#   restrict        {reason}; it can depend on the input
#   tiers           {scope: {tier of risk}}
#   approval_tiers  {tier}
#
# What does not have its form denies.
package caracal.contract

import rego.v1

result := {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": "caracal-bootstrap"}],
	"diagnostics": [],
} if {
	bootstrap
	permitted
} else := {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": concat("", ["caracal-", owner, "-mint"])}],
	"diagnostics": array.concat(step_up, tagged),
} if {
	mint
	permitted
} else := {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": concat("", ["caracal-", owner, "-use"])}],
	"diagnostics": [],
} if {
	use
	permitted
} else := {
	"decision": "deny",
	"evaluation_status": "complete",
	"determining_policies": [],
	"diagnostics": array.concat([{"reason": "no_rule_matched"}], [{"reason": reason} | some reason in reasons]),
}

# What every decision to allow requires.
permitted if {
	owns
	unrestricted
}

owns if grant.application == owner

# An application with two keys is a conflict, which fails the evaluation.
owner := key if some key in data.caracal.documents.owners[input.principal.id]

grant := data.caracal.documents.grants[input.resource.identifier]

unrestricted if data.caracal.documents.restrict == set()

requested := {scope | some scope in input.context.requested_scopes}

# An application starts an agent (§5.1).
bootstrap if {
	requested == {"agent:lifecycle"}
	not input.context.subject_claims
	not input.delegation_edge
	not input.context.agent_session_id
}

# An agent gets a token within its delegation (§5.2).
mint if {
	delegated
	requested != set()
	not requested["agent:lifecycle"]
	within_edge
	role_allows
	unconfined
	tiers_readable
}

delegated if {
	input.delegation_edge.id
	input.context.agent_session_id
	not input.context.subject_claims
}

within_edge if requested - {scope | some scope in input.delegation_edge.scopes} == set()

# The scopes of several roles are not united.
role_allows if {
	some label in input.principal.labels
	requested - grant.roles[label] == set()
}

unconfined if {
	is_array(data.caracal.documents.confinement)
	not confined
}

# A rule whose prefix is not a text matches, and one whose scopes are not a set has
# none.
confined if {
	some rule in data.caracal.documents.confinement
	some label in input.principal.labels
	not startswith(label, rule.label_prefix) == false
	not requested - rule.scopes == set()
}

tiers_readable if {
	is_set(data.caracal.documents.approval_tiers)
	count(tier_of) == count(requested & object.keys(data.caracal.documents.tiers))
}

# A scope with two tiers is a conflict, which fails the evaluation.
tier_of := {scope: tier |
	some scope in requested
	some tier in data.caracal.documents.tiers[scope]
	is_string(tier)
}

step_up := [{"step_up_required": "human_approval"} |
	{tier | some tier in tier_of} & data.caracal.documents.approval_tiers != set()
]

tagged := [{"risk": [{"scope": scope, "tier": tier} | some scope, tier in tier_of]} | count(tier_of) > 0]

# An agent uses a token that it has (§5.3).
use if {
	delegated_token
	in_target
	requested == set()
	has_role
}

delegated_token if input.context.subject_claims.delegation_edge_id != ""

in_target if input.resource.identifier in input.context.subject_claims.target

has_role if {
	some label in input.principal.labels
	grant.roles[label]
}

# Why a request is denied. The first group applies to every request, the others to
# the kind of request that it is.
reasons contains "restricted" if not unrestricted

reasons contains "not_owner" if not owns

kind := "use" if {
	input.context.subject_claims
} else := "bootstrap" if {
	"agent:lifecycle" in requested
} else := "mint"

reasons contains "invalid_bootstrap" if {
	kind == "bootstrap"
	not bootstrap
}

reasons contains "not_delegated" if {
	kind == "mint"
	not delegated
}

reasons contains "no_scope_requested" if {
	kind == "mint"
	requested == set()
}

reasons contains "scope_outside_edge" if {
	kind == "mint"
	input.delegation_edge.id
	not within_edge
}

reasons contains "role_missing" if {
	kind == "mint"
	owns
	not role_allows
}

reasons contains "confined" if {
	kind == "mint"
	not unconfined
}

reasons contains "unreadable_risk" if {
	kind == "mint"
	not tiers_readable
}

reasons contains "not_delegated" if {
	kind == "use"
	not delegated_token
}

reasons contains "outside_target" if {
	kind == "use"
	not in_target
}

reasons contains "scope_requested" if {
	kind == "use"
	requested != set()
}

reasons contains "role_missing" if {
	kind == "use"
	owns
	not has_role
}
