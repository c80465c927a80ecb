-- Provider grants have a version, can be created and replaced, and can be listed by
-- each filter in the order of the list, so that a page is one index scan.

-- +goose Up
ALTER TABLE provider_grants ADD COLUMN version bigint NOT NULL DEFAULT 1;
CREATE INDEX provider_grants_listed ON provider_grants (zone_id, created_at DESC, id DESC);
CREATE INDEX provider_grants_by_status ON provider_grants (zone_id, status, created_at DESC, id DESC);
CREATE INDEX provider_grants_by_user ON provider_grants (zone_id, user_id, created_at DESC, id DESC);
CREATE INDEX provider_grants_by_resource ON provider_grants (zone_id, resource_id, created_at DESC, id DESC);
CREATE INDEX provider_grants_by_resource_and_status ON provider_grants (zone_id, resource_id, status, created_at DESC, id DESC);
DROP INDEX provider_grants_by_provider;
CREATE INDEX provider_grants_by_provider ON provider_grants (zone_id, provider_id, created_at DESC, id DESC);
CREATE INDEX provider_grants_by_provider_and_status ON provider_grants (zone_id, provider_id, status, created_at DESC, id DESC);
GRANT INSERT ON provider_grants TO caracal_service;
GRANT UPDATE (scopes, refresh_token_version, refreshed_at, expires_at, version) ON provider_grants TO caracal_service;

-- +goose Down
REVOKE INSERT ON provider_grants FROM caracal_service;
REVOKE UPDATE (scopes, refresh_token_version, refreshed_at, expires_at) ON provider_grants FROM caracal_service;
DROP INDEX provider_grants_listed, provider_grants_by_status, provider_grants_by_user, provider_grants_by_resource,
    provider_grants_by_resource_and_status, provider_grants_by_provider, provider_grants_by_provider_and_status;
CREATE INDEX provider_grants_by_provider ON provider_grants (zone_id, provider_id) WHERE status = 'active';
ALTER TABLE provider_grants DROP COLUMN version;
