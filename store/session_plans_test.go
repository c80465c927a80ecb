package store_test

import (
	"fmt"
	"strings"
	"testing"

	"caracal.run/management/store/storetest"
)

// fillSessions inserts sessions and agent sessions in zone z1, each with a status,
// subject, application, lifecycle and label that is common. Four of each have rare ones
// instead.
func fillSessions(db *storetest.DB, count int) {
	for _, table := range []string{"sessions", "agent_sessions", "agent_session_labels"} {
		for _, constraint := range storetest.Column[string](db, "SELECT conname::text FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'f'", table) {
			db.Exec("ALTER TABLE " + table + " DROP CONSTRAINT " + constraint + " CASCADE") // checking it takes most of the time
		}
	}
	db.Exec(`INSERT INTO sessions (zone_id, id, session_type, subject_id, status, created_at, expires_at)
		SELECT 'z1', 's-' || n, 'user', 'u-' || coalesce(rare, (n % 10)::text), CASE WHEN rare IS NOT NULL THEN 'revoked' WHEN n % 2 = 0 THEN 'active' ELSE 'expired' END,
			now() - n * interval '1 second', CASE WHEN n % 2000 = 2 THEN now() ELSE now() + interval '1 day' END
		FROM (SELECT n, CASE WHEN n % ($1 / 4) = 0 THEN 'rare' END AS rare FROM generate_series(1, $1) AS n) AS numbers`, count)
	db.Exec("ALTER TABLE agent_sessions DISABLE TRIGGER index_labels")
	db.Exec(`INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, parent_id, status, lifecycle, labels, spawned_at)
		SELECT 'z1', 'g-' || n, 'a-' || coalesce(rare, (n % 10)::text), 's', 'g-' || coalesce(rare, (n % 100)::text), CASE WHEN rare IS NULL THEN 'active' ELSE 'suspended' END,
			CASE WHEN rare IS NULL THEN 'task' ELSE 'service' END, ARRAY['common', coalesce(rare, 'other')], now() - n * interval '1 second'
		FROM (SELECT n, CASE WHEN n % ($1 / 4) = 0 THEN 'rare' END AS rare FROM generate_series(1, $1) AS n) AS numbers`, count)
	db.Exec("INSERT INTO agent_session_labels SELECT zone_id, unnest(labels), spawned_at, id FROM agent_sessions")
	for _, table := range []string{"sessions", "agent_sessions", "agent_session_labels"} {
		db.Exec("ANALYZE " + table)
	}
}

