package jobs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/server/jobs"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// A bench has a database with zones, and a store.
type bench struct {
	*storetest.DB
	t     *testing.T
	store *store.Store
}

func newBench(t *testing.T, zones ...string) bench {
	t.Helper()
	b := bench{storetest.New(t), t, nil}
	for _, zone := range zones {
		b.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, $1, $1, false)", zone)
	}
	b.store = b.Store().For(store.System)
	return b
}

// job returns a job that deletes what ended more than 30 days ago.
func job(t *testing.T, name string) jobs.Job {
	t.Helper()
	for _, j := range jobs.Of(jobs.Retention{Sessions: 30, Challenges: 30}) {
		if j.Name == name {
			return j
		}
	}
	t.Fatalf("there is no job %s", name)
	return jobs.Job{}
}

// run runs a batch, which must change a number of objects.
func (b bench) run(name string, want int) {
	b.t.Helper()
	if got, err := job(b.t, name).Batch(b.t.Context(), b.store); err != nil || got != want {
		b.t.Errorf("%s changed %d objects, %v; want %d", name, got, err, want)
	}
}

// recorded returns what the audit log and the outbox have of a job, in order, and checks
// that they name the same requests.
func (b bench) recorded(job string) (entries, events []string) {
	b.t.Helper()
	entries = storetest.Column[string](b.DB, `SELECT concat_ws(' ', zone_id, entity_type, entity_id, payload::jsonb #>> '{changes,status,from}', payload::jsonb #>> '{changes,status,to}',
		'deleted ' || (payload::jsonb ->> 'deleted')) FROM audit_entries
		WHERE operation = $1 AND action = $1 AND actor_id IS NULL AND actor_name = 'caracald' AND status_code = 0 ORDER BY id`, job)
	for _, text := range storetest.Column[string](b.DB, "SELECT jsonb_build_object('stream', stream, 'fields', fields)::text FROM outbox AS o WHERE EXISTS (SELECT FROM audit_entries AS a WHERE a.request_id = o.request_id AND a.operation = $1) ORDER BY seq", job) {
		var event struct {
			Stream string
			Fields map[string]string
		}
		if err := json.Unmarshal([]byte(text), &event); err != nil {
			b.t.Fatal(err)
		}
		line := event.Stream
		for _, name := range []string{"event", "zone_id", "session_id", "agent_session_id", "delegation_edge_id", "edge_id", "parent_id", "reason"} {
			if value := event.Fields[name]; value != "" {
				line += " " + name + "=" + value
			}
		}
		events = append(events, line)
	}
	return entries, events
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (b bench) lapse(table string, ids ...string) {
	b.t.Helper()
	column := "expires_at"
	if table == "agent_sessions" {
		column = "spawned_at" // the time to live is an hour
	}
	b.Exec("UPDATE "+table+" SET "+column+" = now() - interval '61 minutes' WHERE id = ANY ($1)", ids)
}

func TestLapsedSessionsExpire(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z", "other")
	lapsed, active, revoked, elsewhere := b.Session("z"), b.Session("z"), b.Session("z"), b.Session("other")
	archived := b.ArchivedZone()
	ofArchived := b.Session(archived)
	b.lapse("sessions", lapsed, revoked, elsewhere, ofArchived)
	b.Exec("UPDATE sessions SET status = 'revoked', revoked_at = now() WHERE id = $1", revoked)
	b.run("expire-sessions", 3)
	b.run("expire-sessions", 0)
	same(t, "sessions", storetest.Column[string](b.DB, "SELECT id || ' ' || status FROM sessions"),
		lapsed+" expired", active+" active", revoked+" revoked", elsewhere+" expired", ofArchived+" expired")
	entries, events := b.recorded("expire-sessions")
	same(t, "audit entries", entries, "z sessions "+lapsed+" active expired", "other sessions "+elsewhere+" active expired", archived+" sessions "+ofArchived+" active expired")
	same(t, "events", events)
}

// A row that another transaction is changing is left to the next run, without waiting.
func TestExpiryDoesNotWaitForSession(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z")
	locked, free := b.Session("z"), b.Session("z")
	b.lapse("sessions", locked, free)
	conn, err := pgx.Connect(t.Context(), b.OwnerURL()+"&caracal.zone_id=*")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tag, err := tx.Exec(t.Context(), "UPDATE sessions SET status = 'revoked', revoked_at = now() WHERE id = $1", locked); err != nil || tag.RowsAffected() != 1 {
		t.Fatal(tag, err)
	}
	b.run("expire-sessions", 1)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.run("expire-sessions", 0)
	same(t, "sessions", storetest.Column[string](b.DB, "SELECT id || ' ' || status FROM sessions"), locked+" revoked", free+" expired")
}

func TestLapsedAgentSessionsAreTerminatedWithDescendants(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z", "other")
	app, session := b.Application("z"), b.Session("z")
	host := b.AgentSession("z", app, session)
	lapsed := b.ChildAgentSession("z", app, session, host)
	child := b.ChildAgentSession("z", b.Application("z"), session, lapsed)
	service := b.ChildAgentSession("z", app, session, child)
	b.Exec("UPDATE agent_sessions SET lifecycle = 'service', ttl_seconds = NULL, status = 'suspended' WHERE id = $1", service)
	both := b.ChildAgentSession("z", app, session, lapsed) // lapsed, too
	edge, kept := b.DelegationEdge("z", host, child), b.DelegationEdge("z", host, host)
	alone := b.AgentSession("z", app, session)
	services := b.AgentSession("z", app, session)
	b.Exec("UPDATE agent_sessions SET lifecycle = 'service' WHERE id = $1", services)
	endless := b.AgentSession("z", app, session)
	b.Exec("UPDATE agent_sessions SET ttl_seconds = NULL WHERE id = $1", endless)
	b.lapse("agent_sessions", lapsed, both, services, endless)
	elsewhere := b.AgentSession("other", b.Application("other"), b.Session("other"))

	b.run("terminate-agent-sessions", 4)
	b.run("terminate-agent-sessions", 0)
	same(t, "agent sessions", storetest.Column[string](b.DB, "SELECT concat_ws(' ', id, status, termination_reason, child_count, CASE WHEN terminated_at IS NOT NULL THEN 'ended' END) FROM agent_sessions"),
		host+" active 0", lapsed+" terminated ttl 0 ended", child+" terminated parent_terminated 0 ended", service+" terminated parent_terminated 0 ended",
		both+" terminated ttl 0 ended", alone+" active 0", services+" active 0", endless+" active 0", elsewhere+" active 0")
	same(t, "edges", storetest.Column[string](b.DB, "SELECT id || ' ' || status FROM delegation_edges"), edge+" revoked", kept+" active")
	same(t, "sessions", storetest.Column[string](b.DB, "SELECT DISTINCT status FROM sessions"), "active")
	entries, events := b.recorded("terminate-agent-sessions")
	same(t, "audit entries", entries, "z agent-sessions "+lapsed+" active terminated", "z agent-sessions "+child+" active terminated",
		"z agent-sessions "+service+" suspended terminated", "z agent-sessions "+both+" active terminated", "z delegation-edges "+edge+" active revoked")
	var want []string
	for _, agent := range [][3]string{{lapsed, host, "ttl"}, {child, lapsed, "parent_terminated"}, {service, child, "parent_terminated"}, {both, lapsed, "ttl"}} {
		want = append(want, fmt.Sprintf("caracal.agents.lifecycle event=terminate zone_id=z agent_session_id=%s parent_id=%s reason=%s", agent[0], agent[1], agent[2]),
			fmt.Sprintf("caracal.sessions.revoke zone_id=z agent_session_id=%s reason=%s", agent[0], agent[2]))
	}
	same(t, "events", events, append(want, "caracal.sessions.revoke zone_id=z agent_session_id="+child+" delegation_edge_id="+edge+" reason=ttl",
		"caracal.delegations.invalidate event=edge_revoke zone_id=z edge_id="+edge)...)
}

// The Agent Coordinator terminates lapsed agent sessions, too. What it has terminated
// before this service has locked it is not terminated again.
func TestAgentSessionTerminatedByOtherServiceIsUnchanged(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z")
	agent := b.AgentSession("z", b.Application("z"), b.Session("z"))
	b.lapse("agent_sessions", agent)
	due, err := b.store.LapsedAgentSessions(t.Context(), 10, []string{})
	if err != nil || len(due) != 1 {
		t.Fatal(due, err)
	}
	b.Exec("UPDATE agent_sessions SET status = 'terminated', termination_reason = 'done', terminated_at = now() WHERE id = $1", agent)
	err = b.store.InTx(t.Context(), store.Cause{Actor: store.System, RequestID: "r", Operation: "o"}, func(tx *store.Tx) error {
		n, err := tx.TerminateAgentSessions(t.Context(), due[0])
		if n != 0 {
			t.Errorf("terminated %d", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := storetest.Value[int](b.DB, "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM audit_entries)"); n != 0 {
		t.Errorf("recorded %d entries and events", n)
	}
}

func TestExpiredRegistrationsAreArchived(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z")
	b.DCRApplications("z", 4)
	registered := storetest.Column[string](b.DB, "SELECT id FROM applications ORDER BY id")
	old, bound, recent, active := registered[0], registered[1], registered[2], registered[3]
	b.Exec("UPDATE applications SET expires_at = now() - interval '24 hours 1 minute' WHERE id = ANY ($1)", []string{old, bound})
	b.Exec("UPDATE applications SET expires_at = now() - interval '23 hours 59 minutes' WHERE id = $1", recent)
	resource := b.Resource("z")
	managed := storetest.Value[string](b.DB, "SELECT gateway_application_id FROM resources")
	b.Exec("UPDATE resources SET gateway_application_id = $1", bound)
	b.Exec("INSERT INTO resource_totals (zone_id, live, binding_revision) VALUES ('z', 1, 1)")
	session := b.ApplicationSession("z", old)
	agent := b.AgentSession("z", old, session)

	b.run("archive-dcr-applications", 2)
	b.run("archive-dcr-applications", 0)
	same(t, "active applications", storetest.Column[string](b.DB, "SELECT id FROM applications WHERE archived_at IS NULL"), recent, active, managed)
	if n := storetest.Value[int](b.DB, "SELECT count(*) FROM resources WHERE gateway_application_id IS NULL AND version = 2"); n != 1 {
		t.Error("the resource is still bound")
	}
	entries, events := b.recorded("archive-dcr-applications")
	same(t, "audit entries", entries, "z applications "+old, "z applications "+bound, "z resources "+resource, "z sessions "+session+" active revoked", "z agent-sessions "+agent+" active terminated")
	const reason = " reason=application_archived"
	same(t, "events", events, "caracal.sessions.revoke zone_id=z session_id="+session+reason, "caracal.agents.lifecycle event=terminate zone_id=z agent_session_id="+agent+reason,
		"caracal.sessions.revoke zone_id=z session_id="+session+" agent_session_id="+agent+reason)
}

// Expired client secrets are deleted, also of archived zones, and the audit log says which.
func TestExpiredSecretsAreDeleted(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z", "other")
	archived := b.ArchivedZone()
	hourAgo, inAnHour := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	var kept, wantEntries []string
	for _, zone := range []string{"z", "other", archived} {
		app, untouched := b.Application(zone), b.Application(zone)
		old, older, valid := b.ApplicationSecret(zone, app, &hourAgo), b.ApplicationSecret(zone, app, &hourAgo), b.ApplicationSecret(zone, app, &inAnHour)
		first := storetest.Value[string](b.DB, "SELECT id FROM application_secrets WHERE application_id = $1 AND expires_at IS NULL", app)
		kept = append(kept, app+" 2 "+first, app+" 2 "+valid, untouched+" 1 "+storetest.Value[string](b.DB, "SELECT id FROM application_secrets WHERE application_id = $1", untouched))
		wantEntries = append(wantEntries, zone+" applications "+app+` ["secrets"] updated ["`+strings.Join([]string{first, old, older, valid}, `", "`)+`"] ["`+first+`", "`+valid+`"]`)
	}
	b.run("delete-application-secrets", 6)
	b.run("delete-application-secrets", 0)
	same(t, "secrets and versions of their applications", storetest.Column[string](b.DB, `SELECT concat_ws(' ', a.id, a.version, s.id)
		FROM application_secrets AS s JOIN applications AS a ON a.zone_id = s.zone_id AND a.id = s.application_id`), kept...)
	same(t, "audit entries", storetest.Column[string](b.DB, `SELECT concat_ws(' ', zone_id, entity_type, entity_id, payload::jsonb -> 'changed_fields', payload::jsonb ->> 'change', payload::jsonb -> 'secret_rotated',
			jsonb_path_query_array(payload::jsonb, '$.changes.secrets.from[*].id'), jsonb_path_query_array(payload::jsonb, '$.changes.secrets.to[*].id'))
		FROM audit_entries WHERE operation = 'delete-application-secrets' AND actor_name = 'caracald' AND actor_id IS NULL`), wantEntries...)
}

// fill makes a number of objects due for each job, in each zone.
func (b bench) fill(count int, zones ...string) {
	b.t.Helper()
	for _, zone := range zones {
		app, session := b.Application(zone), b.Session(zone)
		b.Exec("UPDATE sessions SET expires_at = 'infinity' WHERE id = $1", session)
		b.Exec(`INSERT INTO sessions (zone_id, id, session_type, expires_at) SELECT $1, $1 || '-s' || n, 'user', now() - interval '1 minute' FROM generate_series(1, $2) AS n`, zone, count)
		b.Exec(`INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, spawned_at) SELECT $1, $1 || '-g' || n, $3, $4, now() - interval '2 hours' FROM generate_series(1, $2) AS n`, zone, count, app, session)
		b.Exec(`INSERT INTO applications (zone_id, id, name, registration_method) SELECT $1, $1 || '-m' || n, 'x', 'managed' FROM generate_series(1, $2) AS n`, zone, count)
		b.Exec(`INSERT INTO application_secrets (zone_id, application_id, id, secret_hash, expires_at) SELECT $1, $1 || '-m' || n, 'x', 'x', now() FROM generate_series(1, $2) AS n`, zone, count)
		b.DCRApplications(zone, count)
		b.Exec("UPDATE applications SET expires_at = now() - interval '2 days' WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
		b.Exec(`INSERT INTO sessions (zone_id, id, session_type, status, expires_at) SELECT $1, $1 || '-o' || n, 'user', 'expired', now() - interval '31 days' FROM generate_series(1, $2) AS n`, zone, count)
		b.Exec(`INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, status, terminated_at) SELECT $1, $1 || '-h' || n, $3, $4, 'terminated', now() - interval '31 days' FROM generate_series(1, $2) AS n`, zone, count, app, session)
		b.Exec(`INSERT INTO delegation_edges (zone_id, id, source_session_id, target_session_id, issuer_application_id, receiver_application_id, status, expires_at, updated_at)
			SELECT $1, $1 || '-d' || n, $1 || '-h' || n, $1 || '-h' || n, 'a', 'a', 'revoked', now(), now() - interval '31 days' FROM generate_series(1, $2) AS n`, zone, count)
		b.Exec(`INSERT INTO step_up_challenges (zone_id, id, principal_id, challenge_type, resource_set_hash, expires_at) SELECT $1, $1 || '-c' || n, 'u', 'mfa', 'x', now() - interval '31 days' FROM generate_series(1, $2) AS n`, zone, count)
	}
}

// Replicas that run all jobs at the same time change each object once.
func TestReplicasChangeEachObjectOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, "one", "two", "three")
	const count, zones, replicas = 60, 3, 3
	b.fill(count, "one", "two", "three")
	var changed [replicas]map[string]int
	var running sync.WaitGroup
	for i := range replicas {
		changed[i] = map[string]int{}
		s := b.Store().For(store.System)
		running.Go(func() {
			for _, j := range jobs.Of(jobs.Retention{Sessions: 30, Challenges: 30}) {
				for {
					n, err := j.Batch(t.Context(), s)
					if err != nil {
						t.Errorf("%s: %v", j.Name, err)
					}
					if n == 0 || err != nil {
						break
					}
					changed[i][j.Name] += n
				}
			}
		})
	}
	running.Wait()
	b.drain()
	for _, j := range jobs.Of(jobs.Retention{}) {
		total := 0
		for _, c := range changed {
			total += c[j.Name]
		}
		if total > count*zones {
			t.Errorf("%s changed %d objects, of %d", j.Name, total, count*zones)
		}
	}
	for kind, want := range map[string]int{"sessions": count * zones, "agent-sessions": count * zones, "applications": 2 * count * zones} {
		if got := storetest.Column[int](b.DB, "SELECT count(*)::int FROM audit_entries WHERE entity_type = $1 AND entity_id IS NOT NULL GROUP BY entity_id", kind); len(got) != want || slices.Max(got) != 1 {
			t.Errorf("%d of %s have entries, and up to %d; want %d and 1", len(got), kind, slices.Max(got), want)
		}
		if kind == "applications" {
			continue
		}
		if got := storetest.Value[int](b.DB, "SELECT coalesce(sum((payload::jsonb ->> 'deleted')::int), 0) FROM audit_entries WHERE entity_type = $1 AND entity_id IS NULL", kind); got != want {
			t.Errorf("entries say that %d of %s were deleted, want %d", got, kind, want)
		}
	}
	if got := storetest.Column[int](b.DB, "SELECT count(*)::int FROM outbox WHERE stream = 'caracal.agents.lifecycle' GROUP BY fields ->> 'agent_session_id'"); len(got) != count*zones || slices.Max(got) != 1 {
		t.Errorf("%d agent sessions have events, and up to %d", len(got), slices.Max(got))
	}
	if left := storetest.Value[int](b.DB, `SELECT (SELECT count(*) FROM sessions WHERE status = 'active' AND expires_at <= now()) + (SELECT count(*) FROM agent_sessions WHERE status = 'active')
		+ (SELECT count(*) FROM applications WHERE registration_method = 'dcr' AND archived_at IS NULL) + (SELECT count(*) FROM delegation_edges) + (SELECT count(*) FROM application_secrets WHERE expires_at <= now()) + (SELECT count(*) FROM step_up_challenges)`); left != 0 {
		t.Errorf("%d objects are still due", left)
	}
}

// drain runs all jobs until nothing is due, for what a replica skipped because another
// one was changing it.
func (b bench) drain() {
	b.t.Helper()
	for _, j := range jobs.Of(jobs.Retention{Sessions: 30, Challenges: 30}) {
		for n := 1; n > 0; {
			var err error
			if n, err = j.Batch(b.t.Context(), b.store); err != nil {
				b.t.Fatalf("%s: %v", j.Name, err)
			}
		}
	}
}

// A batch is bounded, so that nothing waits for it for long.
func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z")
	b.fill(1001, "z")
	for name, limit := range map[string]int{"expire-sessions": 500, "terminate-agent-sessions": 100, "archive-dcr-applications": 50, "delete-application-secrets": 500, "delete-step-up-challenges": 1000, "delete-delegation-edges": 1000, "delete-sessions": 1000} {
		b.run(name, limit)
	}
	if left := storetest.Value[int](b.DB, "SELECT count(*) FROM sessions WHERE id LIKE 'z-o%'"); left != 1 {
		t.Errorf("%d ended sessions are left, want 1", left)
	}
}

func TestRetiredSigningKeysAreDeleted(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z", "other")
	retired := func(zone, when string) string {
		key := b.SigningKey(zone)
		b.Exec("UPDATE signing_keys SET retires_at = now() + $2::interval WHERE id = $1", key, when)
		return key
	}
	first, second, elsewhere := retired("z", "-1 hour"), retired("z", "-1 second"), retired("other", "-1 day")
	overlapping, signing := retired("z", "1 hour"), b.SigningKey("z")
	b.run("delete-signing-keys", 3)
	same(t, "keys", storetest.Column[string](b.DB, "SELECT id FROM signing_keys"), overlapping, signing)
	entries, events := b.recorded("delete-signing-keys")
	same(t, "audit entries", entries, "other signing-keys "+elsewhere, "z signing-keys "+first, "z signing-keys "+second)
	same(t, "events", events)
}
