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
