package server_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// A sessionScene has sessions of two subjects, with each status, and agent sessions of
// two applications and parents, with each status, lifecycle and label. Some have the
// same time. The last one is the newest.
type sessionScene struct {
	*servertest.API
	zone             string
	sessions, agents []map[string]string // what each is found by, and its id
}

func newSessionScene(t *testing.T) sessionScene {
	t.Helper()
	a := servertest.New(t)
	s := sessionScene{API: a, zone: a.Zone().ID}
	applications := []string{a.DB.Application(s.zone), a.DB.Application(s.zone)}
	session := a.DB.Session(a.Zone().ID) // in another zone
	for _, subject := range []string{"user,1", "user 2&"} {
		for _, status := range []string{"active", "lapsed", "expired", "revoked"} {
			for range 3 {
				session = a.DB.Session(s.zone)
				a.DB.Exec(`UPDATE sessions SET subject_id = $2, status = CASE WHEN $3 = 'lapsed' THEN 'active' ELSE $3 END, created_at = '2026-01-01Z'::timestamptz + $4 * interval '1 microsecond',
					expires_at = now() + CASE WHEN $3 IN ('active', 'revoked') THEN interval '1 hour' ELSE interval '-1 hour' END WHERE id = $1`, session, subject, status, len(s.sessions)/2)
				if status == "lapsed" {
					status = "expired"
				}
				s.sessions = append(s.sessions, map[string]string{"id": session, "subject_id": subject, "status": status})
			}
		}
	}
	parents := []string{a.DB.AgentSession(s.zone, applications[0], session), a.DB.AgentSession(s.zone, applications[0], session)}
	for _, parent := range parents {
		s.agents = append(s.agents, map[string]string{"id": parent, "application_id": applications[0], "status": "active", "lifecycle": "task", "label": "planner"})
	}
	for _, parent := range parents {
		for _, status := range []string{"active", "suspended", "terminated", "expired"} {
			for _, lifecycle := range []string{"task", "service"} {
				for _, label := range []string{"a,b", `{"`} {
					n := len(s.agents)
					agent := a.DB.ChildAgentSession(s.zone, applications[n%2], session, parent)
					a.DB.Exec(`UPDATE agent_sessions SET status = $2, lifecycle = $3, labels = ARRAY[$4, 'b'], spawned_at = now() + $5 * interval '1 microsecond' WHERE id = $1`, agent, status, lifecycle, label, n/2)
					s.agents = append(s.agents, map[string]string{"id": agent, "application_id": applications[n%2], "parent_id": parent, "status": status, "lifecycle": lifecycle, "label": label})
				}
			}
		}
	}
	return s
}

// matching returns the ids of the rows that match a query, newest first.
func matching(rows []map[string]string, query url.Values) (ids []string) {
	for _, row := range slices.Backward(rows) {
		found := true
		for name := range query {
			found = found && row[name] == query.Get(name)
		}
		if found {
			ids = append(ids, row["id"])
		}
	}
	return ids
}

// combinations returns queries with each combination of the values that rows have.
func combinations(rows []map[string]string, names ...string) []url.Values {
	queries := []url.Values{{}}
	for _, name := range names {
		values := []string{"unknown"}
		if name == "status" || name == "lifecycle" {
			values = nil
		}
		for _, row := range rows {
			if value := row[name]; value != "" && !slices.Contains(values, value) {
				values = append(values, value)
			}
		}
		for _, query := range slices.Clone(queries) {
			for _, value := range values {
				more := url.Values{name: {value}}
				for k, v := range query {
					more[k] = v
				}
				queries = append(queries, more)
			}
		}
	}
	return queries
}

type rowsPage struct {
	Rows []struct{ ID string }
	Next *string `json:"next_cursor"`
}

