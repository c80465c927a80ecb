-- Credential providers, the resources that reference them, and provider grants,
-- which contain the tokens of users. Every row with sealed secrets references its
-- data key with a foreign key, so that no key in use can be deleted.

-- +goose Up
CREATE TABLE providers (
    zone_id            text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                 text COLLATE "C" NOT NULL,
    name               text NOT NULL,
    identifier         text COLLATE "C" NOT NULL,
    kind               text NOT NULL CHECK (kind IN ('none', 'caracal_mandate', 'oauth2_authorization_code', 'oauth2_client_credentials', 'api_key', 'bearer_token')),
    config_json        jsonb NOT NULL DEFAULT '{}',          -- contains no secrets
    secret_config_keys text[] NOT NULL DEFAULT '{}',         -- names of the sealed secrets, sorted
    secret_config      bytea,                                -- sealed: a JSON object of strings
    data_key           integer,
    version            bigint NOT NULL DEFAULT 1,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    archived_at        timestamptz,
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, data_key) REFERENCES data_keys (zone_id, number),
    CONSTRAINT providers_sealed_or_not CHECK ((secret_config IS NULL) = (data_key IS NULL) AND (secret_config IS NULL) = (secret_config_keys = '{}')),
    CONSTRAINT providers_archived_hold_nothing CHECK (archived_at IS NULL OR secret_config IS NULL)
);
CREATE UNIQUE INDEX providers_identifier_taken ON providers (zone_id, identifier) WHERE archived_at IS NULL;
CREATE INDEX providers_listed ON providers (zone_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX providers_by_data_key ON providers (zone_id, data_key, id) WHERE data_key IS NOT NULL;
ALTER TABLE providers ENABLE ROW LEVEL SECURITY;
ALTER TABLE providers FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON providers USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE ON providers TO caracal_service;

CREATE TABLE resources (
    zone_id                text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                     text COLLATE "C" NOT NULL,
    name                   text NOT NULL,
    identifier             text COLLATE "C" NOT NULL,        -- the audience
    upstream_url           text,
    scopes                 text[] NOT NULL CHECK (cardinality(scopes) > 0),
    credential_provider_id text COLLATE "C" NOT NULL,
    gateway_application_id text COLLATE "C",                 -- the application that can exchange tokens for it at the gateway
    operations             jsonb NOT NULL DEFAULT '[]',      -- a list of {method, path, scope}
    operation_enforcement  text NOT NULL CHECK (operation_enforcement IN ('enforced', 'transport_uniform')),
    version                bigint NOT NULL DEFAULT 1,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    archived_at            timestamptz,
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, credential_provider_id) REFERENCES providers (zone_id, id),
    FOREIGN KEY (zone_id, gateway_application_id) REFERENCES applications (zone_id, id)
);
CREATE UNIQUE INDEX resources_identifier_taken ON resources (zone_id, identifier) WHERE archived_at IS NULL;
CREATE INDEX resources_listed ON resources (zone_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX resources_by_provider ON resources (zone_id, credential_provider_id) WHERE archived_at IS NULL;
CREATE INDEX resources_by_application ON resources (zone_id, gateway_application_id) WHERE archived_at IS NULL AND gateway_application_id IS NOT NULL;
ALTER TABLE resources ENABLE ROW LEVEL SECURITY;
ALTER TABLE resources FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON resources USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE ON resources TO caracal_service;

-- One row per zone: the number of active resources, and a revision that increases
-- whenever their bindings change, so that the gateway can detect a change.
CREATE TABLE resource_totals (
    zone_id          text COLLATE "C" PRIMARY KEY REFERENCES zones (id),
    live             bigint NOT NULL DEFAULT 0 CHECK (live >= 0),
    binding_revision bigint NOT NULL DEFAULT 0
);
ALTER TABLE resource_totals ENABLE ROW LEVEL SECURITY;
ALTER TABLE resource_totals FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON resource_totals USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE ON resource_totals TO caracal_service;

CREATE TABLE provider_grants (
    zone_id               text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                    text COLLATE "C" NOT NULL,
    user_id               text COLLATE "C" NOT NULL,
    resource_id           text COLLATE "C" NOT NULL,
    provider_id           text COLLATE "C" NOT NULL,
    scopes                text[] NOT NULL DEFAULT '{}',
    status                text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked')),
    access_token          bytea,                             -- sealed
    refresh_token         bytea,                             -- sealed
    data_key              integer,
    refresh_token_version bigint NOT NULL DEFAULT 0,
    refreshed_at          timestamptz,
    expires_at            timestamptz,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, resource_id) REFERENCES resources (zone_id, id),
    FOREIGN KEY (zone_id, provider_id) REFERENCES providers (zone_id, id),
    FOREIGN KEY (zone_id, data_key) REFERENCES data_keys (zone_id, number),
    CONSTRAINT provider_grants_sealed_or_not CHECK ((data_key IS NULL) = (access_token IS NULL AND refresh_token IS NULL)),
    CONSTRAINT provider_grants_revoked_hold_nothing CHECK (status = 'active' OR data_key IS NULL)
);
CREATE UNIQUE INDEX provider_grants_active ON provider_grants (zone_id, user_id, resource_id, provider_id) WHERE status = 'active';
CREATE INDEX provider_grants_by_provider ON provider_grants (zone_id, provider_id) WHERE status = 'active';
CREATE INDEX provider_grants_by_data_key ON provider_grants (zone_id, data_key, id) WHERE data_key IS NOT NULL;
ALTER TABLE provider_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE provider_grants FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON provider_grants USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT ON provider_grants TO caracal_service;
GRANT UPDATE (status, access_token, refresh_token, data_key, updated_at) ON provider_grants TO caracal_service;

-- +goose Down
DROP TABLE provider_grants, resource_totals, resources, providers;
