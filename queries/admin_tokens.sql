-- name: InsertAdminToken :one
-- InsertAdminToken answers no row when a live token has the same secret: a seeded one is there already.
INSERT INTO admin_tokens (zone_id, id, name, capability, created_by, token_sha256, expires_at)
VALUES (@zone_id, @id, @name, @capability, @created_by, @token_sha256, now() + sqlc.narg(expires_in)::bigint * interval '1 second')
ON CONFLICT (token_sha256) WHERE revoked_at IS NULL DO NOTHING
RETURNING *;

-- name: GetActiveAdminToken :one
-- GetActiveAdminToken is how a caller is recognised: by the digest of the token alone.
SELECT * FROM admin_tokens
WHERE token_sha256 = @token_sha256 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: RevokeOtherAdminTokensBy :many
-- RevokeOtherAdminTokensBy ends what a creator made before: a seeded token replaces its predecessor.
UPDATE admin_tokens SET revoked_at = now()
WHERE created_by = @created_by AND token_sha256 <> @token_sha256 AND revoked_at IS NULL
RETURNING *;

-- name: NotifyAdminTokensRevoked :exec
-- NotifyAdminTokensRevoked tells every replica, at commit, to forget what it has verified. It is the only NOTIFY inside
-- a transaction: revocations are rare and must be heard at once.
SELECT pg_notify('caracal_admin_tokens', '');

-- name: TouchAdminTokens :exec
-- TouchAdminTokens notes that tokens were used, unless a replica noted it a short while ago. A note from the future was
-- made by a clock that has been set right since.
UPDATE admin_tokens SET last_used_at = @used_at::timestamptz
WHERE id = ANY (@ids::text[])
  AND (last_used_at IS NULL OR last_used_at <= @stale_before::timestamptz OR last_used_at > @used_at::timestamptz);

-- name: ListAdminTokens :many
-- ListAdminTokens pages backwards in time, like every list.
SELECT * FROM admin_tokens
WHERE (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: RevokeAdminToken :one
UPDATE admin_tokens SET revoked_at = now() WHERE id = @id AND revoked_at IS NULL RETURNING *;

-- name: RevokeAdminTokensOfZone :many
UPDATE admin_tokens SET revoked_at = now() WHERE zone_id = @zone_id AND revoked_at IS NULL RETURNING *;
