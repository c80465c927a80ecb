-- The transaction that issues a token waits for no result of a statement. So its insertion
-- of the session fails if the application is not active: then, there is no id to insert.

-- +goose Up
-- Not valid: sessions that other services have inserted remain as they are.
ALTER TABLE sessions ADD CONSTRAINT session_has_active_application CHECK (session_type <> 'application' OR subject_id IS NOT NULL) NOT VALID;

-- +goose Down
ALTER TABLE sessions DROP CONSTRAINT session_has_active_application;