// Every combination of filters returns exactly the rows that match all of them, in the
// order of the list: in one page, page by page, and in an export.
func TestListSessionsByEveryCombinationOfFilters(t *testing.T) {
	t.Parallel()
	s := newSessionScene(t)
	for _, list := range []struct {
		path    string
		rows    []map[string]string
		filters []string
	}{
		{"sessions", s.sessions, []string{"status", "subject_id"}},
		{"agent-sessions", s.agents, []string{"status", "lifecycle", "application_id", "parent_id", "label"}},
	} {
		found := 0
		for _, query := range combinations(list.rows, list.filters...) {
			want := matching(list.rows, query)
			path := "/v1/zones/" + s.zone + "/" + list.path + "?" + query.Encode()
			ids := func(more string) (got []string, following *string) {
				raw := s.Do("GET", path+more, "", bearer(servertest.Bootstrap)...)
				servertest.Expect(t, raw, http.StatusOK, "")
				page := decode[rowsPage](t, raw)
				for _, row := range page.Rows {
					got = append(got, row.ID)
				}
				if linked := next(raw); (linked != "") != (page.Next != nil) || page.Next != nil && !strings.Contains(linked, "cursor="+*page.Next) {
					t.Errorf("%s%s: next_cursor is %v and the Link %q", path, more, page.Next, linked)
				}
				return got, page.Next
			}
			got, next := ids("")
			if !slices.Equal(got, want) || next != nil {
				t.Errorf("%s: got %v and the next page %v, want %v", query, got, next, want)
			}
			found += len(got)
			if len(query) <= 2 {
				got, next = ids("&limit=2")
				for next != nil {
					var more []string
					more, next = ids("&limit=2&cursor=" + *next)
					got = append(got, more...)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s, page by page: got %v, want %v", query, got, want)
				}
			}
			exported := s.Do("GET", path+"&format=csv&limit=1", "", bearer(servertest.Bootstrap)...)
			got = nil
			for line := range strings.Lines(string(exported.Body)) {
				id, _, _ := strings.Cut(line, ",")
				got = append(got, id)
			}
			if !slices.Equal(got[1:], want) {
				t.Errorf("%s, exported: got %v, want %v", query, got[1:], want)
			}
		}
		if found == 0 {
			t.Errorf("no query of %s found anything", list.path)
		}
	}
}

func TestListSessionsAccess(t *testing.T) {
	t.Parallel()
	s := newSessionScene(t)
	other := s.Zone().ID
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		rows int
		want code.Code // "" is 200
	}{
		{"global token", s.ClientFor("", "read"), s.zone, len(s.sessions), ""},
		{"zone token", s.ClientFor(s.zone, "read"), s.zone, len(s.sessions), ""},
		{"token of another zone", s.ClientFor(other, "write"), s.zone, 0, code.AdminTokenZoneMismatch},
		{"no token", s.Anonymous(), s.zone, 0, code.InvalidAdminToken},
		{"unknown zone", s.Admin, "unknown", 0, ""},
		{"invalid zone", s.Admin, "a b", 0, code.InvalidParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sessions, err := tt.as.ListSessionsWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, sessions, http.StatusOK, tt.want)
			agents, err := tt.as.ListAgentSessionsWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, agents, http.StatusOK, tt.want)
			if tt.want == "" && (len(sessions.JSON200.Rows) != tt.rows || (len(agents.JSON200.Rows) > 0) != (tt.rows > 0)) {
				t.Errorf("got %d sessions and %d agent sessions, want %d sessions", len(sessions.JSON200.Rows), len(agents.JSON200.Rows), tt.rows)
			}
		})
	}
}

func TestListSessionsRejectsInvalidQueries(t *testing.T) {
	t.Parallel()
	s := newSessionScene(t)
	zone := "/v1/zones/" + s.zone
	for _, query := range []string{
		"sessions?status=lapsed", "sessions?status=Active", "sessions?status=", "sessions?subject_id=", "sessions?subject_id=a&subject_id=b", "sessions?format=xml", "sessions?format=CSV", "sessions?format=csv&limit=0",
		"sessions?limit=1001", "sessions?subject_id=%00", "sessions?subject_id=%FF", "agent-sessions?status=revoked", "agent-sessions?lifecycle=", "agent-sessions?lifecycle=job", "agent-sessions?application_id=",
		"agent-sessions?parent_id=", "agent-sessions?label=", "agent-sessions?label=" + strings.Repeat("x", 65), "agent-sessions?label=a&label=b", "agent-sessions?format=csv&format=csv",
	} {
		servertest.Expect(t, s.Do("GET", zone+"/"+query, "", bearer(servertest.Bootstrap)...), 0, code.InvalidQuery)
	}
	raw := s.Do("GET", zone+"/sessions?status=active&limit=1", "", bearer(servertest.Bootstrap)...)
	cursor := *decode[rowsPage](t, raw).Next
	for query, want := range map[string]code.Code{
		"sessions?status=active": "", "sessions?status=active&format=json": "", "sessions?status=active&format=csv": "", "sessions?": code.InvalidCursor, "sessions?status=expired": code.InvalidCursor,
		"sessions?status=active&subject_id=x": code.InvalidCursor, "agent-sessions?status=active": code.InvalidCursor, "sessions?format=csv": code.InvalidCursor,
	} {
		servertest.Expect(t, s.Do("GET", zone+"/"+query+"&cursor="+cursor, "", bearer(servertest.Bootstrap)...), http.StatusOK, want)
	}
}

