-- Zones, admin tokens and the audit log.
--
-- There are two roles: the owner role, which runs the migrations, and
-- caracal_service, which owns nothing and has only the explicit grants below.
-- Row-level security is forced, so it applies to the owner too: a connection sees
-- the rows of the zone in the setting caracal.zone_id, all rows if it is '*', and
-- none if it is not set. After its first use in a session, the unset setting reads
-- as '', so no row has the zone_id ''; rows that belong to no zone have '-'.

-- +goose Up
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'caracal_service') THEN
        CREATE ROLE caracal_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this cluster is being migrated concurrently
END $$;
-- +goose StatementEnd

GRANT SELECT ON goose_db_version TO caracal_service; -- the service checks the schema version at start

CREATE TABLE zones (
    id                      text COLLATE "C" PRIMARY KEY CHECK (id NOT IN ('', '-', '*')),
    name                    text NOT NULL,
    slug                    text COLLATE "C" NOT NULL,
    reserved                boolean NOT NULL,                -- belongs to Caracal itself
    dcr_enabled             boolean NOT NULL DEFAULT false,
    operator_coauthor_badge boolean NOT NULL DEFAULT true,
    version                 bigint NOT NULL DEFAULT 1,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    archived_at             timestamptz,
    CONSTRAINT zones_slug_taken UNIQUE (slug)
);
CREATE INDEX zones_listed ON zones (created_at DESC, id DESC) WHERE archived_at IS NULL AND NOT reserved;
ALTER TABLE zones ENABLE ROW LEVEL SECURITY;
ALTER TABLE zones FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON zones USING (current_setting('caracal.zone_id', true) IN (id, '*'));
GRANT SELECT, INSERT, UPDATE ON zones TO caracal_service;

CREATE TABLE admin_tokens (
    zone_id      text COLLATE "C" NOT NULL CHECK (zone_id <> ''),  -- '-': global
    of_zone      text COLLATE "C" GENERATED ALWAYS AS (nullif(zone_id, '-')) STORED REFERENCES zones (id),
    id           text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    capability   text NOT NULL CHECK (capability IN ('read', 'write')),
    created_by   text NOT NULL,                              -- env-bootstrap, env-derived, env-derived-write, admin:<token id>
    token_sha256 bytea NOT NULL CHECK (length(token_sha256) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    PRIMARY KEY (zone_id, id)
);
CREATE UNIQUE INDEX admin_tokens_by_id ON admin_tokens (id);
CREATE UNIQUE INDEX admin_tokens_live_secret ON admin_tokens (token_sha256) WHERE revoked_at IS NULL;
CREATE INDEX admin_tokens_listed ON admin_tokens (created_at DESC, id DESC);
CREATE INDEX admin_tokens_live_by_zone ON admin_tokens (zone_id) WHERE revoked_at IS NULL;
CREATE INDEX admin_tokens_live_by_creator ON admin_tokens (created_by) WHERE revoked_at IS NULL;
ALTER TABLE admin_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE admin_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON admin_tokens USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON admin_tokens TO caracal_service;
GRANT UPDATE (last_used_at, revoked_at) ON admin_tokens TO caracal_service;

-- One entry for each changed object and each denied request. The payload is text
-- and not jsonb, so that its exact bytes are kept and can be hashed.
CREATE TABLE audit_entries (
    zone_id     text COLLATE "C" NOT NULL CHECK (zone_id <> ''),   -- '-': belongs to no zone
    id          text COLLATE "C" NOT NULL,
    request_id  text NOT NULL,
    actor_id    text,                                        -- null: a job of the service, not a request
    actor_name  text NOT NULL,
    actor_scope text CHECK (actor_scope IN ('global', 'zone')),
    operation   text NOT NULL,
    action      text NOT NULL,
    method      text NOT NULL,
    path        text NOT NULL,
    entity_type text,
    entity_id   text,
    status_code integer NOT NULL,
    payload     text NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
    PRIMARY KEY (zone_id, id)
);
CREATE INDEX audit_entries_listed ON audit_entries (zone_id, occurred_at DESC, id DESC);
ALTER TABLE audit_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_entries FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_entries USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON audit_entries TO caracal_service;    -- append-only: the service can neither change nor delete entries

-- +goose Down
DROP TABLE audit_entries, admin_tokens, zones;
