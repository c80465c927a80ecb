-- name: ListAuditEvents :many
-- ListAuditEvents returns audit events newest first, after a position and from a time on, like ListZones. The queries below
-- scan the index of one filter and apply the other filters to the rows that they find there. The time of the position is
-- compared on its own, too, so that Postgres does not read the partitions after it.
SELECT * FROM listed_audit_events
WHERE zone_id = @zone_id AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text)
  AND occurred_at <= @before_time::timestamptz AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEventsByRequest :many
SELECT * FROM listed_audit_events
WHERE zone_id = @zone_id AND request_id = @request_id::text
  AND (sqlc.narg(session_id)::text IS NULL OR session_id = sqlc.narg(session_id))
  AND (sqlc.narg(agent_session_id)::text IS NULL OR agent_session_id = sqlc.narg(agent_session_id))
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(event_type)::text IS NULL OR event_type = sqlc.narg(event_type))
  AND (sqlc.narg(decision)::text IS NULL OR decision = sqlc.narg(decision))
  AND (sqlc.narg(label)::text IS NULL OR metadata::jsonb -> 'agent_labels' @> jsonb_build_array(sqlc.narg(label)::text))
  AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text)
  AND occurred_at <= @before_time::timestamptz AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEventsBySession :many
SELECT * FROM listed_audit_events
WHERE zone_id = @zone_id AND session_id = @session_id::text
  AND (sqlc.narg(request_id)::text IS NULL OR request_id = sqlc.narg(request_id))
  AND (sqlc.narg(agent_session_id)::text IS NULL OR agent_session_id = sqlc.narg(agent_session_id))
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(event_type)::text IS NULL OR event_type = sqlc.narg(event_type))
  AND (sqlc.narg(decision)::text IS NULL OR decision = sqlc.narg(decision))
  AND (sqlc.narg(label)::text IS NULL OR metadata::jsonb -> 'agent_labels' @> jsonb_build_array(sqlc.narg(label)::text))
  AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text)
  AND occurred_at <= @before_time::timestamptz AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEventsByAgentSession :many
SELECT * FROM listed_audit_events
WHERE zone_id = @zone_id AND agent_session_id = @agent_session_id::text
  AND (sqlc.narg(request_id)::text IS NULL OR request_id = sqlc.narg(request_id))
  AND (sqlc.narg(session_id)::text IS NULL OR session_id = sqlc.narg(session_id))
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(event_type)::text IS NULL OR event_type = sqlc.narg(event_type))
  AND (sqlc.narg(decision)::text IS NULL OR decision = sqlc.narg(decision))
  AND (sqlc.narg(label)::text IS NULL OR metadata::jsonb -> 'agent_labels' @> jsonb_build_array(sqlc.narg(label)::text))
  AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text)
  AND occurred_at <= @before_time::timestamptz AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEventsByApplication :many
SELECT * FROM listed_audit_events
WHERE zone_id = @zone_id AND application_id = @application_id::text
  AND (sqlc.narg(request_id)::text IS NULL OR request_id = sqlc.narg(request_id))
  AND (sqlc.narg(session_id)::text IS NULL OR session_id = sqlc.narg(session_id))
  AND (sqlc.narg(agent_session_id)::text IS NULL OR agent_session_id = sqlc.narg(agent_session_id))
  AND (sqlc.narg(event_type)::text IS NULL OR event_type = sqlc.narg(event_type))
  AND (sqlc.narg(decision)::text IS NULL OR decision = sqlc.narg(decision))
  AND (sqlc.narg(label)::text IS NULL OR metadata::jsonb -> 'agent_labels' @> jsonb_build_array(sqlc.narg(label)::text))
  AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text)
  AND occurred_at <= @before_time::timestamptz AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEventsByType :many
SELECT * FROM listed_audit_events
WHERE zone_id = @zone_id AND event_type = @event_type::text
  AND (sqlc.narg(request_id)::text IS NULL OR request_id = sqlc.narg(request_id))
  AND (sqlc.narg(session_id)::text IS NULL OR session_id = sqlc.narg(session_id))
  AND (sqlc.narg(agent_session_id)::text IS NULL OR agent_session_id = sqlc.narg(agent_session_id))
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(decision)::text IS NULL OR decision = sqlc.narg(decision))
  AND (sqlc.narg(label)::text IS NULL OR metadata::jsonb -> 'agent_labels' @> jsonb_build_array(sqlc.narg(label)::text))
  AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text)
  AND occurred_at <= @before_time::timestamptz AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEventsByDecision :many
SELECT * FROM listed_audit_events
WHERE zone_id = @zone_id AND decision = @decision::text
  AND (sqlc.narg(request_id)::text IS NULL OR request_id = sqlc.narg(request_id))
  AND (sqlc.narg(session_id)::text IS NULL OR session_id = sqlc.narg(session_id))
  AND (sqlc.narg(agent_session_id)::text IS NULL OR agent_session_id = sqlc.narg(agent_session_id))
  AND (sqlc.narg(application_id)::text IS NULL OR application_id = sqlc.narg(application_id))
  AND (sqlc.narg(event_type)::text IS NULL OR event_type = sqlc.narg(event_type))
  AND (sqlc.narg(label)::text IS NULL OR metadata::jsonb -> 'agent_labels' @> jsonb_build_array(sqlc.narg(label)::text))
  AND (occurred_at, id) < (@before_time::timestamptz, @before_id::text)
  AND occurred_at <= @before_time::timestamptz AND occurred_at >= @since::timestamptz
