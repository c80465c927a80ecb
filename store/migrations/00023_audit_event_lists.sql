-- The list of authorization audit events.

-- +goose Up
-- The columns that the list returns, without the hashes of the chain.
CREATE VIEW listed_audit_events WITH (security_invoker = true) AS
SELECT zone_id, id, occurred_at, ingested_at, event_type, request_id, decision, evaluation_status, metadata, application_id, agent_session_id, session_id
FROM audit_events;
GRANT SELECT ON listed_audit_events TO caracal_service;

-- +goose Down
DROP VIEW listed_audit_events;
