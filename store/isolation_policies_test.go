package store_test

import (
	"slices"
	"strings"
	"testing"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// The service role can neither change, delete nor lock a policy version, whatever its
// scope: what an auditor reads later is what was active.
func TestPolicyVersionsAreImmutable(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	conn := serviceConn(t, db)
	before := rowsOf(db, "one") + rowsOf(db, "two")
	list := strings.Join(columns(db, "policy_versions"), ", ")
	attacks := []string{
		"DELETE FROM policy_versions", "DELETE FROM policy_versions USING policies AS p WHERE p.id = policy_id", "TRUNCATE policy_versions CASCADE", "TRUNCATE policies CASCADE",
		"WITH gone AS (DELETE FROM policy_versions RETURNING *) SELECT * FROM gone", "WITH changed AS (UPDATE policy_versions SET content = 'x' RETURNING *) SELECT * FROM changed",
		"MERGE INTO policy_versions AS v USING policies AS p ON p.id = v.policy_id WHEN MATCHED THEN DELETE", "MERGE INTO policy_versions AS v USING policies AS p ON p.id = v.policy_id WHEN MATCHED THEN UPDATE SET content = 'x'",
		"SELECT FROM policy_versions FOR UPDATE", "SELECT FROM policy_versions FOR NO KEY UPDATE", "SELECT FROM policy_versions FOR SHARE",
		"DO $$ BEGIN UPDATE policy_versions SET content = 'x'; END $$", "DO $$ BEGIN EXECUTE 'DELETE FROM policy_versions'; END $$",
		"ALTER TABLE policy_versions DROP COLUMN content", "DROP TABLE policy_versions CASCADE",
	}
	for _, column := range columns(db, "policy_versions") {
		attacks = append(attacks, "UPDATE policy_versions SET "+column+" = "+column,
			"INSERT INTO policy_versions ("+list+") SELECT "+list+" FROM policy_versions ON CONFLICT (zone_id, id) DO UPDATE SET "+column+" = EXCLUDED."+column)
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
	// The same statements succeed as the role that owns the table.
	owner := storetest.Value[string](db, "UPDATE policy_versions SET content = 'x' WHERE zone_id = 'one' RETURNING content")
	if owner != "x" {
		t.Errorf("the owner role set the content to %q", owner)
	}
}

// Of a policy, only its number of versions and its archiving can change.
func TestPolicyFieldsAreImmutable(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	twoZones(db)
	conn, all := serviceConn(t, db), store.AllZones
	mutable := []string{"latest_version", "version", "updated_at", "archived_at"}
	for _, column := range columns(db, "policies") {
		rows, errCode := attempt(t, conn, &all, "UPDATE policies SET "+column+" = "+column)
		if slices.Contains(mutable, column) {
			if rows != 2 || errCode != "" {
				t.Errorf("%s: %d rows, %q, want 2 rows", column, rows, errCode)
			}
		} else if !isDenied(errCode) {
			t.Errorf("%s: %d rows, %q, want insufficient_privilege", column, rows, errCode)
		}
	}
}
