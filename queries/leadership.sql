-- name: TryAcquireLeadership :one
-- TryAcquireLeadership tries to take the advisory lock that represents the named leadership and reports whether the
-- connection now holds it. The lock is released when the connection is closed.
SELECT pg_try_advisory_lock(hashtextextended('lead:' || @name::text, 0));
