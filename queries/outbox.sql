-- name: InsertOutbox :exec
-- InsertOutbox writes all events of one cause, in the order in which they are given: seq is drawn row by row.
INSERT INTO outbox (zone_id, id, stream, fields, request_id)
SELECT e.zone_id, e.id, e.stream, e.fields::jsonb, @request_id
FROM (SELECT generate_subscripts(@ids::text[], 1) AS n, unnest(@zone_ids::text[]) AS zone_id, unnest(@ids::text[]) AS id,
    unnest(@streams::text[]) AS stream, unnest(@fields::text[]) AS fields) AS e
ORDER BY e.n;