// A page has 100 rows by default, and all members of the contract in its order.
func TestListSessionsRows(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	application := a.DB.Application(zone)
	a.DB.Exec(`INSERT INTO sessions (zone_id, id, session_type, status, expires_at) SELECT $1, 's-' || n, 'user', 'active', now() + interval '1 hour' FROM generate_series(1, 101) AS n`, zone)
	a.DB.Exec(`INSERT INTO sessions (zone_id, id, session_type, subject_id, parent_id, application_id, status, expires_at, authenticated_at, created_at, revoked_at, revoked_reason) VALUES
		($1, 'whole', 'application', $2, 's-1', $2, 'revoked', '2027-01-01T00:00:00Z', '2026-01-01T00:00:00.0019Z', '2026-01-02T00:00:00.5Z', '2026-01-03T00:00:00Z', 'grant_revoked')`, zone, application)
	resp, err := a.Admin.ListSessionsWithResponse(t.Context(), zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if len(resp.JSON200.Rows) != 100 || resp.JSON200.NextCursor == nil || resp.JSON200.Rows[0].Status != client.SessionStatusActive {
		t.Errorf("the first page has %d rows and the cursor %v", len(resp.JSON200.Rows), resp.JSON200.NextCursor)
	}
	raw := a.Do("GET", "/v1/zones/"+zone+"/sessions?status=revoked", "", bearer(servertest.Bootstrap)...)
	want := `{"rows":[{"id":"whole","zone_id":"` + zone + `","session_type":"application","subject_id":"` + application + `","parent_id":"s-1","status":"revoked","expires_at":"2027-01-01T00:00:00.000Z",` +
		`"authenticated_at":"2026-01-01T00:00:00.001Z","created_at":"2026-01-02T00:00:00.500Z","revoked_at":"2026-01-03T00:00:00.000Z","revoked_reason":"grant_revoked","application_id":"` + application + `"}],"next_cursor":null}` + "\n"
	if string(raw.Body) != want {
		t.Errorf("got %s, want %s", raw.Body, want)
	}
	a.DB.Exec(`INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, status, lifecycle, labels, depth, child_count, spawned_at, last_active_at, terminated_at, termination_reason, ttl_seconds) VALUES
		($1, 'agent', $2, 'whole', 'terminated', 'service', '{x,"y z"}', 3, 4, '2026-01-02T00:00:00.5Z', '2026-01-02T00:00:01Z', '2026-01-02T00:00:02Z', 'ttl', NULL)`, zone, application)
	raw = a.Do("GET", "/v1/zones/"+zone+"/agent-sessions", "", bearer(servertest.Bootstrap)...)
	want = `{"rows":[{"id":"agent","application_id":"` + application + `","parent_id":null,"status":"terminated","lifecycle":"service","labels":["x","y z"],"depth":3,"child_count":4,` +
		`"spawned_at":"2026-01-02T00:00:00.500Z","last_active_at":"2026-01-02T00:00:01.000Z","terminated_at":"2026-01-02T00:00:02.000Z","termination_reason":"ttl","ttl_seconds":null}],"next_cursor":null}` + "\n"
	if string(raw.Body) != want {
		t.Errorf("got %s, want %s", raw.Body, want)
	}
}
