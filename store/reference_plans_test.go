package store_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store/storetest"
)

// The foreign keys of what jobs delete are checked with their indexes, even if almost all
// rows reference the same one.
func TestReferencesAreLookedUp(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ('z', 'Zone', 'z', false)")
	root := db.Session("z")
	app := db.Application("z")
	agent := db.AgentSession("z", app, root)
	edge := db.DelegationEdge("z", agent, agent)
	db.Exec("INSERT INTO sessions (zone_id, id, session_type, parent_id, expires_at) SELECT 'z', 's' || n, 'user', $1, now() FROM generate_series(1, 5000) AS n", root)
	db.Exec("INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, parent_id) SELECT 'z', 'g' || n, $1, $2, $3 FROM generate_series(1, 5000) AS n", app, root, agent)
	db.Exec(`INSERT INTO delegation_edges (zone_id, id, source_session_id, target_session_id, issuer_application_id, receiver_application_id, parent_edge_id, expires_at)
		SELECT 'z', 'd' || n, $1, $1, 'a', 'a', $2, now() FROM generate_series(1, 5000) AS n`, agent, edge)
	for _, table := range []string{"sessions", "agent_sessions", "delegation_edges"} {
		db.Exec("ANALYZE " + table)
	}
	conn, err := pgx.Connect(t.Context(), db.OwnerURL()+"&caracal.zone_id=*&plan_cache_mode=force_generic_plan")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	// What Postgres executes for each deleted row.
	checks := storetest.Column[string](db, `SELECT 'SELECT 1 FROM ONLY ' || conrelid::regclass || ' AS x WHERE zone_id = $1 AND ' || a.attname || ' = $2 FOR KEY SHARE OF x'
		FROM pg_constraint AS c JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[2]
		WHERE contype = 'f' AND confrelid::regclass::text IN ('sessions', 'agent_sessions', 'delegation_edges')`)
	if len(checks) != 6 {
		t.Fatalf("found %d foreign keys: %q", len(checks), checks)
	}
	for i, check := range checks {
		for _, scan := range scans(plan(t, conn, fmt.Sprint("check", i), check)) {
			t.Errorf("%s %s", check, scan)
		}
	}
}
