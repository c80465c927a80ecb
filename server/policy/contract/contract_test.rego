# Tests of contract.rego and result.rego, with documents and inputs in the form that
# the engine gives them: lists without order are sets.
package caracal.contract_test

import rego.v1

import data.caracal.authz
import data.caracal.contract

documents := {
	"owners": {"app-pay-01": {"payments"}, "app-led-01": {"ledger"}},
	"grants": {"resource://bank": {"application": "payments", "roles": {
		"payer": {"bank:read", "bank:write"},
		"auditor": {"bank:read"},
		"visitor": set(),
	}}},
	"confinement": [],
	"restrict": set(),
	"tags": {},
	"approval_tiers": set(),
	"readable": true,
}

mint_input := {
	"principal": {"id": "app-pay-01", "labels": {"payer"}},
	"resource": {"identifier": "resource://bank"},
	"delegation_edge": {"id": "edge-1", "scopes": {"bank:read", "bank:write"}},
	"context": {"agent_session_id": "ag-1", "requested_scopes": {"bank:read"}},
}

use_input := {
	"principal": {"id": "app-pay-01", "labels": {"auditor"}},
	"resource": {"identifier": "resource://bank"},
	"context": {
		"agent_session_id": "ag-1",
		"subject_claims": {"delegation_edge_id": "edge-1", "target": {"resource://bank"}},
		"requested_scopes": set(),
	},
}

bootstrap_input := {
	"principal": {"id": "app-pay-01"},
	"resource": {"identifier": "resource://bank"},
	"context": {"requested_scopes": {"agent:lifecycle"}},
}

# changed returns a value with values at paths such as principal/labels. It removes
# the fields at the paths of removed first.
changed(value, removed, patches) := json.patch(value, array.concat(
	[{"op": "remove", "path": path} | some path in removed],
	[{"op": "add", "path": path, "value": patch} | some path, patch in patches],
))

allowed(name, diagnostics) := {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": name}],
	"diagnostics": diagnostics,
}

denied(reasons) := {
	"decision": "deny",
	"evaluation_status": "complete",
	"determining_policies": [],
	"diagnostics": array.concat([{"reason": "no_rule_matched"}], [{"reason": reason} | some reason in reasons]),
}

# decided is true if the result for a request is the expected one.
decided(docs, request, expected) if {
	result := authz.result with data.documents as docs with input as request
	result == expected
}

# The three rules that allow.

test_bootstrap_is_allowed if decided(documents, bootstrap_input, allowed("caracal-bootstrap", []))

test_mint_is_allowed if decided(documents, mint_input, allowed("caracal-payments-mint", []))

test_use_is_allowed if decided(documents, use_input, allowed("caracal-payments-use", []))

test_bootstrap_ignores_labels_confinement_and_risk if {
	docs := changed(documents, [], {
		"/confinement": [{"label_prefix": "", "scopes": set()}],
		"/tags": {"agent:lifecycle": {{"scope": "agent:lifecycle", "tier": "high"}}},
		"/approval_tiers": {"high"},
	})
	request := changed(bootstrap_input, [], {"/principal/labels": {"customer:1"}})
	decided(docs, request, allowed("caracal-bootstrap", []))
}

test_use_ignores_confinement_and_risk if {
	docs := changed(documents, [], {
		"/confinement": [{"label_prefix": "", "scopes": set()}],
		"/tags": {"bank:read": {{"scope": "bank:read", "tier": "high"}}},
		"/approval_tiers": {"high"},
	})
	decided(docs, use_input, allowed("caracal-payments-use", []))
}

test_role_without_scopes_can_use if {
	decided(documents, changed(use_input, [], {"/principal/labels": {"visitor"}}), allowed("caracal-payments-use", []))
}

# What every request requires.

every_kind := [bootstrap_input, mint_input, use_input]

test_restrict_denies_every_kind if {
	every request in every_kind {
		every restrict in [{"maintenance"}, {false}, {null}, {""}] {
			decided(changed(documents, [], {"/restrict": restrict}), request, denied(["restricted"]))
		}
	}
}

test_restrict_that_is_no_set_denies_every_kind if {
	every request in every_kind {
		every restrict in [true, false, "x", "", 1, 0, null, [], ["x"], {}, {"a": "b"}] {
			decided(changed(documents, [], {"/restrict": restrict}), request, denied(["restricted"]))
		}
	}
}

test_undefined_restrict_denies_every_kind if {
	every request in every_kind {
		decided(changed(documents, ["/restrict"], {}), request, denied(["restricted"]))
	}
}

test_unreadable_documents_deny_every_kind if {
	every request in every_kind {
		decided(changed(documents, [], {"/readable": false}), request, denied(["unreadable_documents"]))
		decided(changed(documents, ["/readable"], {}), request, denied(["unreadable_documents"]))
	}
}

test_other_application_is_denied if {
	decided(documents, changed(bootstrap_input, [], {"/principal/id": "app-led-01"}), denied(["not_owner"]))
	decided(documents, changed(mint_input, [], {"/principal/id": "app-led-01"}), denied(["not_owner"]))
	decided(documents, changed(use_input, [], {"/principal/id": "app-led-01"}), denied(["not_owner"]))
}

