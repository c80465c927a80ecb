-- name: ListStateApplications :many
-- ListStateApplications returns all active managed applications of a zone.
SELECT id, name, traits, version FROM applications
WHERE zone_id = @zone_id AND archived_at IS NULL AND registration_method = 'managed'
ORDER BY created_at, id;

-- name: ListStateProviders :many
-- ListStateProviders returns all active providers of a zone, without their sealed secrets.
SELECT id, name, identifier, kind, config_json, secret_config_keys, version FROM providers
WHERE zone_id = @zone_id AND archived_at IS NULL
ORDER BY created_at, id;

-- name: ListStateResources :many
-- ListStateResources returns all active resources of a zone except that with the excluded identifier, the control resource.
SELECT id, name, identifier, upstream_url, scopes, credential_provider_id, gateway_application_id, operations, operation_enforcement, version FROM resources
WHERE zone_id = @zone_id AND archived_at IS NULL AND identifier <> @excluded_identifier
ORDER BY created_at, id;

-- name: ListStatePolicies :many
-- ListStatePolicies returns all active policies of a zone with their newest versions, without the content.
SELECT p.id, p.name, p.description, p.owner_type, p.version, v.id AS version_id, v.version AS version_number, v.content_sha256, v.schema_version
FROM policies AS p
CROSS JOIN LATERAL (
    SELECT * FROM policy_versions WHERE policy_versions.zone_id = p.zone_id AND policy_versions.policy_id = p.id AND policy_versions.version = p.latest_version LIMIT 1
) AS v
WHERE p.zone_id = @zone_id AND p.archived_at IS NULL
ORDER BY p.created_at, p.id;

-- name: ListStatePolicySets :many
-- ListStatePolicySets returns all policy sets of a zone.
SELECT id, name, description, latest_version, active_version_id, shadow_version_id, version FROM policy_sets
WHERE zone_id = @zone_id AND archived_at IS NULL
ORDER BY created_at, id;

-- name: ListStateManifests :many
-- ListStateManifests returns the entries of the newest, the active and the shadow version of each policy set of a zone, in
-- the order of the manifests.
SELECT s.id AS policy_set_id, v.id AS version_id, v.version AS version_number, m.policy_version_id, p.version AS policy_version_number, p.policy_id, policy.name AS policy_name
FROM policy_sets AS s
CROSS JOIN LATERAL (
    SELECT * FROM policy_set_versions WHERE policy_set_versions.zone_id = s.zone_id AND policy_set_versions.policy_set_id = s.id AND policy_set_versions.version = s.latest_version
    UNION
    SELECT * FROM policy_set_versions WHERE policy_set_versions.zone_id = s.zone_id AND policy_set_versions.id IN (s.active_version_id, s.shadow_version_id)
) AS v
JOIN policy_set_manifests AS m ON m.zone_id = s.zone_id AND m.policy_set_version_id = v.id
CROSS JOIN LATERAL (SELECT * FROM policy_versions WHERE policy_versions.zone_id = m.zone_id AND policy_versions.id = m.policy_version_id LIMIT 1) AS p
CROSS JOIN LATERAL (SELECT * FROM policies WHERE policies.zone_id = p.zone_id AND policies.id = p.policy_id LIMIT 1) AS policy
WHERE s.zone_id = @zone_id AND s.archived_at IS NULL
ORDER BY v.id, m.position;

-- name: ListPolicyContents :many
SELECT id, content, schema_version FROM policy_versions WHERE zone_id = @zone_id AND id = ANY (@ids::text[]);

-- name: ListStateGrants :many
-- ListStateGrants returns the active grants of some users.
SELECT id, application_id, user_id, resource_id, scopes, version FROM grants
WHERE zone_id = @zone_id AND user_id = ANY (@user_ids::text[]) AND status = 'active'
ORDER BY created_at, id;

-- name: ListActiveStateGrants :many
-- ListActiveStateGrants returns active grants, the newest first.
SELECT id, application_id, user_id, resource_id, scopes, version FROM grants
WHERE zone_id = @zone_id AND status = 'active'
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListStateGrantsOfOwner :many
-- ListStateGrantsOfOwner returns the active grants that an owner manages.
SELECT g.id, g.application_id, g.user_id, g.resource_id, g.scopes, g.version
FROM state_owners AS o
CROSS JOIN LATERAL (SELECT * FROM grants WHERE grants.zone_id = o.zone_id AND grants.id = o.object_id LIMIT 1) AS g
WHERE o.zone_id = @zone_id AND o.owner = @owner AND o.kind = 'grant' AND g.status = 'active'
ORDER BY g.created_at, g.id;

-- name: ListStateOwners :many
-- ListStateOwners returns who manages what in a zone.
SELECT kind, object_id, owner FROM state_owners WHERE zone_id = @zone_id;

-- name: SetStateOwner :exec
-- SetStateOwner makes an owner manage objects.
INSERT INTO state_owners (zone_id, kind, object_id, owner)
SELECT @zone_id, (@kinds::text[])[n], (@object_ids::text[])[n], @owner FROM generate_subscripts(@object_ids::text[], 1) AS n
ON CONFLICT (zone_id, kind, object_id) DO UPDATE SET owner = excluded.owner;

-- name: DeleteStateOwners :exec
DELETE FROM state_owners AS o
USING (SELECT unnest(@kinds::text[]) AS kind, unnest(@object_ids::text[]) AS object_id) AS removed
WHERE o.zone_id = @zone_id AND o.kind = removed.kind AND o.object_id = removed.object_id;
