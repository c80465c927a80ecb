-- Grants: which scopes of a resource an application may request for a user.
--
-- An index leads a list in its own order for each filter, so that a page is one index
-- scan. Row-level security lets no index search inside an array, so grant_scopes has a
-- row for each scope of a grant. It has no foreign key: grants are never deleted, and
-- both are inserted in one transaction.

-- +goose Up
CREATE TABLE grants (
    zone_id        text COLLATE "C" NOT NULL REFERENCES zones (id),
    id             text COLLATE "C" NOT NULL,
    application_id text COLLATE "C" NOT NULL,
    user_id        text COLLATE "C" NOT NULL,                -- the subject in the tokens of the user
    resource_id    text COLLATE "C" NOT NULL,
    scopes         text[] NOT NULL CHECK (cardinality(scopes) > 0),
    status         text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'revoked', 'expired')),
    version        bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, id),
    FOREIGN KEY (zone_id, application_id) REFERENCES applications (zone_id, id),
    FOREIGN KEY (zone_id, resource_id) REFERENCES resources (zone_id, id)
);
CREATE INDEX grants_listed ON grants (zone_id, created_at DESC, id DESC);
CREATE INDEX grants_by_application ON grants (zone_id, application_id, created_at DESC, id DESC);
CREATE INDEX grants_by_user ON grants (zone_id, user_id, created_at DESC, id DESC);
CREATE INDEX grants_by_resource ON grants (zone_id, resource_id, created_at DESC, id DESC);
CREATE INDEX grants_by_status ON grants (zone_id, status, created_at DESC, id DESC);
-- For plans that do not depend on which values are common at the moment, so that each
-- filter uses its own index.
ALTER TABLE grants ALTER status SET (n_distinct = 3), ALTER application_id SET (n_distinct = -0.01), ALTER resource_id SET (n_distinct = -0.01), ALTER user_id SET (n_distinct = -0.1);
ALTER TABLE grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE grants FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON grants USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON grants TO caracal_service;
GRANT UPDATE (status, version, updated_at) ON grants TO caracal_service;

CREATE TABLE grant_scopes (
    zone_id    text COLLATE "C" NOT NULL,
    scope      text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,                         -- of the grant
    grant_id   text COLLATE "C" NOT NULL,
    PRIMARY KEY (zone_id, scope, created_at, grant_id)
);
ALTER TABLE grant_scopes ENABLE ROW LEVEL SECURITY;
ALTER TABLE grant_scopes FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON grant_scopes USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON grant_scopes TO caracal_service;

-- The rows of the list of grants, with the names of what they refer to. LIMIT keeps the
-- planner from reading these tables as a whole: it looks each row up by its key.
CREATE VIEW listed_grants WITH (security_invoker = true) AS
SELECT g.*, a.name AS application_name, r.name AS resource_name, r.credential_provider_id AS provider_id, p.name AS provider_name, p.kind AS provider_kind
FROM grants AS g
CROSS JOIN LATERAL (
    SELECT applications.name FROM applications WHERE applications.zone_id = g.zone_id AND applications.id = g.application_id LIMIT 1
) AS a
CROSS JOIN LATERAL (
    SELECT resources.name, resources.credential_provider_id FROM resources WHERE resources.zone_id = g.zone_id AND resources.id = g.resource_id LIMIT 1
) AS r
CROSS JOIN LATERAL (
    SELECT providers.name, providers.kind FROM providers WHERE providers.zone_id = g.zone_id AND providers.id = r.credential_provider_id LIMIT 1
) AS p;
GRANT SELECT ON listed_grants TO caracal_service;

-- Also finds the archived resources of a provider.
DROP INDEX resources_by_provider;
CREATE INDEX resources_by_provider ON resources (zone_id, credential_provider_id, archived_at, id);

-- The application that a session was issued to; null if its writer does not say.
ALTER TABLE sessions ADD COLUMN application_id text COLLATE "C";
ALTER TABLE sessions ADD FOREIGN KEY (zone_id, application_id) REFERENCES applications (zone_id, id);
CREATE INDEX agent_sessions_by_subject_session ON agent_sessions (zone_id, subject_session_id);

-- +goose Down
DROP INDEX agent_sessions_by_subject_session;
ALTER TABLE sessions DROP COLUMN application_id;
DROP INDEX resources_by_provider;
CREATE INDEX resources_by_provider ON resources (zone_id, credential_provider_id) WHERE archived_at IS NULL;
DROP VIEW listed_grants;
DROP TABLE grant_scopes, grants;
