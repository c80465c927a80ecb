-- Control keys: managed applications with the trait control:invoke. A key can have
-- public keys, with which it authenticates by private_key_jwt instead of a secret.

-- +goose Up
ALTER TABLE applications
    ADD COLUMN control_key boolean NOT NULL GENERATED ALWAYS AS ('control:invoke' = ANY (traits)) STORED,
    ADD COLUMN jwks jsonb;                                   -- a JSON Web Key Set of public keys
CREATE INDEX applications_control_keys ON applications (zone_id, created_at DESC, id DESC) WHERE control_key AND archived_at IS NULL;

-- +goose Down
DROP INDEX applications_control_keys;
ALTER TABLE applications DROP COLUMN jwks, DROP COLUMN control_key;
