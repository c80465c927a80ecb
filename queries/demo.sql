-- Inserts for the demo, of rows that other services write. Only the owner role has the privileges for them.

-- name: InsertSession :exec
INSERT INTO sessions (zone_id, id, session_type, subject_id, parent_id, application_id, expires_at)
VALUES (@zone_id, @id, @session_type, @subject_id, sqlc.narg(parent_id), sqlc.narg(application_id), now() + interval '1 hour');

-- name: InsertStepUpChallenge :exec
INSERT INTO step_up_challenges (zone_id, id, session_id, principal_id, challenge_type, metadata_json, resource_set_hash, expires_at)
VALUES (@zone_id, @id, @session_id::text, @principal_id, 'human_approval', @metadata_json, @resource_set_hash, now() + interval '1 hour');

-- name: InsertAgentSession :exec
INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, parent_id, labels, depth, child_count)
VALUES (@zone_id, @id, @application_id, @subject_session_id, sqlc.narg(parent_id), @labels, @depth, @child_count);

-- name: InsertDelegationEdge :exec
INSERT INTO delegation_edges (zone_id, id, source_session_id, target_session_id, issuer_application_id, receiver_application_id, scopes, expires_at)
VALUES (@zone_id, @id, @source_session_id, @target_session_id, @issuer_application_id, @receiver_application_id, @scopes, now() + interval '1 hour');
