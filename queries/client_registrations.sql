-- name: InsertClientRegistration :exec
INSERT INTO client_registrations (zone_id, application_id, token_sha256, metadata, anonymous)
VALUES (@zone_id, @application_id, @token_sha256, @metadata, @anonymous);

-- name: CountActiveAnonymousRegistrations :one
SELECT count(*) FROM client_registrations
JOIN applications ON applications.zone_id = client_registrations.zone_id AND applications.id = client_registrations.application_id
WHERE client_registrations.zone_id = @zone_id AND client_registrations.anonymous
  AND applications.archived_at IS NULL AND applications.expires_at > now();

-- name: GetClientRegistration :one
-- GetClientRegistration returns a client that is active and has not expired.
SELECT client_registrations.*, sqlc.embed(applications) FROM client_registrations
JOIN applications ON applications.zone_id = client_registrations.zone_id AND applications.id = client_registrations.application_id
JOIN zones ON zones.id = client_registrations.zone_id
WHERE client_registrations.zone_id = @zone_id AND client_registrations.application_id = @application_id
  AND applications.archived_at IS NULL AND applications.expires_at > now() AND zones.archived_at IS NULL;

-- name: UpdateClientRegistration :exec
UPDATE client_registrations SET metadata = @metadata WHERE zone_id = @zone_id AND application_id = @application_id;

-- name: DeleteClientRegistrations :exec
DELETE FROM client_registrations WHERE zone_id = @zone_id AND application_id = ANY (@application_ids::text[]);
