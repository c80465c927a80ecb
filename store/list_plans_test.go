package store_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// listedPage is the number of rows that a page of a list reads, with the extra one.
const listedPage = 51

// A listPlan says how a page of a list is to be read.
type listPlan struct {
	query string
	set   map[string]string // parameters that are not null
	index string
	read  int // rows of the index, at most
	found int
}

// check executes a query for a page. It must read no table without an index, sort no
// more rows than sorted (-1: nothing is sorted), and look up at most so many rows in the
// other indexes.
func (p listPlan) check(t *testing.T, db *storetest.DB, sorted float64, others []string, lookedUp int) {
	t.Helper()
	values := map[string]string{"ZoneID": "z1", "RowLimit": fmt.Sprint(listedPage)}
	for name, value := range map[string]string{"BeforeTime": "infinity", "BeforeID": "", "Scopes": "{}", "Since": "-infinity"} { // never null
		if slices.Contains(parameterNames(t)[p.query], name) {
			values[name] = value
		}
	}
	maps.Copy(values, p.set)
	root, text := execute(t, listPlanner(t, db), p.query, values)
	read, parents := map[string]int{}, parentIndexes(db)
	root.walk(func(n planNode) {
		switch {
		case n.Relation != "" && n.Index == "":
			t.Errorf("%s on %s", n.Type, n.Relation)
		case n.Index != "":
			read[cmp.Or(parents[n.Index], n.Index)] += n.read()
		case strings.Contains(n.Type, "Sort") && n.Rows > sorted:
			t.Errorf("%s of %v rows", n.Type, n.Rows)
		}
	})
	if got := read[p.index]; got > p.read || int(root.Rows) != p.found {
		t.Errorf("read %d rows and found %v, want at most %d and %d\n%s", got, root.Rows, p.read, p.found, text)
	}
	delete(read, p.index)
	for index, n := range read {
		if !slices.Contains(others, index) || n > lookedUp {
			t.Errorf("read %d rows of %s", n, index)
		}
	}
}

// parentIndexes returns, for each index of a partition, that of the partitioned table.
func parentIndexes(db *storetest.DB) map[string]string {
	parents := map[string]string{}
	for _, pair := range storetest.Column[string](db, "SELECT i.relname || ' ' || p.relname FROM pg_inherits JOIN pg_class AS i ON i.oid = inhrelid JOIN pg_class AS p ON p.oid = inhparent WHERE i.relkind = 'i'") {
		index, parent, _ := strings.Cut(pair, " ")
		parents[index] = parent
	}
	return parents
}

// execute executes a generated query, and returns its plan. A parameter that has no
// value is null.
func execute(t *testing.T, conn *pgx.Conn, query string, values map[string]string) (planNode, []byte) {
	t.Helper()
	if _, err := conn.Prepare(t.Context(), query, statements(t)[query]); err != nil {
		t.Fatal(err)
	}
	var arguments []string
	names := parameterNames(t)[query]
	for _, name := range names {
		value, set := values[name]
		if set {
			value = "'" + value + "'"
		} else {
			value = "NULL"
		}
		arguments = append(arguments, value)
	}
	for name := range values {
		if !slices.Contains(names, name) {
			t.Fatalf("%s has no parameter %s", query, name)
		}
	}
	var text []byte
	sql := fmt.Sprintf(`EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE "%s"(%s)`, query, strings.Join(arguments, ", "))
	if err := conn.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
		t.Fatal(err)
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil {
		t.Fatal(err)
	}
	return plans[0].Plan, text
}

// A planNode is a node of an executed plan. Its numbers of rows are means of all loops.
type planNode struct {
	Type     string  `json:"Node Type"`
	Relation string  `json:"Relation Name"`
	Index    string  `json:"Index Name"`
	Rows     float64 `json:"Actual Rows"`
	Removed  float64 `json:"Rows Removed by Filter"`
	Loops    float64 `json:"Actual Loops"`
	Plans    []planNode
}

// read returns the number of rows that a node reads, with those that do not match.
func (n planNode) read() int { return int((n.Rows + n.Removed) * n.Loops) }

func (n planNode) walk(f func(planNode)) {
	f(n)
	for _, child := range n.Plans {
		child.walk(f)
	}
}

// listPlanner returns a connection that plans lists like the service: for any
// parameters, and with the settings of lists.
func listPlanner(t *testing.T, db *storetest.DB) *pgx.Conn {
	t.Helper()
	conn := serviceConn(t, db)
	if _, err := conn.Exec(t.Context(), "SET plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	local := strings.NewReplacer(", true)", ", false)").Replace(store.SetListScope) // for the whole session
	if _, err := conn.Exec(context.WithoutCancel(t.Context()), local, store.AllZones, "15000"); err != nil {
		t.Fatal(err)
	}
	return conn
}
