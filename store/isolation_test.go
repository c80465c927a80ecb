package store_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// asService runs f as the service's role, in a transaction that sees a zone, or
// with "" one that never said which.
func asService(t *testing.T, db *storetest.DB, zone string, f func(context.Context, pgx.Tx)) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if zone != "" {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('caracal.zone_id', $1, true)", zone); err != nil {
			t.Fatal(err)
		}
	}
	f(t.Context(), tx)
}

// twoZones have a row in every table there is.
func twoZones(db *storetest.DB) {
	for _, zone := range []string{"one", "two"} {
		db.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, 'Zone', $1, false)", zone)
		db.Exec("INSERT INTO admin_tokens (zone_id, id, name, capability, created_by, token_sha256) VALUES ($1, 'token-' || $1, 'x', 'read', 'x', sha256($1::bytea))", zone)
		db.Exec("INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload) VALUES ($1, 'e', 'r', 'a', 'o', 'a', 'm', 'p', 200, '{}')", zone)
		resource := db.Resource(zone)
		application := storetest.Value[string](db, "SELECT id FROM applications WHERE zone_id = $1", zone)
		session := db.ApplicationSession(zone, application)
		agent := db.AgentSession(zone, application, session)
		db.DelegationEdge(zone, agent, agent)
		db.Exec("INSERT INTO delegation_graph_epochs (zone_id, epoch) VALUES ($1, 1)", zone)
		db.Event(zone, "stream")
		db.ProviderGrant(zone, resource)
		db.Exec("INSERT INTO resource_totals (zone_id, live) VALUES ($1, 1)", zone)
	}
}

