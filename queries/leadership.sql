-- name: TryAcquireLeadership :one
-- TryAcquireLeadership reports whether this connection is now the leader of the given name. It remains the leader until it
-- is closed.
SELECT pg_try_advisory_lock(hashtextextended('lead:' || @name::text, 0));
