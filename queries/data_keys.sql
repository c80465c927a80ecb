-- name: GetDataKey :one
-- GetDataKey returns a zone's current key, which seals new secrets.
SELECT number, wrapped_by, wrapped FROM data_keys WHERE zone_id = @zone_id AND retired_at IS NULL;

-- name: InsertDataKey :execrows
-- InsertDataKey inserts nothing if a concurrent transaction added the key first.
INSERT INTO data_keys (zone_id, number, wrapped_by, wrapped) VALUES (@zone_id, @number, @wrapped_by, @wrapped)
ON CONFLICT DO NOTHING;

-- name: ListDataKeys :many
SELECT number, wrapped_by, wrapped FROM data_keys WHERE zone_id = @zone_id ORDER BY number;

-- name: ListDataKeyWrappers :many
-- ListDataKeyWrappers returns the ids of the key-encryption keys that wrap data keys, with one index probe for each id.
WITH RECURSIVE needed AS (
    (SELECT first.wrapped_by FROM data_keys AS first ORDER BY first.wrapped_by LIMIT 1)
    UNION ALL
    SELECT (SELECT next.wrapped_by FROM data_keys AS next WHERE next.wrapped_by > needed.wrapped_by ORDER BY next.wrapped_by LIMIT 1)
    FROM needed WHERE needed.wrapped_by IS NOT NULL
)
SELECT needed.wrapped_by::text FROM needed WHERE needed.wrapped_by IS NOT NULL;

-- name: LockDataKeysWrappedBy :many
-- LockDataKeysWrappedBy locks a batch of the data keys that the given key-encryption keys wrap. FOR NO KEY UPDATE does not
-- conflict with the foreign key checks of requests that seal secrets. The query waits for keys that another rotation has
-- locked instead of skipping them (SKIP LOCKED): that rotation can still fail. skipped_zones lists the zones whose keys
-- cannot be unwrapped.
SELECT zone_id, number, wrapped_by, wrapped FROM data_keys
WHERE wrapped_by = ANY (@wrapped_by::text[]) AND zone_id <> ALL (@skipped_zones::text[])
ORDER BY wrapped_by, zone_id, number
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: RewrapDataKey :exec
UPDATE data_keys SET wrapped_by = @wrapped_by, wrapped = @wrapped WHERE zone_id = @zone_id AND number = @number;

-- name: GetTimeBefore :one
-- GetTimeBefore returns the time the given number of seconds ago on the database's clock, which also sets the keys'
-- creation times.
SELECT (now() - make_interval(secs => @seconds))::timestamptz AS result;

-- name: ListZonesWithOldDataKey :many
-- ListZonesWithOldDataKey returns the zones whose current key was created before the given time, the oldest key first.
SELECT zone_id, number FROM data_keys
WHERE retired_at IS NULL AND created_at < @before::timestamptz
ORDER BY created_at, zone_id
LIMIT @row_limit;

-- name: RetireDataKey :execrows
-- RetireDataKey changes no row if a concurrent transaction retired the key first.
UPDATE data_keys SET retired_at = now() WHERE zone_id = @zone_id AND number = @number AND retired_at IS NULL;

-- name: ListZonesWithRetiredDataKey :many
-- ListZonesWithRetiredDataKey returns the zones that have retired data keys, ordered by id. Other zones have no secrets to
-- reseal.
SELECT DISTINCT zone_id FROM data_keys
WHERE retired_at IS NOT NULL AND zone_id > @after::text
ORDER BY zone_id
LIMIT @row_limit;

-- name: LockProvidersSealedBefore :many
-- LockProvidersSealedBefore locks a batch of a zone's providers whose secrets are sealed with an older key.
SELECT id, secret_config, data_key::integer AS data_key FROM providers
WHERE zone_id = @zone_id AND data_key < @number
ORDER BY data_key, id
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: ResealProvider :exec
UPDATE providers SET secret_config = @secret_config, data_key = @data_key::integer WHERE zone_id = @zone_id AND id = @id;

-- name: LockProviderGrantsSealedBefore :many
-- LockProviderGrantsSealedBefore locks a batch of a zone's provider grants whose tokens are sealed with an older key.
SELECT id, access_token, refresh_token, data_key::integer AS data_key FROM provider_grants
WHERE zone_id = @zone_id AND data_key < @number
ORDER BY data_key, id
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: ResealProviderGrant :exec
UPDATE provider_grants SET access_token = sqlc.narg(access_token), refresh_token = sqlc.narg(refresh_token), data_key = @data_key::integer
WHERE zone_id = @zone_id AND id = @id;

-- name: LockSigningKeysSealedBefore :many
-- LockSigningKeysSealedBefore locks a batch of a zone's signing keys that are sealed with an older key.
SELECT id, private_key, data_key FROM signing_keys
WHERE zone_id = @zone_id AND data_key < @number
ORDER BY data_key, id
LIMIT @row_limit
FOR NO KEY UPDATE;

-- name: ResealSigningKey :exec
UPDATE signing_keys SET private_key = @private_key, data_key = @data_key WHERE zone_id = @zone_id AND id = @id;

-- name: DeleteRetiredDataKeys :many
-- DeleteRetiredDataKeys deletes a zone's unused keys that were retired at least min_age_seconds ago. A key that
-- was retired more recently can still be needed: a request that has not committed yet can have sealed a secret with it.
DELETE FROM data_keys AS old
WHERE old.zone_id = @zone_id AND old.retired_at < now() - make_interval(secs => @min_age_seconds)
  AND NOT EXISTS (SELECT FROM providers WHERE providers.zone_id = old.zone_id AND providers.data_key = old.number)
  AND NOT EXISTS (SELECT FROM provider_grants WHERE provider_grants.zone_id = old.zone_id AND provider_grants.data_key = old.number)
  AND NOT EXISTS (SELECT FROM signing_keys WHERE signing_keys.zone_id = old.zone_id AND signing_keys.data_key = old.number)
RETURNING old.number;

-- name: ListSealedProviders :many
-- ListSealedProviders returns the providers that have sealed secrets, in all zones, after a position.
SELECT zone_id, id, secret_config, data_key::integer AS data_key FROM providers
WHERE data_key IS NOT NULL AND (zone_id, data_key, id) > (@after_zone::text, @after_key::integer, @after_id::text)
ORDER BY zone_id, data_key, id
LIMIT @row_limit;

-- name: ListSealedProviderGrants :many
-- ListSealedProviderGrants returns the provider grants that have sealed tokens, in all zones, after a position.
SELECT zone_id, id, access_token, refresh_token, data_key::integer AS data_key FROM provider_grants
WHERE data_key IS NOT NULL AND (zone_id, data_key, id) > (@after_zone::text, @after_key::integer, @after_id::text)
ORDER BY zone_id, data_key, id
LIMIT @row_limit;

-- name: ListSealedSigningKeys :many
-- ListSealedSigningKeys returns the signing keys of all zones, after a position.
SELECT zone_id, id, private_key, data_key FROM signing_keys
WHERE (zone_id, data_key, id) > (@after_zone::text, @after_key::integer, @after_id::text)
ORDER BY zone_id, data_key, id
LIMIT @row_limit;
