-- The time of the entry of each seal: so that a page of the list of audit entries reads
-- its seals in the order of the list, and does not search one for each entry.

-- +goose Up
ALTER TABLE audit_seals ADD COLUMN occurred_at timestamptz NOT NULL DEFAULT '0001-01-01Z'; -- of the entry; the default: it was missing
SELECT set_config('caracal.zone_id', '*', true);
UPDATE audit_seals AS s SET occurred_at = e.occurred_at FROM audit_entries AS e WHERE e.zone_id = s.zone_id AND e.id = s.entry_id;
CREATE INDEX audit_seals_listed ON audit_seals (zone_id, occurred_at DESC, entry_id DESC);

-- A replica that was started before this migration inserts no time.
-- +goose StatementBegin
CREATE FUNCTION fill_seal_time() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.occurred_at := coalesce((SELECT e.occurred_at FROM audit_entries AS e WHERE e.zone_id = NEW.zone_id AND e.id = NEW.entry_id), NEW.occurred_at);
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_seals_fill_time BEFORE INSERT ON audit_seals
FOR EACH ROW WHEN (NEW.occurred_at = '0001-01-01Z') EXECUTE FUNCTION fill_seal_time();

-- A number of 0 stands for an entry that is not sealed yet.
DROP VIEW listed_audit_entries;
CREATE VIEW listed_audit_entries WITH (security_invoker = true) AS
SELECT e.*, coalesce(s.seq, 0) AS chain_seq, s.previous, s.hash, s.mac
FROM audit_entries AS e LEFT JOIN audit_seals AS s ON s.zone_id = e.zone_id AND s.entry_id = e.id;
GRANT SELECT ON listed_audit_entries TO caracal_service;

-- +goose Down
DROP VIEW listed_audit_entries;
CREATE VIEW listed_audit_entries WITH (security_invoker = true) AS
SELECT e.*, s.seq AS chain_seq, s.previous, s.hash, s.mac
FROM audit_entries AS e LEFT JOIN audit_seals AS s ON s.zone_id = e.zone_id AND s.entry_id = e.id;
GRANT SELECT ON listed_audit_entries TO caracal_service;
DROP TRIGGER audit_seals_fill_time ON audit_seals;
DROP FUNCTION fill_seal_time;
ALTER TABLE audit_seals DROP COLUMN occurred_at;
