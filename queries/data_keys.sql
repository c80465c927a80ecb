-- name: GetDataKey :one
-- GetDataKey is the key that seals a zone's secrets now.
SELECT number, wrapped_by, wrapped FROM data_keys WHERE zone_id = @zone_id AND retired_at IS NULL;

-- name: InsertDataKey :execrows
-- InsertDataKey adds a key, unless somebody else was faster.
INSERT INTO data_keys (zone_id, number, wrapped_by, wrapped) VALUES (@zone_id, @number, @wrapped_by, @wrapped)
ON CONFLICT DO NOTHING;

-- name: ListDataKeys :many
SELECT number, wrapped_by, wrapped FROM data_keys WHERE zone_id = @zone_id ORDER BY number;

-- name: ListDataKeyWrappers :many
-- ListDataKeyWrappers is which key-encryption keys are needed: one probe of the index for each.
WITH RECURSIVE needed AS (
    (SELECT first.wrapped_by FROM data_keys AS first ORDER BY first.wrapped_by LIMIT 1)
    UNION ALL
    SELECT (SELECT next.wrapped_by FROM data_keys AS next WHERE next.wrapped_by > needed.wrapped_by ORDER BY next.wrapped_by LIMIT 1)
    FROM needed WHERE needed.wrapped_by IS NOT NULL
)
SELECT needed.wrapped_by::text FROM needed WHERE needed.wrapped_by IS NOT NULL;

-- name: LockDataKeysWrappedBy :many
-- LockDataKeysWrappedBy holds some of the keys that other key-encryption keys wrap. It waits for none that a request seals
-- with, and passes by none that another rotation holds: that may come to nothing. Zones whose keys do not open are passed.
SELECT zone_id, number, wrapped_by, wrapped FROM data_keys
WHERE wrapped_by = ANY (@wrapped_by::text[]) AND zone_id <> ALL (@passed::text[])
ORDER BY wrapped_by, zone_id, number
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: RewrapDataKey :exec
UPDATE data_keys SET wrapped_by = @wrapped_by, wrapped = @wrapped WHERE zone_id = @zone_id AND number = @number;

-- name: GetTimeBefore :one
-- GetTimeBefore is the moment some seconds ago, by the clock that dates the keys.
SELECT (now() - make_interval(secs => @seconds))::timestamptz AS moment;

-- name: ListZonesWithOldDataKey :many
-- ListZonesWithOldDataKey is zones whose key is from before a moment, the oldest first.
SELECT zone_id, number FROM data_keys
WHERE retired_at IS NULL AND created_at < @before::timestamptz
ORDER BY created_at, zone_id
LIMIT @row_limit;

-- name: RetireDataKey :execrows
-- RetireDataKey ends a key's time, unless somebody else was faster.
UPDATE data_keys SET retired_at = now() WHERE zone_id = @zone_id AND number = @number AND retired_at IS NULL;

-- name: ListZonesWithRetiredDataKey :many
-- ListZonesWithRetiredDataKey is zones that may still have something to reseal, in the order of their ids.
SELECT DISTINCT zone_id FROM data_keys
WHERE retired_at IS NOT NULL AND zone_id > @after::text
ORDER BY zone_id
LIMIT @row_limit;

-- name: LockProvidersSealedBefore :many
-- LockProvidersSealedBefore holds some providers of a zone whose secrets are sealed with an older key.
SELECT id, secret_config, data_key::integer AS data_key FROM providers
WHERE zone_id = @zone_id AND data_key < @number
ORDER BY data_key, id
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: ResealProvider :exec
UPDATE providers SET secret_config = @secret_config, data_key = @data_key::integer WHERE zone_id = @zone_id AND id = @id;

-- name: LockProviderGrantsSealedBefore :many
-- LockProviderGrantsSealedBefore holds some provider grants of a zone whose tokens are sealed with an older key.
SELECT id, access_token, refresh_token, data_key::integer AS data_key FROM provider_grants
WHERE zone_id = @zone_id AND data_key < @number
ORDER BY data_key, id
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: ResealProviderGrant :exec
UPDATE provider_grants SET access_token = sqlc.narg(access_token), refresh_token = sqlc.narg(refresh_token), data_key = @data_key::integer
WHERE zone_id = @zone_id AND id = @id;

-- name: DeleteRetiredDataKeys :many
-- DeleteRetiredDataKeys deletes a zone's keys that seal nothing and were retired longer ago than some seconds. One that was
-- retired a moment ago may be in the hands of a request that has not committed.
DELETE FROM data_keys AS old
WHERE old.zone_id = @zone_id AND old.retired_at < now() - make_interval(secs => @longer)
  AND NOT EXISTS (SELECT FROM providers WHERE providers.zone_id = old.zone_id AND providers.data_key = old.number)
  AND NOT EXISTS (SELECT FROM provider_grants WHERE provider_grants.zone_id = old.zone_id AND provider_grants.data_key = old.number)
RETURNING old.number;

-- name: ListSealedProviders :many
-- ListSealedProviders walks through all that providers have sealed.
SELECT zone_id, id, secret_config, data_key::integer AS data_key FROM providers
WHERE data_key IS NOT NULL AND (zone_id, data_key, id) > (@after_zone::text, @after_key::integer, @after_id::text)
ORDER BY zone_id, data_key, id
LIMIT @row_limit;

-- name: ListSealedProviderGrants :many
-- ListSealedProviderGrants walks through all that provider grants have sealed.
SELECT zone_id, id, access_token, refresh_token, data_key::integer AS data_key FROM provider_grants
WHERE data_key IS NOT NULL AND (zone_id, data_key, id) > (@after_zone::text, @after_key::integer, @after_id::text)
ORDER BY zone_id, data_key, id
LIMIT @row_limit;
