-- The data keys that seal a zone's secrets, each wrapped by a key-encryption key,
-- which is never stored in the database.

-- +goose Up
CREATE TABLE data_keys (
    zone_id    text COLLATE "C" NOT NULL REFERENCES zones (id),
    number     integer NOT NULL CHECK (number > 0),
    wrapped_by text COLLATE "C" NOT NULL,                    -- the id of the key-encryption key
    wrapped    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,                                  -- when a newer key replaced it
    PRIMARY KEY (zone_id, number)
);
CREATE UNIQUE INDEX data_keys_current ON data_keys (zone_id) WHERE retired_at IS NULL;
CREATE INDEX data_keys_by_wrapper ON data_keys (wrapped_by, zone_id, number);
CREATE INDEX data_keys_by_age ON data_keys (created_at, zone_id) WHERE retired_at IS NULL;
CREATE INDEX data_keys_retired ON data_keys (zone_id, number) WHERE retired_at IS NOT NULL;
ALTER TABLE data_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE data_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON data_keys USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, DELETE ON data_keys TO caracal_service; -- unused retired keys are deleted
GRANT UPDATE (wrapped_by, wrapped, retired_at) ON data_keys TO caracal_service;

-- +goose Down
DROP TABLE data_keys;
