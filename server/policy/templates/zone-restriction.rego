# caracal:data-document
package caracal.authz
import rego.v1

# An element, such as "maintenance", denies every request in the zone.
restrict := {}
