//go:build faults

package faults_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"caracal.run/management/store/outbox"
)

// An invariant of the database has a query that returns its violations.
type invariant struct{ name, violations string }

var invariants = []invariant{
	{"each change of an application has one audit entry, and each entry a change", `
		SELECT coalesce(a.id, e.entity_id) || ': ' || coalesce(a.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM applications AS a
		FULL JOIN (SELECT zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'applications' AND status_code < 400 GROUP BY 1, 2) AS e
			ON e.zone_id = a.zone_id AND e.entity_id = a.id
		WHERE a.version IS DISTINCT FROM e.n`},
	{"each change of a zone has one audit entry, and each entry a change", `
		SELECT coalesce(z.id, e.entity_id) || ': ' || coalesce(z.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM zones AS z
		FULL JOIN (SELECT entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'zones' AND status_code < 400 GROUP BY 1) AS e ON e.entity_id = z.id
		WHERE z.version IS DISTINCT FROM e.n`},
	{"each change of a provider or a resource has one audit entry, and each entry a change", `
		SELECT coalesce(x.id, e.entity_id) || ': ' || coalesce(x.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM (SELECT 'providers' AS kind, zone_id, id, version FROM providers UNION ALL SELECT 'resources', zone_id, id, version FROM resources) AS x
		FULL JOIN (SELECT entity_type, zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type IN ('providers', 'resources') AND status_code < 400 GROUP BY 1, 2, 3) AS e
			ON e.entity_type = x.kind AND e.zone_id = x.zone_id AND e.entity_id = x.id
		WHERE x.version IS DISTINCT FROM e.n`},
	{"no active resource references an archived application, and a zone counts its active resources", `
		SELECT r.id FROM resources AS r JOIN applications AS a ON a.zone_id = r.zone_id AND a.id = r.gateway_application_id
		WHERE r.archived_at IS NULL AND a.archived_at IS NOT NULL
		UNION ALL SELECT t.zone_id || ': ' || t.live FROM resource_totals AS t
		WHERE t.live <> (SELECT count(*) FROM resources AS r WHERE r.zone_id = t.zone_id AND r.archived_at IS NULL)`},
	{"a zone has at most one data key", `
		SELECT zone_id || ': ' || count(*) FROM data_keys GROUP BY zone_id HAVING count(*) > 1`},
	{"each revoked session has one audit entry, and each entry a session", `
		SELECT coalesce(s.id, e.entity_id) || ': ' || coalesce(e.n, 0) || ' entries'
		FROM (SELECT * FROM sessions WHERE status = 'revoked') AS s
		FULL JOIN (SELECT zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'sessions' GROUP BY 1, 2) AS e
			ON e.zone_id = s.zone_id AND e.entity_id = s.id
		WHERE s.id IS NULL OR e.n IS DISTINCT FROM 1`},
	{"each revoked session has one event, and each event a session", `
		SELECT coalesce(s.id, o.id) || ': ' || coalesce(o.n, 0) || ' events'
		FROM (SELECT * FROM sessions WHERE status = 'revoked') AS s
		FULL JOIN (SELECT zone_id, fields ->> 'session_id' AS id, count(*) AS n FROM outbox WHERE stream = 'caracal.sessions.revoke' GROUP BY 1, 2) AS o
			ON o.zone_id = s.zone_id AND o.id = s.id
		WHERE s.id IS NULL OR o.n IS DISTINCT FROM 1`},
	{"each archived zone has one event, and each event a zone", `
		SELECT coalesce(z.id, o.zone_id) || ': ' || coalesce(o.n, 0) || ' events'
		FROM (SELECT * FROM zones WHERE archived_at IS NOT NULL) AS z
		FULL JOIN (SELECT zone_id, count(*) AS n FROM outbox WHERE stream = 'caracal.policy.invalidate' AND NOT fields ? 'policy_set_id' GROUP BY 1) AS o ON o.zone_id = z.id
		WHERE z.id IS NULL OR o.n IS DISTINCT FROM 1`},
	{"no session of an archived application is active", `
		SELECT s.id FROM sessions AS s JOIN applications AS a ON a.zone_id = s.zone_id AND a.id = s.subject_id
		WHERE a.archived_at IS NOT NULL AND s.status = 'active' AND s.created_at < a.archived_at`},
	{"a request changes an entity once", `
		SELECT request_id || ' ' || entity_type || ' ' || entity_id FROM audit_entries
		WHERE status_code < 400 AND request_id LIKE 'load-%' GROUP BY request_id, entity_type, entity_id HAVING count(*) > 1`},
	{"every event is dispatched at the first attempt, and none is dead", `
		SELECT id || ': ' || attempts || ' attempts, ' || coalesce(last_error, '') FROM outbox WHERE dispatched_at IS NULL OR dead_at IS NOT NULL OR attempts > 0`},
	{"no transaction is open", `
		SELECT application_name || ': ' || state || ' ' || left(query, 80) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`},
	{"no advisory lock is held", `
		SELECT l.pid || ': ' || l.mode || ', ' || coalesce(a.query, '') FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
		WHERE locktype = 'advisory'`},
}

