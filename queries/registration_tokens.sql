-- name: InsertRegistrationToken :one
INSERT INTO registration_tokens (zone_id, id, name, token_sha256, max_uses, expires_at)
VALUES (@zone_id, @id, @name, @token_sha256, sqlc.narg(max_uses), sqlc.narg(expires_at))
RETURNING *;

-- name: ListRegistrationTokens :many
-- ListRegistrationTokens returns tokens newest first, after a position, like ListZones.
SELECT * FROM registration_tokens
WHERE zone_id = @zone_id AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: MayRegister :one
-- MayRegister reports whether clients can register in an active zone without a token, and whether a token can be used. It
-- counts no use.
SELECT open_registration, EXISTS (
    SELECT 1 FROM registration_tokens
    WHERE registration_tokens.zone_id = zones.id AND token_sha256 = @token_sha256
      AND (expires_at IS NULL OR expires_at > now()) AND (max_uses IS NULL OR uses < max_uses)
)::boolean AS token_valid
FROM zones WHERE zones.id = @zone_id AND zones.archived_at IS NULL;

-- name: UseRegistrationToken :one
-- UseRegistrationToken counts a use of a token. It returns no row if the token has expired or was used too often.
UPDATE registration_tokens SET uses = uses + 1
WHERE zone_id = @zone_id AND token_sha256 = @token_sha256
  AND (expires_at IS NULL OR expires_at > now()) AND (max_uses IS NULL OR uses < max_uses)
RETURNING id, name;

-- name: DeleteRegistrationToken :one
DELETE FROM registration_tokens WHERE zone_id = @zone_id AND id = @id RETURNING *;
