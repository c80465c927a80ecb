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

// promises that the database must keep whatever happened. Each query answers
// what breaks one.
var promises = []struct{ promise, broken string }{
	{"each change of an application has one entry in the trail, and each entry its change", `
		SELECT coalesce(a.id, e.entity_id) || ': ' || coalesce(a.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM applications AS a
		FULL JOIN (SELECT zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'applications' AND status_code < 400 GROUP BY 1, 2) AS e
			ON e.zone_id = a.zone_id AND e.entity_id = a.id
		WHERE a.version IS DISTINCT FROM e.n`},
	{"each change of a zone has one entry in the trail, and each entry its change", `
		SELECT coalesce(z.id, e.entity_id) || ': ' || coalesce(z.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM zones AS z
		FULL JOIN (SELECT entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'zones' AND status_code < 400 GROUP BY 1) AS e ON e.entity_id = z.id
		WHERE z.version IS DISTINCT FROM e.n`},
	{"each change of a provider or a resource has one entry in the trail, and each entry its change", `
		SELECT coalesce(x.id, e.entity_id) || ': ' || coalesce(x.version, 0) || ' changes, ' || coalesce(e.n, 0) || ' entries'
		FROM (SELECT 'providers' AS kind, zone_id, id, version FROM providers UNION ALL SELECT 'resources', zone_id, id, version FROM resources) AS x
		FULL JOIN (SELECT entity_type, zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type IN ('providers', 'resources') AND status_code < 400 GROUP BY 1, 2, 3) AS e
			ON e.entity_type = x.kind AND e.zone_id = x.zone_id AND e.entity_id = x.id
		WHERE x.version IS DISTINCT FROM e.n`},
	{"no live resource names an application that is archived, and a zone has counted its live resources", `
		SELECT r.id FROM resources AS r JOIN applications AS a ON a.zone_id = r.zone_id AND a.id = r.gateway_application_id
		WHERE r.archived_at IS NULL AND a.archived_at IS NOT NULL
		UNION ALL SELECT t.zone_id || ': ' || t.live FROM resource_totals AS t
		WHERE t.live <> (SELECT count(*) FROM resources AS r WHERE r.zone_id = t.zone_id AND r.archived_at IS NULL)`},
	{"a zone has one data key, made once", `
		SELECT zone_id || ': ' || count(*) FROM data_keys GROUP BY zone_id HAVING count(*) > 1`},
	{"each ended session has one entry in the trail, and each entry its session", `
		SELECT coalesce(s.id, e.entity_id) || ': ' || coalesce(e.n, 0) || ' entries'
		FROM (SELECT * FROM sessions WHERE status = 'revoked') AS s
		FULL JOIN (SELECT zone_id, entity_id, count(*) AS n FROM audit_entries WHERE entity_type = 'sessions' GROUP BY 1, 2) AS e
			ON e.zone_id = s.zone_id AND e.entity_id = s.id
		WHERE s.id IS NULL OR e.n IS DISTINCT FROM 1`},
	{"each ended session has one event, and each event its session", `
		SELECT coalesce(s.id, o.id) || ': ' || coalesce(o.n, 0) || ' events'
		FROM (SELECT * FROM sessions WHERE status = 'revoked') AS s
		FULL JOIN (SELECT zone_id, fields ->> 'session_id' AS id, count(*) AS n FROM outbox WHERE stream = 'caracal.sessions.revoke' GROUP BY 1, 2) AS o
			ON o.zone_id = s.zone_id AND o.id = s.id
		WHERE s.id IS NULL OR o.n IS DISTINCT FROM 1`},
	{"each archived zone has one event, and each event its zone", `
		SELECT coalesce(z.id, o.zone_id) || ': ' || coalesce(o.n, 0) || ' events'
		FROM (SELECT * FROM zones WHERE archived_at IS NOT NULL) AS z
		FULL JOIN (SELECT zone_id, count(*) AS n FROM outbox WHERE stream = 'caracal.policy.invalidate' GROUP BY 1) AS o ON o.zone_id = z.id
		WHERE z.id IS NULL OR o.n IS DISTINCT FROM 1`},
	{"no session outlives its application", `
		SELECT s.id FROM sessions AS s JOIN applications AS a ON a.zone_id = s.zone_id AND a.id = s.subject_id
		WHERE a.archived_at IS NOT NULL AND s.status = 'active' AND s.created_at < a.archived_at`},
	{"a request changes a thing once", `
		SELECT request_id || ' ' || entity_type || ' ' || entity_id FROM audit_entries
		WHERE status_code < 400 AND request_id LIKE 'load-%' GROUP BY request_id, entity_type, entity_id HAVING count(*) > 1`},
	{"every event has left, at the first try, and none is dead", `
		SELECT id || ': ' || attempts || ' refusals, ' || coalesce(last_error, '') FROM outbox WHERE dispatched_at IS NULL OR dead_at IS NOT NULL OR attempts > 0`},
	{"no transaction is left open", `
		SELECT application_name || ': ' || state || ' ' || left(query, 80) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'`},
	{"no guard is left over", `
		SELECT l.pid || ': ' || l.mode || ', ' || coalesce(a.query, '') FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
		WHERE locktype = 'advisory' AND (classid::bigint << 32 | objid::bigint) <> hashtextextended('lead:outbox', 0)`},
	{"one leads, at the most", `
		SELECT count(*) || ' lead' FROM pg_locks WHERE locktype = 'advisory' AND granted
		AND (classid::bigint << 32 | objid::bigint) = hashtextextended('lead:outbox', 0) HAVING count(*) > 1`},
}

