-- Which document manages an object: the owner that it was applied with. Documents of an
-- owner can prune only what the owner manages.

-- +goose Up
CREATE TABLE state_owners (
    zone_id   text COLLATE "C" NOT NULL REFERENCES zones (id),
    kind      text COLLATE "C" NOT NULL,                     -- of the object, as in a document
    object_id text COLLATE "C" NOT NULL,
    owner     text COLLATE "C" NOT NULL,
    PRIMARY KEY (zone_id, kind, object_id)
);
CREATE INDEX state_owners_by_owner ON state_owners (zone_id, owner);
ALTER TABLE state_owners ENABLE ROW LEVEL SECURITY;
ALTER TABLE state_owners FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON state_owners USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, DELETE ON state_owners TO caracal_service;
GRANT UPDATE (owner) ON state_owners TO caracal_service;

-- +goose Down
DROP TABLE state_owners;
