-- Policies, policy sets and the history of activations. A version, a manifest and
-- an activation never change: the service can insert them, but it can neither
-- update nor delete them.

-- +goose Up
CREATE TABLE policies (
    zone_id        text COLLATE "C" NOT NULL REFERENCES zones (id),
    id             text COLLATE "C" NOT NULL,
    name           text NOT NULL,
    description    text,
    owner_type     text NOT NULL,
    latest_version integer NOT NULL DEFAULT 0,               -- number of the newest version
    created_by     text NOT NULL,                            -- name of the admin token
    version        bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    archived_at    timestamptz,
    PRIMARY KEY (zone_id, id)
);
CREATE UNIQUE INDEX policies_name_taken ON policies (zone_id, name) WHERE archived_at IS NULL;
CREATE INDEX policies_listed ON policies (zone_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
ALTER TABLE policies ENABLE ROW LEVEL SECURITY;
ALTER TABLE policies FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON policies USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON policies TO caracal_service;
GRANT UPDATE (latest_version, version, updated_at, archived_at) ON policies TO caracal_service;

CREATE TABLE policy_versions (
    zone_id        text COLLATE "C" NOT NULL,
    id             text COLLATE "C" NOT NULL,
    policy_id      text COLLATE "C" NOT NULL,
    version        integer NOT NULL CHECK (version > 0),
    content        text NOT NULL,                            -- Rego
    content_sha256 text NOT NULL,                            -- hexadecimal
    schema_version text NOT NULL,
    created_by     text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, id),
    CONSTRAINT policy_versions_numbered UNIQUE (zone_id, policy_id, version),
    FOREIGN KEY (zone_id, policy_id) REFERENCES policies (zone_id, id)
);
ALTER TABLE policy_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE policy_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON policy_versions USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON policy_versions TO caracal_service;

-- At most one policy set of a zone has an active version.
CREATE TABLE policy_sets (
    zone_id           text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                text COLLATE "C" NOT NULL,
    name              text NOT NULL,
    description       text,
    latest_version    integer NOT NULL DEFAULT 0,            -- number of the newest version
    active_version_id text COLLATE "C",
    shadow_version_id text COLLATE "C",                      -- evaluated next to the active version, without effect
    created_by        text NOT NULL,
    version           bigint NOT NULL DEFAULT 1,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    archived_at       timestamptz,
    PRIMARY KEY (zone_id, id),
    CONSTRAINT policy_sets_shadow_needs_active CHECK (shadow_version_id IS NULL OR active_version_id IS NOT NULL),
    CONSTRAINT policy_sets_archived_are_inactive CHECK (archived_at IS NULL OR active_version_id IS NULL)
);
CREATE UNIQUE INDEX policy_sets_name_taken ON policy_sets (zone_id, name) WHERE archived_at IS NULL;
CREATE UNIQUE INDEX policy_sets_active ON policy_sets (zone_id) WHERE active_version_id IS NOT NULL;
CREATE INDEX policy_sets_listed ON policy_sets (zone_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
ALTER TABLE policy_sets ENABLE ROW LEVEL SECURITY;
ALTER TABLE policy_sets FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON policy_sets USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON policy_sets TO caracal_service;
GRANT UPDATE (latest_version, active_version_id, shadow_version_id, version, updated_at, archived_at) ON policy_sets TO caracal_service;

CREATE TABLE policy_set_versions (
    zone_id         text COLLATE "C" NOT NULL,
    id              text COLLATE "C" NOT NULL,
    policy_set_id   text COLLATE "C" NOT NULL,
    version         integer NOT NULL CHECK (version > 0),
    manifest_sha256 text NOT NULL,                           -- hexadecimal
    schema_version  text NOT NULL,
    created_by      text NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, id),
    CONSTRAINT policy_set_versions_of_set UNIQUE (zone_id, policy_set_id, id),
    CONSTRAINT policy_set_versions_numbered UNIQUE (zone_id, policy_set_id, version),
    FOREIGN KEY (zone_id, policy_set_id) REFERENCES policy_sets (zone_id, id)
);
ALTER TABLE policy_sets
    ADD CONSTRAINT policy_sets_active_version FOREIGN KEY (zone_id, id, active_version_id) REFERENCES policy_set_versions (zone_id, policy_set_id, id),
    ADD CONSTRAINT policy_sets_shadow_version FOREIGN KEY (zone_id, id, shadow_version_id) REFERENCES policy_set_versions (zone_id, policy_set_id, id);
