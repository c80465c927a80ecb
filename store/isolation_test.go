package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// Row-level security alone limits what the service role reads, without a predicate
// in the query.
func TestServiceRoleReadsOnlyItsZone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	for _, table := range tables(db) {
		for zone, want := range map[string]int{"": 0, "one": 1, "two": 1, "three": 0, "-": 0, store.AllZones: 2} {
			asService(t, db, zone, func(ctx context.Context, tx pgx.Tx) {
				var n int
				if err := tx.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
					t.Fatal(err)
				}
				if n != want {
					t.Errorf("zone %q: the service sees %d rows of %s, want %d", zone, n, table, want)
				}
			})
		}
	}
}

func TestServiceRoleCannotWriteToOtherZone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	for _, sql := range []string{
		"INSERT INTO applications (zone_id, id, name, registration_method) VALUES ('two', 'x', 'x', 'managed')",
		"INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload) VALUES ('two', 'x', 'r', 'a', 'o', 'a', 'm', 'p', 200, '{}')",
		"INSERT INTO outbox (zone_id, id, stream, fields, request_id) VALUES ('two', 'x', 's', '{}', 'r')",
		"UPDATE applications SET zone_id = 'two'",
	} {
		asService(t, db, "one", func(ctx context.Context, tx pgx.Tx) {
			if _, err := tx.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "row-level security") {
				t.Errorf("%s: %v", sql, err)
			}
		})
	}
	asService(t, db, "one", func(ctx context.Context, tx pgx.Tx) {
		tag, err := tx.Exec(ctx, "UPDATE zones SET name = 'mine' WHERE id = 'two'")
		if err != nil || tag.RowsAffected() != 0 {
			t.Errorf("changed %d rows, want 0: %v", tag.RowsAffected(), err)
		}
	})
}

func TestServiceRoleCannotRewriteAuditLogOrDeleteRows(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	denied := []string{"UPDATE audit_entries SET payload = '{}'", "TRUNCATE audit_entries", "DROP TABLE audit_entries", "ALTER TABLE zones DISABLE ROW LEVEL SECURITY", "UPDATE outbox SET fields = '{}'", "UPDATE admin_tokens SET token_sha256 = ''", "UPDATE application_secrets SET secret_hash = ''", "UPDATE registration_tokens SET token_sha256 = ''", "UPDATE client_registrations SET token_sha256 = ''",
		"UPDATE policy_versions SET content = ''", "UPDATE policy_set_versions SET manifest_sha256 = ''", "UPDATE policy_set_manifests SET policy_version_id = ''", "UPDATE policy_activations SET activated_by = ''",
		"UPDATE grants SET scopes = scopes || 'more'::text", "UPDATE grants SET user_id = ''", "UPDATE grant_scopes SET scope = ''",
		"UPDATE audit_seals SET hash = previous", "TRUNCATE audit_seals", "TRUNCATE audit_seal_heads", "UPDATE audit_unsealed SET entry_id = ''",
		"UPDATE step_up_challenges SET expires_at = 'infinity'", "UPDATE step_up_challenges SET consumed_at = NULL", "SELECT challenge_secret_hash FROM step_up_challenges", "SELECT * FROM step_up_challenges",
		"UPDATE signing_keys SET public_jwk = '{}'", "UPDATE idempotency_keys SET locked = true", "UPDATE idempotency_keys SET created_at = '-infinity'"}
	for _, table := range tables(db) {
		switch table {
		case "outbox", "data_keys", "application_secrets", "client_registrations", "registration_tokens", "state_owners", "audit_decision_counts", "audit_unsealed":
		case "sessions", "agent_sessions", "delegation_edges", "step_up_challenges", "signing_keys", "idempotency_keys": // those that have ended can be deleted
			asService(t, db, store.AllZones, func(ctx context.Context, tx pgx.Tx) {
				if tag, err := tx.Exec(ctx, "DELETE FROM "+table); err != nil || tag.RowsAffected() > 0 {
					t.Errorf("deleted %d active rows of %s, %v", tag.RowsAffected(), table, err)
				}
			})
		default:
			denied = append(denied, "DELETE FROM "+table)
		}
	}
	for _, sql := range denied {
		asService(t, db, store.AllZones, func(ctx context.Context, tx pgx.Tx) {
			if _, err := tx.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "SQLSTATE 42501") {
				t.Errorf("%s: %v", sql, err)
			}
		})
	}
}