// waitIdle waits until every event is dispatched, and until the services use no
// connection and have no more goroutines than after their start. It also checks
// the number of their connections, and that they had no errors.
func (b *backends) waitIdle(services ...*service) {
	b.t.Helper()
	const timeout = 15 * time.Second
	eventually(b.t, timeout, "every event is dispatched", func() bool {
		left, err := tryColumn[int](b, "SELECT count(*) FROM outbox WHERE dispatched_at IS NULL AND dead_at IS NULL")
		return err == nil && left[0] == 0
	})
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for _, s := range services {
		const tolerance = 3 // a timer of the pool, a connection that is closing
		var count int
		var profile string
		eventually(b.t, timeout, s.name+" has no acquired connection", func() bool { return s.metric("caracal_api_db_pool_acquired_connections") == 0 })
		eventually(b.t, timeout, s.name+" has no more goroutines than after its start", func() bool {
			count, profile = s.goroutines()
			return count > 0 && count <= s.idleGoroutines+tolerance
		})
		if count > s.idleGoroutines+tolerance {
			b.t.Errorf("%s had %d goroutines after its start and has %d:\n%.4000s", s.name, s.idleGoroutines, count, profile)
		}
		// The connections of the pool, of LISTEN, of the leader and of shared reads.
		if n := column[int](b, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", s.name)[0]; n > poolMax+4 {
			b.t.Errorf("%s has %d connections to Postgres", s.name, n)
		}
		s.checkNoErrors()
	}
}

