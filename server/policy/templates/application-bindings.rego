# caracal:data-document
package caracal.authz
import rego.v1

# The ID of each application, under a key that grants refer to.
app_ids := {
	"payments": "0198c0de-0000-7000-8000-00000000000b",
}
