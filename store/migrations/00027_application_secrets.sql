-- Client secrets of applications. An application can have several, so that its instances
-- can change to a new one while the old one is still valid.

-- +goose Up
CREATE TABLE application_secrets (
    zone_id        text COLLATE "C" NOT NULL,
    application_id text COLLATE "C" NOT NULL,
    id             text COLLATE "C" NOT NULL,
    secret_hash    text NOT NULL,                            -- sha256$… of a generated secret, $argon2id$… of one chosen by a person
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz,
    PRIMARY KEY (zone_id, application_id, id),
    FOREIGN KEY (zone_id, application_id) REFERENCES applications (zone_id, id)
);
CREATE INDEX application_secrets_due ON application_secrets (expires_at, zone_id, application_id) WHERE expires_at IS NOT NULL;
ALTER TABLE application_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE application_secrets FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON application_secrets USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE (expires_at), DELETE ON application_secrets TO caracal_service;

SELECT set_config('caracal.zone_id', '*', true);
INSERT INTO application_secrets (zone_id, application_id, id, secret_hash, created_at)
SELECT zone_id, id, gen_random_uuid(), client_secret_hash, created_at FROM applications WHERE archived_at IS NULL;
ALTER TABLE applications DROP COLUMN client_secret_hash;

-- A token request names an application, but not its zone.
CREATE INDEX applications_by_id ON applications (id) WHERE archived_at IS NULL;

-- +goose Down
SELECT set_config('caracal.zone_id', '*', true);
DROP INDEX applications_by_id;
ALTER TABLE applications ADD COLUMN client_secret_hash text NOT NULL DEFAULT '';
UPDATE applications AS a SET client_secret_hash = newest.secret_hash
FROM (SELECT DISTINCT ON (zone_id, application_id) zone_id, application_id, secret_hash FROM application_secrets
      ORDER BY zone_id, application_id, created_at DESC, id DESC) AS newest
WHERE newest.zone_id = a.zone_id AND newest.application_id = a.id;
ALTER TABLE applications ALTER COLUMN client_secret_hash DROP DEFAULT;
DROP TABLE application_secrets;
