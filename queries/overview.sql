-- name: GetOverview :one
-- GetOverview counts objects of a zone. Each count reads only the index entries of what it counts. Decisions are counted by
-- full minutes when they are stored, so that only those of the first minute, of which a part is too old, are read. A session
-- that is active ends when it expires. The events are a JSON array.
WITH period AS (
    SELECT now() - interval '24 hours' AS start, date_trunc('minute', now() - interval '24 hours') + interval '1 minute' AS first_full
)
SELECT now()::timestamptz AS generated_at,
    (SELECT count(*) FROM applications AS a WHERE a.zone_id = @zone_id AND a.archived_at IS NULL) AS applications,
    (SELECT count(*) FROM applications AS a
     WHERE a.zone_id = @zone_id AND a.registration_method = 'dcr' AND a.archived_at IS NULL AND a.expires_at < now()) AS expired_applications,
    (SELECT count(*) FROM applications AS a
     WHERE a.zone_id = @zone_id AND a.registration_method = 'dcr' AND a.archived_at IS NULL AND a.expires_at >= now() AND a.expires_at < now() + interval '7 days') AS expiring_applications,
    coalesce((SELECT live FROM resource_totals AS t WHERE t.zone_id = @zone_id), 0)::bigint AS resources,
    (SELECT count(*) FROM resources AS r WHERE r.zone_id = @zone_id AND r.operation_enforcement <> 'enforced' AND r.archived_at IS NULL) AS unenforced_resources,
    (SELECT count(*) FROM providers AS p WHERE p.zone_id = @zone_id AND p.archived_at IS NULL) AS providers,
    (SELECT count(*) FROM policy_sets AS s WHERE s.zone_id = @zone_id AND s.archived_at IS NULL) AS policy_sets,
    coalesce((SELECT s.name FROM policy_sets AS s WHERE s.zone_id = @zone_id AND s.active_version_id IS NOT NULL), '')::text AS active_policy_set,
    (SELECT count(*) FROM sessions AS s WHERE s.zone_id = @zone_id AND s.status = 'active' AND s.ends_at > now()) AS active_sessions,
    (coalesce((SELECT sum(c.count) FROM audit_decision_counts AS c WHERE c.zone_id = @zone_id AND c.minute >= first_full AND c.decision = 'allow'), 0)
     + (SELECT count(*) FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.decision = 'allow' AND e.occurred_at >= start AND e.occurred_at < first_full))::bigint AS allowed,
    (coalesce((SELECT sum(c.count) FROM audit_decision_counts AS c WHERE c.zone_id = @zone_id AND c.minute >= first_full AND c.decision = 'deny'), 0)
     + (SELECT count(*) FROM audit_events AS e WHERE e.zone_id = @zone_id AND e.decision = 'deny' AND e.occurred_at >= start AND e.occurred_at < first_full))::bigint AS denied,
    coalesce((SELECT json_agg(recent) FROM (
        SELECT id, event_type, request_id, decision, metadata, occurred_at FROM audit_events AS e
        WHERE e.zone_id = @zone_id ORDER BY occurred_at DESC, id DESC LIMIT @event_limit
     ) AS recent), '[]')::text AS recent_events
FROM period;
