package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// fillTables fills the tables with what accumulates over years: archived rows,
// ended sessions, dispatched events, audit entries.
func fillTables(db *storetest.DB) {
	db.Exec(`INSERT INTO zones (id, name, slug, reserved, created_at, archived_at)
		SELECT 'z' || n, 'Zone ' || n % 1000, 'z' || n, false, now() - n * interval '1 minute', CASE WHEN n % 10 > 0 THEN now() END FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO admin_tokens (zone_id, id, name, capability, created_by, token_sha256, created_at, revoked_at)
		SELECT 'z' || (n % 2000 + 1), 't' || n, 'x' || n % 1000, 'read', 'admin:t' || n % 100, sha256(n::text::bytea), now() - n * interval '1 minute', CASE WHEN n % 10 > 0 THEN now() END FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload)
		SELECT 'z' || n % 2000, 'e' || n, 'r', 'a', 'o', 'a', 'POST', '/v1/zones', 201, '{}' FROM generate_series(1, 200000) AS n`)
	db.Exec(`INSERT INTO audit_seals (zone_id, seq, entry_id, previous, hash) SELECT 'z' || n % 2000, n, 'e' || n, '', '' FROM generate_series(1, 200000) AS n`)
	db.Exec(`INSERT INTO audit_seal_heads (zone_id, seq, hash, sealed_at) SELECT 'z' || n, 1, '', now() FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO audit_unsealed (zone_id, entry_id) SELECT 'z' || n % 2000, 'u' || n FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, created_at, expires_at, archived_at)
		SELECT 'z' || n % 20 + 1, 'a' || n, 'x' || n % 1000, CASE WHEN n % 2 = 0 THEN 'dcr' ELSE 'managed' END, now() - n * interval '1 second',
			CASE WHEN n % 2 = 0 THEN now() + interval '1 hour' END, CASE WHEN n % 10 > 0 THEN now() END FROM generate_series(1, 100000) AS n`)
	db.Exec(`INSERT INTO application_secrets (zone_id, application_id, id, secret_hash, expires_at)
		SELECT zone_id, id, 's-' || id, 'sha256$', CASE WHEN right(id, 1) = '7' THEN now() END FROM applications`)
	db.Exec(`INSERT INTO client_registrations (zone_id, application_id, token_sha256, metadata) SELECT zone_id, id, '', '{}' FROM applications`)
	db.Exec(`INSERT INTO registration_tokens (zone_id, id, name, token_sha256, created_at)
		SELECT 'z' || n % 20 + 1, 't' || n, 'x', sha256(n::text::bytea), now() - n * interval '1 second' FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO sessions (zone_id, id, session_type, subject_id, parent_id, status, expires_at)
		SELECT 'z' || n % 20 + 1, 's' || n, CASE WHEN n % 2 = 0 THEN 'application' ELSE 'user' END, 'a' || n / 20, CASE WHEN n > 40 THEN 's' || n - 20 END,
			CASE WHEN n % 10 > 0 THEN 'expired' ELSE 'active' END, now() FROM generate_series(1, 40000) AS n`)
	db.Exec(`INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, parent_id, status, labels)
		SELECT 'z' || n % 20 + 1, 'g' || n, 'a' || n, 's' || n, CASE WHEN n > 40 THEN 'g' || n - 20 END, CASE WHEN n % 10 > 0 THEN 'terminated' ELSE 'active' END, ARRAY['x' || n % 100]
		FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO delegation_edges (zone_id, id, source_session_id, target_session_id, issuer_application_id, receiver_application_id, status, expires_at)
		SELECT 'z' || n % 20 + 1, 'd' || n, 'g' || n, 'g' || n + 20, 'a', 'a', CASE WHEN n % 10 > 0 THEN 'revoked' ELSE 'active' END, now() FROM generate_series(1, 19900) AS n`)
	db.Exec(`INSERT INTO delegation_graph_epochs SELECT 'z' || n, 1 FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO outbox (zone_id, id, stream, fields, request_id, created_at, dispatched_at, dead_at)
		SELECT 'z' || n % 2000, 'o' || n, 's', '{}', 'r', now() - n * interval '1 second', CASE WHEN n % 50 > 0 THEN now() - n * interval '1 second' END, CASE WHEN n % 100 = 0 THEN now() END
		FROM generate_series(1, 100000) AS n`)
	db.Exec(`INSERT INTO data_keys (zone_id, number, wrapped_by, wrapped, created_at, retired_at)
		SELECT 'z' || (n - 1) / 2 + 1, 2 - n % 2, CASE WHEN n % 100 = 0 THEN 'old' ELSE 'new' END, 'x', now() - n * interval '1 minute', CASE WHEN n % 2 = 1 THEN now() END FROM generate_series(1, 40000) AS n`)
	db.Exec(`INSERT INTO signing_keys (zone_id, id, public_jwk, private_key, data_key, retires_at)
		SELECT 'z' || (n - 1) / 2 + 1, 'k' || n, '{}', 'x', 2, CASE WHEN n % 2 = 1 THEN now() + interval '1 hour' END FROM generate_series(1, 40000) AS n`)
	db.Exec(`INSERT INTO idempotency_keys (zone_id, id, locked, wrapped_by, wrapped, response, created_at)
		SELECT 'z' || n % 2000, 'i' || n, true, CASE WHEN n % 100 = 0 THEN 'old' ELSE 'new' END, 'x', 'x', now() - n * interval '5 seconds' FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind, secret_config_keys, secret_config, data_key, created_at, archived_at)
		SELECT 'z' || n % 20 + 1, 'p' || n, 'x' || n % 1000, 'provider://p' || n, CASE WHEN n % 3 = 0 THEN 'api_key' ELSE 'bearer_token' END, CASE WHEN n % 10 > 0 THEN '{}' ELSE '{api_key}'::text[] END,
			CASE WHEN n % 10 = 0 THEN 'x'::bytea END, CASE WHEN n % 10 = 0 THEN 2 END, now() - n * interval '1 second', CASE WHEN n % 10 > 0 THEN now() END FROM generate_series(1, 40000) AS n`)
	db.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, gateway_application_id, operation_enforcement, created_at, archived_at)
		SELECT 'z' || n % 20 + 1, 'r' || n, 'x' || n % 1000, 'https://r' || n, '{s}', 'p' || n, 'a' || n, 'enforced', now() - n * interval '1 second', CASE WHEN n % 10 > 0 THEN now() END FROM generate_series(1, 40000) AS n`)
	db.Exec(`INSERT INTO resource_totals (zone_id, live) SELECT 'z' || n, 1 FROM generate_series(1, 20000) AS n`)
	db.Exec(`INSERT INTO provider_grants (zone_id, id, user_id, resource_id, provider_id, created_at, status, access_token, data_key)
		SELECT 'z' || n % 20 + 1, 'pg' || n, 'u' || n / 80, 'r' || n % 20 + 20 * (1 + n / 20 % 4), 'p' || n % 20 + 20 * (1 + n / 20 % 4), now() - n * interval '1 second', CASE WHEN n % 10 > 0 THEN 'revoked' ELSE 'active' END,
			CASE WHEN n % 10 = 0 THEN 'x'::bytea END, CASE WHEN n % 10 = 0 THEN 2 END FROM generate_series(1, 40000) AS n`)
	fillGrants(db, 20000)
	db.Exec(`INSERT INTO policies (zone_id, id, name, owner_type, latest_version, created_by, created_at, archived_at)
		SELECT 'z' || n % 20 + 1, 'p' || n, 'p' || n, 'customer', 10, 'x', now() - n * interval '1 second', CASE WHEN n % 10 > 0 THEN now() END FROM generate_series(1, 10000) AS n`)
	db.Exec(`INSERT INTO policy_versions (zone_id, id, policy_id, version, content, content_sha256, schema_version, created_by)
		SELECT 'z' || n % 20 + 1, 'pv' || n || '-' || v, 'p' || n, v, 'x', 'x', 'x', 'x' FROM generate_series(1, 10000) AS n, generate_series(1, 10) AS v`)
	db.Exec(`INSERT INTO policy_sets (zone_id, id, name, latest_version, created_by, created_at)
		SELECT 'z' || n % 2000 + 1, 'ps' || n, 'ps' || n, 10, 'x', now() - n * interval '1 second' FROM generate_series(1, 10000) AS n`)
	db.Exec(`INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_sha256, schema_version, created_by)
		SELECT 'z' || n % 2000 + 1, 'psv' || n || '-' || v, 'ps' || n, v, 'x', 'x', 'x' FROM generate_series(1, 10000) AS n, generate_series(1, 10) AS v`)
	db.Exec(`INSERT INTO policy_set_manifests (zone_id, policy_set_version_id, position, policy_version_id)
		SELECT v.zone_id, v.id, p.version, p.id FROM policy_set_versions AS v JOIN policy_versions AS p ON p.zone_id = v.zone_id AND p.policy_id = 'p' || substr(v.policy_set_id, 3)`)
	db.Exec(`INSERT INTO policy_activations (zone_id, number, action, policy_set_id, version_id, outbox_id, activated_by)
		SELECT zone_id, row_number() OVER (PARTITION BY zone_id ORDER BY id), 'activate', policy_set_id, id, 'o' || id, 'x' FROM policy_set_versions`)
	db.Exec("UPDATE policy_sets SET active_version_id = 'psv' || substr(id, 3) || '-10' WHERE substr(id, 3)::int <= 2000")
	db.Exec(`INSERT INTO step_up_challenges (zone_id, id, session_id, principal_id, challenge_type, resource_set_hash, created_at, expires_at, satisfied_at, approver_subject_id, rejected_at, rejected_by, rejected_reason, consumed_at)
		SELECT 'z' || n % 20 + 1, 'c' || n, 's' || n % 40000, 'u' || n, 'human_approval', 'x', t, t + interval '30 minutes', CASE WHEN n % 4 < 2 THEN t END, CASE WHEN n % 4 < 2 THEN 'x' END,
			CASE WHEN n % 4 = 2 THEN t END, CASE WHEN n % 4 = 2 THEN 'x' END, CASE WHEN n % 4 = 2 THEN 'x' END, CASE WHEN n % 4 = 0 THEN t END
		FROM (SELECT n, now() - n * interval '1 second' AS t FROM generate_series(1, 100000) AS n) AS all_of_them`)
	db.Exec("INSERT INTO state_owners (zone_id, kind, object_id, owner) SELECT 'z' || n % 2000 + 1, CASE WHEN n % 2 = 0 THEN 'grant' ELSE 'policy' END, 'x' || n, 'o' || n % 3 FROM generate_series(1, 100000) AS n")
	fillAuditEvents(db)
	db.Exec("INSERT INTO leases (name, holder, term, expires_at) SELECT 'l' || n, 'x', n, now() FROM generate_series(1, 2000) AS n")
	for _, table := range storetest.Column[string](db, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") {
		db.Exec("ANALYZE " + table) // like autovacuum
	}
}

// statements returns the SQL of the generated queries, by name.
func statements(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../gen/db/*.sql.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			constant, ok := decl.(*ast.GenDecl)
			if !ok || constant.Tok != token.CONST {
				continue
			}
			spec := constant.Specs[0].(*ast.ValueSpec)
			sql, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			all[spec.Names[0].Name] = sql
		}
	}
	if len(all) < 20 {
		t.Fatalf("found only %d statements", len(all))
	}
	return all
}

func TestPlans(t *testing.T) {
	t.Parallel()
	conn := planner(t)
	all := statements(t)
	t.Run("no statement scans a whole table", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if strings.HasPrefix(name, "listGrants") || strings.HasPrefix(name, "listAuditEvents") || name == "countGrantsByFilter" || name == "countAuditEventsByFilter" { // planned with other settings: see grant_plans_test.go and audit_event_plans_test.go
				continue
			}
			for _, scan := range scans(plan(t, conn, name, all[name])) {
				t.Errorf("%s %s\n%s", name, scan, all[name])
			}
		}
	})
	// What is due is read from an index that has nothing else, and of what is referenced by
	// other rows, each is looked up.
	t.Run("a job reads only what is due", func(t *testing.T) {
		for name, want := range map[string][]string{
			"listLapsedSessions":         {"Limit", "Index Only Scan on sessions_due"},
			"listLapsedAgentSessions":    {"Limit", "Index Only Scan on agent_sessions_due"},
			"listExpiredDCRApplications": {"Limit", "Index Only Scan on applications_dcr_due"},
			"listExpiredSecrets":         {"Limit", "Index Only Scan on application_secrets_due"},
			"listOldStepUpChallenges":    {"Limit", "Index Only Scan on step_up_challenges_due"},
			"listRetiredSigningKeys":     {"Limit", "Index Only Scan on signing_keys_due"},
			"listEndedDelegationEdges":   {"Limit", "Index Only Scan on delegation_edges_ended", "Index Only Scan on delegation_edges_by_parent"},
			"listEndedAgentSessions":     {"Limit", "Index Only Scan on agent_sessions_ended", "Index Only Scan on agent_sessions_by_parent", "Index Only Scan on delegation_edges_by_source", "Index Only Scan on delegation_edges_by_target"},
			"listEndedSessions":          {"Limit", "Index Only Scan on sessions_ended", "Index Only Scan on agent_sessions_by_subject_session", "Index Only Scan on sessions_by_parent"},
		} {
			got := nodesOf(plan(t, conn, name+" of a job", all[name]))
			slices.Sort(got[min(2, len(got)):]) // the references, in the order of their costs
			if !slices.Equal(got, want) {
				t.Errorf("%s: the plan is %q, want %q", name, got, want)
			}
		}
	})
	// The index of a filter also returns the rows in the order of the list.
	t.Run("a filtered list is one index scan", func(t *testing.T) {
		indexes := map[string]string{
			"listZonesByName": "zones_named", "listZonesBySlug": "zones_slug_taken", "listAdminTokensByName": "admin_tokens_named",
			"listApplicationsByName": "applications_named", "listApplicationsByRegistrationMethod": "applications_by_registration_method",
			"listProvidersByName": "providers_named", "listProvidersByKind": "providers_by_kind", "listProvidersByIdentifier": "providers_identifier_taken",
			"listResourcesByName": "resources_named", "listResourcesByIdentifier": "resources_identifier_taken",
			"listProviderGrantsByStatus": "provider_grants_by_status", "listProviderGrantsByUser": "provider_grants_by_user",
			"listProviderGrantsByResource": "provider_grants_by_resource", "listProviderGrantsByResourceAndStatus": "provider_grants_by_resource_and_status",
			"listProviderGrantsByProvider": "provider_grants_by_provider", "listProviderGrantsByProviderAndStatus": "provider_grants_by_provider_and_status",
			"listStepUpChallengesByOutcome": "step_up_challenges_by_outcome", "listStepUpChallengesByExpiry": "step_up_challenges_unused",
			"listPoliciesByName": "policies_name_taken", "listPolicySetsByName": "policy_sets_name_taken",
		}
		// Postgres may read a few rows with a bitmap of the index, and sort them.
		if _, err := conn.Exec(t.Context(), "SET enable_bitmapscan = off"); err != nil {
			t.Fatal(err)
		}
		for name, sql := range all {
			if !strings.HasPrefix(name, "list") || !strings.Contains(name, "By") || slices.ContainsFunc([]string{"listGrants", "listSessions", "listExpiredSessions", "listAgentSessions", "listAuditEvents", "listAuditEntries"}, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) { // see TestListGrantsReadsOnlyAPage and those like it
				continue
			}
			want := []string{"Index Scan on " + indexes[name]}
			if strings.Contains(sql, "LIMIT") {
				want = append([]string{"Limit"}, want...)
			}
			if got := nodesOf(plan(t, conn, name+" in order", sql)); !slices.Equal(got, want) {
				t.Errorf("%s: the plan is %q, want %q", name, got, want)
			}
		}
	})
}

// nodesOf describes the nodes of a plan, from the root down.
func nodesOf(node map[string]any) []string {
	text := fmt.Sprint(node["Node Type"])
	if index, ok := node["Index Name"]; ok {
		text += fmt.Sprint(" on ", index)
	}
	all := []string{text}
	children, _ := node["Plans"].([]any)
	for _, child := range children {
		all = append(all, nodesOf(child.(map[string]any))...)
	}
	return all
}

// planner returns a connection to a database with full tables. It plans statements
// under row-level security, for any parameters.
func planner(t *testing.T) *pgx.Conn {
	t.Helper()
	db := storetest.New(t)
	fillTables(db)
	return genericPlanner(t, db)
}

// genericPlanner returns a connection that plans statements under row-level security, for
// any parameters.
func genericPlanner(t *testing.T, db *storetest.DB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.OwnerURL()) // row-level security applies to the owner too, and it has the privileges to run every statement
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	for _, setting := range []string{"SET plan_cache_mode = force_generic_plan", "SET caracal.zone_id = '" + store.AllZones + "'"} {
		if _, err := conn.Exec(t.Context(), setting); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

// plan returns the plan of a statement.
func plan(t *testing.T, conn *pgx.Conn, name, sql string) map[string]any {
	t.Helper()
	description, err := conn.Prepare(t.Context(), name, sql)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	execute := `EXECUTE "` + name + `"`
	if n := len(description.ParamOIDs); n > 0 {
		execute += "(" + strings.TrimSuffix(strings.Repeat("NULL,", n), ",") + ")"
	}
	var text []byte
	if err := conn.QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+execute, pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var plans []struct{ Plan map[string]any }
	if err := json.Unmarshal(text, &plans); err != nil {
		t.Fatal(err)
	}
	return plans[0].Plan
}

// scans describes the nodes of a plan that read a whole table or index.
func scans(node map[string]any) (all []string) {
	kind, _ := node["Node Type"].(string)
	_, bounded := node["Index Cond"]
	switch {
	case kind == "Seq Scan" && node["Relation Name"] != "admin_tokens_epoch" && node["Relation Name"] != "audit_retention": // tables of one row
		all = append(all, fmt.Sprint("scans ", node["Relation Name"]))
	case kind == "Bitmap Index Scan" && !bounded:
		all = append(all, fmt.Sprint("scans the index ", node["Index Name"]))
	}
	children, _ := node["Plans"].([]any)
	for _, child := range children {
		all = append(all, scans(child.(map[string]any))...)
	}
	return all
}
