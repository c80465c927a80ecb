# The entry point of consumers: the decision about a request (policy-evaluation.md §5).
package caracal.authz

import rego.v1

import data.caracal.contract

result := {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": concat("", ["caracal-", contract.owner, "-mint"])}],
	"diagnostics": contract.diagnostics,
} if {
	contract.mint
	contract.permitted
} else := {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": concat("", ["caracal-", contract.owner, "-use"])}],
	"diagnostics": [],
} if {
	contract.use
	contract.permitted
} else := {
	"decision": "allow",
	"evaluation_status": "complete",
	"determining_policies": [{"policy": "caracal-bootstrap"}],
	"diagnostics": [],
} if {
	contract.bootstrap
	contract.permitted
} else := {
	"decision": "deny",
	"evaluation_status": "complete",
	"determining_policies": [],
	"diagnostics": array.concat([{"reason": "no_rule_matched"}], [{"reason": reason} | some reason in contract.reasons]),
}
