-- name: ListZoneEvents :many
-- ListZoneEvents returns the sealed entries of a zone after a position, in the order of their seals. An entry that was
-- deleted has only its position.
SELECT s.seq, e.request_id, e.actor_id, e.actor_name, e.actor_scope, e.operation, e.entity_type, e.entity_id, e.status_code,
    e.payload, e.occurred_at
FROM audit_seals AS s LEFT JOIN audit_entries AS e ON e.zone_id = s.zone_id AND e.id = s.entry_id
WHERE s.zone_id = @zone_id AND s.seq > @after::bigint
ORDER BY s.seq LIMIT @row_limit;

-- name: ListSealHeads :many
-- ListSealHeads returns the number of the last seal of each zone that has one.
SELECT zone_id, seq FROM audit_seal_heads WHERE zone_id = ANY (@zone_ids::text[]);
