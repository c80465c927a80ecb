-- name: TryLockSealing :one
-- TryLockSealing takes the lock of the replica that seals entries, until the end of the transaction. It returns false if
-- another replica has it. Until then, Postgres also prefers an index that has the wanted order to a bitmap and a sort: the
-- statements below must be fast also before it has statistics of the tables, which grow much between two runs of autovacuum.
SELECT pg_try_advisory_xact_lock(hashtextextended('audit-seals', 0))
FROM set_config('enable_bitmapscan', 'off', true) AS bitmapscan, set_config('enable_sort', 'off', true) AS sort;

-- name: ListUnsealed :many
-- ListUnsealed returns the next entries to seal. Their order is that of the commits as far as it matters: a transaction
-- inserts its entries last, when it has its locks, so an entry on a changed object is after those of earlier changes.
-- Each LIMIT 1 in LATERAL here makes Postgres look each row up in an index, also without statistics, and not read the table.
SELECT u.zone_id, u.position, u.entry_id, (s.seq IS NOT NULL)::boolean AS sealed
FROM audit_unsealed AS u
LEFT JOIN LATERAL (SELECT seq FROM audit_seals WHERE zone_id = u.zone_id AND entry_id = u.entry_id LIMIT 1) AS s ON true
ORDER BY u.position LIMIT @row_limit;

-- name: GetAuditEntries :many
SELECT e.* FROM (SELECT unnest(@zone_ids::text[]) AS zone_id, unnest(@ids::text[]) AS id) AS wanted
CROSS JOIN LATERAL (SELECT * FROM audit_entries WHERE zone_id = wanted.zone_id AND id = wanted.id LIMIT 1) AS e;

-- name: ListChainEnds :many
-- ListChainEnds returns the head and the last seal of each zone that has one; they differ only if someone changed one of them.
SELECT z.zone_id::text AS zone_id, coalesce(h.seq, 0)::bigint AS head_seq, coalesce(h.hash, '')::bytea AS head_hash,
    coalesce(l.seq, 0)::bigint AS last_seq, coalesce(l.hash, '')::bytea AS last_hash
FROM (SELECT unnest(@zone_ids::text[]) AS zone_id) AS z
LEFT JOIN audit_seal_heads AS h ON h.zone_id = z.zone_id
LEFT JOIN LATERAL (SELECT s.seq, s.hash FROM audit_seals AS s WHERE s.zone_id = z.zone_id ORDER BY s.seq DESC LIMIT 1) AS l ON true
WHERE h.seq IS NOT NULL OR l.seq IS NOT NULL;

-- name: InsertSeals :exec
INSERT INTO audit_seals (zone_id, seq, entry_id, previous, hash, mac, occurred_at)
SELECT unnest(@zone_ids::text[]), unnest(@seqs::bigint[]), unnest(@entry_ids::text[]), unnest(@previous::bytea[]),
    unnest(@hashes::bytea[]), unnest(@macs::bytea[]), unnest(@occurred_ats::timestamptz[]);

-- name: UpsertSealHeads :exec
INSERT INTO audit_seal_heads (zone_id, seq, hash, mac, sealed_at)
SELECT h.zone_id, h.seq, h.hash, h.mac, @sealed_at
FROM (SELECT unnest(@zone_ids::text[]) AS zone_id, unnest(@seqs::bigint[]) AS seq, unnest(@hashes::bytea[]) AS hash,
    unnest(@macs::bytea[]) AS mac) AS h
ON CONFLICT (zone_id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, mac = excluded.mac, sealed_at = excluded.sealed_at;

-- name: DeleteUnsealed :exec
DELETE FROM audit_unsealed WHERE position = ANY (@positions::bigint[]);

-- name: GetUnsealedStat :one
-- GetUnsealedStat counts the entries that are not sealed yet, but no more than a number of them.
SELECT
    (SELECT count(*) FROM (SELECT FROM audit_unsealed ORDER BY position LIMIT @count_limit) AS next) AS unsealed,
    coalesce((SELECT extract(epoch FROM now() - queued_at) FROM audit_unsealed ORDER BY position LIMIT 1), 0)::double precision AS oldest_seconds;

-- name: ListSeals :many
SELECT seq, entry_id, previous, hash, mac, occurred_at FROM audit_seals
WHERE zone_id = @zone_id AND seq > @after_seq AND seq <= @to_seq
ORDER BY seq
LIMIT @row_limit;

-- name: GetSeal :one
SELECT seq, entry_id, previous, hash, mac, occurred_at FROM audit_seals WHERE zone_id = @zone_id AND seq = @seq;

-- name: GetSealHead :one
SELECT seq, hash, mac, sealed_at FROM audit_seal_heads WHERE zone_id = @zone_id;

-- name: CheckSealed :one
-- CheckSealed looks at the next entries in the order of their ids: how many there are, the last one, and the first one that
-- is neither sealed nor queued.
SELECT count(*) AS entries, coalesce(max(e.id), '')::text AS last_id,
    coalesce(min(e.id) FILTER (WHERE NOT EXISTS (SELECT FROM audit_seals AS s WHERE s.zone_id = @zone_id AND s.entry_id = e.id)
        AND NOT EXISTS (SELECT FROM audit_unsealed AS u WHERE u.zone_id = @zone_id AND u.entry_id = e.id)), '')::text AS not_sealed
FROM (SELECT id FROM audit_entries WHERE zone_id = @zone_id AND id > @after_id ORDER BY id LIMIT @row_limit) AS e;
