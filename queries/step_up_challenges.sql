-- name: GetStepUpChallenge :one
-- GetStepUpChallenge selects the columns that may be returned, and the status: an unused challenge expires with time.
SELECT zone_id, id, session_id, challenge_type, metadata_json, created_at, expires_at, satisfied_at, approver_subject_id,
    rejected_at, rejected_by, rejected_reason, version,
    (CASE WHEN outcome IN ('pending', 'satisfied') AND expires_at <= now() THEN 'expired' ELSE outcome END)::text AS status
FROM step_up_challenges WHERE zone_id = @zone_id AND id = @id;

-- name: ListStepUpChallenges :many
-- ListStepUpChallenges returns challenges newest first, after a position, like ListZones.
SELECT zone_id, id, session_id, challenge_type, metadata_json, created_at, expires_at, satisfied_at, approver_subject_id,
    rejected_at, rejected_by, rejected_reason, version,
    (CASE WHEN outcome IN ('pending', 'satisfied') AND expires_at <= now() THEN 'expired' ELSE outcome END)::text AS status
FROM step_up_challenges
WHERE zone_id = @zone_id AND (created_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY created_at DESC, id DESC
LIMIT @row_limit;

-- name: ListStepUpChallengesByOutcome :many
-- ListStepUpChallengesByOutcome returns challenges with an outcome, those that expire last first, after a position. If unexpired
-- is true, it omits expired ones. In the order of their expiry, these follow the others in the index, so they are not read.
SELECT zone_id, id, session_id, challenge_type, metadata_json, created_at, expires_at, satisfied_at, approver_subject_id,
    rejected_at, rejected_by, rejected_reason, version, outcome AS status
FROM step_up_challenges
WHERE zone_id = @zone_id AND outcome = @outcome AND expires_at > CASE WHEN @unexpired::boolean THEN now() ELSE '-infinity' END
  AND (expires_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY expires_at DESC, id DESC
LIMIT @row_limit;

-- name: ListStepUpChallengesByExpiry :many
-- ListStepUpChallengesByExpiry returns unused challenges that have expired, those that expired last first, after a position.
SELECT zone_id, id, session_id, challenge_type, metadata_json, created_at, expires_at, satisfied_at, approver_subject_id,
    rejected_at, rejected_by, rejected_reason, version, 'expired'::text AS status
FROM step_up_challenges
WHERE zone_id = @zone_id AND consumed_at IS NULL AND rejected_at IS NULL AND expires_at <= now()
  AND (expires_at, id) < (@before_time::timestamptz, @before_id::text)
ORDER BY expires_at DESC, id DESC
LIMIT @row_limit;

-- name: SatisfyStepUpChallenge :one
-- SatisfyStepUpChallenge satisfies a challenge, unless a rule forbids it: then it returns no row, and ExplainStepUpChallenge
-- finds the rule. Of concurrent statements, only the first one finds the challenge pending. The session is locked, so that it
-- is still active when the transaction commits.
WITH session AS (
    SELECT s.subject_id FROM sessions AS s
    JOIN step_up_challenges AS requested ON requested.zone_id = s.zone_id AND requested.session_id = s.id
    WHERE s.zone_id = @zone_id AND requested.zone_id = @zone_id AND requested.id = @id AND s.status = 'active' AND s.expires_at > now()
    FOR SHARE OF s
)
UPDATE step_up_challenges AS c SET satisfied_at = now(), approver_subject_id = @approver::text
WHERE c.zone_id = @zone_id AND c.id = @id AND c.outcome = 'pending' AND c.expires_at > now()
  AND (@any_version::boolean OR c.version = ANY (@versions::bigint[]))
  AND c.principal_id <> ALL (@own_subjects::text[])
  AND EXISTS (SELECT FROM session WHERE coalesce(session.subject_id, '') <> ALL (@own_subjects::text[]))
RETURNING c.satisfied_at, c.approver_subject_id, c.version;

-- name: RejectStepUpChallenge :one
-- RejectStepUpChallenge rejects a challenge, like SatisfyStepUpChallenge. Its requester may reject it, and its session may have
-- ended: in both cases, a rejection is harmless.
UPDATE step_up_challenges SET rejected_at = now(), rejected_by = @rejected_by::text, rejected_reason = @rejected_reason::text
WHERE zone_id = @zone_id AND id = @id AND outcome = 'pending' AND expires_at > now()
  AND (@any_version::boolean OR version = ANY (@versions::bigint[]))
RETURNING rejected_at, rejected_by, rejected_reason, version;

-- name: ExplainStepUpChallenge :one
-- ExplainStepUpChallenge returns what SatisfyStepUpChallenge and RejectStepUpChallenge decide on.
SELECT c.version, c.outcome, (c.expires_at <= now())::boolean AS expired,
    ((s.status = 'active' AND s.expires_at > now()) IS TRUE)::boolean AS session_live,
    ((c.principal_id = ANY (@own_subjects::text[]) OR s.subject_id = ANY (@own_subjects::text[])) IS TRUE)::boolean AS own_request
FROM step_up_challenges AS c
LEFT JOIN sessions AS s ON s.zone_id = c.zone_id AND s.id = c.session_id
WHERE c.zone_id = @zone_id AND c.id = @id;

-- name: ListOldStepUpChallenges :many
-- ListOldStepUpChallenges returns challenges that expired before a number of days, used or not, like ListLapsedSessions.
SELECT zone_id, id FROM step_up_challenges
WHERE expires_at < now() - make_interval(days => @days::integer) AND zone_id <> ALL (@excluded_zones::text[])
ORDER BY expires_at, zone_id, id
LIMIT @row_limit;

-- name: DeleteOldStepUpChallenges :execrows
DELETE FROM step_up_challenges
WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) AND expires_at < now() - make_interval(days => @days::integer);
