-- name: InsertOutbox :exec
-- InsertOutbox inserts the events of a transaction in the order of the arrays, so that seq increases in this order.
INSERT INTO outbox (zone_id, id, stream, fields, request_id, traceparent)
SELECT e.zone_id, e.id, e.stream, e.fields::jsonb, @request_id, sqlc.narg(traceparent)
FROM (SELECT generate_subscripts(@ids::text[], 1) AS n, unnest(@zone_ids::text[]) AS zone_id, unnest(@ids::text[]) AS id,
    unnest(@streams::text[]) AS stream, unnest(@fields::text[]) AS fields) AS e
ORDER BY e.n;

-- name: ListPendingOutbox :many
-- ListPendingOutbox returns the next events to publish, in the order of seq, without those of paused zones, or none if the
-- term of the leader has ended. Its conditions on dispatched_at and dead_at are those of the partial index outbox_pending,
-- so it does not scan dispatched events. The age is measured by the database's clock, which also sets created_at.
SELECT zone_id, id, seq, stream, fields, attempts, traceparent,
    extract(epoch FROM clock_timestamp() - created_at)::double precision AS age_seconds
FROM outbox
WHERE dispatched_at IS NULL AND dead_at IS NULL AND zone_id <> ALL (@paused_zones::text[])
  AND EXISTS (SELECT FROM leases WHERE name = 'outbox' AND term = @term AND holder = @holder AND expires_at > clock_timestamp())
ORDER BY seq
LIMIT @row_limit;

-- name: DispatchOutbox :exec
-- DispatchOutbox marks events that are in their streams. That remains true after the term of the leader that sent them.
UPDATE outbox SET dispatched_at = now(), last_error = NULL
WHERE seq = ANY (@seqs::bigint[]) AND dispatched_at IS NULL AND dead_at IS NULL;

-- name: RejectOutbox :execrows
-- RejectOutbox adds a failed attempt to each event and stores its error, or changes none if the term of the leader has
-- ended. An event with max_attempts failed attempts becomes a dead letter.
UPDATE outbox SET attempts = attempts + 1, last_error = rejected.error,
    dead_at = CASE WHEN attempts + 1 >= @max_attempts::integer THEN now() END
FROM (SELECT unnest(@seqs::bigint[]) AS seq, unnest(@errors::text[]) AS error) AS rejected
WHERE outbox.seq = rejected.seq AND dispatched_at IS NULL AND dead_at IS NULL
  AND EXISTS (SELECT FROM leases WHERE name = 'outbox' AND term = @term AND holder = @holder AND expires_at > clock_timestamp());

-- name: PurgeOutbox :execrows
-- PurgeOutbox deletes a batch of dispatched events, oldest first.
DELETE FROM outbox WHERE (zone_id, id) IN (
    SELECT old.zone_id, old.id FROM outbox AS old WHERE old.dispatched_at < @before::timestamptz ORDER BY old.dispatched_at LIMIT @row_limit);

-- name: GetOutboxStat :one
-- GetOutboxStat counts pending events and dead letters from their partial indexes. It does not read dispatched events.
SELECT
    (SELECT count(*) FROM outbox WHERE dispatched_at IS NULL AND dead_at IS NULL) AS pending,
    (SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL) AS dead,
    coalesce((SELECT extract(epoch FROM now() - created_at) FROM outbox WHERE dispatched_at IS NULL AND dead_at IS NULL ORDER BY seq LIMIT 1), 0)::double precision AS oldest_pending_seconds,
    coalesce((SELECT extract(epoch FROM now() - created_at) FROM outbox WHERE dead_at IS NOT NULL ORDER BY created_at, id LIMIT 1), 0)::double precision AS oldest_dead_seconds;

-- name: GetOutboxProgress :one
-- GetOutboxProgress returns what changes while events are published: the lease, the oldest pending event, and the time of
-- the last dispatch. Each value is one index lookup.
SELECT
    coalesce((SELECT holder FROM leases WHERE name = 'outbox'), '')::text AS holder,
    coalesce((SELECT term FROM leases WHERE name = 'outbox'), 0)::bigint AS term,
    coalesce((SELECT expires_at FROM leases WHERE name = 'outbox'), '-infinity')::timestamptz::text AS expires_at,
    coalesce((SELECT seq FROM outbox WHERE dispatched_at IS NULL AND dead_at IS NULL ORDER BY seq LIMIT 1), 0)::bigint AS oldest_pending,
    coalesce((SELECT dispatched_at FROM outbox WHERE dispatched_at IS NOT NULL ORDER BY dispatched_at DESC LIMIT 1), '-infinity')::timestamptz::text AS last_dispatch;

-- name: NotifyOutbox :exec
-- NotifyOutbox wakes the replica that publishes. Do not call it in a transaction that changes rows: the commit of a
-- transaction with NOTIFY takes a database-wide lock.
SELECT pg_notify('caracal_outbox', '');