// A page of a list of sessions is read from the index of its filter, in order: how many
// rows are read depends neither on the number of sessions nor on how many match.
func TestListSessionsReadsOnlyAPage(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec(`INSERT INTO zones (id, name, slug, reserved) SELECT 'z' || n, 'Zone', 'z' || n, false FROM generate_series(1, 2000) AS n`) // the planner expects each to have few sessions
	fillSessions(db, 100_000)
	const page = listedPage
	for _, tt := range []listPlan{
		{"listSessions", nil, "sessions_listed", page, page},
		{"listSessionsByStatus", map[string]string{"Status": "active"}, "sessions_by_status", page, page},
		{"listSessionsByStatus", map[string]string{"Status": "revoked"}, "sessions_by_status", 4, 4},
		{"listExpiredSessions", nil, "sessions_by_status", 2 * page, page},
		{"listSessionsBySubject", map[string]string{"SubjectID": "u-7"}, "sessions_by_subject", page, page},
		{"listSessionsBySubject", map[string]string{"SubjectID": "u-rare"}, "sessions_by_subject", 4, 4},
		{"listSessionsBySubjectAndStatus", map[string]string{"SubjectID": "u-2", "Status": "active"}, "sessions_by_subject_and_status", page, page},
		{"listSessionsBySubjectAndStatus", map[string]string{"SubjectID": "u-rare", "Status": "active"}, "sessions_by_subject_and_status", 0, 0},
		{"listSessionsBySubjectAndStatus", map[string]string{"SubjectID": "u-rare", "Status": "revoked"}, "sessions_by_subject_and_status", 4, 4},
		{"listExpiredSessionsBySubject", map[string]string{"SubjectID": "u-7"}, "sessions_by_subject_and_status", page, page},
		{"listExpiredSessionsBySubject", map[string]string{"SubjectID": "u-2"}, "sessions_by_subject_and_status", page, 50}, // that have lapsed
		{"listAgentSessions", nil, "agent_sessions_listed", page, page},
		{"listAgentSessionsByParent", map[string]string{"ParentID": "g-7"}, "agent_sessions_by_parent", page, page},
		{"listAgentSessionsByParent", map[string]string{"ParentID": "g-rare", "ApplicationID": "a-rare", "Status": "suspended", "Lifecycle": "service", "Label": "rare"}, "agent_sessions_by_parent", 4, 4},
		{"listAgentSessionsByApplication", map[string]string{"ApplicationID": "a-7"}, "agent_sessions_by_application", page, page},
		{"listAgentSessionsByApplication", map[string]string{"ApplicationID": "a-rare", "Label": "unknown"}, "agent_sessions_by_application", 4, 0},
		{"listAgentSessionsByApplicationAndStatus", map[string]string{"ApplicationID": "a-7", "Status": "active"}, "agent_sessions_by_application_and_status", page, page},
		{"listAgentSessionsByApplicationAndStatus", map[string]string{"ApplicationID": "a-7", "Status": "suspended"}, "agent_sessions_by_application_and_status", 0, 0},
		{"listAgentSessionsByLabel", map[string]string{"Label": "common"}, "agent_session_labels_pkey", page, page},
		{"listAgentSessionsByLabel", map[string]string{"Label": "rare", "Status": "suspended", "Lifecycle": "service"}, "agent_session_labels_pkey", 4, 4},
		{"listAgentSessionsByLabel", map[string]string{"Label": "rare", "Status": "active"}, "agent_session_labels_pkey", 4, 0},
		{"listAgentSessionsByStatus", map[string]string{"Status": "active"}, "agent_sessions_by_status", page, page},
		{"listAgentSessionsByStatus", map[string]string{"Status": "suspended", "Lifecycle": "task"}, "agent_sessions_by_status", 4, 0},
		{"listAgentSessionsByLifecycle", map[string]string{"Lifecycle": "task"}, "agent_sessions_by_lifecycle", page, page},
		{"listAgentSessionsByLifecycle", map[string]string{"Lifecycle": "service"}, "agent_sessions_by_lifecycle", 4, 4},
	} {
		t.Run(fmt.Sprint(tt.query, tt.set), func(t *testing.T) {
			tt.check(t, db, listedPage, []string{"agent_sessions_pkey"}, tt.read)
		})
	}
}

// Every change of an agent session leaves a row for each of its labels in the index.
func TestAgentSessionLabelsAreIndexed(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ('z1', 'Zone', 'z1', false)")
	application := db.Application("z1")
	agent := db.AgentSession("z1", application, db.Session("z1"))
	labels := func() string {
		return strings.Join(storetest.Column[string](db, "SELECT label FROM agent_session_labels AS l JOIN agent_sessions AS a ON a.id = l.agent_session_id AND a.zone_id = l.zone_id AND a.spawned_at = l.spawned_at ORDER BY 1"), "|")
	}
	if got := labels(); got != "planner" {
		t.Errorf("after the insert: %q", got)
	}
	for _, change := range []struct{ set, want string }{
		{`labels = '{a,b,a}'`, "a|b"}, {`labels = '{"b,c","{"}'`, "b,c|{"}, {"spawned_at = spawned_at - interval '1 hour'", "b,c|{"}, {"status = 'terminated'", "b,c|{"}, {"labels = '{}'", ""}, {"labels = '{z}'", "z"},
	} {
		db.Exec("UPDATE agent_sessions SET "+change.set+" WHERE id = $1", agent)
		if got := labels(); got != change.want {
			t.Errorf("after %s: %q, want %q", change.set, got, change.want)
		}
	}
	db.Exec("DELETE FROM agent_sessions WHERE id = $1", agent)
	if got := storetest.Value[int](db, "SELECT count(*)::int FROM agent_session_labels"); got != 0 {
		t.Errorf("after the deletion: %d rows", got)
	}
}