ORDER BY occurred_at DESC, id DESC
LIMIT @row_limit;

-- name: ListAuditEventsByLabel :many
SELECT one.* FROM audit_event_labels AS l
CROSS JOIN LATERAL (
    SELECT * FROM listed_audit_events AS e
    WHERE e.zone_id = l.zone_id AND e.id = l.event_id AND e.occurred_at = l.occurred_at
      AND (sqlc.narg(request_id)::text IS NULL OR e.request_id = sqlc.narg(request_id))
      AND (sqlc.narg(session_id)::text IS NULL OR e.session_id = sqlc.narg(session_id))
      AND (sqlc.narg(agent_session_id)::text IS NULL OR e.agent_session_id = sqlc.narg(agent_session_id))
      AND (sqlc.narg(application_id)::text IS NULL OR e.application_id = sqlc.narg(application_id))
      AND (sqlc.narg(event_type)::text IS NULL OR e.event_type = sqlc.narg(event_type))
      AND (sqlc.narg(decision)::text IS NULL OR e.decision = sqlc.narg(decision))
    LIMIT 1
) AS one
WHERE l.zone_id = @zone_id AND l.label = @label::text AND (l.occurred_at, l.event_id) < (@before_time::timestamptz, @before_id::text)
  AND l.occurred_at <= @before_time::timestamptz AND l.occurred_at >= @since::timestamptz
ORDER BY l.occurred_at DESC, l.event_id DESC
LIMIT @row_limit;

-- name: GetAuditEvents :many
-- GetAuditEvents returns the given events of a zone with all columns, in no order.
SELECT e.* FROM (SELECT unnest(@ids::text[]) AS id, unnest(@occurred_ats::timestamptz[]) AS occurred_at) AS wanted
JOIN audit_events AS e ON e.zone_id = @zone_id AND e.id = wanted.id AND e.occurred_at = wanted.occurred_at;

-- name: CountAuditEventsByFilter :many
-- CountAuditEventsByFilter counts the audit events that match each filter, at most row_limit of each.
SELECT 'request_id' AS filter, (SELECT count(*) FROM (SELECT FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.request_id = sqlc.narg(request_id)::text
    AND e.occurred_at <= @before_time::timestamptz AND e.occurred_at >= @since::timestamptz LIMIT @row_limit) AS matching) AS count
UNION ALL SELECT 'session_id', (SELECT count(*) FROM (SELECT FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.session_id = sqlc.narg(session_id)::text
    AND e.occurred_at <= @before_time::timestamptz AND e.occurred_at >= @since::timestamptz LIMIT @row_limit) AS matching)
UNION ALL SELECT 'agent_session_id', (SELECT count(*) FROM (SELECT FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.agent_session_id = sqlc.narg(agent_session_id)::text
    AND e.occurred_at <= @before_time::timestamptz AND e.occurred_at >= @since::timestamptz LIMIT @row_limit) AS matching)
UNION ALL SELECT 'label', (SELECT count(*) FROM (SELECT FROM audit_event_labels AS e WHERE e.zone_id = @zone_id AND e.label = sqlc.narg(label)::text
    AND e.occurred_at <= @before_time::timestamptz AND e.occurred_at >= @since::timestamptz LIMIT @row_limit) AS matching)
UNION ALL SELECT 'application_id', (SELECT count(*) FROM (SELECT FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.application_id = sqlc.narg(application_id)::text
    AND e.occurred_at <= @before_time::timestamptz AND e.occurred_at >= @since::timestamptz LIMIT @row_limit) AS matching)
UNION ALL SELECT 'event_type', (SELECT count(*) FROM (SELECT FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.event_type = sqlc.narg(event_type)::text
    AND e.occurred_at <= @before_time::timestamptz AND e.occurred_at >= @since::timestamptz LIMIT @row_limit) AS matching)
UNION ALL SELECT 'decision', (SELECT count(*) FROM (SELECT FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.decision = sqlc.narg(decision)::text
    AND e.occurred_at <= @before_time::timestamptz AND e.occurred_at >= @since::timestamptz LIMIT @row_limit) AS matching);

-- name: ListAuditEventsOfRequest :many
-- ListAuditEventsOfRequest returns the audit events of a request, oldest first, after a position. With a decision, it applies
-- it to the rows that it finds.
SELECT * FROM audit_events
WHERE zone_id = @zone_id AND request_id = @request_id::text AND (occurred_at, id) > (@after_time::timestamptz, @after_id::text)
  AND occurred_at >= @after_time::timestamptz AND (sqlc.narg(decision)::text IS NULL OR decision = sqlc.narg(decision))
ORDER BY occurred_at, id
LIMIT @row_limit;
