-- Applications and their sessions, agent sessions and delegation edges. Other
-- services create these three; this service only revokes or terminates them.

-- +goose Up
CREATE TABLE applications (
    zone_id             text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                  text COLLATE "C" NOT NULL,
    name                text NOT NULL,
    registration_method text NOT NULL CHECK (registration_method IN ('managed', 'dcr')),
    client_secret_hash  text NOT NULL,                       -- sha256$… of a generated secret, $argon2id$… of one chosen by a person
    traits              text[] NOT NULL DEFAULT '{}',
    version             bigint NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz,
    archived_at         timestamptz,
    PRIMARY KEY (zone_id, id),
    CONSTRAINT applications_dcr_expires CHECK ((registration_method = 'dcr') = (expires_at IS NOT NULL))
);
CREATE INDEX applications_listed ON applications (zone_id, created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX applications_dcr_live ON applications (zone_id, expires_at) WHERE registration_method = 'dcr' AND archived_at IS NULL;
ALTER TABLE applications ENABLE ROW LEVEL SECURITY;
ALTER TABLE applications FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON applications USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE ON applications TO caracal_service;

CREATE TABLE sessions (
    zone_id          text COLLATE "C" NOT NULL REFERENCES zones (id),
    id               text COLLATE "C" NOT NULL,
    session_type     text NOT NULL CHECK (session_type IN ('user', 'application')),
    subject_id       text COLLATE "C",                       -- id of a user or an application
    parent_id        text COLLATE "C",
    status           text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked', 'expired')),
    expires_at       timestamptz NOT NULL,
    authenticated_at timestamptz NOT NULL DEFAULT now(),
    created_at       timestamptz NOT NULL DEFAULT now(),
    revoked_at       timestamptz,
    revoked_reason   text,
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, parent_id) REFERENCES sessions (zone_id, id)
);
CREATE INDEX sessions_by_subject ON sessions (zone_id, subject_id);
CREATE INDEX sessions_by_parent ON sessions (zone_id, parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX sessions_active ON sessions (zone_id) WHERE status = 'active';
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON sessions USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT ON sessions TO caracal_service;
GRANT UPDATE (status, revoked_at, revoked_reason) ON sessions TO caracal_service;

CREATE TABLE agent_sessions (
    zone_id            text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                 text COLLATE "C" NOT NULL,
    application_id     text COLLATE "C" NOT NULL,
    parent_id          text COLLATE "C",
    subject_session_id text COLLATE "C" NOT NULL,
    status             text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'terminated', 'expired')),
    lifecycle          text NOT NULL DEFAULT 'task' CHECK (lifecycle IN ('task', 'service')),
    labels             text[] NOT NULL DEFAULT '{}',
    depth              integer NOT NULL DEFAULT 0,
    max_children       integer NOT NULL DEFAULT 10,
    child_count        integer NOT NULL DEFAULT 0 CHECK (child_count >= 0),  -- active and suspended children
    ttl_seconds        integer DEFAULT 3600,
    spawned_at         timestamptz NOT NULL DEFAULT now(),
    last_active_at     timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    terminated_at      timestamptz,
    termination_reason text,
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, application_id) REFERENCES applications (zone_id, id),
    FOREIGN KEY (zone_id, parent_id) REFERENCES agent_sessions (zone_id, id),
    FOREIGN KEY (zone_id, subject_session_id) REFERENCES sessions (zone_id, id)
);
CREATE INDEX agent_sessions_by_application ON agent_sessions (zone_id, application_id);
CREATE INDEX agent_sessions_by_parent ON agent_sessions (zone_id, parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX agent_sessions_live ON agent_sessions (zone_id) WHERE status IN ('active', 'suspended');
ALTER TABLE agent_sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE agent_sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON agent_sessions USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT ON agent_sessions TO caracal_service;
GRANT UPDATE (status, child_count, updated_at, terminated_at, termination_reason) ON agent_sessions TO caracal_service;

CREATE TABLE delegation_edges (
    zone_id                 text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                      text COLLATE "C" NOT NULL,
    source_session_id       text COLLATE "C" NOT NULL,       -- both refer to agent sessions
    target_session_id       text COLLATE "C" NOT NULL,
    issuer_application_id   text COLLATE "C" NOT NULL,
    receiver_application_id text COLLATE "C" NOT NULL,
    parent_edge_id          text COLLATE "C",
    resource_id             text COLLATE "C",
    scopes                  text[] NOT NULL DEFAULT '{}',
    constraints             jsonb NOT NULL DEFAULT '{}',
    status                  text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked', 'expired')),
    edge_version            bigint NOT NULL DEFAULT 1,
    expires_at              timestamptz NOT NULL,
    created_at              timestamptz NOT NULL DEFAULT now(),
    updated_at              timestamptz NOT NULL DEFAULT now(),
    revoked_at              timestamptz,
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, source_session_id) REFERENCES agent_sessions (zone_id, id),
    FOREIGN KEY (zone_id, target_session_id) REFERENCES agent_sessions (zone_id, id),
    FOREIGN KEY (zone_id, parent_edge_id) REFERENCES delegation_edges (zone_id, id)
);
CREATE INDEX delegation_edges_active_by_source ON delegation_edges (zone_id, source_session_id) WHERE status = 'active';
CREATE INDEX delegation_edges_active_by_target ON delegation_edges (zone_id, target_session_id) WHERE status = 'active';
ALTER TABLE delegation_edges ENABLE ROW LEVEL SECURITY;
ALTER TABLE delegation_edges FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON delegation_edges USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT ON delegation_edges TO caracal_service;
GRANT UPDATE (status, edge_version, updated_at, revoked_at) ON delegation_edges TO caracal_service;

-- Counts the changes of a zone's delegation graph, so that other services can
-- detect a change.
CREATE TABLE delegation_graph_epochs (
    zone_id text COLLATE "C" PRIMARY KEY REFERENCES zones (id),
    epoch   bigint NOT NULL DEFAULT 0
);
ALTER TABLE delegation_graph_epochs ENABLE ROW LEVEL SECURITY;
ALTER TABLE delegation_graph_epochs FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON delegation_graph_epochs USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, UPDATE ON delegation_graph_epochs TO caracal_service;

-- +goose Down
DROP TABLE delegation_graph_epochs, delegation_edges, agent_sessions, sessions, applications;
