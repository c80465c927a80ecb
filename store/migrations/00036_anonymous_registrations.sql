-- Clients that registered without a registration token have a limit of their own.

-- +goose Up
ALTER TABLE client_registrations ADD COLUMN anonymous boolean NOT NULL DEFAULT false;
CREATE INDEX client_registrations_anonymous ON client_registrations (zone_id, application_id) WHERE anonymous;

-- +goose Down
ALTER TABLE client_registrations DROP COLUMN anonymous;
