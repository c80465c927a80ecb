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
