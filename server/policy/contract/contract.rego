# The conditions of the decision contract (policy-evaluation.md §5), which decides
# whether a principal gets a token for a resource.
#
# It reads the documents of a zone as data, so that nothing in them can change a
# rule of this package. They are in data.documents, in this form:
#
#   owners          {application id: {key of app_ids}}
#   grants          {resource identifier: {"application": key, "roles": {role: {scope}}}}
#   confinement     [{"label_prefix": text, "scopes": {scope}}]
#   restrict        a set, which is empty if nothing is restricted
#   tags            {scope: {{"scope": scope, "tier": tier of risk}}}
#   approval_tiers  {tier}
#   readable        the value of the rule readable
#
# In the input, lists whose order has no meaning are sets: the labels, the scopes and
# the targets. context.requested_scopes is always set.
package caracal.contract

import rego.v1

import data.documents

# What every decision to allow requires.
permitted if {
	documents.restrict == set()
	documents.readable
	documents.grants[input.resource.identifier].application == owner
}

owns if documents.grants[input.resource.identifier].application == owner

# An application with two keys is a conflict, which fails the evaluation.
owner := key if some key in documents.owners[input.principal.id]

# An application starts an agent (§5.1).
bootstrap if {
	not input.delegation_edge
	not input.context.agent_session_id
	not input.context.subject_claims
	input.context.requested_scopes == {"agent:lifecycle"}
}

# An agent gets a token within its delegation (§5.2).
mint if {
	input.delegation_edge.id
	input.context.agent_session_id
	not input.context.subject_claims
	input.context.requested_scopes != set()
	not input.context.requested_scopes["agent:lifecycle"]
	object.subset(input.delegation_edge.scopes, input.context.requested_scopes)
	role_allows
	not confined
}

# The scopes of several roles are not united.
role_allows if {
	some label in input.principal.labels
	object.subset(documents.grants[input.resource.identifier].roles[label], input.context.requested_scopes)
}

confined if {
	some rule in documents.confinement
	strings.any_prefix_match(input.principal.labels, rule.label_prefix)
	not object.subset(object.get(rule, "scopes", set()), input.context.requested_scopes)
}

# The diagnostics of a mint: the requested scopes with a tier of risk, and whether a
# person must approve.
diagnostics := [] if {
	tags == set()
} else := [{"step_up_required": "human_approval"}, {"risk": sort(tags)}] if {
	some tag in tags
	documents.approval_tiers[tag.tier]
} else := [{"risk": sort(tags)}]

tags := {tag |
	some scope in input.context.requested_scopes
	some tag in documents.tags[scope]
}

# An agent uses a token that it has (§5.3).
use if {
	delegated
	targeted
	input.context.requested_scopes == set()
	has_role
}

# Claims can have any type.
delegated if {
	is_string(input.context.subject_claims.delegation_edge_id)
	input.context.subject_claims.delegation_edge_id != ""
}

targeted if {
	is_set(input.context.subject_claims.target)
	input.context.subject_claims.target[input.resource.identifier]
}

has_role if {
	some label in input.principal.labels
	documents.grants[input.resource.identifier].roles[label]
}

# Documents that can only deny would allow more if a part of them was ignored. This is
# evaluated once, when the documents are loaded.
readable if {
	is_array(documents.confinement)
	every rule in documents.confinement {
		is_string(rule.label_prefix)
		is_set(rule.scopes)
	}
	is_object(documents.tags)
	every scope, tags in documents.tags {
		is_set(tags)
		every tag in tags {
			tag.scope == scope
			is_string(tag.tier)
		}
	}
	is_set(documents.approval_tiers)
}

# Why a request is not allowed: what every request and what a request of its kind
# requires.
reasons contains "restricted" if not documents.restrict == set()

reasons contains "unreadable_documents" if not documents.readable

reasons contains "not_owner" if not owns

reasons contains reason if some reason in unmet[kind]

kind := "use" if {
	input.context.subject_claims
} else := "bootstrap" if {
	input.context.requested_scopes["agent:lifecycle"]
} else := "mint"

unmet.bootstrap contains "delegated" if input.delegation_edge

unmet.bootstrap contains "agent_session" if input.context.agent_session_id

unmet.bootstrap contains "other_scope_requested" if input.context.requested_scopes != {"agent:lifecycle"}

unmet.mint contains "not_delegated" if not input.delegation_edge.id

unmet.mint contains "no_agent_session" if not input.context.agent_session_id

unmet.mint contains "no_scope_requested" if input.context.requested_scopes == set()

# Rego evaluates the arguments of a negated call before the negation: if one is
# undefined, the negation is undefined too. So it is a rule.
within_edge if object.subset(input.delegation_edge.scopes, input.context.requested_scopes)

unmet.mint contains "scope_outside_edge" if {
	input.delegation_edge.id
	not within_edge
}

unmet.mint contains "role_missing" if {
	owns
	not role_allows
}

unmet.mint contains "confined" if confined

unmet.use contains "not_delegated" if not delegated

unmet.use contains "outside_target" if not targeted

unmet.use contains "scope_requested" if input.context.requested_scopes != set()

unmet.use contains "role_missing" if {
	owns
	not has_role
}
