-- name: InsertPolicy :one
-- InsertPolicy inserts a policy whose first version the same transaction inserts.
INSERT INTO policies (zone_id, id, name, description, owner_type, latest_version, created_by)
VALUES (@zone_id, @id, @name, sqlc.narg(description), @owner_type, 1, @created_by)
RETURNING *;

-- name: InsertPolicyVersion :exec
INSERT INTO policy_versions (zone_id, id, policy_id, version, content, content_sha256, schema_version, created_by, created_at)
VALUES (@zone_id, @id, @policy_id, @version, @content, @content_sha256, @schema_version, @created_by, @created_at);

-- name: IncrementPolicyVersion :one
-- IncrementPolicyVersion locks an active policy and returns the number and the time of its next version. The time is
-- that of the statement: the transaction may have started before the one that added the previous version.
UPDATE policies SET latest_version = latest_version + 1, version = version + 1, updated_at = now()
WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL
RETURNING latest_version, clock_timestamp()::timestamptz AS created_at;

-- name: ListPolicies :many
-- ListPolicies returns active policies newest first, after a position, like ListZones.
SELECT * FROM policies
WHERE zone_id = @zone_id AND archived_at IS NULL
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListPoliciesByName :many
-- ListPoliciesByName returns at most one row, like ListZonesBySlug.
SELECT * FROM policies
WHERE zone_id = @zone_id AND archived_at IS NULL AND name = @name
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text);

-- name: GetPolicyWithVersions :many
-- GetPolicyWithVersions returns an active policy once for each of its versions, of which it has at least one, newest
-- first. The content of older versions is empty if only_latest_content is true.
SELECT sqlc.embed(policies), v.id, v.version,
    (CASE WHEN @only_latest_content::boolean AND v.version < policies.latest_version THEN '' ELSE v.content END)::text AS content,
    v.content_sha256, v.schema_version, v.created_by, v.created_at
FROM policies
JOIN policy_versions AS v ON v.zone_id = policies.zone_id AND v.policy_id = policies.id
WHERE policies.zone_id = @zone_id AND policies.id = @id AND policies.archived_at IS NULL
ORDER BY v.version DESC;

-- name: ListPolicyVersions :many
-- ListPolicyVersions returns the versions of a policy, which may be an archived one, newest first, below a number.
SELECT id, policy_id, version, content_sha256, schema_version, created_at FROM policy_versions
WHERE zone_id = @zone_id AND policy_id = @policy_id AND version < @before_version
ORDER BY version DESC
LIMIT @row_limit;

-- name: GetPolicyVersion :one
SELECT * FROM policy_versions WHERE zone_id = @zone_id AND policy_id = @policy_id AND id = @id;

-- name: LockPolicy :one
-- LockPolicy locks an active policy. It also returns whether the active or the shadow version of the zone's active
-- policy set contains one of its versions, which cannot change while the transaction has the zone lock.
SELECT sqlc.embed(policies), EXISTS (
    SELECT FROM policy_sets AS s
    JOIN policy_set_manifests AS m ON m.zone_id = s.zone_id AND m.policy_set_version_id IN (s.active_version_id, s.shadow_version_id)
    JOIN policy_versions AS v ON v.zone_id = m.zone_id AND v.id = m.policy_version_id
    WHERE s.zone_id = policies.zone_id AND s.active_version_id IS NOT NULL AND v.policy_id = policies.id
) AS in_use
FROM policies
WHERE policies.zone_id = @zone_id AND policies.id = @id AND policies.archived_at IS NULL
FOR NO KEY UPDATE OF policies;

-- name: ArchivePolicy :exec
UPDATE policies SET archived_at = now(), updated_at = now(), version = version + 1 WHERE zone_id = @zone_id AND id = @id;

-- name: ListDeclaredScopes :many
-- ListDeclaredScopes returns the scopes of those resources of an active zone that have one of the identifiers, and one
-- row without a resource if there are none. It returns no row if the zone does not exist.
SELECT coalesce(r.identifier, '')::text AS identifier, coalesce(r.scopes, '{}')::text[] AS scopes
FROM zones AS z
LEFT JOIN resources AS r ON r.zone_id = z.id AND r.identifier = ANY(@identifiers::text[]) AND r.identifier <> @excluded_identifier AND r.archived_at IS NULL
WHERE z.id = @zone_id AND z.archived_at IS NULL;
