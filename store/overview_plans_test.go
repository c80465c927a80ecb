package store_test

import (
	"strings"
	"testing"

	"caracal.run/management/store/storetest"
)

// The overview reads what it counts, from indexes that contain nothing else: how much it
// reads depends neither on what was archived or has ended nor on the number of events.
func TestOverviewReadsWhatItCounts(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec(`INSERT INTO zones (id, name, slug, reserved) SELECT 'z' || n, 'Zone', 'z' || n, false FROM generate_series(1, 2000) AS n`)
	const total, counted, unenforced = 20_000, 40, 20 // of each kind
	db.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, expires_at, archived_at)
		SELECT 'z1', 'a-' || n, 'x', CASE WHEN n % 2 = 0 THEN 'dcr' ELSE 'managed' END, CASE WHEN n % 2 = 0 THEN now() + n * interval '1 day' - interval '10 days' END,
			CASE WHEN n > $2 THEN now() END FROM generate_series(1, $1::int) AS n`, total, counted)
	db.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind, archived_at)
		SELECT 'z1', 'p-' || n, 'x', 'provider://' || n, 'none', CASE WHEN n > $2 THEN now() END FROM generate_series(1, $1::int) AS n`, total, counted)
	db.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement, archived_at)
		SELECT 'z1', 'r-' || n, 'x', 'urn:' || n, '{a}', 'p-1', CASE WHEN n % 500 = 0 THEN 'transport_uniform' ELSE 'enforced' END, CASE WHEN n > $1 / 2 THEN now() END FROM generate_series(1, $1::int) AS n`, total)
	db.Exec("INSERT INTO resource_totals (zone_id, live) SELECT 'z' || n, 10000 FROM generate_series(1, 2000) AS n")
	db.Exec(`INSERT INTO policy_sets (zone_id, id, name, latest_version, created_by, archived_at)
		SELECT 'z1', 's-' || n, 's-' || n, 1, 'x', CASE WHEN n > $2 THEN now() END FROM generate_series(1, $1::int) AS n`, total, counted)
	db.Exec(`INSERT INTO sessions (zone_id, id, session_type, status, expires_at)
		SELECT 'z1', 's-' || n, 'user', CASE WHEN n % 2 = 0 THEN 'active' ELSE 'expired' END, now() + CASE WHEN n <= 2 * $2 THEN 1 ELSE -1 END * interval '1 hour' FROM generate_series(1, $1::int) AS n`, total, counted)
	fillEventsOfZone(db, total) // some of each hour
	db.Exec("INSERT INTO audit_decision_counts SELECT zone_id, date_trunc('minute', occurred_at), decision, count(*) FROM audit_events GROUP BY 1, 2, 3")
	db.Exec("INSERT INTO audit_decision_counts SELECT 'z' || n, minute, decision, count FROM audit_decision_counts, generate_series(2, 5) AS n")
	for _, table := range strings.Fields("applications providers resources resource_totals policy_sets sessions audit_decision_counts") {
		db.Exec("ANALYZE " + table)
	}
	root, text := execute(t, listPlanner(t, db), "getOverview", map[string]string{"ZoneID": "z1", "EventLimit": "10"})
	read := map[string]int{}
	root.walk(func(n planNode) {
		if n.Relation != "" {
			table, _, _ := strings.Cut(n.Relation, "_y2") // of a partition
			read[table] += n.read()
		}
		if n.Relation != "" && n.Index == "" {
			t.Errorf("%s on %s", n.Type, n.Relation)
		}
	})
	day := storetest.Value[int](db, "SELECT count(*)::int FROM audit_decision_counts WHERE zone_id = 'z1' AND minute > now() - interval '24 hours' AND decision IN ('allow', 'deny')")
	for table, most := range map[string]int{
		"applications": counted + counted/2, "resource_totals": 1, "resources": unenforced, "providers": counted, "policy_sets": counted, "sessions": counted,
		"audit_decision_counts": 2*day + 2, "audit_events": 10 + 10, // the latest, and those of the first minute
	} {
		n, used := read[table]
		if delete(read, table); !used || n > most {
			t.Errorf("read %d rows of %s, want at most %d", n, table, most)
		}
	}
	if len(read) > 0 || t.Failed() {
		t.Errorf("read %v, too\n%s", read, text)
	}
}
