# caracal:data-document
package caracal.authz
import rego.v1

# The tiers of risk of scopes. Decisions report them.
risk := [
	{"scope": "payments:write", "tier": "high"},
	{"scope": "payments:read", "tier": "low"},
]