test_unknown_application_is_denied if {
	decided(documents, changed(mint_input, [], {"/principal/id": "app-x"}), denied(["not_owner"]))
	decided(documents, changed(mint_input, ["/principal/id"], {}), denied(["not_owner"]))
}

test_unknown_resource_is_denied if {
	decided(documents, changed(mint_input, [], {"/resource/identifier": "resource://x"}), denied(["not_owner"]))
	decided(documents, changed(mint_input, ["/resource"], {}), denied(["not_owner"]))
}

test_no_documents_deny if {
	decided({}, mint_input, denied(["not_owner", "restricted", "unreadable_documents"]))
}

test_all_reasons_are_reported_in_order if {
	docs := changed(documents, [], {"/restrict": {"x"}, "/readable": false, "/confinement": [{"label_prefix": "", "scopes": set()}]})
	request := changed(mint_input, ["/context/agent_session_id"], {"/principal/labels": {"visitor"}, "/delegation_edge/scopes": set()})
	decided(docs, request, denied([
		"confined", "no_agent_session", "restricted", "role_missing", "scope_outside_edge", "unreadable_documents",
	]))
}

# Bootstrap (§5.1).

test_bootstrap_with_a_delegation_is_denied if {
	decided(documents, changed(bootstrap_input, [], {"/delegation_edge": {"id": "edge-1"}}), denied(["delegated"]))
	decided(documents, changed(bootstrap_input, [], {"/delegation_edge": {}}), denied(["delegated"]))
}

test_bootstrap_with_an_agent_session_is_denied if {
	every id in ["ag-1", ""] {
		decided(documents, changed(bootstrap_input, [], {"/context/agent_session_id": id}), denied(["agent_session"]))
	}
}

test_bootstrap_with_subject_claims_is_denied if {
	request := changed(bootstrap_input, [], {"/context/subject_claims": {}})
	decided(documents, request, denied(["not_delegated", "outside_target", "role_missing", "scope_requested"]))
}

test_bootstrap_with_another_scope_is_denied if {
	request := changed(bootstrap_input, [], {"/context/requested_scopes": {"agent:lifecycle", "bank:read"}})
	decided(documents, request, denied(["other_scope_requested"]))
}

test_agent_lifecycle_cannot_be_minted if {
	docs := changed(documents, [], {"/grants/resource:~1~1bank/roles/payer": {"agent:lifecycle", "bank:read"}})
	request := changed(mint_input, [], {
		"/context/requested_scopes": {"agent:lifecycle"},
		"/delegation_edge/scopes": {"agent:lifecycle", "bank:read"},
	})
	decided(docs, request, denied(["agent_session", "delegated"]))
}

# Mint (§5.2).

test_mint_without_a_delegation_is_denied if {
	decided(documents, changed(mint_input, ["/delegation_edge"], {}), denied(["not_delegated"]))
	decided(documents, changed(mint_input, ["/delegation_edge/id"], {}), denied(["not_delegated"]))
}

test_mint_without_an_agent_session_is_denied if {
	decided(documents, changed(mint_input, ["/context/agent_session_id"], {}), denied(["no_agent_session"]))
}

test_mint_without_a_scope_is_denied if {
	decided(documents, changed(mint_input, [], {"/context/requested_scopes": set()}), denied(["no_scope_requested"]))
}

test_mint_outside_the_edge_is_denied if {
	decided(documents, changed(mint_input, [], {"/delegation_edge/scopes": {"bank:write"}}), denied(["scope_outside_edge"]))
	decided(documents, changed(mint_input, ["/delegation_edge/scopes"], {}), denied(["scope_outside_edge"]))
}

test_mint_without_a_role_is_denied if {
	every labels in [set(), {"viewer"}, {"visitor"}] {
		decided(documents, changed(mint_input, [], {"/principal/labels": labels}), denied(["role_missing"]))
	}
	decided(documents, changed(mint_input, ["/principal/labels"], {}), denied(["role_missing"]))
}

test_scopes_of_roles_are_not_united if {
	docs := changed(documents, [], {"/grants/resource:~1~1bank/roles": {"r": {"bank:read"}, "w": {"bank:write"}}})
	request := changed(mint_input, [], {"/principal/labels": {"r", "w"}, "/context/requested_scopes": {"bank:read", "bank:write"}})
	decided(docs, request, denied(["role_missing"]))
}

test_mint_outside_a_confinement_is_denied if {
	request := changed(mint_input, [], {"/principal/labels": {"payer", "customer:1"}})
	every rules in [
		[{"label_prefix": "customer:", "scopes": {"bank:write"}}],
		[{"label_prefix": "customer:", "scopes": set()}],
		[{"label_prefix": "customer:"}],
		[{"label_prefix": "", "scopes": {"bank:write"}}],
		[{"label_prefix": "customer:", "scopes": {"bank:read"}}, {"label_prefix": "pay", "scopes": {"bank:write"}}],
	] {
		decided(changed(documents, [], {"/confinement": rules}), request, denied(["confined"]))
	}
}

