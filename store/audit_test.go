package store_test

import (
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/audit"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// TestEveryColumnIsClassified compares openapi/audit.yaml with the schema: a
// column added by a migration must be tracked, redacted or ignored.
func TestEveryColumnIsClassified(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	tables := map[string][]string{}
	for _, column := range storetest.Column[string](d, `SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_schema = 'public' AND table_name <> 'goose_db_version'`) {
		table, name, _ := strings.Cut(column, ".")
		tables[table] = append(tables[table], name)
	}
	classified := map[string]bool{}
	for kind, columns := range audit.Kinds {
		classified[columns.Table] = true
		for _, name := range tables[columns.Table] {
			_, tracked := columns.Tracked[name]
			_, redacted := columns.Redacted[name]
			if !tracked && !redacted && !slices.Contains(columns.Ignored, name) {
				t.Errorf("openapi/audit.yaml must classify column %s of kind %s", name, kind)
			}
		}
		declared := slices.Clone(columns.Ignored)
		for name := range columns.Tracked {
			declared = append(declared, name)
		}
		for name := range columns.Redacted {
			declared = append(declared, name)
		}
		for _, name := range declared {
			if !slices.Contains(tables[columns.Table], name) {
				t.Errorf("kind %s: table %s has no column %s", kind, columns.Table, name)
			}
		}
	}
	for table := range tables {
		if classified[table] == slices.Contains(audit.Unaudited, table) {
			t.Errorf("openapi/audit.yaml must list table %s either with a kind or as unaudited", table)
		}
	}
}

// TestInTxRejectsUndeclaredAuditField records what openapi/audit.yaml
// does not declare.
func TestInTxRejectsUndeclaredAuditField(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	for _, tt := range []struct{ kind, field string }{{"unknown", "name"}, {"zones", "reserved"}} {
		err := d.Store().InTx(t.Context(), store.Cause{Actor: store.System, Operation: "test"}, func(tx *store.Tx) error {
			store.RecordField(tx, tt.kind, tt.field)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "openapi/audit.yaml must declare") {
			t.Errorf("%s.%s: error %v", tt.kind, tt.field, err)
		}
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM audit_entries"); n != 0 {
		t.Errorf("%d audit entries", n)
	}
}