// Every table, including those that later migrations add, forces row-level security
// and is keyed by zone.
func TestEveryTableHasRowLevelSecurity(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, table := range slices.Concat(tables(db), tablesWithoutZone) {
		if !storetest.Value[bool](db, "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relname = $1", table) {
			t.Errorf("row-level security is not forced on %s", table)
		}
		if slices.Contains(tablesWithoutZone, table) {
			continue
		}
		key := storetest.Column[string](db, `SELECT a.attname::text FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
			WHERE i.indrelid = $1::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)`, table)
		if table != "zones" && key[0] != "zone_id" {
			t.Errorf("%s has the primary key %v, want zone_id first", table, key)
		}
	}
	owner := storetest.Value[bool](db, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'caracal_owner'")
	service := storetest.Value[bool](db, "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = 'caracal_service'")
	if owner || service {
		t.Errorf("the owner role bypasses row-level security: %v; the service role has too many privileges: %v", owner, service)
	}
}

// A connection of the service role that is scoped to one zone, to none or to an
// invalid value can neither read nor write another zone, with any SQL on any table.
func TestServiceRoleCannotAccessOtherZoneWithAnySQL(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	unset := serviceConn(t, db)           // never sets the zone
	scoped, one := serviceConn(t, db), "" // sets the zone in every transaction
	before := rowsOf(db, "two")
	attacks := 0
	for _, table := range tables(db) {
		zone := zoneColumn(table)
		columns := columns(db, table)
		row := storetest.Value[string](db, "SELECT to_jsonb(t)::text FROM "+table+" AS t WHERE "+zone+" = 'two' LIMIT 1")
		list := strings.Join(columns, ", ")
		insert := "INSERT INTO " + table + " (" + list + ") SELECT " + list + " FROM jsonb_populate_record(NULL::" + table + ", $1::jsonb || $2::jsonb)"
		for _, as := range []struct {
			name string
			conn *pgx.Conn
			zone *string
		}{
			{"never set", unset, nil}, {"reset at commit", scoped, nil}, {"empty", scoped, new("")}, {"zone one", scoped, new("one")}, {"no zone", scoped, new("-")}, {"LIKE wildcard", scoped, new("%")}, {"list", scoped, new("one,two")},
			{"quoted list", scoped, new("'one','two'")}, {"injection", scoped, new("*' OR true")}, {"another injection", scoped, new("') OR ('1'='1")}, {"leading space", scoped, new(" two")}, {"trailing space", scoped, new("two ")},
			{"another case", scoped, new("TWO")}, {"two stars", scoped, new("**")}, {"star and zone", scoped, new("*,two")}, {"prefix", scoped, new("t")}, {"null", scoped, new("null")}, {"array", scoped, new("{one,two}")},
		} {
			if as.name == "reset at commit" { // after this transaction the setting reads as ''
				one = "one"
				attempt(t, scoped, &one, "SELECT 1")
			}
			noEffect := func(sql string, args ...any) {
				t.Helper()
				attacks++
				if rows, errCode := attempt(t, as.conn, as.zone, sql, args...); rows != 0 || errCode != "" && !isDenied(errCode) {
					t.Errorf("as %s: %s: %d rows, %s", as.name, sql, rows, errCode)
				}
			}
			mustBeDenied := func(sql string, args ...any) {
				t.Helper()
				attacks++
				if rows, errCode := attempt(t, as.conn, as.zone, sql, args...); !isDenied(errCode) {
					t.Errorf("as %s: %s: %d rows, %q", as.name, sql, rows, errCode)
				}
			}
			noEffect("SELECT FROM " + table + " WHERE " + zone + " = 'two'")
			noEffect("SELECT FROM " + table + " WHERE " + zone + " <> 'one'")
			noEffect("SELECT FROM " + table + " WHERE " + zone + " = 'two' FOR UPDATE")
			noEffect("DELETE FROM " + table + " WHERE " + zone + " = 'two'")
			noEffect("DELETE FROM " + table + " WHERE " + zone + " <> 'one'")
			mustBeDenied("TRUNCATE " + table + " CASCADE")
			// A row of zone two: the same row, and one with a new primary key. Both are denied, even if no other
			// constraint is violated.
			key := `{"id": "attack"}`
			switch table {
			case "data_keys":
				key = `{"number": 7, "retired_at": "2026-01-01T00:00:00Z"}`
			case "signing_keys":
				key = `{"id": "attack", "retires_at": "2026-01-01T00:00:00Z"}`
			}
			mustBeDenied(insert, row, "{}")
			mustBeDenied(insert, row, key)
			mustBeDenied("WITH added AS ("+insert+" RETURNING 1) SELECT 1", row, key)
			mustBeDenied(insert+" ON CONFLICT DO NOTHING", row, "{}")
			for _, column := range columns {
				noEffect("UPDATE " + table + " SET " + column + " = " + column + " WHERE " + zone + " = 'two'")
				noEffect("UPDATE " + table + " SET " + column + " = DEFAULT WHERE " + zone + " <> 'one'")
				mustBeDenied(insert+" ON CONFLICT ("+primaryKey(db, table)+") DO UPDATE SET "+column+" = EXCLUDED."+column, row, "{}")
			}
			noEffect("UPDATE " + table + " SET " + zone + " = 'one' WHERE " + zone + " = 'two'")
			if as.name == "zone one" { // moves its own row
				mustBeDenied("UPDATE " + table + " SET " + zone + " = 'two' WHERE " + zone + " = 'one'")
				mustBeDenied("UPDATE " + table + " SET " + zone + " = '*' WHERE " + zone + " = 'one'")
			}
		}
	}
	if after := rowsOf(db, "two"); after != before {
		t.Errorf("zone two changed from\n%s\nto\n%s", before, after)
	}
	t.Logf("ran %d statements on %d tables", attacks, len(tables(db)))
}

// The service role cannot become another role, change privileges or policies, or
// create code that runs as another role.
func TestServiceRoleCannotEscalatePrivileges(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	conn := serviceConn(t, db)
	before := rowsOf(db, "two")
	one, attacks := "one", 0
	denied := []string{
		"SET ROLE caracal_owner", "SET LOCAL ROLE caracal_owner", "SET ROLE postgres", "SET SESSION AUTHORIZATION caracal_owner", "SET SESSION AUTHORIZATION postgres",
		"ALTER ROLE caracal_service BYPASSRLS", "ALTER ROLE caracal_service SUPERUSER", "GRANT caracal_owner TO caracal_service", "CREATE ROLE raised SUPERUSER",
		"ALTER DATABASE postgres OWNER TO caracal_service", "REASSIGN OWNED BY caracal_owner TO caracal_service", "DROP OWNED BY caracal_owner",
		"COPY zones TO PROGRAM 'cat'", "COPY zones FROM '/dev/null'", "SELECT pg_read_file('/etc/passwd')", "SET session_replication_role = replica", "ALTER SYSTEM SET row_security = off",
		"CREATE TABLE mine (x text)", "CREATE FUNCTION mine() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT 1::text'", "CREATE EXTENSION dblink", "CREATE SCHEMA mine", "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION mine()",
		"UPDATE pg_class SET relrowsecurity = false", "UPDATE pg_policy SET polqual = NULL", "DELETE FROM pg_policy",
	}
	for _, table := range tables(db) {
		for _, sql := range []string{
			"ALTER TABLE %s DISABLE ROW LEVEL SECURITY", "ALTER TABLE %s NO FORCE ROW LEVEL SECURITY", "DROP POLICY own_zone ON %s", "ALTER POLICY own_zone ON %s USING (true)", "CREATE POLICY all_zones ON %s USING (true)",
			"ALTER TABLE %s OWNER TO caracal_service", "DROP TABLE %s CASCADE", "TRUNCATE %s CASCADE", "ALTER TABLE %s ADD mine text", "CREATE TRIGGER mine BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION mine()",
			"CREATE RULE mine AS ON INSERT TO %s DO ALSO NOTHING", "CREATE INDEX mine ON %s ((1))", "COMMENT ON TABLE %s IS 'mine'", "CLUSTER %s",
		} {
			denied = append(denied, fmt.Sprintf(sql, table))
		}
	}
	for _, sql := range denied {
		attacks++
		if rows, errCode := attempt(t, conn, &one, sql); errCode == "" || !isDenied(errCode) && !strings.HasPrefix(errCode, "42704 ") && !strings.HasPrefix(errCode, "0A000 ") && !strings.HasPrefix(errCode, "25001 ") && !strings.HasPrefix(errCode, "42883 ") {
			t.Errorf("%s: %d rows, %q", sql, rows, errCode)
		}
	}
	for _, table := range tables(db) {
		// row_security = off does not bypass the policies: it turns a query that they would filter into an error.
		attacks += 3
		if _, errCode := attempt(t, conn, &one, "SET LOCAL row_security = off"); errCode != "" {
			t.Error(errCode)
		}
		if rows, errCode := attempt(t, conn, nil, "SELECT FROM "+table); rows != 0 || errCode != "" {
			t.Errorf("%s: %d rows, %q", table, rows, errCode)
		}
		if _, errCode := attempt(t, conn, nil, "DO $$ BEGIN SET LOCAL row_security = off; PERFORM FROM "+table+"; END $$"); !isDenied(errCode) {
			t.Errorf("%s with row_security off: %q", table, errCode)
		}
		var copied strings.Builder
		if _, err := conn.PgConn().CopyTo(t.Context(), &copied, "COPY "+table+" TO STDOUT"); err == nil && copied.Len() > 0 {
			t.Errorf("%s was copied: %s", table, copied.String())
		}
		_, errCode := attempt(t, conn, &one, "GRANT ALL ON "+table+" TO PUBLIC") // only a warning; it grants nothing
		if storetest.Value[bool](db, "SELECT EXISTS (SELECT FROM pg_class, aclexplode(relacl) AS acl WHERE oid = $1::regclass AND acl.grantee = 0)", table) {
			t.Errorf("PUBLIC has privileges on %s: %q", table, errCode)
		}
	}
	for _, sql := range []string{"RESET ROLE", "SET ROLE NONE", "RESET SESSION AUTHORIZATION", "RESET ALL", "DISCARD PLANS"} {
		attacks++
		attempt(t, conn, nil, sql)
		if rows, _ := attempt(t, conn, nil, "SELECT FROM zones"); rows != 0 {
			t.Errorf("after %s the service sees %d zones", sql, rows)
		}
	}
	if after := rowsOf(db, "two"); after != before {
		t.Errorf("zone two changed from\n%s\nto\n%s", before, after)
	}
	t.Logf("ran %d statements", attacks)
}

// The service role can neither change, delete nor lock audit entries, whatever its
// scope.
func TestAuditEntriesAreImmutable(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	conn := serviceConn(t, db)
	before := rowsOf(db, "one") + rowsOf(db, "two")
	list := strings.Join(columns(db, "audit_entries"), ", ")
	attacks := []string{
		"TRUNCATE audit_entries", "TRUNCATE zones, audit_entries CASCADE", "DELETE FROM audit_entries", "DELETE FROM audit_entries WHERE id = 'e'", "DELETE FROM ONLY audit_entries", "DELETE FROM audit_entries USING zones WHERE zones.id = zone_id",
		"WITH gone AS (DELETE FROM audit_entries RETURNING *) SELECT * FROM gone", "WITH changed AS (UPDATE audit_entries SET payload = 'x' RETURNING *) SELECT * FROM changed",
		"WITH gone AS (DELETE FROM audit_entries RETURNING *) INSERT INTO audit_entries SELECT * FROM gone",
		"MERGE INTO audit_entries AS a USING zones ON zones.id = a.zone_id WHEN MATCHED THEN DELETE", "MERGE INTO audit_entries AS a USING zones ON zones.id = a.zone_id WHEN MATCHED THEN UPDATE SET payload = 'x'",
		"UPDATE audit_entries SET payload = 'x' FROM zones WHERE zones.id = zone_id", "SELECT FROM audit_entries FOR UPDATE", "SELECT FROM audit_entries FOR NO KEY UPDATE", "SELECT FROM audit_entries FOR SHARE",
		"ALTER TABLE audit_entries DROP COLUMN payload", "DROP TABLE audit_entries", "DO $$ BEGIN UPDATE audit_entries SET payload = 'x'; END $$", "DO $$ BEGIN EXECUTE 'DELETE FROM audit_entries'; END $$",
	}
	for _, column := range columns(db, "audit_entries") {
		attacks = append(attacks, "UPDATE audit_entries SET "+column+" = "+column,
			"INSERT INTO audit_entries ("+list+") SELECT "+list+" FROM audit_entries ON CONFLICT (zone_id, id) DO UPDATE SET "+column+" = EXCLUDED."+column)
	}
	for _, zone := range []string{"one", "two", store.AllZones} {
		for _, sql := range attacks {
			if rows, errCode := attempt(t, conn, &zone, sql); !isDenied(errCode) {
				t.Errorf("zone %s: %s: %d rows, %q", zone, sql, rows, errCode)
			}
		}
	}
	if after := rowsOf(db, "one") + rowsOf(db, "two"); after != before {
		t.Errorf("the zones changed from\n%s\nto\n%s", before, after)
	}
	t.Logf("ran %d statements with three scopes", len(attacks))
}