test_mint_within_its_confinements_is_allowed if {
	request := changed(mint_input, [], {"/principal/labels": {"payer", "customer:1"}})
	every rules in [
		[{"label_prefix": "customer:", "scopes": {"bank:read"}}],
		[{"label_prefix": "customer:2", "scopes": set()}],
		[{"label_prefix": "ayer", "scopes": set()}],
		[{"label_prefix": "", "scopes": {"bank:read"}}, {"label_prefix": "pay", "scopes": {"bank:read", "bank:write"}}],
	] {
		decided(changed(documents, [], {"/confinement": rules}), request, allowed("caracal-payments-mint", []))
	}
}

test_approval_comes_before_the_sorted_tags if {
	write := {"scope": "bank:write", "tier": "high"}
	read := {"scope": "bank:read", "tier": "low"}
	docs := changed(documents, [], {"/tags": {"bank:write": {write}, "bank:read": {read}, "x": {{"scope": "x", "tier": "high"}}}})
	gated := changed(docs, [], {"/approval_tiers": {"high"}})
	both := changed(mint_input, [], {"/context/requested_scopes": {"bank:write", "bank:read"}})
	approval := {"step_up_required": "human_approval"}
	decided(gated, both, allowed("caracal-payments-mint", [approval, {"risk": [read, write]}]))
	decided(docs, both, allowed("caracal-payments-mint", [{"risk": [read, write]}]))
	decided(gated, mint_input, allowed("caracal-payments-mint", [{"risk": [read]}]))
}

# Use (§5.3).

test_use_without_a_delegation_is_denied if {
	decided(documents, changed(use_input, [], {"/context/subject_claims/delegation_edge_id": ""}), denied(["not_delegated"]))
	decided(documents, changed(use_input, ["/context/subject_claims/delegation_edge_id"], {}), denied(["not_delegated"]))
}

test_use_of_a_delegation_that_is_no_text_is_denied if {
	every id in [null, false, true, 0, [], {}] {
		decided(documents, changed(use_input, [], {"/context/subject_claims/delegation_edge_id": id}), denied(["not_delegated"]))
	}
}

test_use_outside_the_target_is_denied if {
	decided(documents, changed(use_input, [], {"/context/subject_claims/target": {"resource://x"}}), denied(["outside_target"]))
	decided(documents, changed(use_input, ["/context/subject_claims/target"], {}), denied(["outside_target"]))
}

test_use_with_a_target_that_is_no_list_is_denied if {
	every target in ["resource://bank", {"resource://bank": true}, {"resource://bank": false}, null, true] {
		decided(documents, changed(use_input, [], {"/context/subject_claims/target": target}), denied(["outside_target"]))
	}
}

test_use_with_a_scope_is_denied if {
	decided(documents, changed(use_input, [], {"/context/requested_scopes": {"bank:read"}}), denied(["scope_requested"]))
}

test_use_without_a_role_is_denied if {
	every labels in [set(), {"viewer"}] {
		decided(documents, changed(use_input, [], {"/principal/labels": labels}), denied(["role_missing"]))
	}
	decided(documents, changed(use_input, ["/principal/labels"], {}), denied(["role_missing"]))
}

# readable

test_documents_are_readable if {
	contract.readable with data.documents as documents
	contract.readable with data.documents as changed(documents, [], {
		"/confinement": [{"label_prefix": "", "scopes": set()}],
		"/tags": {"s": {{"scope": "s", "tier": "t"}, {"scope": "s", "tier": "u"}}},
		"/approval_tiers": {"t"},
	})
}

test_wrong_confinement_is_unreadable if {
	every value in [null, true, "x", 1, {}, set(), ["x"], [{}], [{"label_prefix": "x"}], [{"scopes": set()}],
		[{"label_prefix": 1, "scopes": set()}], [{"label_prefix": "x", "scopes": ["s"]}], [{"label_prefix": "x", "scopes": "s"}]] {
		not contract.readable with data.documents as changed(documents, [], {"/confinement": value})
	}
}

test_wrong_tags_are_unreadable if {
	every value in [null, true, "x", 1, [], set(), {"s": 1}, {"s": []}, {"s": {"x"}}, {"s": {{"scope": "s"}}}, {"s": {{"tier": "t"}}},
		{"s": {{"scope": "other", "tier": "t"}}}, {"s": {{"scope": "s", "tier": 1}}}] {
		not contract.readable with data.documents as changed(documents, [], {"/tags": value})
	}
}

test_wrong_approval_tiers_are_unreadable if {
	every value in [null, true, "x", 1, [], {}] {
		not contract.readable with data.documents as changed(documents, [], {"/approval_tiers": value})
	}
}

test_absent_documents_are_unreadable if {
	every name in ["confinement", "tags", "approval_tiers"] {
		not contract.readable with data.documents as object.remove(documents, [name])
	}
}
