-- name: LockZoneShared :exec
-- LockZoneShared takes the zone lock in shared mode, for writes to the zone's rows that publish no events.
SELECT pg_advisory_xact_lock_shared(hashtextextended('zone:' || @zone_id::text, 0));

-- name: LockZoneExclusive :exec
-- LockZoneExclusive takes the zone lock in exclusive mode, so that the order of the zone's events is the order of commits.
-- A transaction must not take the lock in shared mode first: two transactions that upgrade it deadlock.
SELECT pg_advisory_xact_lock(hashtextextended('zone:' || @zone_id::text, 0));
