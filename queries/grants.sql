-- name: InsertGrant :one
-- InsertGrant locks the application and the resource, so that neither can be archived or changed before the grant is
-- committed. It returns no row if one of them or the zone does not allow the grant.
WITH application AS (
    SELECT id FROM applications
    WHERE applications.zone_id = @zone_id AND applications.id = @application_id AND archived_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    FOR SHARE
), resource AS (
    SELECT id, scopes FROM resources
    WHERE resources.zone_id = @zone_id AND resources.id = @resource_id AND archived_at IS NULL AND identifier <> @excluded_identifier
    FOR SHARE
), inserted AS (
    INSERT INTO grants (zone_id, id, application_id, user_id, resource_id, scopes)
    SELECT zones.id, @id::text, application.id, @user_id::text, resource.id, @scopes::text[]
    FROM zones, application, resource
    WHERE zones.id = @zone_id AND zones.archived_at IS NULL AND (NOT zones.reserved OR @bootstrap::boolean) AND resource.scopes @> @scopes::text[]
    RETURNING *
), indexed AS (
    INSERT INTO grant_scopes (zone_id, scope, created_at, grant_id)
    SELECT DISTINCT inserted.zone_id, scope, inserted.created_at, inserted.id FROM inserted, unnest(@scopes::text[]) AS scope
)
SELECT * FROM inserted;

-- name: GetZoneOfGrant :one
-- GetZoneOfGrant returns an active zone, and whether it has the active application and resource that a grant refers to.
SELECT sqlc.embed(zones),
    EXISTS (SELECT FROM applications WHERE applications.zone_id = @zone_id AND applications.id = @application_id AND archived_at IS NULL AND (expires_at IS NULL OR expires_at > now())) AS has_application,
    EXISTS (SELECT FROM resources WHERE resources.zone_id = @zone_id AND resources.id = @resource_id AND archived_at IS NULL AND identifier <> @excluded_identifier) AS has_resource
FROM zones WHERE zones.id = @zone_id AND zones.archived_at IS NULL;

-- name: GetGrant :one
SELECT * FROM grants WHERE zone_id = @zone_id AND id = @id;

-- name: LockGrant :one
SELECT * FROM grants WHERE zone_id = @zone_id AND id = @id FOR NO KEY UPDATE;

-- name: RevokeGrant :one
-- RevokeGrant also returns whether another active grant permits all that the grant did.
UPDATE grants SET status = 'revoked', version = version + 1, updated_at = now() WHERE grants.zone_id = @zone_id AND grants.id = @id
RETURNING sqlc.embed(grants), EXISTS (
    SELECT FROM grants AS other
    WHERE other.zone_id = grants.zone_id AND other.user_id = grants.user_id AND other.application_id = grants.application_id AND other.resource_id = grants.resource_id
      AND other.status = 'active' AND other.id <> grants.id AND other.scopes @> grants.scopes
) AS covered;

-- name: CountGrantsByFilter :many
-- CountGrantsByFilter counts the grants that match each filter, at most row_limit of each. scope is the number of the scope,
-- from 1.
SELECT 'user_id' AS filter, 0::bigint AS scope, (SELECT count(*) FROM (SELECT FROM grants WHERE grants.zone_id = @zone_id AND user_id = sqlc.narg(user_id)::text LIMIT @row_limit) AS g) AS count
UNION ALL SELECT 'application_id', 0, (SELECT count(*) FROM (SELECT FROM grants WHERE grants.zone_id = @zone_id AND application_id = sqlc.narg(application_id)::text LIMIT @row_limit) AS g)
UNION ALL SELECT 'resource_id', 0, (SELECT count(*) FROM (SELECT FROM grants WHERE grants.zone_id = @zone_id AND resource_id = sqlc.narg(resource_id)::text LIMIT @row_limit) AS g)
UNION ALL SELECT 'status', 0, (SELECT count(*) FROM (SELECT FROM grants WHERE grants.zone_id = @zone_id AND status = sqlc.narg(status)::text LIMIT @row_limit) AS g)
UNION ALL SELECT 'provider_id', 0, (
    SELECT count(*) FROM (
        SELECT FROM resources AS r CROSS JOIN LATERAL (SELECT FROM grants AS g WHERE g.zone_id = r.zone_id AND g.resource_id = r.id LIMIT @row_limit) AS g
        WHERE r.zone_id = @zone_id AND r.credential_provider_id = sqlc.narg(provider_id)::text LIMIT @row_limit
    ) AS g)
UNION ALL SELECT 'scope', wanted.position, (SELECT count(*) FROM (SELECT FROM grant_scopes AS s WHERE s.zone_id = @zone_id AND s.scope = wanted.scope LIMIT @row_limit) AS g)
FROM unnest(@scopes::text[]) WITH ORDINALITY AS wanted (scope, position);

-- name: ListGrants :many
-- ListGrants returns grants newest first, after a position, like ListZones. The queries below scan the index of one filter
-- and apply the other filters to the rows that they find there. An empty list of scopes selects all grants.
SELECT * FROM listed_grants
WHERE zone_id = @zone_id AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListGrantsByUser :many
SELECT * FROM listed_grants
WHERE zone_id = @zone_id AND user_id = @user_id
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(resource_id)::text IS NULL OR resource_id = sqlc.narg(resource_id))
  AND (sqlc.narg(provider_id)::text IS NULL OR provider_id = sqlc.narg(provider_id))
  AND (sqlc.narg(status)::text IS NULL OR status = sqlc.narg(status))
  AND scopes @> @scopes::text[] AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListGrantsByApplication :many
