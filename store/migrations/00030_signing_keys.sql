-- The keys that sign a zone's tokens (ES256, RFC 7518). The private keys are sealed with
-- the zone's data key.

-- +goose Up
CREATE TABLE signing_keys (
    zone_id     text COLLATE "C" NOT NULL REFERENCES zones (id),
    id          text COLLATE "C" NOT NULL,                   -- the kid of tokens and of the public key
    public_jwk  jsonb NOT NULL,                              -- kty, crv, x and y (RFC 7517)
    private_key bytea NOT NULL,                              -- PKCS #8, sealed
    data_key    integer NOT NULL,                            -- the number of the key that seals it
    created_at  timestamptz NOT NULL DEFAULT now(),
    retires_at  timestamptz,                                 -- until then it verifies; null: it also signs
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, data_key) REFERENCES data_keys (zone_id, number)
);
CREATE UNIQUE INDEX signing_keys_current ON signing_keys (zone_id) WHERE retires_at IS NULL;
CREATE INDEX signing_keys_sealed ON signing_keys (zone_id, data_key, id);
CREATE INDEX signing_keys_due ON signing_keys (retires_at, zone_id, id) WHERE retires_at IS NOT NULL;
ALTER TABLE signing_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE signing_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON signing_keys USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
CREATE POLICY delete_retired ON signing_keys AS RESTRICTIVE FOR DELETE TO caracal_service USING (retires_at <= now());
GRANT SELECT, INSERT, DELETE ON signing_keys TO caracal_service;
GRANT UPDATE (private_key, data_key, retires_at) ON signing_keys TO caracal_service;

-- +goose Down
DROP TABLE signing_keys;
