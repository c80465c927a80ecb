# caracal:data-document
package caracal.authz
import rego.v1

# Agents with a label that starts with the prefix can request only these scopes.
confinement := [{"label_prefix": "customer:", "scopes": ["payments:read"]}]
