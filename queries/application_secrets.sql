-- name: InsertApplicationSecret :exec
INSERT INTO application_secrets (zone_id, application_id, id, secret_hash) VALUES (@zone_id, @application_id, @id, @secret_hash);

-- name: ListApplicationSecrets :many
-- ListApplicationSecrets returns the client secrets of applications, without their hashes.
SELECT application_id, id, created_at, expires_at, coalesce(expires_at <= now(), false)::boolean AS expired FROM application_secrets
WHERE zone_id = @zone_id AND application_id = ANY (@application_ids::text[])
ORDER BY application_id, created_at, id;

-- name: LimitApplicationSecrets :exec
-- LimitApplicationSecrets makes the client secrets of an application expire after a number of seconds, unless they expire
-- earlier.
UPDATE application_secrets SET expires_at = least(expires_at, now() + sqlc.arg(seconds)::bigint * interval '1 second')
WHERE zone_id = @zone_id AND application_id = @application_id;

-- name: DeleteApplicationSecrets :exec
DELETE FROM application_secrets WHERE zone_id = @zone_id AND application_id = ANY (@application_ids::text[]);

-- name: ListExpiredSecrets :many
-- ListExpiredSecrets returns the applications of expired client secrets, like ListLapsedSessions. An application with
-- several is returned several times.
SELECT zone_id, application_id AS id FROM application_secrets
WHERE expires_at <= now() AND zone_id <> ALL (@excluded_zones::text[])
ORDER BY expires_at, zone_id, application_id
LIMIT @row_limit;

-- name: DeleteExpiredSecrets :exec
DELETE FROM application_secrets
WHERE zone_id = @zone_id AND application_id = ANY (@application_ids::text[]) AND expires_at <= now();
