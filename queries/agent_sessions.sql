-- name: TerminateAgentSessionsOfApplications :many
-- TerminateAgentSessionsOfApplications terminates the active and suspended agent sessions of applications and all
-- descendants, of any application. It also searches below terminated and expired agent sessions: their descendants can
-- still be active.
WITH RECURSIVE affected AS (
    SELECT id FROM agent_sessions WHERE zone_id = @zone_id AND application_id = ANY (@application_ids::text[])
    UNION
    SELECT child.id FROM agent_sessions AS child JOIN affected ON child.parent_id = affected.id WHERE child.zone_id = @zone_id
)
UPDATE agent_sessions AS a SET status = 'terminated', terminated_at = now(), updated_at = now(), termination_reason = @reason::text
FROM agent_sessions AS before
WHERE a.zone_id = @zone_id AND a.id IN (SELECT affected.id FROM affected) AND a.status IN ('active', 'suspended')
  AND before.zone_id = a.zone_id AND before.id = a.id
RETURNING a.id, a.parent_id, a.subject_session_id, before.status AS previous_status, coalesce(a.termination_reason, '')::text AS reason;

-- name: TerminateAgentSessionsOfGrant :many
-- TerminateAgentSessionsOfGrant terminates the active and suspended agent sessions whose subject sessions
-- RevokeSessionsOfGrant finds, and all descendants, like TerminateAgentSessionsOfApplications.
WITH RECURSIVE affected_sessions AS (
    SELECT id FROM sessions
    WHERE zone_id = @zone_id AND subject_id = @user_id::text AND session_type = 'user' AND (application_id IS NULL OR application_id = @application_id::text)
    UNION
    SELECT child.id FROM sessions AS child JOIN affected_sessions ON child.parent_id = affected_sessions.id WHERE child.zone_id = @zone_id
), affected AS (
    SELECT agent.id FROM affected_sessions JOIN agent_sessions AS agent ON agent.zone_id = @zone_id AND agent.subject_session_id = affected_sessions.id
    UNION
    SELECT child.id FROM agent_sessions AS child JOIN affected ON child.parent_id = affected.id WHERE child.zone_id = @zone_id
)
UPDATE agent_sessions AS a SET status = 'terminated', terminated_at = now(), updated_at = now(), termination_reason = @reason::text
FROM agent_sessions AS before
WHERE a.zone_id = @zone_id AND a.id IN (SELECT affected.id FROM affected) AND a.status IN ('active', 'suspended')
  AND before.zone_id = a.zone_id AND before.id = a.id
RETURNING a.id, a.parent_id, a.subject_session_id, before.status AS previous_status, coalesce(a.termination_reason, '')::text AS reason;

-- name: TerminateAgentSessionsOfZone :many
UPDATE agent_sessions AS a SET status = 'terminated', terminated_at = now(), updated_at = now(), termination_reason = @reason::text
FROM agent_sessions AS before
WHERE a.zone_id = @zone_id AND a.status IN ('active', 'suspended') AND before.zone_id = a.zone_id AND before.id = a.id
RETURNING a.id, a.parent_id, a.subject_session_id, before.status AS previous_status, coalesce(a.termination_reason, '')::text AS reason;

-- name: ListLapsedAgentSessions :many
-- ListLapsedAgentSessions returns the active and suspended tasks whose time to live has ended, like ListLapsedSessions. A
-- service agent lives as long as it sends heartbeats.
SELECT zone_id, id FROM agent_sessions
WHERE status IN ('active', 'suspended') AND lifecycle = 'task' AND expires_at <= now() AND zone_id <> ALL (@excluded_zones::text[])
ORDER BY expires_at, zone_id, id
LIMIT @row_limit;

-- name: TerminateLapsedAgentSessions :many
-- TerminateLapsedAgentSessions terminates those of the given agent sessions whose time to live has ended, and all descendants,
-- like TerminateAgentSessionsOfApplications.
WITH RECURSIVE affected AS (
    SELECT id FROM agent_sessions
    WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) AND status IN ('active', 'suspended') AND lifecycle = 'task' AND expires_at <= now()
    UNION
    SELECT child.id FROM agent_sessions AS child JOIN affected ON child.parent_id = affected.id WHERE child.zone_id = @zone_id
)
UPDATE agent_sessions AS a SET status = 'terminated', terminated_at = now(), updated_at = now(),
    termination_reason = CASE WHEN a.lifecycle = 'task' AND a.expires_at <= now() THEN 'ttl' ELSE 'parent_terminated' END
FROM agent_sessions AS before
WHERE a.zone_id = @zone_id AND a.id IN (SELECT affected.id FROM affected) AND a.status IN ('active', 'suspended')
  AND before.zone_id = a.zone_id AND before.id = a.id
