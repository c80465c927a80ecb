package jobs_test

import (
	"strings"
	"testing"

	"caracal.run/management/store/storetest"
)

// A tree of sessions, with agent sessions and edges, is deleted from its leaves on, unless
// something that is kept references it.
func TestOldSessionsAreDeletedWithWhatDescendsFromThem(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z", "other")
	app := b.Application("z")
	build := func(zone, app string) (rows map[string]string) {
		root := b.Session(zone)
		child := b.ChildSession(zone, root)
		agent := b.AgentSession(zone, app, root)
		below := b.ChildAgentSession(zone, app, child, agent)
		edge := b.DelegationEdge(zone, agent, below)
		next := b.DelegationEdge(zone, below, below)
		b.Exec("UPDATE delegation_edges SET parent_edge_id = $2 WHERE id = $1", next, edge)
		return map[string]string{"sessions": root + " " + child, "agent_sessions": agent + " " + below, "delegation_edges": edge + " " + next}
	}
	end := func(rows map[string]string, age string) {
		for table, ids := range rows {
			set := map[string]string{
				"sessions":         "status = 'revoked', revoked_at = now() - $2::interval, expires_at = now() - $2::interval",
				"agent_sessions":   "status = 'terminated', terminated_at = now() - $2::interval",
				"delegation_edges": "status = 'revoked', revoked_at = now() - $2::interval, updated_at = now() - $2::interval",
			}[table]
			b.Exec("UPDATE "+table+" SET "+set+" WHERE id = ANY ($1)", strings.Fields(ids), age)
		}
	}
	old, recent, active, referenced, elsewhere := build("z", app), build("z", app), build("z", app), build("z", app), build("other", b.Application("other"))
	end(old, "31 days")
	end(recent, "29 days")
	end(referenced, "31 days")
	b.Exec("UPDATE delegation_edges SET status = 'active' WHERE id = $1", strings.Fields(referenced["delegation_edges"])[1])
	end(elsewhere, "31 days")
	lateRevoked := b.Session("z") // expired long ago, but was revoked recently
	b.Exec("UPDATE sessions SET status = 'revoked', expires_at = now() - interval '31 days', revoked_at = now() - interval '1 day' WHERE id = $1", lateRevoked)

	b.drain()
	for _, table := range []string{"sessions", "agent_sessions", "delegation_edges"} {
		want := strings.Fields(recent[table] + " " + active[table] + " " + referenced[table])
		if table == "sessions" {
			want = append(want, lateRevoked)
		}
		same(t, table, storetest.Column[string](b.DB, "SELECT id FROM "+table), want...)
	}
	// One entry for each transaction: a level of the tree in a zone.
	for job, kind := range map[string]string{"delete-sessions": "sessions", "delete-agent-sessions": "agent-sessions", "delete-delegation-edges": "delegation-edges"} {
		entries, events := b.recorded(job)
		same(t, "audit entries", entries, "z "+kind+" deleted 1", "z "+kind+" deleted 1", "other "+kind+" deleted 1", "other "+kind+" deleted 1")
		same(t, "events", events)
	}
	if got := storetest.Column[string](b.DB, "SELECT DISTINCT payload FROM audit_entries WHERE operation = 'delete-sessions'"); len(got) != 1 || got[0] != `{"deleted":1,"retention_days":30}` {
		t.Errorf("payload %q", got)
	}
	if n := storetest.Value[int](b.DB, "SELECT count(*) FROM agent_session_labels AS l WHERE NOT EXISTS (SELECT FROM agent_sessions AS a WHERE a.id = l.agent_session_id)"); n != 0 {
		t.Errorf("%d labels of deleted agent sessions are left", n)
	}
}

func TestOldStepUpChallengesAreDeleted(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z", "other")
	session := b.Session("z")
	old := []string{b.StepUpChallenge("z", session), b.SatisfiedStepUpChallenge("z", session), b.ConsumedStepUpChallenge("z", session), b.RejectedStepUpChallenge("z", session), b.StepUpChallenge("other", b.Session("other"))}
	recent, pending := b.StepUpChallenge("z", session), b.StepUpChallenge("z", session)
	b.Exec("UPDATE step_up_challenges SET expires_at = now() - interval '31 days' WHERE id = ANY ($1)", old)
	b.Exec("UPDATE step_up_challenges SET expires_at = now() - interval '29 days' WHERE id = $1", recent)
	b.run("delete-step-up-challenges", len(old))
	same(t, "challenges", storetest.Column[string](b.DB, "SELECT id FROM step_up_challenges"), recent, pending)
	entries, _ := b.recorded("delete-step-up-challenges")
	same(t, "audit entries", entries, "z step-up-challenges deleted 4", "other step-up-challenges deleted 1")
}

// failAt makes Postgres execute a statement in the middle of each transaction that revokes
// an edge of a zone.
func (b bench) failAt(zone, statement string) {
	b.t.Helper()
	b.Exec("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.zone_id = '" + zone + "' THEN " + statement + "; END IF; RETURN NEW; END $$")
	b.Exec("CREATE TRIGGER fail BEFORE UPDATE ON delegation_edges FOR EACH ROW EXECUTE FUNCTION fail()")
}

// withEdge inserts a lapsed agent session with an edge.
func (b bench) withEdge(zone string) (agent string) {
	b.t.Helper()
	agent = b.AgentSession(zone, b.Application(zone), b.Session(zone))
	b.DelegationEdge(zone, agent, agent)
	b.lapse("agent_sessions", agent)
	return agent
}

// A zone in which a job fails keeps it from no other zone.
func TestFailureInOneZoneAffectsNoOther(t *testing.T) {
	t.Parallel()
	b := newBench(t, "bad", "good")
	bad := b.withEdge("bad")
	b.failAt("bad", "RAISE 'out of order'")
	for _, later := range []bool{false, true} { // with and without something to do in another zone
		want := 0
		if later {
			b.withEdge("good")
			want = 1
		}
		n, err := job(t, "terminate-agent-sessions").Batch(t.Context(), b.store)
		if n != want || err == nil || !strings.Contains(err.Error(), "zone bad") || !strings.Contains(err.Error(), "out of order") || strings.Contains(err.Error(), "good") {
			t.Errorf("changed %d, want %d: %v", n, want, err)
		}
	}
	if active := storetest.Column[string](b.DB, "SELECT id FROM agent_sessions WHERE status = 'active'"); len(active) != 1 || active[0] != bad {
		t.Errorf("active: %q", active)
	}
}

// A transaction that is killed in the middle leaves nothing half done, and the next run
// does all of it.
func TestKilledTransactionLeavesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z")
	b.withEdge("z")
	b.failAt("z", "PERFORM pg_terminate_backend(pg_backend_pid())")
	if n, err := job(t, "terminate-agent-sessions").Batch(t.Context(), b.store); n != 0 || err == nil {
		t.Fatalf("changed %d, %v", n, err)
	}
	const done = "SELECT (SELECT count(*) FROM agent_sessions WHERE status = 'terminated') + (SELECT count(*) FROM delegation_edges WHERE status = 'revoked') + (SELECT count(*) FROM audit_entries) + (SELECT count(*) FROM outbox)"
	if n := storetest.Value[int](b.DB, done); n != 0 {
		t.Errorf("%d rows are there after the transaction was killed", n)
	}
	b.Exec("DROP TRIGGER fail ON delegation_edges")
	b.run("terminate-agent-sessions", 1)
	if n := storetest.Value[int](b.DB, done); n != 2+2+4 {
		t.Errorf("%d rows after the next run, want 8", n)
	}
}