// checkInvariants checks the callers of the load, the invariants of the
// database, the acknowledged changes and the published events, except those
// that Redis itself has lost. It returns the number of stream entries of the
// event that was published most often.
func (b *backends) checkInvariants(l *load, lost ...string) (maxEntries int) {
	b.t.Helper()
	l.checkNoErrors()
	for _, invariant := range slices.Concat(invariants, policyInvariants, grantInvariants) {
		var violations []string
		for deadline := time.Now().Add(5 * time.Second); ; { // a lock or a transaction may be about to end
			if violations = column[string](b, invariant.violations); len(violations) == 0 || time.Now().After(deadline) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if len(violations) > 0 {
			b.t.Errorf("not true: %s; %d violations:\n%s", invariant.name, len(violations), indent(violations[:min(len(violations), 5)]))
		}
	}
	b.checkAcknowledged(l)
	return b.checkPublished(lost)
}

// checkAcknowledged checks that every acknowledged change is stored and has one
// audit entry.
func (b *backends) checkAcknowledged(l *load) {
	b.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := map[change]int{} // number of audit entries
	for _, text := range column[string](b, "SELECT concat_ws(' ', request_id, entity_type, entity_id) FROM audit_entries WHERE status_code < 400") {
		var c change
		if _, err := fmt.Sscan(text, &c.request, &c.kind, &c.id); err == nil {
			entries[c]++
		}
	}
	lost := 0
	for _, c := range l.acknowledged {
		if entries[c] != 1 {
			lost++
			b.t.Logf("%s of %s %s was acknowledged and has %d audit entries", c.request, c.kind, c.id, entries[c])
		}
	}
	if lost > 0 {
		b.t.Errorf("%d of %d acknowledged changes are lost or duplicated", lost, len(l.acknowledged))
	}
	stored := map[string]entity{}
	for _, text := range column[string](b, `SELECT concat_ws(' ', 'zones', id, archived_at IS NOT NULL, name) FROM zones
		UNION ALL SELECT concat_ws(' ', 'applications', id, archived_at IS NOT NULL, name) FROM applications
		UNION ALL SELECT concat_ws(' ', 'providers', id, archived_at IS NOT NULL, name) FROM providers
		UNION ALL SELECT concat_ws(' ', 'resources', id, archived_at IS NOT NULL, name) FROM resources
		UNION ALL SELECT concat_ws(' ', 'grants', id, status = 'revoked', user_id) FROM grants`) {
		var e entity
		if _, err := fmt.Sscan(text, &e.kind, &e.id, &e.archived, &e.name); err != nil {
			b.t.Fatal(err)
		}
		stored[e.id] = e
	}
	for id, want := range l.entities {
		if got := stored[id]; got.kind != want.kind || got.name != want.name || got.archived != want.archived {
			b.t.Errorf("%s %s was acknowledged as %+v and is %+v", want.kind, id, *want, got)
		}
	}
	b.t.Logf("%d acknowledged changes checked; seed %d", len(l.acknowledged), l.seed)
}

// An event is an event of the outbox or an entry of a stream.
type event struct {
	id, zone, stream string
	fields           map[string]string
}

// checkPublished checks that every event is in its stream with its fields and a
// valid signature, and that the first entries of the events are in the order of
// the commits.
func (b *backends) checkPublished(lost []string) (maxEntries int) {
	b.t.Helper()
	key, err := hex.DecodeString(streamKey)
	if err != nil {
		b.t.Fatal(err)
	}
	options, err := redis.ParseURL(b.servers.RedisURL())
	if err != nil {
		b.t.Fatal(err)
	}
	streams := redis.NewClient(options)
	defer streams.Close()

	committed := map[string]event{}
	var order []string // ids, within a zone in the order of the commits
	for _, e := range b.outbox() {
		committed[e.id] = e
		order = append(order, e.id)
	}
	first := map[string]string{}  // outbox id -> id of its first entry
	published := map[string]int{} // outbox id -> number of entries
	entries, duplicates := 0, 0
	for _, stream := range []string{"caracal.sessions.revoke", "caracal.agents.lifecycle", "caracal.delegations.invalidate", "caracal.policy.invalidate"} {
		all, err := streams.XRange(context.Background(), stream, "-", "+").Result()
		if err != nil {
			b.t.Fatal(err)
		}
		var firsts []event
		for _, entry := range all {
			entries++
			e := event{stream: stream, fields: map[string]string{}}
			for name, value := range entry.Values {
				e.fields[name] = value.(string)
			}
			e.id, e.zone = e.fields["outbox_id"], e.fields["zone_id"]
			if e.fields["_sig"] != outbox.Sign(key, stream, e.fields) {
				b.t.Errorf("the signature of %s is invalid: %v", e.id, e.fields)
			}
			delete(e.fields, "_sig")
			delete(e.fields, "outbox_id")
			want, known := committed[e.id]
			if !known || want.stream != stream || !maps.Equal(want.fields, e.fields) {
				b.t.Errorf("%s has %v, want %v", stream, e.fields, want)
			}
			published[e.id]++
			maxEntries = max(maxEntries, published[e.id])
			if _, duplicate := first[e.id]; duplicate {
				duplicates++
				continue
			}
			first[e.id] = entry.ID
			firsts = append(firsts, e)
		}
		for zone := range maps.Keys(zonesOf(firsts)) {
			in := func(e event) bool { return e.zone == zone && e.stream == stream }
			var got, want []string
			for _, e := range firsts {
				if in(e) {
					got = append(got, e.id)
				}
			}
			for _, id := range order {
				if in(committed[id]) && !slices.Contains(lost, id) {
					want = append(want, id)
				}
			}
			got = slices.DeleteFunc(got, func(id string) bool { return slices.Contains(lost, id) })
			if !slices.Equal(got, want) {
				at := 0
				for at < min(len(got), len(want)) && got[at] == want[at] {
					at++
				}
				b.t.Errorf("zone %s, %s: the order of the %d published events differs from that of the %d committed ones, from number %d on", zone, stream, len(got), len(want), at+1)
			}
		}
	}
	missing := 0
	for _, id := range order {
		if _, found := first[id]; !found && !slices.Contains(lost, id) {
			missing++
		}
	}
	if missing > 0 {
		b.t.Errorf("%d of %d events were not published", missing, len(order))
	}
	// Across streams, compare the milliseconds in the ids of the entries.
	latest := map[string]string{}
	for _, id := range order {
		zone := committed[id].zone
		if ms, _, found := strings.Cut(first[id], "-"); found {
			if len(ms) == len(latest[zone]) && ms < latest[zone] {
				b.t.Errorf("zone %s: %s was published before an event that was committed before it", zone, id)
			}
			latest[zone] = ms
		}
	}
	b.t.Logf("%d events, %d entries in the streams, %d of them duplicates, at most %d of one event, %d lost by Redis", len(order), entries, duplicates, maxEntries, len(lost))
	return maxEntries
}

func zonesOf(events []event) map[string]bool {
	zones := map[string]bool{}
	for _, e := range events {
		zones[e.zone] = true
	}
	return zones
}

// outbox returns every event, ordered by seq.
func (b *backends) outbox() (all []event) {
	b.t.Helper()
	rows, err := b.owner.Query(context.Background(), "SELECT id, zone_id, stream, fields FROM outbox ORDER BY seq")
	if err != nil {
		b.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var e event
		if err := rows.Scan(&e.id, &e.zone, &e.stream, &e.fields); err != nil {
			b.t.Fatal(err)
		}
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return all
}
