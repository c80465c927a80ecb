-- name: InsertResource :one
-- InsertResource returns no row if an active resource has the identifier, so that the same transaction can try
-- another identifier.
INSERT INTO resources (zone_id, id, name, identifier, upstream_url, scopes, credential_provider_id, gateway_application_id, operations, operation_enforcement)
VALUES (@zone_id, @id, @name, @identifier, sqlc.narg(upstream_url), @scopes, @credential_provider_id, sqlc.narg(gateway_application_id), @operations, @operation_enforcement)
ON CONFLICT (zone_id, identifier) WHERE archived_at IS NULL DO NOTHING
RETURNING *;

-- name: GetAvailableResourceIdentifier :one
-- GetAvailableResourceIdentifier returns the first of base-2 … base-999 that no active resource of the zone uses,
-- like GetAvailableZoneSlug.
WITH RECURSIVE tried (n, candidate) AS (
    SELECT 2, @base::text || '-2'
    UNION ALL
    SELECT tried.n + 1, @base::text || '-' || (tried.n + 1) FROM tried
    WHERE tried.n < 999 AND EXISTS (SELECT FROM resources WHERE resources.zone_id = @zone_id AND resources.identifier = tried.candidate AND resources.archived_at IS NULL)
)
SELECT last.candidate::text AS identifier FROM (SELECT tried.candidate FROM tried ORDER BY tried.n DESC LIMIT 1) AS last
WHERE NOT EXISTS (SELECT FROM resources WHERE resources.zone_id = @zone_id AND resources.identifier = last.candidate AND resources.archived_at IS NULL);

-- name: GetResource :one
SELECT * FROM resources WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL;

-- name: LockResource :one
SELECT * FROM resources WHERE zone_id = @zone_id AND id = @id AND archived_at IS NULL FOR NO KEY UPDATE;

-- name: GetResourceByIdentifier :one
SELECT * FROM resources WHERE zone_id = @zone_id AND identifier = @identifier AND archived_at IS NULL;

-- name: ListResources :many
-- ListResources returns active resources newest first, after a position, like ListZones. excluded_identifier is the
-- identifier of a resource that the actor cannot access, or ''.
SELECT * FROM resources
WHERE zone_id = @zone_id AND archived_at IS NULL AND identifier <> @excluded_identifier
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListResourcesByIdentifier :many
-- ListResourcesByIdentifier returns at most one resource, like ListZonesBySlug.
SELECT * FROM resources
WHERE zone_id = @zone_id AND archived_at IS NULL AND identifier = @identifier AND identifier <> @excluded_identifier
  AND (sqlc.narg(name)::text IS NULL OR name = sqlc.narg(name))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text);

-- name: ListResourcesByName :many
SELECT * FROM resources
WHERE zone_id = @zone_id AND archived_at IS NULL AND name = @name AND identifier <> @excluded_identifier
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: UpdateResource :one
-- UpdateResource does not change updated_at if only the binding to an application changed (touched is false).
UPDATE resources SET
    name                   = @name,
    identifier             = @identifier,
    upstream_url           = sqlc.narg(upstream_url),
    scopes                 = @scopes,
    credential_provider_id = @credential_provider_id,
    gateway_application_id = sqlc.narg(gateway_application_id),
    operations             = @operations,
    operation_enforcement  = @operation_enforcement,
    version                = version + 1,
    updated_at             = CASE WHEN @touched::boolean THEN now() ELSE updated_at END
WHERE zone_id = @zone_id AND id = @id
RETURNING *;

-- name: ArchiveResource :exec
UPDATE resources SET archived_at = now(), updated_at = now(), version = version + 1, gateway_application_id = NULL
WHERE zone_id = @zone_id AND id = @id;

-- name: UnbindResources :many
-- UnbindResources removes applications from the resources that they exchange tokens for.
UPDATE resources AS r SET gateway_application_id = NULL, version = r.version + 1
FROM (SELECT id, gateway_application_id FROM resources
      WHERE zone_id = @zone_id AND gateway_application_id = ANY (@application_ids::text[]) AND archived_at IS NULL FOR NO KEY UPDATE) AS bound
WHERE r.zone_id = @zone_id AND r.id = bound.id
RETURNING r.id, bound.gateway_application_id::text AS application_id;

-- name: IncrementResourceCount :execrows
-- IncrementResourceCount adds a new resource to the zone's count and the number of its bindings to the binding revision. It
-- changes no row if the zone has reached max_resources.
INSERT INTO resource_totals AS t (zone_id, live, binding_revision) VALUES (@zone_id, 1, @bindings)
ON CONFLICT (zone_id) DO UPDATE SET live = t.live + 1, binding_revision = t.binding_revision + @bindings
WHERE t.live < @max_resources;

-- name: DecrementResourceCount :exec
UPDATE resource_totals SET live = live - 1, binding_revision = binding_revision + @bindings WHERE zone_id = @zone_id;

-- name: BumpBindingRevision :exec
UPDATE resource_totals SET binding_revision = binding_revision + 1 WHERE zone_id = @zone_id;

-- name: GetZoneAndLockReferences :one
-- GetZoneAndLockReferences returns an active zone and locks an active provider and an active application, so that they
-- cannot be archived while a resource that references them is written. For one that does not exist it returns ''.
WITH provider AS (
    SELECT id FROM providers WHERE providers.zone_id = @zone_id AND providers.id = @provider_id AND archived_at IS NULL FOR SHARE
), application AS (
    SELECT registration_method FROM applications
    WHERE applications.zone_id = @zone_id AND applications.id = @application_id AND archived_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    FOR SHARE
)
SELECT sqlc.embed(zones), coalesce((SELECT id FROM provider), '')::text AS provider_id,
    coalesce((SELECT registration_method FROM application), '')::text AS registration_method
FROM zones WHERE zones.id = @zone_id AND zones.archived_at IS NULL;
