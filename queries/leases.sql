-- name: GetLease :one
-- GetLease returns the holder of a lease and the seconds until the lease expires, which are negative after that.
SELECT holder, term, extract(epoch FROM expires_at - clock_timestamp())::double precision AS seconds_left
FROM leases WHERE name = sqlc.arg(name);

-- name: AcquireLease :one
-- AcquireLease begins a new term of a lease that has expired or never existed. It returns no row if another replica holds
-- the lease. A lease that lasts longer than any does is void: the clock of the database was set back.
INSERT INTO leases (name, holder, term, expires_at)
VALUES (@name, @holder, 1, clock_timestamp() + sqlc.arg(milliseconds)::bigint * interval '1 millisecond')
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, term = leases.term + 1, expires_at = excluded.expires_at
WHERE leases.expires_at <= clock_timestamp()
   OR leases.expires_at > clock_timestamp() + 2 * sqlc.arg(milliseconds)::bigint * interval '1 millisecond'
RETURNING term;

-- name: RenewLease :execrows
-- RenewLease extends a term that has not ended. It changes no row if the term has ended.
UPDATE leases SET expires_at = clock_timestamp() + sqlc.arg(milliseconds)::bigint * interval '1 millisecond'
WHERE name = @name AND term = @term AND holder = @holder AND expires_at > clock_timestamp();

-- name: ReleaseLease :exec
-- ReleaseLease ends a term at once.
UPDATE leases SET expires_at = clock_timestamp()
WHERE name = @name AND term = @term AND holder = @holder AND expires_at > clock_timestamp();

-- name: NotifyTest :exec
-- NotifyTest sends a notification on a channel that only its sender listens to.
SELECT pg_notify(@channel, '');
