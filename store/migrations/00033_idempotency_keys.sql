-- The responses of requests with an Idempotency-Key, so that a repeated request gets its
-- response again and changes nothing. A row is inserted in the transaction of the request's
-- write, and so exists if and only if the request succeeded.

-- +goose Up
CREATE TABLE idempotency_keys (
    zone_id    text COLLATE "C" NOT NULL,                    -- '-': of a request about no zone
    id         text COLLATE "C" NOT NULL,                    -- a digest of the actor, the operation, its path parameters and the key
    -- Whether the transaction has got the lock of the key. Another transaction has it while it processes a request with the key.
    locked     boolean NOT NULL CONSTRAINT idempotency_key_in_use CHECK (locked),
    wrapped_by text COLLATE "C" NOT NULL,                    -- the id of the key-encryption key
    wrapped    bytea NOT NULL,                               -- the data key of this row only
    response   bytea,                                        -- a digest of the request and the response, sealed; null until the end of the transaction
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, id)
);
CREATE INDEX idempotency_keys_due ON idempotency_keys (created_at, zone_id, id);
CREATE INDEX idempotency_keys_by_wrapper ON idempotency_keys (wrapped_by, zone_id, id);
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON idempotency_keys USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
-- Without its row, a request that is repeated would be processed again.
CREATE POLICY delete_old ON idempotency_keys AS RESTRICTIVE FOR DELETE TO caracal_service USING (created_at < now() - interval '24 hours');
GRANT SELECT, INSERT, DELETE ON idempotency_keys TO caracal_service;
GRANT UPDATE (wrapped_by, wrapped, response) ON idempotency_keys TO caracal_service;

-- +goose Down
DROP TABLE idempotency_keys;