ALTER TABLE policy_set_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE policy_set_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON policy_set_versions USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON policy_set_versions TO caracal_service;

-- The policy versions of a policy set version, in order.
CREATE TABLE policy_set_manifests (
    zone_id               text COLLATE "C" NOT NULL,
    policy_set_version_id text COLLATE "C" NOT NULL,
    position              integer NOT NULL CHECK (position > 0),
    policy_version_id     text COLLATE "C" NOT NULL,
    PRIMARY KEY (zone_id, policy_set_version_id, position),
    CONSTRAINT policy_set_manifests_distinct UNIQUE (zone_id, policy_version_id, policy_set_version_id),
    FOREIGN KEY (zone_id, policy_set_version_id) REFERENCES policy_set_versions (zone_id, id),
    FOREIGN KEY (zone_id, policy_version_id) REFERENCES policy_versions (zone_id, id)
);
ALTER TABLE policy_set_manifests ENABLE ROW LEVEL SECURITY;
ALTER TABLE policy_set_manifests FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON policy_set_manifests USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON policy_set_manifests TO caracal_service;

-- Each change of the active policy set of a zone, numbered without gaps. The
-- columns without previous_ describe what is active after it, NULL if nothing is.
CREATE TABLE policy_activations (
    zone_id                    text COLLATE "C" NOT NULL REFERENCES zones (id),
    number                     bigint NOT NULL CHECK (number > 0),
    action                     text NOT NULL CHECK (action IN ('activate', 'rollback', 'deactivate', 'delete')),
    policy_set_id              text COLLATE "C",
    version_id                 text COLLATE "C",
    shadow_version_id          text COLLATE "C",
    previous_policy_set_id     text COLLATE "C",
    previous_version_id        text COLLATE "C",
    previous_shadow_version_id text COLLATE "C",
    outbox_id                  text COLLATE "C" NOT NULL,    -- the event that announces it
    activated_by               text NOT NULL,
    created_at                 timestamptz NOT NULL DEFAULT clock_timestamp(), -- in the order of number
    PRIMARY KEY (zone_id, number),
    CONSTRAINT policy_activations_event UNIQUE (zone_id, outbox_id),
    CHECK ((policy_set_id IS NULL) = (version_id IS NULL) AND (shadow_version_id IS NULL OR version_id IS NOT NULL)),
    CHECK ((previous_policy_set_id IS NULL) = (previous_version_id IS NULL) AND (previous_shadow_version_id IS NULL OR previous_version_id IS NOT NULL)),
    CHECK ((action IN ('activate', 'rollback')) = (version_id IS NOT NULL) AND (version_id IS NOT NULL OR previous_version_id IS NOT NULL)),
    FOREIGN KEY (zone_id, policy_set_id, version_id) REFERENCES policy_set_versions (zone_id, policy_set_id, id),
    FOREIGN KEY (zone_id, policy_set_id, shadow_version_id) REFERENCES policy_set_versions (zone_id, policy_set_id, id),
    FOREIGN KEY (zone_id, previous_policy_set_id, previous_version_id) REFERENCES policy_set_versions (zone_id, policy_set_id, id),
    FOREIGN KEY (zone_id, previous_policy_set_id, previous_shadow_version_id) REFERENCES policy_set_versions (zone_id, policy_set_id, id)
);
CREATE INDEX policy_activations_of_version ON policy_activations (zone_id, policy_set_id, version_id, number DESC);
CREATE UNIQUE INDEX policy_activations_by_event ON policy_activations (zone_id, outbox_id);
CREATE INDEX policy_activations_by_version ON policy_activations (zone_id, policy_set_id, version_id, number);
ALTER TABLE policy_activations ENABLE ROW LEVEL SECURITY;
ALTER TABLE policy_activations FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON policy_activations USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON policy_activations TO caracal_service;

-- +goose Down
DROP TABLE policy_activations, policy_set_manifests;
ALTER TABLE policy_sets DROP COLUMN active_version_id, DROP COLUMN shadow_version_id;
DROP TABLE policy_set_versions, policy_sets, policy_versions, policies;
