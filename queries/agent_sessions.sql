-- name: TerminateAgentSessionsOfApplications :many
-- TerminateAgentSessionsOfApplications ends the live agent sessions of applications, and what descends from them, of
-- whichever application.
WITH RECURSIVE doomed AS (
    SELECT id FROM agent_sessions
    WHERE zone_id = @zone_id AND application_id = ANY (@application_ids::text[]) AND status IN ('active', 'suspended')
    UNION
    SELECT child.id FROM agent_sessions AS child JOIN doomed ON child.parent_id = doomed.id
    WHERE child.zone_id = @zone_id AND child.status IN ('active', 'suspended')
)
UPDATE agent_sessions SET status = 'terminated', terminated_at = now(), updated_at = now(), termination_reason = @reason::text
WHERE agent_sessions.zone_id = @zone_id AND agent_sessions.id IN (SELECT doomed.id FROM doomed) AND agent_sessions.status IN ('active', 'suspended')
RETURNING *;

-- name: TerminateAgentSessionsOfZone :many
UPDATE agent_sessions SET status = 'terminated', terminated_at = now(), updated_at = now(), termination_reason = @reason::text
WHERE zone_id = @zone_id AND status IN ('active', 'suspended')
RETURNING *;

-- name: ForgetAgentSessionChildren :exec
-- ForgetAgentSessionChildren takes ended children off their parents' count. A parent is named once for each.
UPDATE agent_sessions SET child_count = greatest(0, child_count - gone.children), updated_at = now()
FROM (SELECT parent_id, count(*)::integer AS children FROM (SELECT unnest(@parent_ids::text[]) AS parent_id) AS p GROUP BY parent_id) AS gone
WHERE agent_sessions.zone_id = @zone_id AND agent_sessions.id = gone.parent_id;