RETURNING a.id, a.parent_id, a.subject_session_id, before.status AS previous_status, coalesce(a.termination_reason, '')::text AS reason;

-- name: ListEndedAgentSessions :many
-- ListEndedAgentSessions returns agent sessions that were terminated before a number of days and that nothing references, like
-- ListEndedSessions.
SELECT a.zone_id, a.id FROM agent_sessions AS a
WHERE a.status IN ('terminated', 'expired') AND a.terminated_at < now() - make_interval(days => @days::integer) AND a.zone_id <> ALL (@excluded_zones::text[])
  AND NOT EXISTS (SELECT FROM agent_sessions AS child WHERE child.zone_id = a.zone_id AND child.parent_id = a.id OFFSET 0)
  AND NOT EXISTS (SELECT FROM delegation_edges AS e WHERE e.zone_id = a.zone_id AND e.source_session_id = a.id OFFSET 0)
  AND NOT EXISTS (SELECT FROM delegation_edges AS e WHERE e.zone_id = a.zone_id AND e.target_session_id = a.id OFFSET 0)
ORDER BY a.terminated_at, a.zone_id, a.id
LIMIT @row_limit;

-- name: DeleteEndedAgentSessions :execrows
DELETE FROM agent_sessions
WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) AND status IN ('terminated', 'expired') AND terminated_at < now() - make_interval(days => @days::integer);

-- name: DecrementAgentSessionChildren :exec
-- DecrementAgentSessionChildren subtracts terminated children from their parents' child counts. parent_ids contains a
-- parent once for each terminated child.
UPDATE agent_sessions SET child_count = greatest(0, child_count - ended.children), updated_at = now()
FROM (SELECT parent_id, count(*)::integer AS children FROM (SELECT unnest(@parent_ids::text[]) AS parent_id) AS p GROUP BY parent_id) AS ended
WHERE agent_sessions.zone_id = @zone_id AND agent_sessions.id = ended.parent_id;

-- name: ListAgentSessions :many
-- ListAgentSessions returns agent sessions newest first, after a position, like ListZones. The queries below scan the index of
-- the filters that their names say, and apply the other filters to the rows that they find there.
SELECT * FROM agent_sessions
WHERE zone_id = @zone_id AND (spawned_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY spawned_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAgentSessionsByParent :many
SELECT * FROM agent_sessions
WHERE zone_id = @zone_id AND parent_id = @parent_id
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(status)::text IS NULL OR status = sqlc.narg(status))
  AND (sqlc.narg(lifecycle)::text IS NULL OR lifecycle = sqlc.narg(lifecycle))
  AND (sqlc.narg(label)::text IS NULL OR sqlc.narg(label) = ANY (labels))
  AND (spawned_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY spawned_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAgentSessionsByApplication :many
SELECT * FROM agent_sessions
WHERE zone_id = @zone_id AND application_id = @application_id
  AND (sqlc.narg(lifecycle)::text IS NULL OR lifecycle = sqlc.narg(lifecycle))
  AND (sqlc.narg(label)::text IS NULL OR sqlc.narg(label) = ANY (labels))
  AND (spawned_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY spawned_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAgentSessionsByApplicationAndStatus :many
SELECT * FROM agent_sessions
WHERE zone_id = @zone_id AND application_id = @application_id AND status = @status
  AND (sqlc.narg(lifecycle)::text IS NULL OR lifecycle = sqlc.narg(lifecycle))
  AND (sqlc.narg(label)::text IS NULL OR sqlc.narg(label) = ANY (labels))
  AND (spawned_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY spawned_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAgentSessionsByLabel :many
SELECT one.* FROM agent_session_labels AS l
CROSS JOIN LATERAL (
    SELECT * FROM agent_sessions AS a
    WHERE a.zone_id = l.zone_id AND a.id = l.agent_session_id
      AND (sqlc.narg(status)::text IS NULL OR a.status = sqlc.narg(status))
      AND (sqlc.narg(lifecycle)::text IS NULL OR a.lifecycle = sqlc.narg(lifecycle))
    LIMIT 1
) AS one
WHERE l.zone_id = @zone_id AND l.label = @label AND (l.spawned_at, l.agent_session_id) < (@before_time::timestamptz, @before_id::text)
ORDER BY l.spawned_at DESC, l.agent_session_id DESC
LIMIT @row_limit;

-- name: ListAgentSessionsByStatus :many
SELECT * FROM agent_sessions
WHERE zone_id = @zone_id AND status = @status
  AND (sqlc.narg(lifecycle)::text IS NULL OR lifecycle = sqlc.narg(lifecycle))
  AND (spawned_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY spawned_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAgentSessionsByLifecycle :many
SELECT * FROM agent_sessions
WHERE zone_id = @zone_id AND lifecycle = @lifecycle AND (spawned_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY spawned_at DESC, id DESC
LIMIT @row_limit;
