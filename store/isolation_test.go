package store_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// What the policies promise holds without any predicate of ours.
func TestServiceRoleSeesOnlyItsZone(t *testing.T) {
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
					t.Errorf("as zone %q the service sees %d rows of %s, want %d", zone, n, table, want)
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
		"INSERT INTO applications (zone_id, id, name, registration_method, client_secret_hash) VALUES ('two', 'x', 'x', 'managed', 'x')",
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
			t.Errorf("it changed %d rows: %v", tag.RowsAffected(), err)
		}
	})
}

func TestServiceRoleCannotRewriteAuditLogOrDeleteRows(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	refused := []string{"UPDATE audit_entries SET payload = '{}'", "TRUNCATE audit_entries", "DROP TABLE audit_entries", "ALTER TABLE zones DISABLE ROW LEVEL SECURITY", "UPDATE outbox SET fields = '{}'", "UPDATE admin_tokens SET token_sha256 = ''"}
	for _, table := range tables(db) {
		if table != "outbox" && table != "data_keys" {
			refused = append(refused, "DELETE FROM "+table)
		}
	}
	for _, sql := range refused {
		asService(t, db, store.AllZones, func(ctx context.Context, tx pgx.Tx) {
			if _, err := tx.Exec(ctx, sql); err == nil || !strings.Contains(err.Error(), "SQLSTATE 42501") {
				t.Errorf("%s: %v", sql, err)
			}
		})
	}
}

// A table that a later migration adds keeps the same promises, or is named here.
func TestEveryTableHasRowLevelSecurity(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	for _, table := range tables(db) {
		if !storetest.Value[bool](db, "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE relname = $1", table) {
			t.Errorf("row-level security is not forced on %s", table)
		}
		key := storetest.Column[string](db, `SELECT a.attname::text FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
			WHERE i.indrelid = $1::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)`, table)
		if table != "zones" && key[0] != "zone_id" {
			t.Errorf("the key of %s is %s", table, fmt.Sprint(key))
		}
	}
	owner := storetest.Value[bool](db, "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'caracal_owner'")
	service := storetest.Value[bool](db, "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = 'caracal_service'")
	if owner || service {
		t.Errorf("the owner passes row-level security: %v; the service may do too much: %v", owner, service)
	}
}

// Whoever sees one zone, or none, or says something else instead of a zone, can
// do nothing to another: whatever SQL they write, to whatever table.
func TestServiceRoleSQLCannotReachOtherZone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	never := serviceConn(t, db)         // has never said which zone it sees
	said, one := serviceConn(t, db), "" // says it in every transaction
	before := rowsOf(db, "two")
	attacks := 0
	for _, table := range tables(db) {
		zone := zoneColumn(table)
		columns := columns(db, table)
		whole := storetest.Value[string](db, "SELECT to_jsonb(t)::text FROM "+table+" AS t WHERE "+zone+" = 'two' LIMIT 1")
		list := strings.Join(columns, ", ")
		insert := "INSERT INTO " + table + " (" + list + ") SELECT " + list + " FROM jsonb_populate_record(NULL::" + table + ", $1::jsonb || $2::jsonb)"
		for _, as := range []struct {
			name string
			conn *pgx.Conn
			zone *string
		}{
			{"never set", never, nil}, {"set and over", said, nil}, {"empty", said, new("")}, {"zone one", said, new("one")}, {"no zone", said, new("-")}, {"any", said, new("%")}, {"a list", said, new("one,two")},
			{"a list of SQL's", said, new("'one','two'")}, {"an injection", said, new("*' OR true")}, {"another injection", said, new("') OR ('1'='1")}, {"a space too many", said, new(" two")}, {"a space after it", said, new("two ")},
			{"another case", said, new("TWO")}, {"a star too many", said, new("**")}, {"a star and a zone", said, new("*,two")}, {"its first letter", said, new("t")}, {"null", said, new("null")}, {"an array", said, new("{one,two}")},
		} {
			if as.name == "set and over" { // the setting was set, and reads as '' from now on
				one = "one"
				attempt(t, said, &one, "SELECT 1")
			}
			try := func(sql string, args ...any) {
				t.Helper()
				attacks++
				if rows, errCode := attempt(t, as.conn, as.zone, sql, args...); rows != 0 || errCode != "" && !closed(errCode) {
					t.Errorf("as %s: %s: %d rows, %s", as.name, sql, rows, errCode)
				}
			}
			must := func(sql string, args ...any) {
				t.Helper()
				attacks++
				if rows, errCode := attempt(t, as.conn, as.zone, sql, args...); !closed(errCode) {
					t.Errorf("as %s: %s: %d rows, %q", as.name, sql, rows, errCode)
				}
			}
			try("SELECT FROM " + table + " WHERE " + zone + " = 'two'")
			try("SELECT FROM " + table + " WHERE " + zone + " <> 'one'")
			try("SELECT FROM " + table + " WHERE " + zone + " = 'two' FOR UPDATE")
			try("DELETE FROM " + table + " WHERE " + zone + " = 'two'")
			try("DELETE FROM " + table + " WHERE " + zone + " <> 'one'")
			must("TRUNCATE " + table + " CASCADE")
			// A row of zone two: the very same, and one with a new key. Without the right to write there at all, it is
			// refused whatever row it is.
			key := `{"id": "attack"}`
			if table == "data_keys" {
				key = `{"number": 7, "retired_at": "2026-01-01T00:00:00Z"}`
			}
			must(insert, whole, "{}")
			must(insert, whole, key)
			must("WITH added AS ("+insert+" RETURNING 1) SELECT 1", whole, key)
			must(insert+" ON CONFLICT DO NOTHING", whole, "{}")
			for _, column := range columns {
				try("UPDATE " + table + " SET " + column + " = " + column + " WHERE " + zone + " = 'two'")
				try("UPDATE " + table + " SET " + column + " = DEFAULT WHERE " + zone + " <> 'one'")
				must(insert+" ON CONFLICT ("+primaryKey(db, table)+") DO UPDATE SET "+column+" = EXCLUDED."+column, whole, "{}")
			}
			try("UPDATE " + table + " SET " + zone + " = 'one' WHERE " + zone + " = 'two'")
			if as.name == "zone one" { // moves its own row
				must("UPDATE " + table + " SET " + zone + " = 'two' WHERE " + zone + " = 'one'")
				must("UPDATE " + table + " SET " + zone + " = '*' WHERE " + zone + " = 'one'")
			}
		}
	}
	if after := rowsOf(db, "two"); after != before {
		t.Errorf("zone two was\n%s\nand is\n%s", before, after)
	}
	t.Logf("%d statements were tried on %d tables", attacks, len(tables(db)))
}

