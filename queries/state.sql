-- name: ListStateApplications :many
-- ListStateApplications returns all active managed applications of a zone.
SELECT id, name, traits, version FROM applications
WHERE zone_id = @zone_id AND archived_at IS NULL AND registration_method = 'managed'
ORDER BY created_at, id;

-- name: ListStateProviders :many
-- ListStateProviders returns all active providers of a zone, without their sealed secrets.
SELECT id, name, identifier, kind, config_json, secret_config_keys, version FROM providers
WHERE zone_id = @zone_id AND archived_at IS NULL
ORDER BY created_at, id;

-- name: ListStateResources :many
-- ListStateResources returns all active resources of a zone except that with the excluded identifier, the control resource.
SELECT id, name, identifier, upstream_url, scopes, credential_provider_id, gateway_application_id, operations, operation_enforcement, version FROM resources
WHERE zone_id = @zone_id AND archived_at IS NULL AND identifier <> @excluded_identifier
ORDER BY created_at, id;
