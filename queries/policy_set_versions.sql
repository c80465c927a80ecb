-- name: ListManifestCandidates :many
-- ListManifestCandidates returns the policy versions with the given ids that the zone has, for a new version of a policy set. It
-- returns no row if the policy set does not exist, and one row without a policy version if it exists and none of the ids does.
-- If the contents have more than max_bytes in total, it returns none of them.
SELECT coalesce(v.id, '')::text AS id, coalesce(v.schema_version, '')::text AS schema_version, coalesce(octet_length(v.content), 0)::bigint AS bytes,
    (CASE WHEN sum(octet_length(v.content)) OVER () <= @max_bytes::bigint THEN v.content ELSE '' END)::text AS content, (p.archived_at IS NOT NULL)::boolean AS archived
FROM policy_sets AS s
LEFT JOIN policy_versions AS v ON v.zone_id = s.zone_id AND v.id = ANY (@ids::text[])
LEFT JOIN policies AS p ON p.zone_id = v.zone_id AND p.id = v.policy_id
WHERE s.zone_id = @zone_id AND s.id = @policy_set_id AND s.archived_at IS NULL;

-- name: IncrementPolicySetVersion :one
-- IncrementPolicySetVersion returns the number for a new version of a policy set. It locks the row, so that the number is used
-- once. The time is that of the statement, like in IncrementPolicyVersion. It does not change the version of the row, because
-- the response to getPolicySet stays the same.
UPDATE policy_sets SET latest_version = latest_version + 1
WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL
RETURNING latest_version, clock_timestamp()::timestamptz AS created_at;

-- name: InsertPolicySetVersion :exec
INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_sha256, schema_version, created_by, created_at)
VALUES (@zone_id, @id, @policy_set_id, @version, @manifest_sha256, @schema_version, @created_by, @created_at);

-- name: InsertPolicySetManifest :exec
-- InsertPolicySetManifest inserts the entries of a manifest in the order of the array.
INSERT INTO policy_set_manifests (zone_id, policy_set_version_id, position, policy_version_id)
SELECT @zone_id, @policy_set_version_id, n, (@policy_version_ids::text[])[n] FROM generate_subscripts(@policy_version_ids::text[], 1) AS n;

-- name: ListPolicySetVersions :many
-- ListPolicySetVersions returns the versions of a policy set, newest first, below a number.
SELECT * FROM policy_set_versions
WHERE zone_id = @zone_id AND policy_set_id = @policy_set_id AND version < @before_number::integer
ORDER BY version DESC
LIMIT @row_limit;

-- name: CountPolicySets :one
-- CountPolicySets returns 1 if the policy set exists, also if it is archived, and otherwise 0.
SELECT count(*) FROM policy_sets WHERE zone_id = @zone_id AND id = @id;

-- name: GetPolicySetVersion :one
SELECT sqlc.embed(v), ARRAY(
    SELECT m.policy_version_id FROM policy_set_manifests AS m
    WHERE m.zone_id = v.zone_id AND m.policy_set_version_id = v.id ORDER BY m.position)::text[] AS policy_version_ids
FROM policy_set_versions AS v
WHERE v.zone_id = @zone_id AND v.policy_set_id = @policy_set_id AND v.id = @id;

-- name: ListPolicySetsOfVersions :many
-- ListPolicySetsOfVersions returns the policy sets of versions, unless they are archived.
SELECT v.id, v.policy_set_id FROM policy_set_versions AS v
JOIN policy_sets AS s ON s.zone_id = v.zone_id AND s.id = v.policy_set_id
WHERE v.zone_id = @zone_id AND v.id = ANY (@ids::text[]) AND s.archived_at IS NULL;
