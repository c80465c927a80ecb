package store_test

import (
	"errors"
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

var (
	zonePredicate = regexp.MustCompile(`(?:\w+\.)?zone_id = (\$\d+)`)
	firstTable    = regexp.MustCompile(`(?:FROM|INTO|UPDATE) (\w+)`)
	wordBoundary  = regexp.MustCompile(`([a-z0-9])([A-Z])`)
)

// parameterNames returns the names of each generated query's parameters, in order.
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

// ofZoneTwo returns an SQL literal for a parameter: a value that zone two has in
// the column of that name, or one that selects as many rows as possible.
func ofZoneTwo(db *storetest.DB, table, name, kind string, ids []string) string {
	quoted := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	column := strings.ToLower(wordBoundary.ReplaceAllString(name, "${1}_${2}"))
	switch {
	case (column == "fields" || column == "metadata") && kind != "jsonb": // of events, each an object
		return quoted("{" + strings.TrimSuffix(strings.Repeat(`"{}",`, len(ids)), ",") + "}")
	case kind == "_text":
		return quoted("{" + strings.Join(ids, ",") + "}")
	case kind == "_timestamptz":
		return quoted("{" + strings.TrimSuffix(strings.Repeat("now,", len(ids)), ",") + "}")
	case column == "first_time" || column == "last_time":
		return "now()"
	case strings.HasPrefix(kind, "_"):
		return quoted("{" + strings.Join(storetest.Column[string](db, "SELECT seq::text FROM outbox WHERE zone_id = 'two'"), ",") + "}")
	case column == "zone_id" || column == "zone":
		return "'two'"
	case strings.HasPrefix(column, "after"):
		return map[string]string{"text": "''", "int4": "0", "int8": "0", "timestamptz": "'-infinity'"}[kind]
	case column == "since":
		return "'-infinity'"
	case kind == "timestamptz":
		return "'infinity'"
	case column == "before_id":
		return "'~'"
	case column == "row_limit" || column == "before_version" || column == "number" && table != "data_keys":
		return "100"
	}
	valueIn := func(table, column string) (value string, found bool) {
		if !slices.Contains(tables(db), table) || !slices.Contains(columns(db, table), column) {
			return "", false
		}
		values := storetest.Column[string](db, "SELECT "+column+"::text FROM "+table+" WHERE "+zoneColumn(table)+" = 'two' AND "+column+" IS NOT NULL ORDER BY 1")
		return strings.Join(values[:min(1, len(values))], ""), len(values) > 0
	}
	if value, found := valueIn(table, column); found {
		return quoted(value)
	}
	if other, ok := strings.CutSuffix(column, "_id"); ok {
		if value, found := valueIn(other+"s", "id"); found {
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

// Row-level security does not rely on the predicates of the queries. Each generated
// query runs without its predicate on the zone and with values of zone two, on a
// connection that is scoped to zone one: it must not access zone two.
func TestQueriesWithoutZonePredicateCannotAccessOtherZone(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	for _, zone := range []string{"one", "two"} {
		db.DeadLetter(zone)
		db.DCRApplications(zone, 1)
		db.Exec("UPDATE providers SET secret_config = 'x', secret_config_keys = '{api_key}', data_key = 1 WHERE zone_id = $1", zone)
		db.Exec("INSERT INTO data_keys (zone_id, number, wrapped_by, wrapped, retired_at) VALUES ($1, 9, 'kek', 'x', now())", zone)
	}
	service := serviceConn(t, db)
	owner, err := pgx.Connect(t.Context(), db.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(t.Context())
	var allOfTwo, ids []string
	for _, table := range tables(db) {
		readable := storetest.Value[string](db, `SELECT string_agg('t.' || quote_ident(attname), ', ') FROM pg_attribute
			WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND has_column_privilege('caracal_service', attrelid, attnum, 'SELECT')`, table)
		allOfTwo = append(allOfTwo, "SELECT '"+table+"' || to_jsonb(r)::text FROM "+table+" AS t, LATERAL (SELECT "+readable+") AS r WHERE t."+zoneColumn(table)+" = 'two'")
		if slices.Contains(columns(db, table), "id") && table != "audit_entries" { // its id is the same in both zones
			ids = append(ids, storetest.Column[string](db, "SELECT id FROM "+table+" WHERE "+zoneColumn(table)+" = 'two'")...)
		}
	}
	two := strings.Join(allOfTwo, " UNION ALL ") + " ORDER BY 1"
	before := strings.Join(storetest.Column[string](db, two), "\n")

	// run executes a statement and rolls it back. It returns the number of rows that
	// the statement affects or returns, their values, and the rows of zone two after it.
	run := func(conn *pgx.Conn, zone, name, execute string) (rows int64, output, after, errCode string) {
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
				output += string(value) + "\n"
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
		return results[0].CommandTag.RowsAffected(), output, strings.Join(all, "\n"), ""
	}

	all, parameters := statements(t), parameterNames(t)
	stripped, reached := 0, 0
	var denied, unaffected []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sql := zonePredicate.ReplaceAllString(all[name], "$1::text IS NOT NULL") // always true
		if sql != all[name] {
			stripped++
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
		rows, output, after, errCode := run(service, "one", name, execute)
		if after != before {
			t.Errorf("%s changes zone two from\n%s\nto\n%s\n%s", name, before, after, execute)
		}
		for value := range strings.Lines(output) {
			if slices.Contains(ids, strings.TrimSpace(value)) {
				t.Errorf("%s returns %q of zone two\n%s", name, value, execute)
			}
		}
		if errCode != "" {
			denied = append(denied, name)
		}
		if errCode != "" && !isDenied(errCode) && name != "dropAuditPartition" { // which requires a month that has ended
			t.Errorf("%s fails for another reason: %s\n%s", name, errCode, execute)
		}
		// The same statement scoped to all zones accesses more: row-level security makes the difference.
		more, seen, changed, _ := run(owner, store.AllZones, name, execute)
		if more > rows || seen != output || changed != before {
			reached++
		} else if sql != all[name] {
			unaffected = append(unaffected, name)
		}
	}
	t.Logf("ran %d statements, %d without their zone predicate; %d access zone two when scoped to all zones; denied: %v; without a difference: %v", len(all), stripped, reached, denied, unaffected)
	if stripped < 40 || reached < 50 {
		t.Errorf("only %d statements had a zone predicate, and only %d access zone two when scoped to all zones", stripped, reached)
	}
}
