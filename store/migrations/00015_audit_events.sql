-- Authorization audit events: what the other services decided, for whom and why.
--
-- The ingester appends each event to the hash chain of its zone. Events are partitioned
-- by the month in which they occurred (UTC), so that retention drops whole months. The
-- partitions are in a schema that the service role cannot use: it reads and appends
-- through the parent, and only the functions below create, lock and drop partitions.

-- +goose Up
CREATE TABLE audit_events (
    zone_id               text COLLATE "C" NOT NULL CHECK (zone_id <> ''), -- of the event: the zone need not exist
    id                    text COLLATE "C" NOT NULL,
    occurred_at           timestamptz NOT NULL,
    ingested_at           timestamptz NOT NULL DEFAULT now(),
    event_type            text COLLATE "C",
    request_id            text COLLATE "C",
    decision              text COLLATE "C",
    policy_set_id         text COLLATE "C",
    policy_set_version_id text COLLATE "C",
    manifest_sha          text COLLATE "C",
    evaluation_status     text COLLATE "C",
    determining_policies  text,                              -- the text that was hashed, and so are diagnostics and metadata
    diagnostics           text,
    metadata              text,
    ingest_signature      text,                              -- of the producer
    chain_seq             bigint NOT NULL,                   -- consecutive in the zone, in the order of ingestion
    content_sha256        text COLLATE "C" NOT NULL,
    prev_content_sha256   text COLLATE "C",                  -- null: the first event of the chain
    chain_hmac            text COLLATE "C",                  -- null: no key was configured
    -- For filters, which accept at most 128 characters.
    application_id        text COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN length(metadata::jsonb ->> 'application_id') <= 128 THEN metadata::jsonb ->> 'application_id' END) STORED,
    agent_session_id      text COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN length(metadata::jsonb ->> 'agent_session_id') <= 128 THEN metadata::jsonb ->> 'agent_session_id' END) STORED,
    session_id            text COLLATE "C" GENERATED ALWAYS AS (
        CASE WHEN length(metadata::jsonb ->> 'session_id') <= 128 THEN metadata::jsonb ->> 'session_id' END) STORED,
    PRIMARY KEY (zone_id, id, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX audit_events_listed ON audit_events (zone_id, occurred_at DESC, id DESC);
CREATE INDEX audit_events_chain ON audit_events (zone_id, chain_seq);
CREATE INDEX audit_events_by_request ON audit_events (zone_id, request_id, occurred_at DESC, id DESC) WHERE request_id IS NOT NULL;
CREATE INDEX audit_events_by_decision ON audit_events (zone_id, decision, occurred_at DESC, id DESC) WHERE decision IS NOT NULL;
CREATE INDEX audit_events_by_type ON audit_events (zone_id, event_type, occurred_at DESC, id DESC) WHERE event_type IS NOT NULL;
CREATE INDEX audit_events_by_application ON audit_events (zone_id, application_id, occurred_at DESC, id DESC) WHERE application_id IS NOT NULL;
CREATE INDEX audit_events_by_agent_session ON audit_events (zone_id, agent_session_id, occurred_at DESC, id DESC) WHERE agent_session_id IS NOT NULL;
CREATE INDEX audit_events_by_session ON audit_events (zone_id, session_id, occurred_at DESC, id DESC) WHERE session_id IS NOT NULL;
ALTER TABLE audit_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_events FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_events USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON audit_events TO caracal_service;     -- append-only

-- A row for each label of an event, because row-level security lets no index search
-- inside an array.
CREATE TABLE audit_event_labels (
    zone_id     text COLLATE "C" NOT NULL CHECK (zone_id <> ''),
    label       text COLLATE "C" NOT NULL,
    occurred_at timestamptz NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (zone_id, label, occurred_at, event_id)
) PARTITION BY RANGE (occurred_at);
ALTER TABLE audit_event_labels ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_event_labels FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_event_labels USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON audit_event_labels TO caracal_service;

-- The last event of each zone's chain. Appending to the chain locks the row.
CREATE TABLE audit_chain_heads (
    zone_id        text COLLATE "C" PRIMARY KEY CHECK (zone_id <> ''),
    chain_seq      bigint NOT NULL,                          -- 0: the chain has no event yet
    content_sha256 text COLLATE "C" NOT NULL,
    hmac           text COLLATE "C"                          -- binds the other columns; null: no key was configured
);
ALTER TABLE audit_chain_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_chain_heads FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_chain_heads USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON audit_chain_heads TO caracal_service;
GRANT UPDATE (chain_seq, content_sha256, hmac) ON audit_chain_heads TO caracal_service;

-- What remains of the events that retention dropped: one row for each run of consecutive
-- events of a chain. The chain is in the order of ingestion, and partitions are by the
-- time of occurrence, so that one month can have several runs.
CREATE TABLE audit_chain_checkpoints (
    zone_id             text COLLATE "C" NOT NULL CHECK (zone_id <> ''),
    first_seq           bigint NOT NULL,
    last_seq            bigint NOT NULL,
    prev_content_sha256 text COLLATE "C",                    -- of the first event
    last_content_sha256 text COLLATE "C" NOT NULL,
    rows                bigint NOT NULL CHECK (rows = last_seq - first_seq + 1),
    hmac                text COLLATE "C",                    -- binds the other columns; null: no key was configured
    created_at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, first_seq)
);
ALTER TABLE audit_chain_checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_chain_checkpoints FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_chain_checkpoints USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON audit_chain_checkpoints TO caracal_service;

