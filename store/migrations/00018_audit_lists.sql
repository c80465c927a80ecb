-- Lists of audit entries: an index leads the list in its own order for each filter, so
-- that a page is one index scan.

-- +goose Up
CREATE INDEX audit_entries_by_actor ON audit_entries (zone_id, actor_id, occurred_at DESC, id DESC) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_entries_by_entity_type ON audit_entries (zone_id, entity_type, occurred_at DESC, id DESC) WHERE entity_type IS NOT NULL;
CREATE INDEX audit_entries_by_entity ON audit_entries (zone_id, entity_id, occurred_at DESC, id DESC) WHERE entity_id IS NOT NULL;
CREATE INDEX audit_entries_by_method ON audit_entries (zone_id, method, occurred_at DESC, id DESC);
CREATE INDEX audit_entries_by_request ON audit_entries (zone_id, request_id, occurred_at DESC, id DESC);
CREATE INDEX audit_entries_by_status_code ON audit_entries (zone_id, status_code, occurred_at DESC, id DESC);

-- For plans that do not depend on which values are common at the moment, so that each
-- filter uses its own index.
ALTER TABLE audit_entries ALTER actor_id SET (n_distinct = -0.001), ALTER entity_type SET (n_distinct = 20),
    ALTER entity_id SET (n_distinct = -0.1), ALTER method SET (n_distinct = 5), ALTER request_id SET (n_distinct = -0.5),
    ALTER status_code SET (n_distinct = 10);

-- The rows of the list of audit entries: each with its seal, if it has one already.
CREATE VIEW listed_audit_entries WITH (security_invoker = true) AS
SELECT e.*, s.seq AS chain_seq, s.previous, s.hash, s.mac
FROM audit_entries AS e LEFT JOIN audit_seals AS s ON s.zone_id = e.zone_id AND s.entry_id = e.id;
GRANT SELECT ON listed_audit_entries TO caracal_service;

-- +goose Down
DROP VIEW listed_audit_entries;
DROP INDEX audit_entries_by_actor, audit_entries_by_entity_type, audit_entries_by_entity, audit_entries_by_method,
    audit_entries_by_request, audit_entries_by_status_code;
