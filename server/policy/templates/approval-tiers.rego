# caracal:data-document
package caracal.authz
import rego.v1

# A person must approve requests for scopes with one of these tiers of risk.
approval_tiers := ["high"]
