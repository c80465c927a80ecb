-- This service issues tokens of the Control API, and inserts a session for each.

-- +goose Up
GRANT INSERT (zone_id, id, session_type, subject_id, application_id, expires_at) ON sessions TO caracal_service;

-- +goose Down
REVOKE INSERT (zone_id, id, session_type, subject_id, application_id, expires_at) ON sessions FROM caracal_service;
