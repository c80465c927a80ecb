-- name: UseIndexes :exec
-- UseIndexes makes the statements of the transaction use indexes. Otherwise, their plans could be made for a partition that
-- is still empty, and scan it later.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true);

-- name: InsertMissingAuditChainHeads :exec
-- InsertMissingAuditChainHeads inserts a head for each zone that has none, in the order of the ids, so that two replicas
-- do not wait for each other.
INSERT INTO audit_chain_heads (zone_id, chain_seq, content_sha256)
SELECT z.zone_id, 0, '' FROM (SELECT unnest(@zone_ids::text[]) AS zone_id) AS z ORDER BY 1
ON CONFLICT (zone_id) DO NOTHING;

-- name: LockAuditChainHeads :many
-- LockAuditChainHeads locks the heads of zones, in the order of the ids, and returns them.
SELECT zone_id, chain_seq, content_sha256 FROM audit_chain_heads WHERE zone_id = ANY (@zone_ids::text[]) ORDER BY zone_id FOR UPDATE;

-- name: ListAuditEventHashes :many
-- ListAuditEventHashes returns the hashes of the given events, as far as they exist in any month.
SELECT e.zone_id, e.id, e.content_sha256
FROM (SELECT unnest(@zone_ids::text[]) AS zone_id, unnest(@ids::text[]) AS id) AS k
JOIN audit_events AS e ON e.zone_id = k.zone_id AND e.id = k.id;

-- name: InsertAuditEvents :exec
-- InsertAuditEvents inserts events. An empty text stands for null.
INSERT INTO audit_events (zone_id, id, occurred_at, event_type, request_id, decision, policy_set_id, policy_set_version_id,
    manifest_sha, evaluation_status, determining_policies, diagnostics, metadata, ingest_signature, chain_seq, content_sha256,
    prev_content_sha256, chain_hmac)
SELECT e.zone_id, e.id, e.occurred_at, nullif(e.event_type, ''), nullif(e.request_id, ''), nullif(e.decision, ''),
    nullif(e.policy_set_id, ''), nullif(e.policy_set_version_id, ''), nullif(e.manifest_sha, ''), nullif(e.evaluation_status, ''),
    nullif(e.determining_policies, ''), nullif(e.diagnostics, ''), nullif(e.metadata, ''), nullif(e.ingest_signature, ''),
    e.chain_seq, e.content_sha256, nullif(e.prev_content_sha256, ''), nullif(e.chain_hmac, '')
FROM (SELECT unnest(@zone_ids::text[]) AS zone_id, unnest(@ids::text[]) AS id, unnest(@occurred_ats::timestamptz[]) AS occurred_at,
    unnest(@event_types::text[]) AS event_type, unnest(@request_ids::text[]) AS request_id, unnest(@decisions::text[]) AS decision,
    unnest(@policy_set_ids::text[]) AS policy_set_id, unnest(@policy_set_version_ids::text[]) AS policy_set_version_id,
    unnest(@manifest_shas::text[]) AS manifest_sha, unnest(@evaluation_statuses::text[]) AS evaluation_status,
    unnest(@determining_policies::text[]) AS determining_policies, unnest(@diagnostics::text[]) AS diagnostics,
    unnest(@metadata::text[]) AS metadata, unnest(@ingest_signatures::text[]) AS ingest_signature,
    unnest(@chain_seqs::bigint[]) AS chain_seq, unnest(@content_hashes::text[]) AS content_sha256,
    unnest(@previous_hashes::text[]) AS prev_content_sha256, unnest(@macs::text[]) AS chain_hmac) AS e;

-- name: InsertAuditEventLabels :exec
INSERT INTO audit_event_labels (zone_id, label, occurred_at, event_id)
SELECT unnest(@zone_ids::text[]), unnest(@labels::text[]), unnest(@occurred_ats::timestamptz[]), unnest(@event_ids::text[])
ON CONFLICT DO NOTHING;

-- name: CountAuditDecisions :exec
-- CountAuditDecisions adds to the counts of decisions. Each minute and decision of a zone occurs once.
INSERT INTO audit_decision_counts AS c (zone_id, minute, decision, count)
SELECT unnest(@zone_ids::text[]), unnest(@minutes::timestamptz[]), unnest(@decisions::text[]), unnest(@counts::bigint[])
ON CONFLICT (zone_id, minute, decision) DO UPDATE SET count = c.count + EXCLUDED.count;

-- name: UpdateAuditChainHeads :exec
UPDATE audit_chain_heads AS h SET chain_seq = e.chain_seq, content_sha256 = e.content_sha256, hmac = nullif(e.hmac, '')
FROM (SELECT unnest(@zone_ids::text[]) AS zone_id, unnest(@chain_seqs::bigint[]) AS chain_seq,
    unnest(@content_hashes::text[]) AS content_sha256, unnest(@macs::text[]) AS hmac) AS e
