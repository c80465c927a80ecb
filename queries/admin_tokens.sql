-- name: InsertAdminToken :one
-- InsertAdminToken returns no row if an active token has the same secret, as when a token is seeded at every start.
INSERT INTO admin_tokens (zone_id, id, name, capability, can_approve, created_by, token_sha256, expires_at)
VALUES (@zone_id, @id, @name, @capability, @can_approve, @created_by, @token_sha256, now() + sqlc.narg(expires_in)::bigint * interval '1 second')
ON CONFLICT (token_sha256) WHERE revoked_at IS NULL DO NOTHING
RETURNING *;

-- name: GetAdminTokenBySecret :one
-- GetAdminTokenBySecret authenticates a caller: it looks a token up by its digest alone.
SELECT sqlc.embed(admin_tokens), (expires_at IS NOT NULL AND expires_at <= now())::boolean AS expired FROM admin_tokens
WHERE token_sha256 = @token_sha256 AND revoked_at IS NULL;

-- name: GetAdminToken :one
SELECT * FROM admin_tokens WHERE id = @id;

-- name: LockAdminToken :one
-- LockAdminToken locks a token that is not revoked. It also returns the time with which expiries are compared.
SELECT sqlc.embed(admin_tokens), now()::timestamptz AS now FROM admin_tokens WHERE id = @id AND revoked_at IS NULL FOR NO KEY UPDATE;

-- name: UpdateAdminToken :one
UPDATE admin_tokens SET name = @name, can_approve = @can_approve, expires_at = sqlc.narg(expires_at), version = version + 1 WHERE id = @id RETURNING *;

-- name: RevokeOtherAdminTokensBy :many
-- RevokeOtherAdminTokensBy revokes the active tokens of a creator, except the one with the given digest: a newly seeded
-- token replaces the previous one.
UPDATE admin_tokens SET revoked_at = now(), version = version + 1
WHERE created_by = @created_by AND token_sha256 <> @token_sha256 AND revoked_at IS NULL
RETURNING *;

-- name: NotifyAdminTokensRevoked :exec
-- NotifyAdminTokensRevoked makes every replica clear its cache of verified tokens, at commit. It is the only NOTIFY inside
-- a transaction: revocations and updates of tokens are rare and must take effect at once.
SELECT pg_notify('caracal_admin_tokens', '');

-- name: BumpAdminTokensEpoch :exec
-- BumpAdminTokensEpoch counts a transaction that revoked admin tokens. It locks the row until the commit, so it comes after
-- every other lock.
UPDATE admin_tokens_epoch SET epoch = epoch + 1;

-- name: GetAdminTokensEpoch :one
SELECT epoch FROM admin_tokens_epoch;

-- name: TouchAdminTokens :exec
-- TouchAdminTokens sets last_used_at of the tokens whose value is null or not after stale_before. It also overwrites a
-- value in the future, which comes from a clock that was ahead.
UPDATE admin_tokens SET last_used_at = @used_at::timestamptz
WHERE id = ANY (@ids::text[])
  AND (last_used_at IS NULL OR last_used_at <= @stale_before::timestamptz OR last_used_at > @used_at::timestamptz);

-- name: ListAdminTokens :many
-- ListAdminTokens returns tokens newest first, after a position, like ListZones.
SELECT * FROM admin_tokens
WHERE (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAdminTokensByName :many
SELECT * FROM admin_tokens
WHERE name = @name
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: RevokeAdminToken :one
UPDATE admin_tokens SET revoked_at = now(), version = version + 1 WHERE id = @id AND revoked_at IS NULL RETURNING *;

-- name: RevokeAdminTokensOfZone :many
UPDATE admin_tokens SET revoked_at = now(), version = version + 1 WHERE zone_id = @zone_id AND revoked_at IS NULL RETURNING *;
