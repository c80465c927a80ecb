-- name: GetIdempotencyKey :one
-- GetIdempotencyKey returns the stored response of a request, and whether it is no longer kept. No other transaction sees
-- the row before the response.
SELECT wrapped_by, wrapped, response, created_at < now() - interval '24 hours' AS expired FROM idempotency_keys WHERE zone_id = @zone_id AND id = @id;

-- name: InsertIdempotencyKey :exec
-- InsertIdempotencyKey takes the lock of the key until the end of the transaction. It violates idempotency_key_in_use if
-- another transaction has the lock, and the primary key if one that had it has committed. Without the lock, the primary
-- key alone would make it wait for the other transaction.
INSERT INTO idempotency_keys (zone_id, id, wrapped_by, wrapped, locked)
VALUES (@zone_id, @id, @wrapped_by, @wrapped, pg_try_advisory_xact_lock(hashtextextended('idempotency key:' || @zone_id || ':' || @id, 0)));

-- name: DeleteExpiredIdempotencyKey :exec
-- DeleteExpiredIdempotencyKey deletes a key that is no longer kept, so that it can be inserted again. It does not wait for
-- another transaction that does the same: InsertIdempotencyKey then violates idempotency_key_in_use.
DELETE FROM idempotency_keys WHERE (zone_id, id) IN (
    SELECT old.zone_id, old.id FROM idempotency_keys AS old
    WHERE old.zone_id = @zone_id AND old.id = @id AND old.created_at < now() - interval '24 hours' FOR UPDATE SKIP LOCKED);

-- name: SetIdempotentResponse :exec
UPDATE idempotency_keys SET response = @response::bytea WHERE zone_id = @zone_id AND id = @id;

-- name: DeleteIdempotencyKeys :execrows
-- DeleteIdempotencyKeys deletes the oldest keys that are no longer kept. Row-level security keeps the others.
DELETE FROM idempotency_keys WHERE (zone_id, id) IN (
    SELECT old.zone_id, old.id FROM idempotency_keys AS old
    WHERE old.created_at < now() - interval '24 hours' ORDER BY old.created_at LIMIT @row_limit FOR UPDATE SKIP LOCKED);

-- name: ListIdempotencyKeyWrappers :many
-- ListIdempotencyKeyWrappers returns the ids of the key-encryption keys that wrap keys of stored responses, like
-- ListDataKeyWrappers.
WITH RECURSIVE needed AS (
    (SELECT first.wrapped_by FROM idempotency_keys AS first ORDER BY first.wrapped_by LIMIT 1)
    UNION ALL
    SELECT (SELECT next.wrapped_by FROM idempotency_keys AS next WHERE next.wrapped_by > needed.wrapped_by ORDER BY next.wrapped_by LIMIT 1)
    FROM needed WHERE needed.wrapped_by IS NOT NULL
)
SELECT needed.wrapped_by::text FROM needed WHERE needed.wrapped_by IS NOT NULL;

-- name: LockIdempotencyKeysWrappedBy :many
-- LockIdempotencyKeysWrappedBy locks a batch of stored responses whose keys are wrapped by the given key-encryption keys,
-- like LockDataKeysWrappedBy.
SELECT zone_id, id, wrapped_by, wrapped FROM idempotency_keys
WHERE wrapped_by = ANY (@wrapped_by::text[]) AND zone_id <> ALL (@skipped_zones::text[])
ORDER BY wrapped_by, zone_id, id
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: RewrapIdempotencyKey :exec
UPDATE idempotency_keys SET wrapped_by = @wrapped_by, wrapped = @wrapped WHERE zone_id = @zone_id AND id = @id;

-- name: ListIdempotencyKeys :many
-- ListIdempotencyKeys returns the stored responses of all zones, after a position.
SELECT zone_id, id, wrapped_by, wrapped, response::bytea AS response FROM idempotency_keys
WHERE (zone_id, id) > (@after_zone::text, @after_id::text)
ORDER BY zone_id, id
LIMIT @row_limit;
