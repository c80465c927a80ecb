-- name: GetProviderGrantReferences :one
-- GetProviderGrantReferences returns what LockProviderGrantReferences returns without locking it, the sealed secrets of the
-- provider and the number of their data key, or 0 if it has none, and the id of the active grant of a user, or '' if there
-- is none.
SELECT coalesce(provider.kind, '')::text AS provider_kind, coalesce(provider.config_json, '{}')::jsonb AS provider_config,
    coalesce(provider.secret_config, '')::bytea AS provider_secret_config, coalesce(provider.data_key, 0)::integer AS provider_data_key,
    coalesce(resource.identifier, '')::text AS resource_identifier, coalesce(resource.credential_provider_id, '')::text AS resource_provider_id,
    coalesce(resource.scopes, '{}')::text[] AS resource_scopes, coalesce(active.id, '')::text AS grant_id
FROM zones
LEFT JOIN providers AS provider ON provider.zone_id = zones.id AND provider.id = @provider_id AND provider.archived_at IS NULL
LEFT JOIN resources AS resource ON resource.zone_id = zones.id AND resource.id = @resource_id AND resource.archived_at IS NULL
LEFT JOIN provider_grants AS active ON active.zone_id = zones.id AND active.user_id = @user_id AND active.resource_id = @resource_id
    AND active.provider_id = @provider_id AND active.status = 'active'
WHERE zones.id = @zone_id AND zones.archived_at IS NULL;

-- name: LockProviderGrantReferences :one
-- LockProviderGrantReferences returns an active zone and locks an active provider and an active resource, in this order,
-- so that they can be neither archived nor changed while a grant that references them is written. For one that does not
-- exist it returns ''.
WITH provider AS (
    SELECT kind, config_json FROM providers WHERE providers.zone_id = @zone_id AND providers.id = @provider_id AND archived_at IS NULL FOR SHARE
), resource AS (
    SELECT identifier, credential_provider_id, scopes FROM resources
    WHERE resources.zone_id = @zone_id AND resources.id = @resource_id AND archived_at IS NULL FOR SHARE
)
SELECT sqlc.embed(zones),
    coalesce((SELECT kind FROM provider), '')::text AS provider_kind, coalesce((SELECT config_json FROM provider), '{}')::jsonb AS provider_config,
    coalesce((SELECT identifier FROM resource), '')::text AS resource_identifier,
    coalesce((SELECT credential_provider_id FROM resource), '')::text AS resource_provider_id,
    coalesce((SELECT scopes FROM resource), '{}')::text[] AS resource_scopes
FROM zones WHERE zones.id = @zone_id AND zones.archived_at IS NULL;

-- name: InsertProviderGrant :one
-- InsertProviderGrant returns no row if the user already has an active grant for the resource and provider.
INSERT INTO provider_grants (zone_id, id, user_id, resource_id, provider_id, scopes, access_token, refresh_token, data_key, expires_at)
VALUES (@zone_id, @id, @user_id, @resource_id, @provider_id, @scopes, @access_token, sqlc.narg(refresh_token), @data_key::integer, sqlc.narg(expires_at))
ON CONFLICT (zone_id, user_id, resource_id, provider_id) WHERE status = 'active' DO NOTHING
RETURNING *;

-- name: ReplaceProviderGrant :one
-- ReplaceProviderGrant replaces the scopes and tokens of an active grant and returns the new row and what the audit log
-- records of the old one. It returns no row if the grant is not active.
WITH before AS (
    SELECT id, scopes, expires_at FROM provider_grants
    WHERE provider_grants.zone_id = @zone_id AND provider_grants.id = @id AND status = 'active' FOR NO KEY UPDATE
)
UPDATE provider_grants AS g SET
    scopes                = @scopes,
    access_token          = @access_token,
    refresh_token         = sqlc.narg(refresh_token),
    data_key              = @data_key::integer,
    expires_at            = sqlc.narg(expires_at),
    refreshed_at          = NULL,
    refresh_token_version = g.refresh_token_version + 1,
    version               = g.version + 1,
    updated_at            = now()
FROM before
WHERE g.zone_id = @zone_id AND g.id = before.id AND g.status = 'active'
RETURNING sqlc.embed(g), before.scopes AS scopes_before, before.expires_at AS expires_at_before;

-- name: RevokeProviderGrant :one
-- RevokeProviderGrant also erases the grant's tokens.
UPDATE provider_grants SET status = 'revoked', access_token = NULL, refresh_token = NULL, data_key = NULL, version = version + 1, updated_at = now()
WHERE zone_id = @zone_id AND user_id = @user_id AND resource_id = @resource_id AND provider_id = @provider_id AND status = 'active'
RETURNING *;

-- name: RevokeProviderGrantsOfProvider :many
-- RevokeProviderGrantsOfProvider also erases the grants' tokens.
UPDATE provider_grants SET status = 'revoked', access_token = NULL, refresh_token = NULL, data_key = NULL, version = version + 1, updated_at = now()
WHERE zone_id = @zone_id AND provider_id = @provider_id AND status = 'active'
RETURNING id;

-- name: GetProviderGrant :one
-- GetProviderGrant does not read the sealed tokens.
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants WHERE zone_id = @zone_id AND id = @id;

-- name: ListProviderGrants :many
-- ListProviderGrants returns provider grants newest first, after a position, like ListZones. It does not read sealed
-- tokens.
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants
WHERE zone_id = @zone_id
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProviderGrantsByStatus :many
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants
WHERE zone_id = @zone_id AND status = @status
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProviderGrantsByUser :many
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants
WHERE zone_id = @zone_id AND user_id = @user_id
  AND (sqlc.narg(resource_id)::text IS NULL OR resource_id = sqlc.narg(resource_id))
  AND (sqlc.narg(provider_id)::text IS NULL OR provider_id = sqlc.narg(provider_id))
  AND (sqlc.narg(status)::text IS NULL OR status = sqlc.narg(status))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProviderGrantsByResource :many
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants
WHERE zone_id = @zone_id AND resource_id = @resource_id
  AND (sqlc.narg(provider_id)::text IS NULL OR provider_id = sqlc.narg(provider_id))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProviderGrantsByResourceAndStatus :many
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants
WHERE zone_id = @zone_id AND resource_id = @resource_id AND status = @status
  AND (sqlc.narg(provider_id)::text IS NULL OR provider_id = sqlc.narg(provider_id))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProviderGrantsByProvider :many
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants
WHERE zone_id = @zone_id AND provider_id = @provider_id
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListProviderGrantsByProviderAndStatus :many
SELECT zone_id, id, user_id, resource_id, provider_id, scopes, status, (access_token IS NOT NULL)::boolean AS has_access_token,
    (refresh_token IS NOT NULL)::boolean AS has_refresh_token, refreshed_at, expires_at, version, created_at, updated_at
FROM provider_grants
WHERE zone_id = @zone_id AND provider_id = @provider_id AND status = @status
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;
