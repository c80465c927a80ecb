-- name: InsertPolicySet :one
INSERT INTO policy_sets (zone_id, id, name, description, created_by)
VALUES (@zone_id, @id, @name, sqlc.narg(description), @created_by)
RETURNING *;

-- name: GetPolicySet :one
SELECT * FROM policy_sets WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL;

-- name: ListPolicySets :many
-- ListPolicySets returns policy sets newest first, after a position, like ListZones.
SELECT * FROM policy_sets
WHERE zone_id = @zone_id AND archived_at IS NULL
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListPolicySetsByName :many
-- ListPolicySetsByName returns at most one row, like ListZonesBySlug.
SELECT * FROM policy_sets
WHERE zone_id = @zone_id AND archived_at IS NULL AND name = @name
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text);

-- name: ArchivePolicySet :exec
-- ArchivePolicySet archives a policy set and deactivates it.
UPDATE policy_sets SET archived_at = now(), updated_at = now(), version = version + 1, active_version_id = NULL, shadow_version_id = NULL
WHERE zone_id = @zone_id AND id = @id;
