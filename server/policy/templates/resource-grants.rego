# caracal:data-document
package caracal.authz
import rego.v1

# For each resource, the application that owns it and the scopes of each role. An
# agent has a role if the role is one of its labels.
grants := {
	"resource://payments": {
		"application": "payments",
		"roles": {
			"payer": ["payments:read", "payments:write"],
			"auditor": ["payments:read"],
		},
	},
}