SELECT * FROM listed_grants
WHERE zone_id = @zone_id AND application_id = @application_id
  AND (sqlc.narg(user_id)::text IS NULL OR user_id = sqlc.narg(user_id))
  AND (sqlc.narg(resource_id)::text IS NULL OR resource_id = sqlc.narg(resource_id))
  AND (sqlc.narg(provider_id)::text IS NULL OR provider_id = sqlc.narg(provider_id))
  AND (sqlc.narg(status)::text IS NULL OR status = sqlc.narg(status))
  AND scopes @> @scopes::text[] AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListGrantsByResource :many
SELECT * FROM listed_grants
WHERE zone_id = @zone_id AND resource_id = @resource_id
  AND (sqlc.narg(user_id)::text IS NULL OR user_id = sqlc.narg(user_id))
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(provider_id)::text IS NULL OR provider_id = sqlc.narg(provider_id))
  AND (sqlc.narg(status)::text IS NULL OR status = sqlc.narg(status))
  AND scopes @> @scopes::text[] AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListGrantsByStatus :many
SELECT * FROM listed_grants
WHERE zone_id = @zone_id AND status = @status
  AND (sqlc.narg(user_id)::text IS NULL OR user_id = sqlc.narg(user_id))
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(resource_id)::text IS NULL OR resource_id = sqlc.narg(resource_id))
  AND (sqlc.narg(provider_id)::text IS NULL OR provider_id = sqlc.narg(provider_id))
  AND scopes @> @scopes::text[] AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListGrantsByScope :many
SELECT one.* FROM grant_scopes AS s
CROSS JOIN LATERAL (
    SELECT * FROM listed_grants AS g
    WHERE g.zone_id = s.zone_id AND g.id = s.grant_id
      AND (sqlc.narg(user_id)::text IS NULL OR g.user_id = sqlc.narg(user_id))
      AND (sqlc.narg(application_id)::text IS NULL OR g.application_id = sqlc.narg(application_id))
      AND (sqlc.narg(resource_id)::text IS NULL OR g.resource_id = sqlc.narg(resource_id))
      AND (sqlc.narg(provider_id)::text IS NULL OR g.provider_id = sqlc.narg(provider_id))
      AND (sqlc.narg(status)::text IS NULL OR g.status = sqlc.narg(status))
      AND g.scopes @> @scopes::text[]
    LIMIT 1
) AS one
WHERE s.zone_id = @zone_id AND s.scope = @scope AND (s.created_at, s.grant_id) < (@before_time::timestamptz, @before_id::text)
ORDER BY s.created_at DESC, s.grant_id DESC
LIMIT @row_limit;

-- name: ListGrantsByProvider :many
-- ListGrantsByProvider merges the lists of the provider's resources. It finds the first grant of each list, and then reads
-- a page only of those lists that can contribute to the page: at most as many as the page has rows.
WITH lists AS (
    SELECT r.id FROM resources AS r
    CROSS JOIN LATERAL (
        SELECT g.created_at, g.id FROM grants AS g
        WHERE g.zone_id = r.zone_id AND g.resource_id = r.id
          AND (sqlc.narg(user_id)::text IS NULL OR g.user_id = sqlc.narg(user_id))
          AND (sqlc.narg(application_id)::text IS NULL OR g.application_id = sqlc.narg(application_id))
          AND (sqlc.narg(resource_id)::text IS NULL OR g.resource_id = sqlc.narg(resource_id))
          AND (sqlc.narg(status)::text IS NULL OR g.status = sqlc.narg(status))
          AND g.scopes @> @scopes::text[] AND (g.created_at, g.id) < (@before_time::timestamptz, @before_id::text)
        ORDER BY g.created_at DESC, g.id DESC LIMIT 1
    ) AS newest
    WHERE r.zone_id = @zone_id AND r.credential_provider_id = @provider_id
    ORDER BY newest.created_at DESC, newest.id DESC LIMIT @row_limit
), page AS (
    SELECT position.id FROM lists
    CROSS JOIN LATERAL (
        SELECT g.created_at, g.id FROM grants AS g
        WHERE g.zone_id = @zone_id AND g.resource_id = lists.id
          AND (sqlc.narg(user_id)::text IS NULL OR g.user_id = sqlc.narg(user_id))
          AND (sqlc.narg(application_id)::text IS NULL OR g.application_id = sqlc.narg(application_id))
          AND (sqlc.narg(resource_id)::text IS NULL OR g.resource_id = sqlc.narg(resource_id))
          AND (sqlc.narg(status)::text IS NULL OR g.status = sqlc.narg(status))
          AND g.scopes @> @scopes::text[] AND (g.created_at, g.id) < (@before_time::timestamptz, @before_id::text)
        ORDER BY g.created_at DESC, g.id DESC LIMIT @row_limit
    ) AS position
    ORDER BY position.created_at DESC, position.id DESC LIMIT @row_limit
)
SELECT one.* FROM page
CROSS JOIN LATERAL (SELECT * FROM listed_grants AS g WHERE g.zone_id = @zone_id AND g.id = page.id LIMIT 1) AS one
ORDER BY one.created_at DESC, one.id DESC;
