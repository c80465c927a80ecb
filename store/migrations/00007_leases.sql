-- What the replicas coordinate through. These rows belong to no zone, and only the
-- service itself, which can access all zones, sees them.

-- +goose Up
-- A lease makes one replica the leader of a task until it expires, by the clock of
-- the database. Each acquisition has a new term: a replica whose term has passed
-- can change nothing as the leader.
CREATE TABLE leases (
    name       text COLLATE "C" PRIMARY KEY,
    holder     text NOT NULL,                                -- WORKER_ID of the replica
    term       bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
ALTER TABLE leases ENABLE ROW LEVEL SECURITY;
ALTER TABLE leases FORCE ROW LEVEL SECURITY;
CREATE POLICY all_zones ON leases USING (current_setting('caracal.zone_id', true) = '*');
GRANT SELECT, INSERT ON leases TO caracal_service;
GRANT UPDATE (holder, term, expires_at) ON leases TO caracal_service;

-- The number of transactions that revoked admin tokens, in one row. Replicas read it
-- to notice revocations when notifications do not arrive.
CREATE TABLE admin_tokens_epoch (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    bigint NOT NULL
);
INSERT INTO admin_tokens_epoch (epoch) VALUES (0);
ALTER TABLE admin_tokens_epoch ENABLE ROW LEVEL SECURITY;
ALTER TABLE admin_tokens_epoch FORCE ROW LEVEL SECURITY;
CREATE POLICY all_readers ON admin_tokens_epoch FOR SELECT USING (true);
CREATE POLICY all_writers ON admin_tokens_epoch FOR UPDATE USING (true);
GRANT SELECT ON admin_tokens_epoch TO caracal_service;
GRANT UPDATE (epoch) ON admin_tokens_epoch TO caracal_service;

-- +goose Down
DROP TABLE admin_tokens_epoch;
DROP TABLE leases;
