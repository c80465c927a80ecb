-- Lists of sessions and agent sessions: an index leads each list in its own order for
-- each filter, so that a page is one index scan.

-- +goose Up
CREATE INDEX sessions_listed ON sessions (zone_id, created_at DESC, id DESC);
-- Whether an active session has lapsed is read from the index: one that has not been
-- marked as expired yet costs an entry of the index, and no row.
CREATE INDEX sessions_by_status ON sessions (zone_id, status, created_at DESC, id DESC, expires_at);
CREATE INDEX sessions_by_subject_and_status ON sessions (zone_id, subject_id, status, created_at DESC, id DESC, expires_at);
DROP INDEX sessions_by_subject;
CREATE INDEX sessions_by_subject ON sessions (zone_id, subject_id, created_at DESC, id DESC);

-- The rows of the list of sessions. A session that has lapsed is expired, whether or not
-- it is marked as such.
CREATE VIEW listed_sessions WITH (security_invoker = true) AS
SELECT zone_id, id, session_type, subject_id, parent_id, application_id, status AS stored_status,
    (CASE WHEN status = 'active' AND expires_at <= now() THEN 'expired' ELSE status END)::text AS status,
    expires_at, authenticated_at, created_at, revoked_at, revoked_reason
FROM sessions;
GRANT SELECT ON listed_sessions TO caracal_service;

CREATE INDEX agent_sessions_listed ON agent_sessions (zone_id, spawned_at DESC, id DESC);
CREATE INDEX agent_sessions_by_status ON agent_sessions (zone_id, status, spawned_at DESC, id DESC);
CREATE INDEX agent_sessions_by_lifecycle ON agent_sessions (zone_id, lifecycle, spawned_at DESC, id DESC);
CREATE INDEX agent_sessions_by_application_and_status ON agent_sessions (zone_id, application_id, status, spawned_at DESC, id DESC);
DROP INDEX agent_sessions_by_application, agent_sessions_by_parent;
CREATE INDEX agent_sessions_by_application ON agent_sessions (zone_id, application_id, spawned_at DESC, id DESC);
CREATE INDEX agent_sessions_by_parent ON agent_sessions (zone_id, parent_id, spawned_at DESC, id DESC) WHERE parent_id IS NOT NULL;

-- For plans that do not depend on which values are common at the moment, so that each
-- filter uses its own index.
ALTER TABLE sessions ALTER status SET (n_distinct = 3), ALTER subject_id SET (n_distinct = -0.1);
ALTER TABLE agent_sessions ALTER status SET (n_distinct = 4), ALTER lifecycle SET (n_distinct = 2), ALTER application_id SET (n_distinct = -0.01), ALTER parent_id SET (n_distinct = -0.1);

-- A row for each label of an agent session, because row-level security lets no index
-- search inside an array. A trigger writes them, with the privileges of the owner: other
-- services insert agent sessions, and need not know this table.
CREATE TABLE agent_session_labels (
    zone_id          text COLLATE "C" NOT NULL REFERENCES zones (id),
    label            text COLLATE "C" NOT NULL,
    spawned_at       timestamptz NOT NULL,                   -- of the agent session
    agent_session_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (zone_id, label, spawned_at, agent_session_id)
);
ALTER TABLE agent_session_labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE agent_session_labels FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON agent_session_labels USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT ON agent_session_labels TO caracal_service;
INSERT INTO agent_session_labels SELECT DISTINCT zone_id, unnest(labels), spawned_at, id FROM agent_sessions;

-- +goose StatementBegin
CREATE FUNCTION index_agent_session_labels() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM agent_session_labels
        WHERE zone_id = OLD.zone_id AND label = ANY (OLD.labels) AND spawned_at = OLD.spawned_at AND agent_session_id = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO agent_session_labels SELECT DISTINCT NEW.zone_id, unnest(NEW.labels), NEW.spawned_at, NEW.id;
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION index_agent_session_labels() FROM PUBLIC;
CREATE TRIGGER index_labels AFTER INSERT OR DELETE OR UPDATE OF zone_id, id, labels, spawned_at ON agent_sessions
    FOR EACH ROW EXECUTE FUNCTION index_agent_session_labels();

-- +goose Down
DROP TRIGGER index_labels ON agent_sessions;
DROP FUNCTION index_agent_session_labels;
DROP TABLE agent_session_labels;
DROP INDEX agent_sessions_listed, agent_sessions_by_status, agent_sessions_by_lifecycle, agent_sessions_by_application_and_status, agent_sessions_by_application, agent_sessions_by_parent;
CREATE INDEX agent_sessions_by_application ON agent_sessions (zone_id, application_id);
CREATE INDEX agent_sessions_by_parent ON agent_sessions (zone_id, parent_id) WHERE parent_id IS NOT NULL;
DROP VIEW listed_sessions;
DROP INDEX sessions_listed, sessions_by_status, sessions_by_subject_and_status, sessions_by_subject;
CREATE INDEX sessions_by_subject ON sessions (zone_id, subject_id);
