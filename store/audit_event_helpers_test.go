package store_test

import "caracal.run/management/store/storetest"

// fillAuditEvents inserts audit events of a few zones in every partition.
func fillAuditEvents(db *storetest.DB) {
	db.Exec("SELECT create_audit_partitions(now() - interval '330 days', now())")
	db.Exec(`INSERT INTO audit_events (zone_id, id, occurred_at, event_type, request_id, decision, evaluation_status, metadata, chain_seq, content_sha256)
		SELECT 'z' || n % 20 + 1, 'ae' || n, first + n * (now() + interval '85 days' - first) / 50000, CASE WHEN n % 3 = 0 THEN 'token_exchange' ELSE 'gateway_resource_request' END, 'r' || n / 40,
			CASE WHEN n % 10 = 0 THEN 'deny' ELSE 'allow' END, 'complete',
			jsonb_build_object('application_id', 'a' || n % 1000, 'agent_session_id', 'g' || n % 20000, 'session_id', 's' || n % 40000, 'agent_labels', ARRAY['x' || n % 100])::text, n / 20 + 1, 'x'
		FROM generate_series(1, 50000) AS n, date_trunc('month', now() - interval '330 days') AS first`)
	db.Exec("INSERT INTO audit_event_labels SELECT zone_id, metadata::jsonb -> 'agent_labels' ->> 0, occurred_at, id FROM audit_events")
	db.Exec("INSERT INTO audit_chain_heads SELECT 'z' || n, 2500, 'x' FROM generate_series(1, 20000) AS n")
	db.Exec(`INSERT INTO audit_chain_checkpoints (zone_id, first_seq, last_seq, last_content_sha256, rows)
		SELECT 'z' || z, n * 10 + 1, n * 10 + 10, 'x', 10 FROM generate_series(1, 200) AS z, generate_series(0, 100) AS n`)
	db.Exec(`INSERT INTO audit_decision_counts SELECT 'z' || n % 20 + 1, date_trunc('minute', now()) - n / 20 * interval '1 minute', 'allow', 1 FROM generate_series(1, 50000) AS n`)
	db.Exec("INSERT INTO audit_ingest_alerts (zone_id, id, event_id, kind, detail) SELECT 'z' || n % 20 + 1, 'al' || n, 'e', 'content_mismatch_on_replay', 'x' FROM generate_series(1, 5000) AS n")
}
