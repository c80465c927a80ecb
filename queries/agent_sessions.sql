-- name: TerminateAgentSessionsOfApplications :many
-- TerminateAgentSessionsOfApplications ends the live agent sessions of applications, and what descends from any of
-- theirs, of whichever application: one that has ended already does not shield its children.
WITH RECURSIVE doomed AS (
    SELECT id FROM agent_sessions WHERE zone_id = @zone_id AND application_id = ANY (@application_ids::text[])
    UNION
    SELECT child.id FROM agent_sessions AS child JOIN doomed ON child.parent_id = doomed.id WHERE child.zone_id = @zone_id
)
UPDATE agent_sessions AS a SET status = 'terminated', terminated_at = now(), updated_at = now(), termination_reason = @reason::text
FROM agent_sessions AS before
WHERE a.zone_id = @zone_id AND a.id IN (SELECT doomed.id FROM doomed) AND a.status IN ('active', 'suspended')
  AND before.zone_id = a.zone_id AND before.id = a.id
RETURNING a.id, a.parent_id, a.subject_session_id, before.status AS was;

-- name: TerminateAgentSessionsOfZone :many
UPDATE agent_sessions AS a SET status = 'terminated', terminated_at = now(), updated_at = now(), termination_reason = @reason::text
FROM agent_sessions AS before
WHERE a.zone_id = @zone_id AND a.status IN ('active', 'suspended') AND before.zone_id = a.zone_id AND before.id = a.id
RETURNING a.id, a.parent_id, a.subject_session_id, before.status AS was;

-- name: DecrementAgentSessionChildren :exec
-- DecrementAgentSessionChildren takes ended children off their parents' count. A parent is named once for each.
UPDATE agent_sessions SET child_count = greatest(0, child_count - gone.children), updated_at = now()
FROM (SELECT parent_id, count(*)::integer AS children FROM (SELECT unnest(@parent_ids::text[]) AS parent_id) AS p GROUP BY parent_id) AS gone
WHERE agent_sessions.zone_id = @zone_id AND agent_sessions.id = gone.parent_id;
