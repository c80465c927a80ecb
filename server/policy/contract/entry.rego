# The entry point of consumers.
package caracal.authz

import rego.v1

result := data.caracal.contract.result
