package store_test

import (
	"fmt"
	"slices"
	"testing"

	"caracal.run/management/store/storetest"
)

// fillAuditEntries inserts audit entries with seals in zone z1, each with an actor, kind,
// object, method, request and status that are common. Four have rare ones instead.
func fillAuditEntries(db *storetest.DB, count int) {
	insertAuditEntries(db, count)
	db.Exec("ANALYZE audit_entries")
	db.Exec("ANALYZE audit_seals")
}

func insertAuditEntries(db *storetest.DB, count int) {
	db.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_id, actor_name, actor_scope, operation, action, method, path, entity_type, entity_id, status_code, payload, occurred_at)
		SELECT 'z1', 'e-' || n, 'r-' || coalesce(rare, (n % 10)::text), 'a-' || coalesce(rare, (n % 10)::text), 'a', 'zone', 'o', 'a', CASE WHEN rare IS NULL THEN 'POST' ELSE 'GET' END, 'p',
			'k-' || coalesce(rare, (n % 10)::text), 'i-' || coalesce(rare, (n % 10)::text), CASE WHEN rare IS NULL THEN 201 ELSE 404 END, '{}', now() - n * interval '1 second'
		FROM (SELECT n, CASE WHEN n % ($1 / 4) = 0 THEN 'rare' END AS rare FROM generate_series(1, $1) AS n) AS numbers`, count)
	db.Exec("INSERT INTO audit_seals (zone_id, seq, entry_id, previous, hash, occurred_at) SELECT zone_id, row_number() OVER (ORDER BY occurred_at), id, '', '', occurred_at FROM audit_entries")
}

// A page of the list of audit entries is read from the index of its filter, in order: how
// many rows are read depends neither on the number of entries nor on how many match.
func TestListAuditEntriesReadsOnlyAPage(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	// With many zones, Postgres expects few entries in each.
	db.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload, occurred_at)
		SELECT 'other-' || n % 50, 'o-' || n, 'r', 'a', 'o', 'a', 'POST', 'p', 201, '{}', now() - n * interval '1 second' FROM generate_series(1, 5000) AS n`)
	fillAuditEntries(db, 100_000)
	const page = listedPage
	for _, tt := range []listPlan{
		{"listAuditEntries", nil, "audit_entries_listed", page, page},
		{"listAuditEntriesByActor", map[string]string{"ActorID": "a-7"}, "audit_entries_by_actor", page, page},
		{"listAuditEntriesByActor", map[string]string{"ActorID": "a-rare", "Method": "GET", "StatusCode": "404", "EntityType": "k-rare"}, "audit_entries_by_actor", 4, 4},
		{"listAuditEntriesByEntityType", map[string]string{"EntityType": "k-7"}, "audit_entries_by_entity_type", page, page},
		{"listAuditEntriesByEntityType", map[string]string{"EntityType": "k-rare", "Method": "POST"}, "audit_entries_by_entity_type", 4, 0},
		{"listAuditEntriesByEntity", map[string]string{"EntityID": "i-7"}, "audit_entries_by_entity", page, page},
		{"listAuditEntriesByEntity", map[string]string{"EntityID": "i-rare", "ActorID": "a-rare"}, "audit_entries_by_entity", 4, 4},
		{"listAuditEntriesByMethod", map[string]string{"Method": "POST"}, "audit_entries_by_method", page, page},
		{"listAuditEntriesByMethod", map[string]string{"Method": "GET"}, "audit_entries_by_method", 4, 4},
		{"listAuditEntriesByRequest", map[string]string{"RequestID": "r-7"}, "audit_entries_by_request", page, page},
		{"listAuditEntriesByRequest", map[string]string{"RequestID": "r-rare", "EntityID": "i-rare"}, "audit_entries_by_request", 4, 4},
		{"listAuditEntriesByStatusCode", map[string]string{"StatusCode": "201"}, "audit_entries_by_status_code", page, page},
		{"listAuditEntriesByStatusCode", map[string]string{"StatusCode": "404"}, "audit_entries_by_status_code", 4, 4},
	} {
		t.Run(fmt.Sprint(tt.query, tt.set), func(t *testing.T) {
			if tt.set == nil {
				tt.set = map[string]string{}
			}
			tt.set["Since"] = "-infinity"
			seals := "audit_seals_by_entry"
			if tt.query == "listAuditEntries" {
				seals = "audit_seals_listed"
			}
			tt.check(t, db, -1, []string{seals}, tt.read)
		})
	}
	// Nor is more read between two times in the middle of the list.
	since := storetest.Value[string](db, "SELECT (max(occurred_at) - interval '50010 seconds')::text FROM audit_entries")
	before := storetest.Value[string](db, "SELECT (max(occurred_at) - interval '50000 seconds')::text FROM audit_entries")
	between := listPlan{"listAuditEntries", map[string]string{"Since": since, "BeforeTime": before}, "audit_entries_listed", 10, 10}
	between.check(t, db, -1, []string{"audit_seals_listed"}, 10)
}

// Sealing looks each entry and seal up, also while Postgres has no statistics of tables
// that have grown since autovacuum last looked at them.
func TestSealEntriesReadsOnlyItsQueue(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec("ALTER TABLE audit_entries SET (autovacuum_enabled = off)")
	db.Exec("ALTER TABLE audit_seals SET (autovacuum_enabled = off)")
	insertAuditEntries(db, 5_000)
	conn := genericPlanner(t, db)
	all := statements(t)
	for _, statement := range []string{"BEGIN", all["tryLockSealing"]} { // which has settings for the others
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string][]string{
		"listChainEnds":   {"Limit", "Index Scan on audit_seals_pkey"}, // after the heads, of which there are few
		"listUnsealed":    {"Limit", "Nested Loop", "Index Scan on audit_unsealed_queue", "Limit", "Index Scan on audit_seals_by_entry"},
		"getAuditEntries": {"Nested Loop", "ProjectSet", "Result", "Limit", "Index Scan on audit_entries_pkey"},
	} {
		if got := nodesOf(plan(t, conn, name, all[name])); len(got) < len(want) || !slices.Equal(got[len(got)-len(want):], want) {
			t.Errorf("%s: the plan is %q, want one that ends with %q", name, got, want)
		}
	}
}
