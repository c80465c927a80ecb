-- name: LockZoneShared :exec
-- LockZoneShared holds a zone together with others who write below it and emit no event.
SELECT pg_advisory_xact_lock_shared(hashtextextended('zone:' || @zone_id::text, 0));

-- name: LockZoneExclusive :exec
-- LockZoneExclusive holds a zone alone, so that the order of its events is the order of its commits. A transaction must
-- take it before it has shared the guard: two that share it and then want it alone would wait for each other.
SELECT pg_advisory_xact_lock(hashtextextended('zone:' || @zone_id::text, 0));
