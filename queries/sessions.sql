-- name: RevokeSessionsOfApplications :many
-- RevokeSessionsOfApplications revokes the active sessions of applications and the active descendants of all their
-- sessions. It also searches below revoked and expired sessions: their descendants can still be active.
WITH RECURSIVE affected AS (
    SELECT id FROM sessions
    WHERE zone_id = @zone_id AND subject_id = ANY (@application_ids::text[]) AND session_type = 'application'
    UNION
    SELECT child.id FROM sessions AS child JOIN affected ON child.parent_id = affected.id WHERE child.zone_id = @zone_id
)
UPDATE sessions SET status = 'revoked', revoked_at = now(), revoked_reason = @reason::text
WHERE sessions.zone_id = @zone_id AND sessions.id IN (SELECT affected.id FROM affected) AND sessions.status = 'active'
RETURNING id;

-- name: RevokeSessionsOfZone :many
UPDATE sessions SET status = 'revoked', revoked_at = now(), revoked_reason = @reason::text
WHERE zone_id = @zone_id AND status = 'active'
RETURNING id;