// settles waits until every event has left and the services hold no more than
// when they were new.
func (w *world) settles(services ...*service) {
	w.t.Helper()
	const waitUntil = 15 * time.Second
	eventually(w.t, waitUntil, "every event leaves", func() bool {
		left, err := tryColumn[int](w, "SELECT count(*) FROM outbox WHERE dispatched_at IS NULL AND dead_at IS NULL")
		return err == nil && left[0] == 0
	})
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for _, s := range services {
		const tolerance = 3 // a timer of the pool, a connection that is just being closed
		var count int
		var all string
		eventually(w.t, waitUntil, s.name+" holds no connection of its pool", func() bool { return s.metric("caracal_api_db_pool_acquired_connections") == 0 })
		eventually(w.t, waitUntil, s.name+" has no more goroutines than when it was new", func() bool {
			count, all = s.goroutines()
			return count > 0 && count <= s.base+tolerance
		})
		if count > s.base+tolerance {
			w.t.Errorf("%s had %d goroutines and has %d:\n%.4000s", s.name, s.base, count, all)
		}
		// The pool's, the one that listens, and the one that leads or would.
		if n := column[int](w, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", s.name)[0]; n > poolMax+2 {
			w.t.Errorf("%s has %d connections to Postgres", s.name, n)
		}
		s.blameless()
	}
}

