-- name: ListPolicySetSources :many
-- ListPolicySetSources returns the policy versions of some versions of a policy set, in the order of their manifests, without
-- the contents of a version that have more than max_bytes in total.
SELECT v.id AS version_id, v.schema_version AS set_schema_version, v.manifest_sha256, p.id, p.schema_version, octet_length(p.content)::bigint AS bytes,
    (CASE WHEN sum(octet_length(p.content)) OVER (PARTITION BY v.id) <= @max_bytes::bigint THEN p.content ELSE '' END)::text AS content, (policy.archived_at IS NOT NULL)::boolean AS archived
FROM policy_sets AS s
JOIN policy_set_versions AS v ON v.zone_id = s.zone_id AND v.policy_set_id = s.id AND v.id = ANY (@version_ids::text[])
JOIN policy_set_manifests AS m ON m.zone_id = v.zone_id AND m.policy_set_version_id = v.id
JOIN policy_versions AS p ON p.zone_id = m.zone_id AND p.id = m.policy_version_id
JOIN policies AS policy ON policy.zone_id = p.zone_id AND policy.id = p.policy_id
WHERE s.zone_id = @zone_id AND s.id = @policy_set_id AND s.archived_at IS NULL
ORDER BY v.id, m.position;

-- name: ListSetAndActiveSet :many
-- ListSetAndActiveSet returns a policy set and the active one of its zone, each unless it does not exist or is archived, and
-- whether a policy of some policy set versions is archived. It locks no row: the transaction must have the zone lock in exclusive
-- mode, which excludes every other write in the zone.
SELECT sqlc.embed(s), EXISTS (
    SELECT FROM policy_set_manifests AS m
    JOIN policy_versions AS v ON v.zone_id = m.zone_id AND v.id = m.policy_version_id
    JOIN policies AS p ON p.zone_id = v.zone_id AND p.id = v.policy_id
    WHERE m.zone_id = s.zone_id AND m.policy_set_version_id = ANY (@version_ids::text[]) AND p.archived_at IS NOT NULL) AS archived_policy
FROM policy_sets AS s
WHERE s.zone_id = @zone_id AND s.archived_at IS NULL
  AND s.id = ANY (ARRAY[@id::text, (SELECT a.id FROM policy_sets AS a WHERE a.zone_id = @zone_id AND a.active_version_id IS NOT NULL)]);

-- name: GetActivePolicySet :one
SELECT * FROM policy_sets WHERE zone_id = @zone_id AND active_version_id IS NOT NULL;

-- name: DeactivatePolicySet :exec
UPDATE policy_sets SET active_version_id = NULL, shadow_version_id = NULL, version = version + 1, updated_at = now()
WHERE zone_id = @zone_id AND id = @id;

-- name: ActivatePolicySet :exec
-- ActivatePolicySet makes a policy set active. No other one of the zone may be active.
UPDATE policy_sets SET active_version_id = @version_id::text, shadow_version_id = sqlc.narg(shadow_version_id), version = version + 1, updated_at = now()
WHERE zone_id = @zone_id AND id = @id;

-- name: InsertPolicyActivation :exec
-- InsertPolicyActivation adds the next change to the history of a zone. The transaction must have the zone lock in exclusive mode.
INSERT INTO policy_activations (zone_id, number, action, policy_set_id, version_id, shadow_version_id,
    previous_policy_set_id, previous_version_id, previous_shadow_version_id, outbox_id, activated_by)
SELECT @zone_id, coalesce((SELECT max(last.number) FROM policy_activations AS last WHERE last.zone_id = @zone_id), 0) + 1, @action,
    sqlc.narg(policy_set_id), sqlc.narg(version_id), sqlc.narg(shadow_version_id),
    sqlc.narg(previous_policy_set_id), sqlc.narg(previous_version_id), sqlc.narg(previous_shadow_version_id), @outbox_id, @activated_by;

-- name: ListPolicyActivations :many
-- ListPolicyActivations returns the changes of the active policy set of a zone, newest first, below a number.
SELECT * FROM policy_activations
WHERE zone_id = @zone_id AND number < @before_number
ORDER BY number DESC
LIMIT @row_limit;

-- name: GetRollback :one
-- GetRollback returns, for a policy set, what was active in its zone before the last change. To activate again what is
-- active is no change.
SELECT (s.active_version_id IS NOT NULL)::boolean AS active, previous.archived_at AS previous_archived_at,
    last.previous_policy_set_id, last.previous_version_id, last.previous_shadow_version_id
FROM policy_sets AS s
LEFT JOIN LATERAL (
    SELECT a.* FROM policy_activations AS a
    WHERE a.zone_id = s.zone_id
      AND (a.policy_set_id, a.version_id, a.shadow_version_id) IS DISTINCT FROM (a.previous_policy_set_id, a.previous_version_id, a.previous_shadow_version_id)
    ORDER BY a.number DESC LIMIT 1
) AS last ON true
LEFT JOIN policy_sets AS previous ON previous.zone_id = s.zone_id AND previous.id = last.previous_policy_set_id
WHERE s.zone_id = @zone_id AND s.id = @id AND s.archived_at IS NULL;

-- name: GetActivationStatus :one
-- GetActivationStatus returns the state of a policy set, of a version, and of the event that announces it: outbox_id or, if that
-- is null, the one of the last activation of the version. recorded_at is the time of that change in the history, which
-- outlives the event. matches is whether the event or, if it is gone, the change announces the version.
--
-- The conditions use CASE, because with row-level security, Postgres searches no index for the value of a coalesce: it does
-- not know that coalesce is leakproof.
SELECT s.active_version_id, s.shadow_version_id, active.manifest_sha256, coalesce(sqlc.narg(outbox_id)::text, change.outbox_id, '')::text AS outbox_id,
    change.created_at AS recorded_at, (o.id IS NOT NULL)::boolean AS stored, coalesce(o.attempts, 0)::integer AS attempts, o.last_error, o.dispatched_at, o.dead_at,
    (CASE
        WHEN o.id IS NOT NULL THEN o.stream = 'caracal.policy.invalidate' AND o.fields ->> 'policy_set_id' = s.id AND o.fields ->> 'policy_set_version_id' = coalesce(sqlc.narg(version_id)::text, s.active_version_id)
        ELSE change.policy_set_id = s.id AND change.version_id = coalesce(sqlc.narg(version_id)::text, s.active_version_id)
    END IS TRUE)::boolean AS matches
FROM policy_sets AS s
LEFT JOIN policy_set_versions AS active ON active.zone_id = s.zone_id AND active.id = s.active_version_id
LEFT JOIN LATERAL (
    SELECT a.* FROM policy_activations AS a
    WHERE a.zone_id = s.zone_id AND a.policy_set_id = s.id
      AND a.version_id = CASE WHEN sqlc.narg(version_id)::text IS NULL THEN s.active_version_id ELSE sqlc.narg(version_id)::text END
    ORDER BY a.number DESC LIMIT 1
) AS newest ON sqlc.narg(outbox_id)::text IS NULL
LEFT JOIN policy_activations AS change ON change.zone_id = s.zone_id
    AND change.outbox_id = CASE WHEN sqlc.narg(outbox_id)::text IS NULL THEN newest.outbox_id ELSE sqlc.narg(outbox_id)::text END
LEFT JOIN outbox AS o ON o.zone_id = s.zone_id
    AND o.id = CASE WHEN sqlc.narg(outbox_id)::text IS NULL THEN newest.outbox_id ELSE sqlc.narg(outbox_id)::text END
WHERE s.zone_id = @zone_id AND s.id = @id AND s.archived_at IS NULL;
