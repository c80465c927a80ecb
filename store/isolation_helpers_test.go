package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"caracal.run/management/store/storetest"
)

// asService runs f as the service role in a transaction scoped to a zone, or to none
// if zone is "", and rolls it back.
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

// twoZones inserts the zones "one" and "two", each with a row in every table.
func twoZones(db *storetest.DB) {
	for _, zone := range []string{"one", "two"} {
		db.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, 'Zone', $1, false)", zone)
		db.Exec("INSERT INTO admin_tokens (zone_id, id, name, capability, created_by, token_sha256) VALUES ($1, 'token-' || $1, 'x', 'read', 'x', sha256($1::bytea))", zone)
		db.Exec("INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload) VALUES ($1, 'e', 'r', 'a', 'o', 'a', 'm', 'p', 200, '{}')", zone)
		db.Exec("INSERT INTO audit_seals (zone_id, seq, entry_id, previous, hash) VALUES ($1, 1, 'e', '', '')", zone)
		db.Exec("INSERT INTO audit_seal_heads (zone_id, seq, hash, sealed_at) VALUES ($1, 1, '', now())", zone)
		db.Exec("INSERT INTO audit_unsealed (zone_id, entry_id) VALUES ($1, 'f')", zone)
		resource := db.Resource(zone)
		application := storetest.Value[string](db, "SELECT id FROM applications WHERE zone_id = $1", zone)
		session := db.ApplicationSession(zone, application)
		db.RegistrationToken(zone)
		db.ClientRegistration(zone, application)
		agent := db.AgentSession(zone, application, session)
		db.DelegationEdge(zone, agent, agent)
		db.Exec("INSERT INTO delegation_graph_epochs (zone_id, epoch) VALUES ($1, 1)", zone)
		db.Event(zone, "stream")
		db.ProviderGrant(zone, resource)
		db.Grant(zone, application, resource)
		db.Exec("INSERT INTO resource_totals (zone_id, live) VALUES ($1, 1)", zone)
		_, policyVersion := db.Policy(zone)
		db.ActivePolicySet(zone, policyVersion)
		db.StepUpChallenge(zone, session)
		db.SigningKey(zone)
		db.IdempotencyKey(zone, 1)
		db.Exec("INSERT INTO state_owners (zone_id, kind, object_id, owner) VALUES ($1, 'application', $2, 'owner')", zone, application)
		db.AuditEvent(zone, nil)
		db.Exec("INSERT INTO audit_chain_checkpoints (zone_id, first_seq, last_seq, last_content_sha256, rows) VALUES ($1, 1, 1, 'x', 1)", zone)
		db.Exec("INSERT INTO audit_ingest_alerts (zone_id, id, event_id, kind, detail) VALUES ($1, 'alert', 'e', 'content_mismatch_on_replay', 'x')", zone)
	}
}

// tables returns the names of the tables with rows of zones.
func tables(db *storetest.DB) []string {
	return storetest.Column[string](db, `SELECT tablename::text FROM pg_tables
		WHERE schemaname = 'public' AND tablename <> 'goose_db_version' AND tablename <> ALL ($1) ORDER BY 1`, tablesWithoutZone)
}

// tablesWithoutZone are the tables with rows of no zone.
var tablesWithoutZone = []string{"admin_tokens_epoch", "audit_retention", "leases"}

// zoneColumn returns the column that contains the id of a row's zone.
func zoneColumn(table string) string {
	if table == "zones" {
		return "id"
	}
	return "zone_id"
}

// rowsOf returns the text of all rows of a zone, in every table.
func rowsOf(db *storetest.DB, zone string) string {
	var all strings.Builder
	for _, table := range tables(db) {
		rows := storetest.Column[string](db, "SELECT to_jsonb(t)::text FROM "+table+" AS t WHERE "+zoneColumn(table)+" = $1 ORDER BY 1", zone)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(rows, "\n"))
	}
	return all.String()
}

// columns returns the columns of a table that can be written.
func columns(db *storetest.DB, table string) []string {
	return storetest.Column[string](db, "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity = '' ORDER BY attnum", table)
}

// attempt runs one statement in its own transaction and commits it, so that the
// effect of a successful attack is visible. It returns the number of rows, or the
// SQLSTATE and message of the error.
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

// isDenied reports whether an error comes from privileges or row-level security
// (insufficient_privilege), and not from another constraint.
func isDenied(errCode string) bool { return strings.HasPrefix(errCode, "42501 ") }

// serviceConn returns a connection of the service role. It is closed when the test
// ends.
func serviceConn(t *testing.T, db *storetest.DB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// primaryKey returns the columns of a table's primary key.
func primaryKey(db *storetest.DB, table string) string {
	return strings.Join(storetest.Column[string](db, `SELECT a.attname::text FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
		WHERE i.indrelid = $1::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)`, table), ", ")
}
