-- name: GetSigningKey :one
-- GetSigningKey returns the key that signs the tokens of a zone.
SELECT id, private_key, data_key FROM signing_keys WHERE zone_id = @zone_id AND retires_at IS NULL;

-- name: ListVerificationKeys :many
-- ListVerificationKeys returns the public keys that verify the tokens of an active zone, newest first.
SELECT k.id, k.public_jwk FROM signing_keys AS k JOIN zones AS z ON z.id = k.zone_id
WHERE k.zone_id = @zone_id AND (k.retires_at IS NULL OR k.retires_at > now()) AND z.archived_at IS NULL
ORDER BY k.created_at DESC, k.id DESC;

-- name: InsertSigningKey :one
INSERT INTO signing_keys (zone_id, id, public_jwk, private_key, data_key) VALUES (@zone_id, @id, @public_jwk, @private_key, @data_key)
RETURNING *;

-- name: RetireSigningKey :many
-- RetireSigningKey makes the key that signs the tokens of a zone verify them for 24 more hours only. It returns the key, if
-- there is one.
UPDATE signing_keys SET retires_at = now() + interval '24 hours' WHERE zone_id = @zone_id AND retires_at IS NULL
RETURNING *;

-- name: ListRetiredSigningKeys :many
-- ListRetiredSigningKeys returns keys that no longer verify, like ListLapsedSessions.
SELECT zone_id, id FROM signing_keys
WHERE retires_at <= now() AND zone_id <> ALL (@excluded_zones::text[])
ORDER BY retires_at, zone_id, id
LIMIT @row_limit;

-- name: DeleteRetiredSigningKeys :many
DELETE FROM signing_keys WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) AND retires_at <= now()
RETURNING id;
