-- name: InsertAuditEntries :exec
-- InsertAuditEntries inserts all entries of one cause, and adds them to the queue of entries to seal in the same order, in
-- one statement.
WITH entries AS (
    SELECT generate_subscripts(@ids::text[], 1) AS n, unnest(@zone_ids::text[]) AS zone_id, unnest(@ids::text[]) AS id,
        unnest(@actions::text[]) AS action, unnest(@entity_types::text[]) AS entity_type, unnest(@entity_ids::text[]) AS entity_id,
        unnest(@payloads::text[]) AS payload
), inserted AS (
    INSERT INTO audit_entries (zone_id, id, request_id, actor_id, actor_name, actor_scope, operation, action, method, path,
        entity_type, entity_id, status_code, payload)
    SELECT e.zone_id, e.id, @request_id, sqlc.narg(actor_id), @actor_name, sqlc.narg(actor_scope), @operation, e.action,
        @method, @path, nullif(e.entity_type, ''), nullif(e.entity_id, ''), @status_code, e.payload
    FROM entries AS e
)
INSERT INTO audit_unsealed (zone_id, entry_id) SELECT e.zone_id, e.id FROM entries AS e ORDER BY e.n;

-- name: ListAuditEntries :many
-- ListAuditEntries returns entries newest first, after a position and not before a time, and searches the seal of each: one
-- seal at a time, because to join the page with a page of seals, Postgres can read all these seals again for each entry. The
-- queries below read the index of the filter that their names say, and check the other filters for each row.
SELECT e.zone_id, e.id, e.request_id, e.actor_id, e.actor_name, e.actor_scope, e.operation, e.action, e.method, e.path, e.entity_type, e.entity_id,
    e.status_code, e.payload, e.occurred_at, coalesce(s.seq, 0) AS chain_seq, s.previous, s.hash, s.mac
FROM audit_entries AS e LEFT JOIN LATERAL (
    SELECT * FROM audit_seals AS b WHERE b.zone_id = e.zone_id AND b.occurred_at = e.occurred_at AND b.entry_id = e.id LIMIT 1
) AS s ON true
WHERE e.zone_id = @zone_id AND (e.occurred_at, e.id) < (@before_time::timestamptz, @before_id::text) AND e.occurred_at >= @since::timestamptz
ORDER BY e.occurred_at DESC, e.id DESC
LIMIT @row_limit;

-- name: ListAuditEntriesByRequest :many
SELECT * FROM listed_audit_entries
WHERE zone_id = @zone_id AND request_id = @request_id AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text) AND occurred_at >= @since::timestamptz
  AND (sqlc.narg(entity_id)::text IS NULL OR entity_id = sqlc.narg(entity_id)) AND (sqlc.narg(actor_id)::text IS NULL OR actor_id = sqlc.narg(actor_id))
  AND (sqlc.narg(status_code)::integer IS NULL OR status_code = sqlc.narg(status_code))
  AND (sqlc.narg(entity_type)::text IS NULL OR entity_type = sqlc.narg(entity_type)) AND (sqlc.narg(method)::text IS NULL OR method = sqlc.narg(method))
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEntriesByEntity :many
SELECT * FROM listed_audit_entries
WHERE zone_id = @zone_id AND entity_id = @entity_id AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text) AND occurred_at >= @since::timestamptz
  AND (sqlc.narg(actor_id)::text IS NULL OR actor_id = sqlc.narg(actor_id)) AND (sqlc.narg(status_code)::integer IS NULL OR status_code = sqlc.narg(status_code))
  AND (sqlc.narg(entity_type)::text IS NULL OR entity_type = sqlc.narg(entity_type)) AND (sqlc.narg(method)::text IS NULL OR method = sqlc.narg(method))
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEntriesByActor :many
SELECT * FROM listed_audit_entries
WHERE zone_id = @zone_id AND actor_id = @actor_id AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text) AND occurred_at >= @since::timestamptz
  AND (sqlc.narg(status_code)::integer IS NULL OR status_code = sqlc.narg(status_code))
  AND (sqlc.narg(entity_type)::text IS NULL OR entity_type = sqlc.narg(entity_type)) AND (sqlc.narg(method)::text IS NULL OR method = sqlc.narg(method))
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEntriesByStatusCode :many
SELECT * FROM listed_audit_entries
WHERE zone_id = @zone_id AND status_code = @status_code AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text) AND occurred_at >= @since::timestamptz
  AND (sqlc.narg(entity_type)::text IS NULL OR entity_type = sqlc.narg(entity_type)) AND (sqlc.narg(method)::text IS NULL OR method = sqlc.narg(method))
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEntriesByEntityType :many
SELECT * FROM listed_audit_entries
WHERE zone_id = @zone_id AND entity_type = @entity_type AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text) AND occurred_at >= @since::timestamptz
  AND (sqlc.narg(method)::text IS NULL OR method = sqlc.narg(method))
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEntriesByMethod :many
SELECT * FROM listed_audit_entries
WHERE zone_id = @zone_id AND method = @method AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text) AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;