-- The number of events of each minute and decision, which the ingester counts in the
-- transaction that inserts the events.
CREATE TABLE audit_decision_counts (
    zone_id  text COLLATE "C" NOT NULL CHECK (zone_id <> ''),
    minute   timestamptz NOT NULL,                           -- in which the events occurred
    decision text COLLATE "C" NOT NULL,
    count    bigint NOT NULL,
    PRIMARY KEY (zone_id, minute, decision)
);
CREATE INDEX audit_decision_counts_by_minute ON audit_decision_counts (minute);
ALTER TABLE audit_decision_counts ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_decision_counts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_decision_counts USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, DELETE ON audit_decision_counts TO caracal_service;
GRANT UPDATE (count) ON audit_decision_counts TO caracal_service;

-- What an operator must know about received events.
CREATE TABLE audit_ingest_alerts (
    zone_id    text COLLATE "C" NOT NULL CHECK (zone_id <> ''),
    id         text COLLATE "C" NOT NULL,
    event_id   text COLLATE "C" NOT NULL,
    kind       text NOT NULL,                                -- content_mismatch_on_replay
    detail     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (zone_id, id)
);
ALTER TABLE audit_ingest_alerts ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_ingest_alerts FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON audit_ingest_alerts USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT ON audit_ingest_alerts TO caracal_service;

-- How long events are kept, in one row; without it, as long as AUDIT_RETENTION_DAYS.
CREATE TABLE audit_retention (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    retention_days integer NOT NULL CHECK (retention_days >= 1),
    version        bigint NOT NULL DEFAULT 1,
    updated_at     timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE audit_retention ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_retention FORCE ROW LEVEL SECURITY;
CREATE POLICY all_zones ON audit_retention USING (current_setting('caracal.zone_id', true) = '*');
GRANT SELECT, INSERT ON audit_retention TO caracal_service;
GRANT UPDATE (retention_days, version, updated_at) ON audit_retention TO caracal_service;

CREATE SCHEMA audit_partitions;

-- Creates the partitions of each month from the first to the last time, unless they
-- exist. Returns their number.
-- +goose StatementBegin
CREATE FUNCTION create_audit_partitions(first timestamptz, last timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    parent text;
    month timestamptz;
    partition text;
    created integer := 0;
BEGIN
    IF last > now() + interval '1 year' OR first < now() - interval '100 years' THEN
        RAISE EXCEPTION 'no partitions from % to %: too far from now', first, last USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('create_audit_partitions', 0));
    FOR month IN SELECT generate_series(date_trunc('month', first), last, interval '1 month') LOOP
        FOREACH parent IN ARRAY ARRAY['audit_events', 'audit_event_labels'] LOOP
            partition := parent || to_char(month, '"_y"YYYY"m"MM');
            CONTINUE WHEN to_regclass('audit_partitions.' || partition) IS NOT NULL;
            -- Attached, because creating it as a partition would wait for every query of the parent.
            EXECUTE format('CREATE TABLE audit_partitions.%I (LIKE %I INCLUDING ALL)', partition, parent);
            EXECUTE format('ALTER TABLE audit_partitions.%I ENABLE ROW LEVEL SECURITY', partition);
            EXECUTE format('ALTER TABLE audit_partitions.%I FORCE ROW LEVEL SECURITY', partition);
            EXECUTE format('CREATE POLICY own_zone ON audit_partitions.%I USING (current_setting(''caracal.zone_id'', true) IN (zone_id, ''*''))', partition);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION audit_partitions.%I FOR VALUES FROM (%L) TO (%L)', parent, partition, month, month + interval '1 month');
            created := created + 1;
        END LOOP;
    END LOOP;
    RETURN created;
END
$$;

-- Returns the oldest month whose partitions end at or before a time, or null if there is
-- none. Until the end of the transaction, no event can be inserted into that month.
CREATE FUNCTION lock_expired_audit_partition(before timestamptz) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    month timestamptz;
    partition text;
BEGIN
    SELECT p.relname, to_timestamp(substr(p.relname, 14), '"y"YYYY"m"MM') INTO partition, month
    FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhrelid
    WHERE i.inhparent = 'public.audit_events'::regclass ORDER BY p.relname LIMIT 1;
    IF month IS NULL OR month + interval '1 month' > before THEN
        RETURN NULL;
    END IF;
    EXECUTE format('LOCK TABLE audit_partitions.%I IN SHARE MODE', partition);
    RETURN month;
END
$$;

-- Drops the partitions of a month, which must have ended at least a day ago.
CREATE FUNCTION drop_audit_partition(month timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    IF date_trunc('month', month) + interval '1 month' > now() - interval '1 day' THEN
        RAISE EXCEPTION 'the month of % has not expired', month USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('DROP TABLE audit_partitions.%I, audit_partitions.%I',
        'audit_events' || to_char(month, '"_y"YYYY"m"MM'), 'audit_event_labels' || to_char(month, '"_y"YYYY"m"MM'));
END
$$;
-- +goose StatementEnd
REVOKE EXECUTE ON FUNCTION create_audit_partitions, lock_expired_audit_partition, drop_audit_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION create_audit_partitions, lock_expired_audit_partition, drop_audit_partition TO caracal_service;
SELECT create_audit_partitions(now(), now() + interval '3 months');

-- +goose Down
DROP FUNCTION create_audit_partitions, lock_expired_audit_partition, drop_audit_partition;
DROP TABLE audit_retention, audit_ingest_alerts, audit_decision_counts, audit_chain_checkpoints, audit_chain_heads, audit_event_labels, audit_events;
DROP SCHEMA audit_partitions;
