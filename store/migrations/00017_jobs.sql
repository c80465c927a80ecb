-- What periodic jobs need: an index by which each finds what is due, in any zone and
-- the oldest first, and the privilege to delete what ended long ago.

-- +goose Up
-- When a session ends or ended: its expiry, or a later revocation. With a column of their
-- own, these indexes are not used for the lists, which compare expires_at.
ALTER TABLE sessions ADD COLUMN ends_at timestamptz NOT NULL GENERATED ALWAYS AS (greatest(expires_at, revoked_at)) STORED;
CREATE INDEX sessions_due ON sessions (ends_at, zone_id, id) WHERE status = 'active';
CREATE INDEX sessions_ended ON sessions (ends_at, zone_id, id) WHERE status <> 'active';

-- The end of the time to live. Only a column can lead an index search under row-level
-- security, and only by way of a time without time zone is the expression immutable.
ALTER TABLE agent_sessions ADD COLUMN expires_at timestamptz
    GENERATED ALWAYS AS ((spawned_at AT TIME ZONE 'UTC' + ttl_seconds * interval '1 second') AT TIME ZONE 'UTC') STORED;
CREATE INDEX agent_sessions_due ON agent_sessions (expires_at, zone_id, id) WHERE status IN ('active', 'suspended') AND lifecycle = 'task';
CREATE INDEX agent_sessions_ended ON agent_sessions (terminated_at, zone_id, id) WHERE status IN ('terminated', 'expired');

-- Complete, because the foreign keys search them when an agent session or an edge is
-- deleted.
DROP INDEX delegation_edges_active_by_source, delegation_edges_active_by_target;
CREATE INDEX delegation_edges_by_source ON delegation_edges (zone_id, source_session_id, status);
CREATE INDEX delegation_edges_by_target ON delegation_edges (zone_id, target_session_id, status);
CREATE INDEX delegation_edges_by_parent ON delegation_edges (zone_id, parent_edge_id) WHERE parent_edge_id IS NOT NULL;
CREATE INDEX delegation_edges_ended ON delegation_edges (updated_at, zone_id, id) WHERE status <> 'active';

CREATE INDEX applications_dcr_due ON applications (expires_at, zone_id, id) WHERE registration_method = 'dcr' AND archived_at IS NULL;
CREATE INDEX step_up_challenges_due ON step_up_challenges (expires_at, zone_id, id);

-- The service can delete these rows only after they have ended.
GRANT DELETE ON sessions, agent_sessions, delegation_edges, step_up_challenges TO caracal_service;
CREATE POLICY delete_ended ON sessions AS RESTRICTIVE FOR DELETE TO caracal_service USING (status <> 'active');
CREATE POLICY delete_ended ON agent_sessions AS RESTRICTIVE FOR DELETE TO caracal_service USING (status IN ('terminated', 'expired'));
CREATE POLICY delete_ended ON delegation_edges AS RESTRICTIVE FOR DELETE TO caracal_service USING (status <> 'active');
CREATE POLICY delete_ended ON step_up_challenges AS RESTRICTIVE FOR DELETE TO caracal_service USING (expires_at < now());

-- +goose Down
DROP POLICY delete_ended ON sessions;
DROP POLICY delete_ended ON agent_sessions;
DROP POLICY delete_ended ON delegation_edges;
DROP POLICY delete_ended ON step_up_challenges;
REVOKE DELETE ON sessions, agent_sessions, delegation_edges, step_up_challenges FROM caracal_service;
DROP INDEX step_up_challenges_due, applications_dcr_due, delegation_edges_ended, delegation_edges_by_parent, delegation_edges_by_source, delegation_edges_by_target;
CREATE INDEX delegation_edges_active_by_source ON delegation_edges (zone_id, source_session_id) WHERE status = 'active';
CREATE INDEX delegation_edges_active_by_target ON delegation_edges (zone_id, target_session_id) WHERE status = 'active';
DROP INDEX agent_sessions_ended, agent_sessions_due;
ALTER TABLE agent_sessions DROP COLUMN expires_at;
ALTER TABLE sessions DROP COLUMN ends_at;
