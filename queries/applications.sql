-- name: InsertApplication :one
INSERT INTO applications (zone_id, id, name, registration_method, traits, jwks, expires_at)
VALUES (@zone_id, @id, @name, @registration_method, @traits, sqlc.narg(jwks), now() + sqlc.narg(expires_in)::bigint * interval '1 second')
RETURNING *;

-- name: GetApplication :many
-- GetApplication returns an active application once for each of its client secrets, the oldest first, without their
-- hashes. If it has none, the columns of the secret are null.
SELECT sqlc.embed(applications), secrets.id AS secret_id, secrets.created_at AS secret_created_at, secrets.expires_at AS secret_expires_at,
    coalesce(secrets.expires_at <= now(), false)::boolean AS secret_expired
FROM applications
LEFT JOIN application_secrets AS secrets ON secrets.zone_id = applications.zone_id AND secrets.application_id = applications.id
WHERE applications.zone_id = @zone_id AND applications.id = @id AND applications.archived_at IS NULL
ORDER BY secrets.created_at, secrets.id;

-- name: GetClient :one
-- GetClient returns an active application of any active zone, and the hashes of the client secrets that it can use now.
SELECT sqlc.embed(applications), ARRAY(
    SELECT secrets.secret_hash FROM application_secrets AS secrets
    WHERE secrets.zone_id = applications.zone_id AND secrets.application_id = applications.id
      AND (secrets.expires_at IS NULL OR secrets.expires_at > now()) AND (applications.expires_at IS NULL OR applications.expires_at > now())
)::text[] AS secret_hashes
FROM applications JOIN zones ON zones.id = applications.zone_id
WHERE applications.id = @id AND applications.archived_at IS NULL AND zones.archived_at IS NULL;

-- name: LockApplication :exec
SELECT FROM applications WHERE zone_id = @zone_id AND id = @id FOR NO KEY UPDATE;

-- name: LockApplications :exec
-- LockApplications locks applications in the order of their ids, so that two such statements cannot deadlock.
SELECT FROM applications WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) ORDER BY id FOR NO KEY UPDATE;

-- name: ListApplications :many
-- ListApplications returns active applications newest first, after a position, like ListZones.
SELECT zone_id, id, name, registration_method, traits, created_at, expires_at FROM applications
WHERE zone_id = @zone_id AND archived_at IS NULL
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListApplicationsByName :many
SELECT zone_id, id, name, registration_method, traits, created_at, expires_at FROM applications
WHERE zone_id = @zone_id AND archived_at IS NULL AND name = @name
  AND (sqlc.narg(registration_method)::text IS NULL OR registration_method = sqlc.narg(registration_method))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListApplicationsByRegistrationMethod :many
SELECT zone_id, id, name, registration_method, traits, created_at, expires_at FROM applications
WHERE zone_id = @zone_id AND archived_at IS NULL AND registration_method = @registration_method
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: UpdateApplication :exec
UPDATE applications SET
    name       = @name,
    traits     = @traits,
    version    = version + 1,
    updated_at = now()
WHERE zone_id = @zone_id AND id = @id;

-- name: UpdateRegisteredApplication :exec
-- UpdateRegisteredApplication sets what a registered client says about itself and other tables do not have.
UPDATE applications SET name = @name, jwks = sqlc.narg(jwks), version = version + 1, updated_at = now() WHERE zone_id = @zone_id AND id = @id;

-- name: TouchApplications :exec
-- TouchApplications increments the versions of applications whose client secrets change.
UPDATE applications SET version = version + 1, updated_at = now() WHERE zone_id = @zone_id AND id = ANY (@ids::text[]);

-- name: ArchiveApplications :exec
UPDATE applications SET archived_at = now(), updated_at = now(), version = version + 1
WHERE zone_id = @zone_id AND id = ANY (@ids::text[]);

-- name: LockActiveDCRApplications :many
-- LockActiveDCRApplications locks the dynamically registered applications that are neither expired nor archived.
SELECT * FROM applications
WHERE zone_id = @zone_id AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at > now()
ORDER BY created_at, id
FOR NO KEY UPDATE;

-- name: CountActiveDCRApplications :one
SELECT count(*) FROM applications
WHERE zone_id = @zone_id AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at > now();

-- name: ListExpiredDCRApplications :many
-- ListExpiredDCRApplications returns dynamically registered applications that expired more than 24 hours ago, like
-- ListLapsedSessions.
SELECT zone_id, id FROM applications
WHERE registration_method = 'dcr' AND archived_at IS NULL AND expires_at < now() - interval '24 hours' AND zone_id <> ALL (@excluded_zones::text[])
ORDER BY expires_at, zone_id, id
LIMIT @row_limit;

-- name: LockExpiredDCRApplications :many
-- LockExpiredDCRApplications locks those of the given applications that ListExpiredDCRApplications would return.
SELECT * FROM applications
WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at < now() - interval '24 hours'
ORDER BY expires_at, id
FOR NO KEY UPDATE;

-- name: ListControlKeys :many
-- ListControlKeys returns the active applications that are Control keys, like ListApplications.
SELECT zone_id, id, name, traits, created_at FROM applications
WHERE zone_id = @zone_id AND control_key AND archived_at IS NULL
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: GetControlKeyOfActiveZone :one
SELECT applications.name, applications.traits FROM applications
JOIN zones ON zones.id = applications.zone_id AND zones.archived_at IS NULL
WHERE applications.zone_id = @zone_id AND applications.id = @id AND applications.control_key AND applications.archived_at IS NULL;