// keeps fails unless every promise is kept, and says how often the event was
// heard that was heard most. What Redis itself has lost is none of ours.
func (w *world) keeps(l *load, lost ...string) (most int) {
	w.t.Helper()
	l.blameless()
	for _, p := range promises {
		var broken []string
		for deadline := time.Now().Add(5 * time.Second); ; { // a lock or a transaction may just be ending
			if broken = column[string](w, p.broken); len(broken) == 0 || time.Now().After(deadline) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if len(broken) > 0 {
			w.t.Errorf("%s; but %d times not so:\n%s", p.promise, len(broken), text(broken[:min(len(broken), 5)]))
		}
	}
	w.holds(l)
	return w.heard(lost)
}

// holds fails unless whatever was acknowledged is there.
func (w *world) holds(l *load) {
	w.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	recorded := map[spec]int{}
	for _, text := range column[string](w, "SELECT concat_ws(' ', request_id, entity_type, entity_id) FROM audit_entries WHERE status_code < 400") {
		var p spec
		if _, err := fmt.Sscan(text, &p.request, &p.kind, &p.id); err == nil {
			recorded[p]++
		}
	}
	lost := 0
	for _, p := range l.promised {
		if recorded[p] != 1 {
			lost++
			w.t.Logf("%s of %s %s was acknowledged and has %d entries", p.request, p.kind, p.id, recorded[p])
		}
	}
	if lost > 0 {
		w.t.Errorf("%d of %d acknowledged changes are lost or doubled", lost, len(l.promised))
	}
	there := map[string]thing{}
	for _, text := range column[string](w, `SELECT concat_ws(' ', 'zones', id, archived_at IS NOT NULL, name) FROM zones
		UNION ALL SELECT concat_ws(' ', 'applications', id, archived_at IS NOT NULL, name) FROM applications
		UNION ALL SELECT concat_ws(' ', 'providers', id, archived_at IS NOT NULL, name) FROM providers
		UNION ALL SELECT concat_ws(' ', 'resources', id, archived_at IS NOT NULL, name) FROM resources`) {
		var is thing
		if _, err := fmt.Sscan(text, &is.kind, &is.id, &is.gone, &is.name); err != nil {
			w.t.Fatal(err)
		}
		there[is.id] = is
	}
	for id, want := range l.things {
		if is := there[id]; is.kind != want.kind || is.name != want.name || is.gone != want.gone {
			w.t.Errorf("%s %s was acknowledged as %+v and is %+v", want.kind, id, *want, is)
		}
	}
	w.t.Logf("%d changes were acknowledged, and all are there; seed %d", len(l.promised), l.seed)
}

// An event is one in the outbox, or in a stream.
type event struct {
	id, zone, stream string
	fields           map[string]string
}

// heard fails unless every event is in its stream, as it was meant and signed,
// and for the first time in the order of the commits.
func (w *world) heard(lost []string) (most int) {
	w.t.Helper()
	key, err := hex.DecodeString(streamKey)
	if err != nil {
		w.t.Fatal(err)
	}
	options, err := redis.ParseURL(w.servers.RedisURL())
	if err != nil {
		w.t.Fatal(err)
	}
	streams := redis.NewClient(options)
	defer streams.Close()

	meant := map[string]event{}
	var order []string // of the commits, within a zone
	for _, e := range w.outbox() {
		meant[e.id] = e
		order = append(order, e.id)
	}
	first := map[string]string{} // outbox id -> id of its first entry
	times := map[string]int{}
	entries, doubled := 0, 0
	for _, stream := range []string{"caracal.sessions.revoke", "caracal.agents.lifecycle", "caracal.delegations.invalidate", "caracal.policy.invalidate"} {
		all, err := streams.XRange(context.Background(), stream, "-", "+").Result()
		if err != nil {
			w.t.Fatal(err)
		}
		var arrived []event
		for _, entry := range all {
			entries++
			e := event{stream: stream, fields: map[string]string{}}
			for name, value := range entry.Values {
				e.fields[name] = value.(string)
			}
			e.id, e.zone = e.fields["outbox_id"], e.fields["zone_id"]
			if e.fields["_sig"] != outbox.Sign(key, stream, e.fields) {
				w.t.Errorf("the signature of %s is not right: %v", e.id, e.fields)
			}
			delete(e.fields, "_sig")
			delete(e.fields, "outbox_id")
			want, known := meant[e.id]
			if !known || want.stream != stream || !maps.Equal(want.fields, e.fields) {
				w.t.Errorf("nobody meant to say %s %v, but %v", stream, e.fields, want)
			}
			times[e.id]++
			most = max(most, times[e.id])
			if _, again := first[e.id]; again {
				doubled++
				continue
			}
			first[e.id] = entry.ID
			arrived = append(arrived, e)
		}
		for zone := range maps.Keys(zonesOf(arrived)) {
			in := func(e event) bool { return e.zone == zone && e.stream == stream }
			var got, want []string
			for _, e := range arrived {
				if in(e) {
					got = append(got, e.id)
				}
			}
			for _, id := range order {
				if in(meant[id]) && !slices.Contains(lost, id) {
					want = append(want, id)
				}
			}
			got = slices.DeleteFunc(got, func(id string) bool { return slices.Contains(lost, id) })
			if !slices.Equal(got, want) {
				at := 0
				for at < min(len(got), len(want)) && got[at] == want[at] {
					at++
				}
				w.t.Errorf("zone %s, %s: heard %d in another order than %d were committed, from the %dth on", zone, stream, len(got), len(want), at+1)
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
		w.t.Errorf("%d of %d events were never heard", missing, len(order))
	}
	// Across streams the order shows in the milliseconds of the entries' ids.
	latest := map[string]string{}
	for _, id := range order {
		zone := meant[id].zone
		if ms, _, found := strings.Cut(first[id], "-"); found {
			if len(ms) == len(latest[zone]) && ms < latest[zone] {
				w.t.Errorf("zone %s: %s was heard before what was committed before it", zone, id)
			}
			latest[zone] = ms
		}
	}
	w.t.Logf("%d events, %d entries in the streams, %d of them doubled, one of them heard %d times, %d lost by Redis", len(order), entries, doubled, most, len(lost))
	return most
}

func zonesOf(events []event) map[string]bool {
	zones := map[string]bool{}
	for _, e := range events {
		zones[e.zone] = true
	}
	return zones
}

// outbox is every event, in the order of seq.
func (w *world) outbox() (all []event) {
	w.t.Helper()
	rows, err := w.owner.Query(context.Background(), "SELECT id, zone_id, stream, fields FROM outbox ORDER BY seq")
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var e event
		if err := rows.Scan(&e.id, &e.zone, &e.stream, &e.fields); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		w.t.Fatal(err)
	}
	return all
}
