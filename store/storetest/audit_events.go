package storetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// AuditEvent appends an authorization audit event to the chain of a zone, as the
// ingester does without a key, and returns its id. It sets columns of audit_events to
// the given values; metadata, diagnostics and determining_policies can be any value that
// encodes as JSON. The other columns have those of an allowed token exchange.
func (d *DB) AuditEvent(zone string, columns map[string]any) string {
	d.tb.Helper()
	return d.AuditEvents(zone, 1, func(int) map[string]any { return columns })[0]
}

// AuditEvents appends n audit events like AuditEvent, the i-th of which has the columns
// that the function returns for i, and returns their ids.
func (d *DB) AuditEvents(zone string, n int, columns func(i int) map[string]any) []string {
	d.tb.Helper()
	ids := make([]string, n)
	events := make([]map[string]any, n)
	for i := range events {
		events[i] = map[string]any{
			"id": id("event"), "occurred_at": time.Now().UTC().Format(time.RFC3339Nano), "event_type": "token_exchange", "request_id": id("request"), "decision": "allow",
			"policy_set_version_id": "psv-1", "manifest_sha": "aa11", "evaluation_status": "complete", "determining_policies": []any{}, "diagnostics": []any{},
			"metadata": map[string]any{"application_id": "application-1", "agent_session_id": "agent-1", "session_id": "session-1", "agent_labels": []string{"planner"}, "resource": "resource://invoices"},
		}
		for column, value := range columns(i) {
			if at, ok := value.(time.Time); ok {
				value = at.UTC().Format(time.RFC3339Nano)
			}
			events[i][column] = value
		}
		ids[i] = fmt.Sprint(events[i]["id"])
	}
	for chunk := range slices.Chunk(events, 1000) {
		d.appendAuditEvents(zone, chunk)
	}
	return ids
}

// storedText names, instead of the columns with JSON, those with its text.
var storedText = strings.NewReplacer("determining_policies", "p", "diagnostics", "d", "metadata", "m")

func (d *DB) appendAuditEvents(zone string, events []map[string]any) {
	d.tb.Helper()
	names := map[string]bool{}
	for _, e := range events {
		for name := range e {
			names[name] = true
		}
	}
	list := ""
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !slices.Contains([]string{"zone_id", "chain_seq", "prev_content_sha256", "content_sha256"}, name) {
			list += ", " + name
		}
	}
	encoded, err := json.Marshal(events)
	if err != nil {
		d.tb.Fatal(err)
	}
	d.Exec("SELECT create_audit_partitions(min(occurred_at), max(occurred_at)) FROM jsonb_to_recordset($1) AS e (occurred_at timestamptz)", string(encoded))
	d.Exec(`WITH received AS (
			SELECT r.*, n, nullif(t -> 'determining_policies', 'null')::text AS p, nullif(t -> 'diagnostics', 'null')::text AS d, nullif(t -> 'metadata', 'null')::text AS m
			FROM jsonb_array_elements($2) WITH ORDINALITY AS e (t, n), jsonb_populate_record(NULL::audit_events, t || jsonb_build_object('zone_id', $1::text)) AS r
		), hashed AS (
			SELECT *, encode(sha256(convert_to(concat_ws(chr(31), id, zone_id, coalesce(event_type, ''), coalesce(request_id, ''), coalesce(decision, ''),
				coalesce(policy_set_id, ''), coalesce(policy_set_version_id, ''), coalesce(manifest_sha, ''), coalesce(evaluation_status, ''),
				coalesce(p, 'null'), coalesce(d, 'null'), coalesce(m, 'null'), (extract(epoch FROM occurred_at) * 1000000)::bigint || '000'), 'UTF8')), 'hex') AS h
			FROM received
		), head AS (
			SELECT coalesce(max(chain_seq), 0) AS last_seq, max(content_sha256) AS last_hash FROM audit_chain_heads WHERE zone_id = $1
		), inserted AS (
			INSERT INTO audit_events (zone_id`+list+`, chain_seq, content_sha256, prev_content_sha256)
			SELECT zone_id`+storedText.Replace(list)+`, last_seq + n, h, coalesce(lag(h) OVER (ORDER BY n), nullif(last_hash, '')) FROM hashed, head
			RETURNING *
		), labels AS (
			INSERT INTO audit_event_labels (zone_id, label, occurred_at, event_id)
			SELECT DISTINCT zone_id, label, occurred_at, id FROM inserted, jsonb_array_elements_text(
				CASE jsonb_typeof(metadata::jsonb -> 'agent_labels') WHEN 'array' THEN metadata::jsonb -> 'agent_labels' ELSE '[]' END) AS label
		), counts AS (
			INSERT INTO audit_decision_counts AS c (zone_id, minute, decision, count)
			SELECT zone_id, date_trunc('minute', occurred_at), decision, count(*) FROM inserted WHERE decision IS NOT NULL GROUP BY 1, 2, 3
			ON CONFLICT (zone_id, minute, decision) DO UPDATE SET count = c.count + EXCLUDED.count
		)
		INSERT INTO audit_chain_heads (zone_id, chain_seq, content_sha256)
		SELECT zone_id, chain_seq, content_sha256 FROM inserted ORDER BY chain_seq DESC LIMIT 1
		ON CONFLICT (zone_id) DO UPDATE SET chain_seq = EXCLUDED.chain_seq, content_sha256 = EXCLUDED.content_sha256`, zone, string(encoded))
}
