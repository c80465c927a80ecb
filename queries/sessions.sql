-- name: RevokeSessionsOfApplications :many
-- RevokeSessionsOfApplications ends the active sessions of applications, and what descends from any session of theirs: a
-- session that has ended already does not shield its children.
WITH RECURSIVE doomed AS (
    SELECT id FROM sessions
    WHERE zone_id = @zone_id AND subject_id = ANY (@application_ids::text[]) AND session_type = 'application'
    UNION
    SELECT child.id FROM sessions AS child JOIN doomed ON child.parent_id = doomed.id WHERE child.zone_id = @zone_id
)
UPDATE sessions SET status = 'revoked', revoked_at = now(), revoked_reason = @reason::text
WHERE sessions.zone_id = @zone_id AND sessions.id IN (SELECT doomed.id FROM doomed) AND sessions.status = 'active'
RETURNING id;

-- name: RevokeSessionsOfZone :many
UPDATE sessions SET status = 'revoked', revoked_at = now(), revoked_reason = @reason::text
WHERE zone_id = @zone_id AND status = 'active'
RETURNING id;
