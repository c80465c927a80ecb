package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// A scene is a zone with an application that is to end, one that stays, and
// whatever may hang on either. Its rows are called by names.
type scene struct {
	*servertest.API
	zone, doomed string
	names        map[string]string // id -> name
}

func newScene(t *testing.T, a *servertest.API) scene {
	t.Helper()
	s := scene{API: a, zone: openZone(a), names: map[string]string{}}
	z, db := s.zone, a.DB
	name := func(name, id string) string { s.names[id] = name; return id }
	name("Z", z)
	name("token", a.Token(z, "write").ID)
	s.doomed = name("doomed", register(t, a.Admin, z).JSON201.ID)
	stays := name("stays", newApplication(t, a, z).ID)

	app := name("app", db.ApplicationSession(z, s.doomed))
	name("grandchild", db.ChildSession(z, name("child", db.ChildSession(z, app))))
	db.Exec("UPDATE sessions SET status = 'revoked', revoked_reason = 'logout', revoked_at = now() WHERE id = $1", name("over", db.ApplicationSession(z, s.doomed)))
	user := name("user", db.Session(z))
	db.Exec("UPDATE sessions SET subject_id = $2 WHERE id = $1", name("namesake", db.Session(z)), s.doomed) // a user who is called like it
	other := name("other", db.ApplicationSession(z, stays))

	root := name("root", db.AgentSession(z, s.doomed, app))
	name("guest", db.ChildAgentSession(z, stays, user, root))
	onUser := name("onUser", db.AgentSession(z, s.doomed, user))
	db.Exec("UPDATE agent_sessions SET status = 'suspended' WHERE id = $1", name("suspended", db.AgentSession(z, s.doomed, user)))
	db.Exec("UPDATE agent_sessions SET status = 'terminated', termination_reason = 'ttl', terminated_at = now() WHERE id = $1", name("done", db.AgentSession(z, s.doomed, app)))
	host := name("host", db.AgentSession(z, stays, other))
	name("hosted", db.ChildAgentSession(z, s.doomed, other, host))
	sibling := name("sibling", db.ChildAgentSession(z, stays, other, host))

	name("from", db.DelegationEdge(z, root, host))
	name("to", db.DelegationEdge(z, host, onUser))
	name("among", db.DelegationEdge(z, host, sibling))
	db.Exec("UPDATE delegation_edges SET status = 'revoked', revoked_at = now() WHERE id = $1", name("revoked edge", db.DelegationEdge(z, root, host)))
	db.Exec("INSERT INTO delegation_graph_epochs (zone_id, epoch) VALUES ($1, 41)", z)
	return s
}

// double is another zone whose rows have the very same ids, but more descends
// there from what is to end.
func (s scene) double() (zone string) {
	zone = openZone(s.API)
	s.Token(zone, "write")
	for _, table := range []string{"applications", "sessions", "agent_sessions", "delegation_edges", "delegation_graph_epochs"} {
		columns := storetest.Value[string](s.DB, "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''", table)
		s.DB.Exec("INSERT INTO "+table+" ("+columns+") SELECT "+columns+" FROM (SELECT (jsonb_populate_record(t, jsonb_build_object('zone_id', $2::text))).* FROM "+table+" AS t WHERE zone_id = $1) AS copy", s.zone, zone)
	}
	ids := map[string]string{}
	for id, name := range s.names {
		ids[name] = id
	}
	s.DB.Exec("UPDATE sessions SET parent_id = $2 WHERE zone_id = $1 AND id = $3", zone, ids["app"], ids["other"])
	s.DB.Exec("UPDATE agent_sessions SET parent_id = $2 WHERE zone_id = $1 AND id = $3", zone, ids["root"], ids["sibling"])
	return zone
}

// state is all rows of the zone that a request may change, by table and name.
func (s scene) state(t *testing.T) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for table, column := range map[string]string{
		"zones": "id", "admin_tokens": "zone_id", "applications": "zone_id", "sessions": "zone_id",
		"agent_sessions": "zone_id", "delegation_edges": "zone_id", "delegation_graph_epochs": "zone_id", "grants": "zone_id",
	} {
		for _, text := range storetest.Column[string](s.DB, "SELECT to_jsonb(t)::text FROM "+table+" AS t WHERE "+column+" = $1", s.zone) {
			var row map[string]any
			if err := json.Unmarshal([]byte(text), &row); err != nil {
				t.Fatal(err)
			}
			id, _ := row["id"].(string) // an epoch has none
			all[strings.TrimSpace(table+" "+s.names[id])] = row
		}
	}
	return all
}

// changes is what differs, a line for each row. Of a time it says that it is another.
func changes(before, after map[string]map[string]any) (lines []string) {
	for row, columns := range after {
		line := row + ":"
		for _, column := range slices.Sorted(maps.Keys(columns)) {
			was, is := before[row][column], columns[column]
			switch {
			case reflect.DeepEqual(was, is):
			case strings.HasSuffix(column, "_at") && is != nil:
				line += " " + column
			default:
				line += fmt.Sprintf(" %s=%v", column, is)
			}
		}
		if line != row+":" {
			lines = append(lines, line)
		}
	}
	return lines
}

// events are the zone's in the outbox, in order: stream and fields.
func (s scene) events(t *testing.T) (lines []string) {
	t.Helper()
	for _, text := range storetest.Column[string](s.DB, "SELECT jsonb_build_object('stream', stream, 'fields', fields)::text FROM outbox WHERE zone_id = $1 ORDER BY seq", s.zone) {
		var event struct {
			Stream string
			Fields map[string]string
		}
		if err := json.Unmarshal([]byte(text), &event); err != nil {
			t.Fatal(err)
		}
		line := event.Stream
		for _, field := range slices.Sorted(maps.Keys(event.Fields)) {
			value := event.Fields[field]
			if name, named := s.names[value]; named {
				value = name
			}
			line += " " + field + "=" + value
		}
		lines = append(lines, line)
	}
	return lines
}

// auditLines returns a line for each audit entry of a request, with the status before
// and after it.
func (s scene) auditLines(request string) (lines []string) {
	for _, line := range storetest.Column[string](s.DB, `SELECT concat_ws(' ', entity_id, entity_type, payload::jsonb #>> '{changes,status,from}', payload::jsonb #>> '{changes,status,to}',
		CASE WHEN action LIKE 'DCR %' THEN action || ' ' || payload END) FROM audit_entries WHERE zone_id = $1 AND request_id = $2`, s.zone, request) {
		id, rest, _ := strings.Cut(line, " ")
		lines = append(lines, s.names[id]+" "+rest)
	}
	return lines
}
