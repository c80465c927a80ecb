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

-- name: RevokeSessionsOfGrant :many
-- RevokeSessionsOfGrant revokes the active sessions of a user, and the active descendants of all sessions of the user, like
-- RevokeSessionsOfApplications. It does not start at sessions that were issued to another application.
WITH RECURSIVE affected AS (
    SELECT id FROM sessions
    WHERE zone_id = @zone_id AND subject_id = @user_id::text AND session_type = 'user' AND (application_id IS NULL OR application_id = @application_id::text)
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
