-- Indexes for the filters of lists. Each leads a filtered list in its own order, so
-- that a page is one index scan. The other filters use the unique indexes.
--
-- The names of providers can be longer than an index allows, 2704 bytes, so their hash
-- is indexed. It is a column because row-level security does not let an index search for
-- the result of a function of a column that may leak the value, such as a hash function.

-- +goose Up
CREATE INDEX zones_named ON zones (name, created_at DESC, id DESC) WHERE archived_at IS NULL AND NOT reserved;
CREATE INDEX admin_tokens_named ON admin_tokens (name, created_at DESC, id DESC);
CREATE INDEX applications_named ON applications (zone_id, name, created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX applications_by_registration_method ON applications (zone_id, registration_method, created_at DESC, id DESC) WHERE archived_at IS NULL;
ALTER TABLE providers ADD COLUMN name_hash bigint NOT NULL GENERATED ALWAYS AS (hashtextextended(name, 0)) STORED;
CREATE INDEX providers_named ON providers (zone_id, name_hash, created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX providers_by_kind ON providers (zone_id, kind, created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX resources_named ON resources (zone_id, name, created_at DESC, id DESC) WHERE archived_at IS NULL;

-- +goose Down
DROP INDEX zones_named, admin_tokens_named, applications_named, applications_by_registration_method, providers_named, providers_by_kind, resources_named;
ALTER TABLE providers DROP COLUMN name_hash;
