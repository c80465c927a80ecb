-- name: RevokeDelegationEdgesOf :many
-- RevokeDelegationEdgesOf revokes the active edges that start or end at the given agent sessions.
UPDATE delegation_edges SET status = 'revoked', revoked_at = now(), updated_at = now(), edge_version = edge_version + 1
WHERE zone_id = @zone_id AND status = 'active'
  AND (source_session_id = ANY (@agent_session_ids::text[]) OR target_session_id = ANY (@agent_session_ids::text[]))
RETURNING id, target_session_id;

-- name: RevokeDelegationEdgesOfZone :many
UPDATE delegation_edges SET status = 'revoked', revoked_at = now(), updated_at = now(), edge_version = edge_version + 1
WHERE zone_id = @zone_id AND status = 'active'
RETURNING id, target_session_id;

-- name: BumpDelegationGraphEpoch :one
INSERT INTO delegation_graph_epochs AS e (zone_id, epoch) VALUES (@zone_id, 1)
ON CONFLICT (zone_id) DO UPDATE SET epoch = e.epoch + 1
RETURNING epoch;

-- name: ListEndedDelegationEdges :many
-- ListEndedDelegationEdges returns edges that were revoked or expired before a number of days and that no edge references, like
-- ListEndedSessions.
SELECT e.zone_id, e.id FROM delegation_edges AS e
WHERE e.status <> 'active' AND e.updated_at < now() - make_interval(days => @days::integer) AND e.zone_id <> ALL (@excluded_zones::text[])
  AND NOT EXISTS (SELECT FROM delegation_edges AS child WHERE child.zone_id = e.zone_id AND child.parent_edge_id = e.id OFFSET 0)
ORDER BY e.updated_at, e.zone_id, e.id
LIMIT @row_limit;

-- name: DeleteEndedDelegationEdges :execrows
DELETE FROM delegation_edges
WHERE zone_id = @zone_id AND id = ANY (@ids::text[]) AND status <> 'active' AND updated_at < now() - make_interval(days => @days::integer);
