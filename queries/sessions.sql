-- name: InsertApplicationSession :exec
-- InsertApplicationSession inserts a session of an application. If the application or its zone is not active, there is no
-- id to insert, and it fails: the transaction waits for no result that could say so.
INSERT INTO sessions (zone_id, id, session_type, subject_id, application_id, expires_at)
SELECT @zone_id, CASE WHEN a.id IS NOT NULL THEN @id::text END, 'application', a.id, a.id, @expires_at::timestamptz
FROM (SELECT) AS one LEFT JOIN (
    SELECT applications.id FROM applications JOIN zones ON zones.id = applications.zone_id
    WHERE applications.zone_id = @zone_id AND applications.id = @application_id AND applications.archived_at IS NULL
      AND (applications.expires_at IS NULL OR applications.expires_at > now()) AND zones.archived_at IS NULL
) AS a ON true;

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

-- name: ListLapsedSessions :many
-- ListLapsedSessions returns active sessions that have lapsed, in any zone that is not excluded, those that lapsed first first.
SELECT zone_id, id FROM sessions
WHERE status = 'active' AND ends_at <= now() AND zone_id <> ALL (@excluded_zones::text[])
ORDER BY ends_at, zone_id, id
LIMIT @row_limit;

-- name: ExpireSessions :many
-- ExpireSessions marks those of the given sessions that have lapsed. It skips those that another transaction is changing.
UPDATE sessions SET status = 'expired'
FROM (SELECT s.id FROM sessions AS s
      WHERE s.zone_id = @zone_id AND s.id = ANY (@ids::text[]) AND s.status = 'active' AND s.ends_at <= now()
      FOR NO KEY UPDATE SKIP LOCKED) AS lapsed
WHERE sessions.zone_id = @zone_id AND sessions.id = lapsed.id
RETURNING sessions.id;

-- name: ListEndedSessions :many
-- ListEndedSessions returns sessions that ended more than a number of days ago and that nothing references, those that ended
-- first first. So of a tree of sessions it returns the leaves, and the others when these are deleted. OFFSET 0 makes Postgres look
-- up the references of one row after another, and not read all references.
SELECT s.zone_id, s.id FROM sessions AS s
WHERE s.status <> 'active' AND s.ends_at < now() - make_interval(days => @days::integer) AND s.zone_id <> ALL (@excluded_zones::text[])
  AND NOT EXISTS (SELECT FROM sessions AS child WHERE child.zone_id = s.zone_id AND child.parent_id = s.id OFFSET 0)
  AND NOT EXISTS (SELECT FROM agent_sessions AS a WHERE a.zone_id = s.zone_id AND a.subject_session_id = s.id OFFSET 0)
ORDER BY s.ends_at, s.zone_id, s.id
LIMIT @row_limit;

-- name: DeleteEndedSessions :execrows
DELETE FROM sessions
WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) AND status <> 'active' AND ends_at < now() - make_interval(days => @days::integer);

-- name: ListSessions :many
-- ListSessions returns sessions newest first, after a position, like ListZones. So do the queries below, for the filters
-- that their names say. They compare the stored status: among active sessions, ListSessionsByStatus finds those that have
-- not lapsed, and ListExpiredSessions those that have, too.
SELECT * FROM listed_sessions
WHERE zone_id = @zone_id AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListSessionsByStatus :many
SELECT * FROM listed_sessions
WHERE zone_id = @zone_id AND stored_status = @status AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
  AND expires_at > CASE WHEN @status = 'active' THEN now() ELSE '-infinity' END
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListExpiredSessions :many
SELECT * FROM (
    (SELECT * FROM listed_sessions AS marked
     WHERE marked.zone_id = @zone_id AND marked.stored_status = 'expired' AND (marked.created_at, marked.id) < (@before_time::timestamptz, @before_id::text)
     ORDER BY marked.created_at DESC, marked.id DESC LIMIT @row_limit)
    UNION ALL
    (SELECT * FROM listed_sessions AS lapsed
     WHERE lapsed.zone_id = @zone_id AND lapsed.stored_status = 'active' AND (lapsed.created_at, lapsed.id) < (@before_time::timestamptz, @before_id::text)
       AND lapsed.expires_at <= now()
     ORDER BY lapsed.created_at DESC, lapsed.id DESC LIMIT @row_limit)
) AS expired
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListSessionsBySubject :many
SELECT * FROM listed_sessions
WHERE zone_id = @zone_id AND subject_id = @subject_id AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListSessionsBySubjectAndStatus :many
SELECT * FROM listed_sessions
WHERE zone_id = @zone_id AND subject_id = @subject_id AND stored_status = @status AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
  AND expires_at > CASE WHEN @status = 'active' THEN now() ELSE '-infinity' END
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListExpiredSessionsBySubject :many
SELECT * FROM (
    (SELECT * FROM listed_sessions AS marked
     WHERE marked.zone_id = @zone_id AND marked.subject_id = @subject_id AND marked.stored_status = 'expired'
       AND (marked.created_at, marked.id) < (@before_time::timestamptz, @before_id::text)
     ORDER BY marked.created_at DESC, marked.id DESC LIMIT @row_limit)
    UNION ALL
    (SELECT * FROM listed_sessions AS lapsed
     WHERE lapsed.zone_id = @zone_id AND lapsed.subject_id = @subject_id AND lapsed.stored_status = 'active'
       AND (lapsed.created_at, lapsed.id) < (@before_time::timestamptz, @before_id::text) AND lapsed.expires_at <= now()
     ORDER BY lapsed.created_at DESC, lapsed.id DESC LIMIT @row_limit)
) AS expired
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;
