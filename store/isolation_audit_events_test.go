package store_test

import (
	"strings"
	"testing"
	"time"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// The service role can neither change, delete nor lock audit events, whatever its scope,
// and cannot use their partitions.
func TestAuditEventsAreAppendOnly(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	conn := serviceConn(t, db)
	before := rowsOf(db, "one") + rowsOf(db, "two")
	for _, table := range []string{"audit_events", "audit_event_labels", "audit_chain_checkpoints", "audit_ingest_alerts"} {
		attacks := []string{
			"DELETE FROM " + table, "TRUNCATE " + table, "TRUNCATE " + table + " CASCADE", "DROP TABLE " + table, "SELECT FROM " + table + " FOR UPDATE", "SELECT FROM " + table + " FOR SHARE",
			"WITH gone AS (DELETE FROM " + table + " RETURNING *) SELECT * FROM gone", "LOCK TABLE " + table + " IN SHARE MODE",
			"MERGE INTO " + table + " AS a USING zones ON zones.id = a.zone_id WHEN MATCHED THEN DELETE",
		}
		for _, column := range columns(db, table) {
			attacks = append(attacks, "UPDATE "+table+" SET "+column+" = "+column)
		}
		for _, zone := range []string{"one", "two", store.AllZones} {
			for _, sql := range attacks {
				if rows, errCode := attempt(t, conn, &zone, sql); !isDenied(errCode) {
					t.Errorf("zone %s: %s: %d rows, %q", zone, sql, rows, errCode)
				}
			}
		}
	}
	all := store.AllZones
	for _, partition := range storetest.Column[string](db, "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname = 'audit_partitions'") {
		for _, sql := range []string{"SELECT FROM ", "DELETE FROM ", "TRUNCATE ", "DROP TABLE ", "LOCK TABLE ", "ALTER TABLE audit_events DETACH PARTITION "} {
			if rows, errCode := attempt(t, conn, &all, sql+partition); !isDenied(errCode) {
				t.Errorf("%s%s: %d rows, %q", sql, partition, rows, errCode)
			}
		}
	}
	if after := rowsOf(db, "one") + rowsOf(db, "two"); after != before {
		t.Errorf("the zones changed from\n%s\nto\n%s", before, after)
	}
}

// A partition enforces row-level security too, although only the owner can use it.
func TestAuditPartitionsHaveRowLevelSecurity(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	partitions := storetest.Column[string](db, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'audit_partitions' ORDER BY 1")
	if len(partitions) != 8 { // of two tables: this month and three more
		t.Errorf("the partitions are %v", partitions)
	}
	for _, partition := range partitions {
		if !storetest.Value[bool](db, "SELECT relrowsecurity AND relforcerowsecurity FROM pg_class WHERE oid = ('audit_partitions.' || $1)::regclass", partition) {
			t.Errorf("row-level security is not forced on %s", partition)
		}
	}
}

// Partitions cover exactly one month (UTC) each, and creating them again changes
// nothing.
func TestCreateAuditPartitions(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	conn, all := serviceConn(t, db), store.AllZones
	if _, err := conn.Exec(t.Context(), "SET timezone = 'America/New_York'"); err != nil {
		t.Fatal(err)
	}
	first, last := time.Date(2020, 11, 30, 23, 59, 0, 0, time.UTC), time.Date(2021, 2, 1, 0, 0, 0, 0, time.UTC)
	for _, want := range []int{8, 0} {
		var n int
		if err := conn.QueryRow(t.Context(), "SELECT create_audit_partitions($1, $2)", first, last).Scan(&n); err != nil || n != want {
			t.Errorf("created %d partitions, want %d; error %v", n, want, err)
		}
	}
	bounds := storetest.Value[string](db, `SELECT string_agg(relname || ' ' || pg_get_expr(relpartbound, oid), chr(10) ORDER BY relname)
		FROM pg_class, set_config('timezone', 'UTC', true) WHERE relname ~ '^audit_events_y202[01]m..$' AND relkind = 'r'`)
	want := `audit_events_y2020m11 FOR VALUES FROM ('2020-11-01 00:00:00+00') TO ('2020-12-01 00:00:00+00')
audit_events_y2020m12 FOR VALUES FROM ('2020-12-01 00:00:00+00') TO ('2021-01-01 00:00:00+00')
audit_events_y2021m01 FOR VALUES FROM ('2021-01-01 00:00:00+00') TO ('2021-02-01 00:00:00+00')
audit_events_y2021m02 FOR VALUES FROM ('2021-02-01 00:00:00+00') TO ('2021-03-01 00:00:00+00')`
	if bounds != want {
		t.Errorf("the partitions are\n%s\nwant\n%s", bounds, want)
	}
	for _, sql := range []string{"SELECT create_audit_partitions(now(), now() + interval '2 years')", "SELECT create_audit_partitions('0001-01-01', now())", "SELECT drop_audit_partition(now())"} {
		if _, errCode := attempt(t, conn, &all, sql); !strings.HasPrefix(errCode, "22023 ") {
			t.Errorf("%s: %q", sql, errCode)
		}
	}
}
