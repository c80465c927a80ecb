-- name: TryAcquireLeadership :one
-- TryAcquireLeadership is whether this connection is now the one of its kind. It leads until it is closed.
SELECT pg_try_advisory_lock(hashtextextended('lead:' || @what::text, 0));