WHERE h.zone_id = e.zone_id;

-- name: InsertAuditIngestAlerts :exec
-- InsertAuditIngestAlerts inserts alerts, except those that exist: an event can be delivered again.
INSERT INTO audit_ingest_alerts (zone_id, id, event_id, kind, detail)
SELECT unnest(@zone_ids::text[]), unnest(@ids::text[]), unnest(@event_ids::text[]), @kind::text, unnest(@details::text[])
ON CONFLICT (zone_id, id) DO NOTHING;

-- name: CreateAuditPartitions :one
-- CreateAuditPartitions creates the partitions of the months from the first to the last time, unless they exist.
SELECT create_audit_partitions(@first_time::timestamptz, @last_time::timestamptz)::integer;


-- name: GetAuditRetention :one
-- GetAuditRetention returns the configured retention of audit events.
SELECT * FROM audit_retention;

-- name: LockAuditRetention :one
-- LockAuditRetention locks the retention of audit events and returns it. If none is configured, it inserts one, with the
-- version of a retention that was never set.
INSERT INTO audit_retention (retention_days) VALUES (@max_days)
ON CONFLICT (only_row) DO UPDATE SET version = audit_retention.version RETURNING *;

-- name: UpdateAuditRetention :one
UPDATE audit_retention SET retention_days = @retention_days, version = version + 1, updated_at = now() RETURNING *;

-- name: LockExpiredAuditPartition :many
-- LockExpiredAuditPartition returns the oldest month whose partitions end at or before a time, or none. Until the end of
-- the transaction, no event can be inserted into that month.
SELECT month::timestamptz FROM lock_expired_audit_partition(@before) AS month WHERE month IS NOT NULL;

-- name: ListAuditEventsOfMonth :many
-- ListAuditEventsOfMonth returns events by zone and number, from the index of the month's partition.
SELECT * FROM audit_events
WHERE occurred_at >= @since AND occurred_at < @until AND (zone_id, chain_seq) > (@after_zone::text, @after_seq::bigint)
ORDER BY zone_id, chain_seq
LIMIT @row_limit;

-- name: InsertAuditCheckpoints :exec
INSERT INTO audit_chain_checkpoints (zone_id, first_seq, last_seq, prev_content_sha256, last_content_sha256, rows, hmac)
SELECT c.zone_id, c.first_seq, c.last_seq, nullif(c.previous_hash, ''), c.last_hash, c.last_seq - c.first_seq + 1, nullif(c.mac, '')
FROM (SELECT unnest(@zone_ids::text[]) AS zone_id, unnest(@first_seqs::bigint[]) AS first_seq, unnest(@last_seqs::bigint[]) AS last_seq,
    unnest(@previous_hashes::text[]) AS previous_hash, unnest(@last_hashes::text[]) AS last_hash, unnest(@macs::text[]) AS mac) AS c
ON CONFLICT (zone_id, first_seq) DO NOTHING;

-- name: DropAuditPartition :exec
SELECT drop_audit_partition(@month::timestamptz);

-- name: AllowSlowStatements :exec
-- AllowSlowStatements lets the statements of the transaction take as long as a job may, but wait less for locks: while a
-- statement waits for the lock on a table, so do all later ones.
SELECT set_config('statement_timeout', '1800000', true), set_config('lock_timeout', '1000', true);

-- name: DeleteAuditDecisionCounts :execrows
-- DeleteAuditDecisionCounts deletes counts of minutes before a time, oldest first.
DELETE FROM audit_decision_counts WHERE (zone_id, minute, decision) IN (
    SELECT old.zone_id, old.minute, old.decision FROM audit_decision_counts AS old WHERE old.minute < @before::timestamptz ORDER BY old.minute LIMIT @row_limit);

-- name: GetAuditChainHead :one
SELECT chain_seq, content_sha256, hmac FROM audit_chain_heads WHERE zone_id = @zone_id;

-- name: ListAuditChain :many
-- ListAuditChain returns the events of a zone with the given numbers, in their order.
SELECT * FROM audit_events WHERE zone_id = @zone_id AND chain_seq >= @first_seq AND chain_seq <= @last_seq ORDER BY chain_seq LIMIT @row_limit;

-- name: ListAuditCheckpoints :many
-- ListAuditCheckpoints returns the checkpoints of a zone whose first number is in a range, in their order.
SELECT * FROM audit_chain_checkpoints WHERE zone_id = @zone_id AND first_seq >= @first_seq AND first_seq <= @last_seq ORDER BY first_seq LIMIT @row_limit;

-- name: GetAuditCheckpointBefore :one
-- GetAuditCheckpointBefore returns the last checkpoint that begins at or before a number.
SELECT * FROM audit_chain_checkpoints WHERE zone_id = @zone_id AND first_seq <= @seq ORDER BY first_seq DESC LIMIT 1;
