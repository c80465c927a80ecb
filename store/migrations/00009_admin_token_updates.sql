-- Admin tokens have a version, and can be renamed and given another expiry.

-- +goose Up
ALTER TABLE admin_tokens ADD COLUMN version bigint NOT NULL DEFAULT 1;
GRANT UPDATE (name, expires_at, version) ON admin_tokens TO caracal_service;

-- +goose Down
REVOKE UPDATE (name, expires_at) ON admin_tokens FROM caracal_service;
ALTER TABLE admin_tokens DROP COLUMN version;