// The service's role cannot become another, open what is closed, or bring code
// that runs as somebody else.
func TestServiceRoleCannotEscalate(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	conn := serviceConn(t, db)
	before := rowsOf(db, "two")
	one, attacks := "one", 0
	refused := []string{
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
			refused = append(refused, fmt.Sprintf(sql, table))
		}
	}
	for _, sql := range refused {
		attacks++
		if rows, errCode := attempt(t, conn, &one, sql); errCode == "" || !closed(errCode) && !strings.HasPrefix(errCode, "42704 ") && !strings.HasPrefix(errCode, "0A000 ") && !strings.HasPrefix(errCode, "25001 ") && !strings.HasPrefix(errCode, "42883 ") {
			t.Errorf("%s: %d rows, %q", sql, rows, errCode)
		}
	}
	for _, table := range tables(db) {
		// Its own setting for row-level security refuses what the policies would hide, and shows nothing.
		attacks += 3
		if _, errCode := attempt(t, conn, &one, "SET LOCAL row_security = off"); errCode != "" {
			t.Error(errCode)
		}
		if rows, errCode := attempt(t, conn, nil, "SELECT FROM "+table); rows != 0 || errCode != "" {
			t.Errorf("%s shows %d rows, %q", table, rows, errCode)
		}
		if _, errCode := attempt(t, conn, nil, "DO $$ BEGIN SET LOCAL row_security = off; PERFORM FROM "+table+"; END $$"); !closed(errCode) {
			t.Errorf("without row-level security %s answers %q", table, errCode)
		}
		var copied strings.Builder
		if _, err := conn.PgConn().CopyTo(t.Context(), &copied, "COPY "+table+" TO STDOUT"); err == nil && copied.Len() > 0 {
			t.Errorf("%s was copied: %s", table, copied.String())
		}
		_, errCode := attempt(t, conn, &one, "GRANT ALL ON "+table+" TO PUBLIC") // warns, and grants nothing
		if storetest.Value[bool](db, "SELECT EXISTS (SELECT FROM pg_class, aclexplode(relacl) AS acl WHERE oid = $1::regclass AND acl.grantee = 0)", table) {
			t.Errorf("everybody may do something to %s now: %q", table, errCode)
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
		t.Errorf("zone two was\n%s\nand is\n%s", before, after)
	}
	t.Logf("%d statements were tried", attacks)
}

// An entry of the trail stays what it is, whoever sees it.
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
			if rows, errCode := attempt(t, conn, &zone, sql); !closed(errCode) {
				t.Errorf("as zone %s: %s: %d rows, %q", zone, sql, rows, errCode)
			}
		}
	}
	if after := rowsOf(db, "one") + rowsOf(db, "two"); after != before {
		t.Errorf("the zones were\n%s\nand are\n%s", before, after)
	}
	t.Logf("%d statements were tried in three ways", len(attacks))
}
