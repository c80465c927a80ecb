-- Dynamic client registration as in RFC 7591 and RFC 7592.

-- +goose Up
ALTER TABLE zones ADD COLUMN open_registration boolean NOT NULL DEFAULT false;  -- clients can register without a token

-- Tokens that allow clients to register: initial access tokens (RFC 7591, section 3).
CREATE TABLE registration_tokens (
    zone_id      text COLLATE "C" NOT NULL REFERENCES zones (id),
    id           text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    token_sha256 bytea NOT NULL,
    max_uses     integer,
    uses         integer NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    PRIMARY KEY (zone_id, id)
);
CREATE UNIQUE INDEX registration_tokens_by_token ON registration_tokens (zone_id, token_sha256);
CREATE INDEX registration_tokens_listed ON registration_tokens (zone_id, created_at DESC, id DESC);
ALTER TABLE registration_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE registration_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON registration_tokens USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE (uses), DELETE ON registration_tokens TO caracal_service;

-- What a client said about itself, and the token with which it can change or delete it.
CREATE TABLE client_registrations (
    zone_id        text COLLATE "C" NOT NULL,
    application_id text COLLATE "C" NOT NULL,
    token_sha256   bytea NOT NULL,
    metadata       jsonb NOT NULL,
    PRIMARY KEY (zone_id, application_id),
    FOREIGN KEY (zone_id, application_id) REFERENCES applications (zone_id, id)
);
ALTER TABLE client_registrations ENABLE ROW LEVEL SECURITY;
ALTER TABLE client_registrations FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON client_registrations USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE (metadata), DELETE ON client_registrations TO caracal_service;

-- +goose Down
DROP TABLE client_registrations, registration_tokens;
ALTER TABLE zones DROP COLUMN open_registration;
