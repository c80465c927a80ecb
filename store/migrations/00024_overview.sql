-- What the overview of a zone counts: each index contains only what counts.

-- +goose Up
CREATE INDEX resources_unenforced ON resources (zone_id) WHERE operation_enforcement <> 'enforced' AND archived_at IS NULL;
DROP INDEX sessions_active;
CREATE INDEX sessions_active ON sessions (zone_id, ends_at) WHERE status = 'active';

-- +goose Down
DROP INDEX sessions_active;
CREATE INDEX sessions_active ON sessions (zone_id) WHERE status = 'active';
DROP INDEX resources_unenforced;
