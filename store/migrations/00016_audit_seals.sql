-- Seals of audit entries, which make the audit log tamper-evident. Each zone's seals
-- form a chain: a seal contains the hash of an entry and of the seal before it. The
-- entries that belong to no zone (zone_id '-') have a chain of their own.

-- +goose Up
-- The package store/chain documents how hash and mac are computed. There is no foreign
-- key to audit_entries: that an entry is missing is for the verification to find.
CREATE TABLE audit_seals (
    zone_id  text COLLATE "C" NOT NULL CHECK (zone_id <> ''),
    seq      bigint NOT NULL,                                -- 1, 2, 3, …: without gaps
    entry_id text COLLATE "C" NOT NULL,
    previous bytea NOT NULL,                                 -- hash of the seal before this one
    hash     bytea NOT NULL,
    mac      bytea,                                          -- null: sealed without AUDIT_HMAC_KEY
    PRIMARY KEY (zone_id, seq),
    CONSTRAINT audit_seals_by_entry UNIQUE (zone_id, entry_id)
);
ALTER TABLE audit_seals ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_seals FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_seals USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON audit_seals TO caracal_service;      -- append-only, like audit_entries

-- The last seal of each chain: without it, a chain whose end is deleted would look
-- complete.
CREATE TABLE audit_seal_heads (
    zone_id   text COLLATE "C" PRIMARY KEY CHECK (zone_id <> ''),
    seq       bigint NOT NULL,
    hash      bytea NOT NULL,
    mac       bytea,
    sealed_at timestamptz NOT NULL
);
ALTER TABLE audit_seal_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_seal_heads FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_seal_heads USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE ON audit_seal_heads TO caracal_service;

-- The entries that are not sealed yet, a queue. An entry is added in the transaction
-- that inserts it, and removed in the one that seals it.
CREATE TABLE audit_unsealed (
    zone_id   text COLLATE "C" NOT NULL CHECK (zone_id <> ''),
    position  bigint GENERATED ALWAYS AS IDENTITY,
    entry_id  text COLLATE "C" NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, position)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE UNIQUE INDEX audit_unsealed_queue ON audit_unsealed (position);
ALTER TABLE audit_unsealed ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_unsealed FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_unsealed USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, DELETE ON audit_unsealed TO caracal_service;

SELECT set_config('caracal.zone_id', '*', true);
INSERT INTO audit_unsealed (zone_id, entry_id) SELECT zone_id, id FROM audit_entries ORDER BY occurred_at, id;

-- +goose Down
DROP TABLE audit_unsealed, audit_seal_heads, audit_seals;
