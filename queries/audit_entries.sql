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
-- ListAuditEntries returns entries newest first, after a position and not before a time. So do the queries below, which read
-- the index of the filter that their names say and check the other filters for each row.
SELECT * FROM listed_audit_entries
WHERE zone_id = @zone_id AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text) AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
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
