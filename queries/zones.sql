-- name: InsertZone :one
-- InsertZone returns no row if the slug is taken, so that the same transaction can try another slug.
INSERT INTO zones (id, name, slug, reserved, dcr_enabled)
VALUES (@id, @name, @slug, @reserved, @dcr_enabled)
ON CONFLICT ON CONSTRAINT zones_slug_taken DO NOTHING
RETURNING *;

-- name: GetAvailableZoneSlug :one
-- GetAvailableZoneSlug returns the first of base-2 … base-999 that no zone, active or archived, uses. It needs one
-- index probe for each taken slug. The CTE computes a candidate before it is compared: under row-level security only a plain
-- comparison can use an index.
WITH RECURSIVE tried (n, candidate) AS (
    SELECT 2, @base::text || '-2'
    UNION ALL
    SELECT tried.n + 1, @base::text || '-' || (tried.n + 1) FROM tried
    WHERE tried.n < 999 AND EXISTS (SELECT FROM zones WHERE zones.slug = tried.candidate)
)
SELECT last.candidate::text AS slug FROM (SELECT tried.candidate FROM tried ORDER BY tried.n DESC LIMIT 1) AS last
WHERE NOT EXISTS (SELECT FROM zones WHERE zones.slug = last.candidate);

-- name: GetZone :one
SELECT * FROM zones WHERE id = @id AND archived_at IS NULL;

-- name: LockZone :one
-- LockZone locks an active zone's row until the transaction ends.
SELECT * FROM zones WHERE id = @id AND archived_at IS NULL FOR NO KEY UPDATE;

-- name: ListZones :many
-- ListZones returns active zones newest first, after a position, without reserved ones. The row comparison makes page
-- 1000 as cheap as page 1, and keeps pages stable while zones are inserted.
SELECT * FROM zones
WHERE archived_at IS NULL AND NOT reserved
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListZonesByName :many
SELECT * FROM zones
WHERE archived_at IS NULL AND NOT reserved AND name = @name
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListZonesBySlug :many
-- ListZonesBySlug returns at most one zone: a slug is unique. It takes a position for the page after that zone.
SELECT * FROM zones
WHERE archived_at IS NULL AND NOT reserved AND slug = @slug
  AND (sqlc.narg(name)::text IS NULL OR name = sqlc.narg(name))
  AND (created_at, id) < (@before_time::timestamptz, @before_id::text);

-- name: UpdateZone :one
UPDATE zones SET
    name                    = @name,
    slug                    = @slug,
    reserved                = @reserved,
    dcr_enabled             = @dcr_enabled,
    operator_coauthor_badge = @operator_coauthor_badge,
    open_registration       = @open_registration,
    version                 = version + 1,
    updated_at              = now()
WHERE id = @id
RETURNING *;

-- name: ArchiveZone :exec
UPDATE zones SET archived_at = now(), updated_at = now(), version = version + 1 WHERE id = @id;

-- name: GetZoneDCRStatus :one
SELECT zones.id, zones.dcr_enabled,
    (SELECT count(*) FROM applications
     WHERE zone_id = zones.id AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at > now()) AS live_dcr_applications
FROM zones
WHERE zones.id = @id AND zones.archived_at IS NULL;
