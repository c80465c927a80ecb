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
func TestQueriesWithoutZonePredicateReachNoOtherZone(t *testing.T) {
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
