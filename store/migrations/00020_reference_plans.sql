-- Deleting a row searches the rows that reference it, once for each foreign key. Few
-- sessions can have most of the agent sessions: these make Postgres use the index of the
-- reference all the same, and not read the whole table for each deleted row.

-- +goose Up
ALTER TABLE sessions ALTER parent_id SET (n_distinct = -0.1);
ALTER TABLE agent_sessions ALTER subject_session_id SET (n_distinct = -0.1);
ALTER TABLE delegation_edges ALTER source_session_id SET (n_distinct = -0.1), ALTER target_session_id SET (n_distinct = -0.1), ALTER parent_edge_id SET (n_distinct = -0.1);

-- +goose Down
ALTER TABLE sessions ALTER parent_id RESET (n_distinct);
ALTER TABLE agent_sessions ALTER subject_session_id RESET (n_distinct);
ALTER TABLE delegation_edges ALTER source_session_id RESET (n_distinct), ALTER target_session_id RESET (n_distinct), ALTER parent_edge_id RESET (n_distinct);
