-- The outbox: events, inserted in the transaction of the change and published to
-- Redis streams after its commit. Within a zone, the order of seq is the order of
-- commits. An event is pending, dispatched or dead.

-- +goose Up
CREATE TABLE outbox (
    zone_id       text COLLATE "C" NOT NULL CHECK (zone_id <> ''),
    id            text COLLATE "C" NOT NULL,
    seq           bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    stream        text NOT NULL,
    fields        jsonb NOT NULL,                            -- a JSON object of strings
    request_id    text NOT NULL,
    traceparent   text,                                      -- W3C trace context, if the request was traced
    attempts      integer NOT NULL DEFAULT 0,                -- number of rejections by Redis
    last_error    text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    dispatched_at timestamptz,
    dead_at       timestamptz,
    PRIMARY KEY (zone_id, id),
    CHECK (dispatched_at IS NULL OR dead_at IS NULL)
);
CREATE UNIQUE INDEX outbox_pending ON outbox (seq) WHERE dispatched_at IS NULL AND dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (created_at DESC, id DESC) WHERE dead_at IS NOT NULL;
CREATE UNIQUE INDEX outbox_dead_by_id ON outbox (id) WHERE dead_at IS NOT NULL;
CREATE INDEX outbox_dispatched ON outbox (dispatched_at) WHERE dispatched_at IS NOT NULL;
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON outbox USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
GRANT SELECT, INSERT, DELETE ON outbox TO caracal_service;
GRANT UPDATE (attempts, last_error, dispatched_at, dead_at) ON outbox TO caracal_service;

-- +goose Down
DROP TABLE outbox;