func tables(db *storetest.DB) []string {
	return storetest.Column[string](db, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version' ORDER BY 1")
}

// What the policies promise holds without any predicate of ours.
func TestTheServiceSeesOnlyTheZoneThatItNames(t *testing.T) {
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

func TestTheServiceCannotWriteIntoAnotherZone(t *testing.T) {
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

func TestNobodyRewritesTheTrailAndNothingIsDeletedButEvents(t *testing.T) {
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
func TestEveryTableIsClosed(t *testing.T) {
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

// zoneColumn is the column that says to which zone a row belongs.
func zoneColumn(table string) string {
	if table == "zones" {
		return "id"
	}
	return "zone_id"
}

// rowsOf is all that belongs to a zone, in every table there is.
func rowsOf(db *storetest.DB, zone string) string {
	var all strings.Builder
	for _, table := range tables(db) {
		rows := storetest.Column[string](db, "SELECT to_jsonb(t)::text FROM "+table+" AS t WHERE "+zoneColumn(table)+" = $1 ORDER BY 1", zone)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(rows, "\n"))
	}
	return all.String()
}

func columns(db *storetest.DB, table string) []string {
	return storetest.Column[string](db, "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = '' ORDER BY attnum", table)
}

// attempt runs one statement in a transaction of its own, which it does not
// undo: an attack that succeeds is to be seen.
func attempt(t *testing.T, conn *pgx.Conn, zone *string, sql string, args ...any) (rows int64, errCode string) {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if zone != nil {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('caracal.zone_id', $1, true)", *zone); err != nil {
			t.Fatal(err)
		}
	}
	tag, err := tx.Exec(t.Context(), sql, args...)
	if err == nil {
		err = tx.Commit(t.Context())
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return 0, pg.Code + " " + pg.Message
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.RowsAffected(), ""
}

// closed says whether a refusal came from what the first migration promised, and
// not from some constraint that happened to be in the way.
func closed(errCode string) bool { return strings.HasPrefix(errCode, "42501 ") }

// serviceConn is one connection of the service's role, for a whole attack.
func serviceConn(t *testing.T, db *storetest.DB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// Whoever sees one zone, or none, or says something else instead of a zone, can
// do nothing to another: whatever SQL they write, to whatever table.
func TestNoSQLReachesAnotherZone(t *testing.T) {
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

func primaryKey(db *storetest.DB, table string) string {
	return strings.Join(storetest.Column[string](db, `SELECT a.attname::text FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		WHERE i.indrelid = $1::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)`, table), ", ")
}

// The service's role cannot become another, open what is closed, or bring code
// that runs as somebody else.
func TestTheServiceCannotRaiseItself(t *testing.T) {
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
func TestAnAuditEntryStaysWhatItIs(t *testing.T) {
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

var (
	zonePredicate = regexp.MustCompile(`(?:\w+\.)?zone_id = (\$\d+)`)
	firstTable    = regexp.MustCompile(`(?:FROM|INTO|UPDATE) (\w+)`)
	word          = regexp.MustCompile(`([a-z0-9])([A-Z])`)
)

// parameterNames are the names of the generated queries' parameters, in the
// order of their numbers.
func parameterNames(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("../gen/db/*.sql.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 {
				return true
			}
			query, ok := call.Args[1].(*ast.Ident)
			if !ok || query.Obj == nil || query.Obj.Kind != ast.Con {
				return true
			}
			all[query.Name] = []string{}
			for _, arg := range call.Args[2:] {
				switch arg := arg.(type) {
				case *ast.SelectorExpr:
					all[query.Name] = append(all[query.Name], arg.Sel.Name)
				case *ast.Ident:
					all[query.Name] = append(all[query.Name], arg.Name)
				default:
					t.Fatalf("%s is called with a %T", query.Name, arg)
				}
			}
			return true
		})
	}
	return all
}

// ofZoneTwo is a value for a parameter, as SQL: what zone two has there, or what
// lets most rows pass.
func ofZoneTwo(db *storetest.DB, table, name, kind string, ids []string) string {
	quoted := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	column := strings.ToLower(word.ReplaceAllString(name, "${1}_${2}"))
	switch {
	case column == "fields": // of events, each an object
		return quoted("{" + strings.TrimSuffix(strings.Repeat(`"{}",`, len(ids)), ",") + "}")
	case kind == "_text":
		return quoted("{" + strings.Join(ids, ",") + "}")
	case strings.HasPrefix(kind, "_"):
		return quoted("{" + strings.Join(storetest.Column[string](db, "SELECT seq::text FROM outbox WHERE zone_id = 'two'"), ",") + "}")
	case column == "zone_id" || column == "zone":
		return "'two'"
	case strings.HasPrefix(column, "after"):
		return map[string]string{"text": "''", "int4": "0", "int8": "0"}[kind]
	case kind == "timestamptz":
		return "'infinity'"
	case column == "before_id":
		return "'~'"
	case column == "row_limit" || column == "number" && table != "data_keys":
		return "100"
	}
	there := func(table, column string) (value string, found bool) {
		if !slices.Contains(tables(db), table) || !slices.Contains(columns(db, table), column) {
			return "", false
		}
		values := storetest.Column[string](db, "SELECT "+column+"::text FROM "+table+" WHERE "+zoneColumn(table)+" = 'two' AND "+column+" IS NOT NULL ORDER BY 1")
		return strings.Join(values[:min(1, len(values))], ""), len(values) > 0
	}
	if value, found := there(table, column); found {
		return quoted(value)
	}
	if other, is := strings.CutSuffix(column, "_id"); is {
		if value, found := there(other+"s", "id"); found {
			return quoted(value)
		}
	}
	switch kind {
	case "text", "varchar":
		return "'x'"
	case "bool":
		return "true"
	case "jsonb", "json":
		return "'{}'"
	case "bytea":
		return "'x'"
	}
	return "1"
}

// A query that forgets its zone still reaches no other: row-level security
// relies on no predicate of ours. Each generated query runs with what belongs to
// zone two, without its predicate on the zone, by who may see zone one.
func TestAQueryThatForgetsItsZoneReachesNoOther(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	for _, zone := range []string{"one", "two"} {
		db.DeadLetter(zone)
		db.DCRApplications(zone, 1)
		db.Exec("UPDATE providers SET secret_config = 'x', secret_config_keys = '{api_key}', data_key = 1 WHERE zone_id = $1", zone)
		db.Exec("INSERT INTO data_keys (zone_id, number, wrapped_by, wrapped, retired_at) VALUES ($1, 9, 'nobody', 'x', now())", zone)
	}
	service := serviceConn(t, db)
	owner, err := pgx.Connect(t.Context(), db.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	var allOfTwo, ids []string
	for _, table := range tables(db) {
		allOfTwo = append(allOfTwo, "SELECT '"+table+"' || to_jsonb(t)::text FROM "+table+" AS t WHERE "+zoneColumn(table)+" = 'two'")
		if slices.Contains(columns(db, table), "id") && table != "audit_entries" { // of which both zones have the same
			ids = append(ids, storetest.Column[string](db, "SELECT id FROM "+table+" WHERE "+zoneColumn(table)+" = 'two'")...)
		}
	}
	two := strings.Join(allOfTwo, " UNION ALL ") + " ORDER BY 1"
	before := strings.Join(storetest.Column[string](db, two), "\n")

	// run says how many rows a statement touches or shows, what it shows, and
	// what zone two is then. Nothing of it stays.
	run := func(conn *pgx.Conn, zone, name, execute string) (rows int64, auditFields, after, errCode string) {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback(t.Context()) }()
		var pg *pgconn.PgError
		if _, err := tx.Exec(t.Context(), "SELECT set_config('caracal.zone_id', $1, true)", zone); err != nil {
			t.Fatal(err)
		}
		results, err := conn.PgConn().Exec(t.Context(), execute).ReadAll()
		if errors.As(err, &pg) {
			return 0, "", before, pg.Code + " " + pg.Message
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, row := range results[0].Rows {
			for _, value := range row {
				auditFields += string(value) + "\n"
			}
		}
		if _, err := tx.Exec(t.Context(), "SELECT set_config('caracal.zone_id', '*', true)"); err != nil {
			t.Fatal(err)
		}
		found, err := tx.Query(t.Context(), two)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(found, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return results[0].CommandTag.RowsAffected(), auditFields, strings.Join(all, "\n"), ""
	}

	all, parameters := statements(t), parameterNames(t)
	forgot, reached := 0, 0
	var refused, kept []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sql := zonePredicate.ReplaceAllString(all[name], "$1::text IS NOT NULL") // always: no zone is null
		if sql != all[name] {
			forgot++
		}
		var description *pgconn.StatementDescription
		for _, conn := range []*pgx.Conn{owner, service} {
			if description, err = conn.Prepare(t.Context(), name, sql); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if len(description.ParamOIDs) != len(parameters[name]) {
			t.Fatalf("%s has %d parameters, named %v", name, len(description.ParamOIDs), parameters[name])
		}
		table := ""
		if found := firstTable.FindStringSubmatch(sql); found != nil {
			table = found[1]
		}
		var values []string
		for i, oid := range description.ParamOIDs {
			kind, _ := service.TypeMap().TypeForOID(oid)
			values = append(values, ofZoneTwo(db, table, parameters[name][i], kind.Name, ids))
		}
		execute := `EXECUTE "` + name + `"`
		if len(values) > 0 {
			execute += "(" + strings.Join(values, ", ") + ")"
		}
		rows, auditFields, after, errCode := run(service, "one", name, execute)
		if after != before {
			t.Errorf("%s changes zone two: it was\n%s\nand is\n%s\n%s", name, before, after, execute)
		}
		for value := range strings.Lines(auditFields) {
			if slices.Contains(ids, strings.TrimSpace(value)) {
				t.Errorf("%s shows %q of zone two\n%s", name, value, execute)
			}
		}
		if errCode != "" {
			refused = append(refused, name)
		}
		if errCode != "" && !closed(errCode) {
			t.Errorf("%s is refused for another reason: %s\n%s", name, errCode, execute)
		}
		// Whoever sees all zones reaches more: it is row-level security that makes the difference.
		more, seen, changed, _ := run(owner, store.AllZones, name, execute)
		if more > rows || seen != auditFields || changed != before {
			reached++
		} else if sql != all[name] {
			kept = append(kept, name)
		}
	}
	t.Logf("%d statements ran, %d of them without their zone; %d reach zone two for who sees all; refused: %v; no different: %v", len(all), forgot, reached, refused, kept)
	if forgot < 40 || reached < 50 {
		t.Errorf("only %d statements lost their zone, and %d would have reached zone two", forgot, reached)
	}
}
