-- name: InsertProvider :one
-- InsertProvider returns no row if an active provider has the identifier, so that the same transaction can try
-- another identifier.
INSERT INTO providers (zone_id, id, name, identifier, kind, config_json, secret_config_keys, secret_config, data_key)
VALUES (@zone_id, @id, @name, @identifier, @kind, @config_json, @secret_config_keys, sqlc.narg(secret_config), sqlc.narg(data_key))
ON CONFLICT (zone_id, identifier) WHERE archived_at IS NULL DO NOTHING
RETURNING *;

-- name: GetAvailableProviderIdentifier :one
-- GetAvailableProviderIdentifier returns the first of base-2 … base-999 that no active provider of the zone uses,
-- like GetAvailableZoneSlug.
WITH RECURSIVE tried (n, candidate) AS (
    SELECT 2, @base::text || '-2'
    UNION ALL
    SELECT tried.n + 1, @base::text || '-' || (tried.n + 1) FROM tried
    WHERE tried.n < 999 AND EXISTS (SELECT FROM providers WHERE providers.zone_id = @zone_id AND providers.identifier = tried.candidate AND providers.archived_at IS NULL)
)
SELECT last.candidate::text AS identifier FROM (SELECT tried.candidate FROM tried ORDER BY tried.n DESC LIMIT 1) AS last
WHERE NOT EXISTS (SELECT FROM providers WHERE providers.zone_id = @zone_id AND providers.identifier = last.candidate AND providers.archived_at IS NULL);

-- name: GetProvider :one
SELECT * FROM providers WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL;

-- name: LockProvider :one
SELECT * FROM providers WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL FOR NO KEY UPDATE;

-- name: LockProviderShared :one
-- LockProviderShared locks an active provider, so that it cannot be archived or changed while a reference to it is added.
SELECT kind FROM providers WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL FOR SHARE;

-- name: ListProviders :many
-- ListProviders returns active providers newest first, after a position, like ListZones. It does not read sealed secrets.
SELECT zone_id, id, name, identifier, kind, config_json, secret_config_keys, created_at, updated_at FROM providers
WHERE zone_id = @zone_id AND archived_at IS NULL
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProvidersByIdentifier :many
-- ListProvidersByIdentifier returns at most one provider, like ListZonesBySlug.
SELECT zone_id, id, name, identifier, kind, config_json, secret_config_keys, created_at, updated_at FROM providers
WHERE zone_id = @zone_id AND archived_at IS NULL AND identifier = @identifier
  AND (sqlc.narg(name)::text IS NULL OR name = sqlc.narg(name))
  AND (sqlc.narg(kind)::text IS NULL OR kind = sqlc.narg(kind))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text);

-- name: ListProvidersByName :many
-- ListProvidersByName finds the rows by the hash of the name, and compares the name because different names can have
-- the same hash.
SELECT zone_id, id, name, identifier, kind, config_json, secret_config_keys, created_at, updated_at FROM providers
WHERE zone_id = @zone_id AND archived_at IS NULL AND name_hash = hashtextextended(@name, 0) AND name = @name
  AND (sqlc.narg(kind)::text IS NULL OR kind = sqlc.narg(kind))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProvidersByKind :many
SELECT zone_id, id, name, identifier, kind, config_json, secret_config_keys, created_at, updated_at FROM providers
WHERE zone_id = @zone_id AND archived_at IS NULL AND kind = @kind
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: UpdateProvider :one
UPDATE providers SET
    name               = @name,
    identifier         = @identifier,
    kind               = @kind,
    config_json        = @config_json,
    secret_config_keys = @secret_config_keys,
    secret_config      = sqlc.narg(secret_config),
    data_key           = sqlc.narg(data_key),
    version            = version + 1,
    updated_at         = now()
WHERE zone_id = @zone_id AND id = @id
RETURNING *;

-- name: ArchiveProvider :exec
-- ArchiveProvider also erases the provider's secrets.
UPDATE providers SET archived_at = now(), updated_at = now(), version = version + 1,
    secret_config = NULL, secret_config_keys = '{}', data_key = NULL
WHERE zone_id = @zone_id AND id = @id;

-- name: LockProviderByIdentifierShared :one
SELECT id, kind FROM providers WHERE zone_id = @zone_id AND identifier = @identifier AND archived_at IS NULL FOR SHARE;

-- name: EnsureProvider :exec
-- EnsureProvider inserts a provider without configuration and secrets, or restores it if it was archived.
INSERT INTO providers AS p (zone_id, id, name, identifier, kind) VALUES (@zone_id, @id, @name, @identifier, @kind)
ON CONFLICT (zone_id, id) DO UPDATE SET
    name = @name, identifier = @identifier, kind = @kind, config_json = '{}', archived_at = NULL, updated_at = now(), version = p.version + 1;

-- name: IsProviderInUse :one
SELECT EXISTS (SELECT FROM resources WHERE zone_id = @zone_id AND credential_provider_id = @provider_id AND archived_at IS NULL);
