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
