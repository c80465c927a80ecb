package server_test

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// startExport requests an export, and returns the response before its body is read.
func startExport(t *testing.T, a *servertest.API, path string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", a.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	r.Header.Set("Authorization", "Bearer "+servertest.Bootstrap)
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("got %d", resp.StatusCode)
	}
	return resp
}

// manySessions inserts sessions whose export is larger than the buffers of a
// connection: a client that does not read stops it.
func manySessions(a *servertest.API, zone string) (rows int) {
	const count, size = 8000, 5000
	a.DB.Exec(`INSERT INTO sessions (zone_id, id, session_type, subject_id, expires_at, created_at, revoked_reason)
		SELECT $1, 's-' || n, 'user', 'user-1', now() + interval '1 hour', now() - n / 7 * interval '1 second', repeat('x', $3) FROM generate_series(1, $2) AS n`, zone, count, size)
	return count
}

func TestExportCSV(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	application := a.DB.Application(zone)
	session := a.DB.Session(zone)
	a.DB.Exec(`UPDATE sessions SET subject_id = '=cmd|''/c calc''!A1', revoked_reason = E'a "quoted", \r\nline', created_at = '2026-01-02T00:00:00.1239Z', authenticated_at = '2026-01-01Z', expires_at = '2026-01-03Z', revoked_at = '2026-01-02Z', status = 'revoked'`)
	a.DB.Exec(`INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, labels, spawned_at, last_active_at, termination_reason, ttl_seconds) VALUES
		($1, 'agent', $2, $3, '{"@a","b,c"}', '2026-01-02T00:00:00.5Z', '2026-01-02Z', '-1', NULL)`, zone, application, session)
	for _, tt := range []struct{ path, file, body string }{
		{"/sessions?format=csv", "sessions-" + zone + ".csv", "id,session_type,subject_id,parent_id,status,authenticated_at,created_at,expires_at,revoked_at,revoked_reason\r\n" +
			session + ",user,'=cmd|'/c calc'!A1,,revoked,2026-01-01T00:00:00.000Z,2026-01-02T00:00:00.123Z,2026-01-03T00:00:00.000Z,2026-01-02T00:00:00.000Z,\"a \"\"quoted\"\", \r\nline\"\r\n"},
		{"/agent-sessions?format=csv", "agent-sessions-" + zone + ".csv", "id,application_id,parent_id,status,lifecycle,labels,depth,child_count,spawned_at,last_active_at,terminated_at,termination_reason,ttl_seconds\r\n" +
			"agent," + application + ",,active,task,\"'@a b,c\",0,0,2026-01-02T00:00:00.500Z,2026-01-02T00:00:00.000Z,,'-1,\r\n"},
		{"/sessions?format=csv&status=active", "sessions-" + zone + ".csv", "id,session_type,subject_id,parent_id,status,authenticated_at,created_at,expires_at,revoked_at,revoked_reason\r\n"},
		{"/sessions?format=ndjson&status=active", "sessions-" + zone + ".ndjson", ""},
	} {
		raw := a.Do("GET", "/v1/zones/"+zone+tt.path, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		if string(raw.Body) != tt.body || raw.Header.Get("Content-Disposition") != `attachment; filename="`+tt.file+`"` {
			t.Errorf("%s: got %v and\n%q, want\n%q", tt.path, raw.Header, raw.Body, tt.body)
		}
		head := a.Do("HEAD", "/v1/zones/"+zone+tt.path, "", bearer(servertest.Bootstrap)...)
		if head.Response.StatusCode != 200 || head.Header.Get("Content-Type") != raw.Header.Get("Content-Type") || len(head.Body) > 0 {
			t.Errorf("%s: HEAD got %d %v", tt.path, head.Response.StatusCode, head.Header)
		}
	}
}

// An export has all rows, also many that share a timestamp, each once, in the order of
// the list. With gzip, the trailer is about the uncompressed body.
func TestExportHasAllRows(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const count = 5003
	a.DB.Exec(`INSERT INTO sessions (zone_id, id, session_type, expires_at, created_at) SELECT $1, 's-' || n, 'user', now() + interval '1 hour', now() - n / 900 * interval '1 second' FROM generate_series(1, $2) AS n`, zone, count)
	want := strings.Join(storetest.Column[string](a.DB, "SELECT id FROM sessions WHERE zone_id = $1 ORDER BY created_at DESC, id DESC", zone), " ")
	for _, coding := range []string{"identity", "gzip"} {
		for _, format := range []string{"csv", "ndjson"} {
			resp := startExport(t, a, "/v1/zones/"+zone+"/sessions?limit=7&format="+format, "Accept-Encoding", coding)
			var body io.Reader = resp.Body
			if coding == "gzip" {
				if resp.Header.Get("Content-Encoding") != "gzip" {
					t.Fatalf("got %v", resp.Header)
				}
				var err error
				if body, err = gzip.NewReader(resp.Body); err != nil {
					t.Fatal(err)
				}
			}
			text, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for line := range strings.Lines(string(text)) {
				id, _, _ := strings.Cut(strings.TrimPrefix(line, `{"id":"`), map[string]string{"csv": ",", "ndjson": `"`}[format])
				ids = append(ids, id)
			}
			if format == "csv" {
				ids = ids[1:]
			}
			if strings.Join(ids, " ") != want {
				t.Errorf("%s, %s: got %d rows, which are not those in the database", coding, format, len(ids))
			}
			sum := sha256.Sum256(text)
			if _, err := io.Copy(io.Discard, resp.Body); err != nil { // up to the trailer
				t.Error(err)
			}
			if resp.Trailer.Get("X-Export-Rows") != strconv.Itoa(count) || resp.Trailer.Get("X-Export-SHA256") != hex.EncodeToString(sum[:]) {
				t.Errorf("%s, %s: the trailer is %v", coding, format, resp.Trailer)
			}
		}
	}
}

// An export sees the database at one moment, whatever happens while it runs.
func TestExportReadsOneSnapshot(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	rows := manySessions(a, zone)
	resp := startExport(t, a, "/v1/zones/"+zone+"/sessions?format=csv&status=active")
	a.DB.Exec("UPDATE sessions SET status = 'revoked' WHERE zone_id = $1", zone)
	a.DB.Exec("INSERT INTO sessions (zone_id, id, session_type, expires_at, created_at) VALUES ($1, 'late', 'user', now() + interval '1 hour', now() - interval '10 minutes')", zone)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(text), "\r\n") - 1; got != rows || strings.Contains(string(text), "revoked,") || resp.Trailer.Get("X-Export-Rows") != strconv.Itoa(rows) {
		t.Errorf("got %d rows, want %d, all active", got, rows)
	}
}

// Exports leave connections for other requests. A client that disconnects ends its
// export.
func TestExportsAreLimited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "DB_POOL_MAX=8") // one export
	zone := a.Zone().ID
	manySessions(a, zone)
	var lists []string
	for _, op := range servertest.Operations() {
		if has(op, "query", "format") && !takesBody(op) {
			lists = append(lists, strings.ReplaceAll(op.Path, "{zoneId}", zone))
		}
	}
	open := func() int {
		return storetest.Value[int](a.DB, "SELECT count(*)::int FROM pg_locks WHERE relation = 'sessions'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()")
	}
	first := startExport(t, a, "/v1/zones/"+zone+"/sessions?format=csv")
	if open() != 1 {
		t.Errorf("%d snapshots are open, want 1", open())
	}
	for _, list := range lists {
		raw := a.Do("GET", list+"?format=ndjson", "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, 0, code.TooManyExports)
		servertest.Expect(t, a.Do("GET", list, "", bearer(servertest.Bootstrap)...), http.StatusOK, "")
	}
	for _, path := range []string{"/v1/zones/" + zone + "/admin-audit/verify", "/v1/admin-audit/verify", "/v1/zones/" + zone + "/audit/verify"} { // is limited like an export
		servertest.Expect(t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...), 0, code.TooManyExports)
	}
	_ = first.Body.Close()
	for _, list := range lists {
		eventually(t, "an export has ended", func() bool {
			return a.Do("HEAD", list+"?format=csv", "", bearer(servertest.Bootstrap)...).Response.StatusCode == http.StatusOK
		})
	}
	if open() != 0 {
		t.Error("a snapshot is still open")
	}
}

// The client of an export that fails in the middle gets an error, not the end of a
// shorter file, and the log has the cause.
func TestInterruptedExportIsVisible(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"identity", "gzip"} {
		t.Run(coding, func(t *testing.T) {
			a := servertest.New(t)
			zone := a.Zone().ID
			manySessions(a, zone)
			a.DB.Exec("UPDATE sessions SET revoked_reason = (SELECT string_agg(md5(id || n), '') FROM generate_series(1, 150) AS n)") // cannot be compressed well
			resp := startExport(t, a, "/v1/zones/"+zone+"/sessions?format=csv", "Accept-Encoding", coding)
			if _, err := bufio.NewReader(resp.Body).ReadByte(); err != nil {
				t.Fatal(err)
			}
			a.DB.EndActiveConnections()
			if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got the error %v", err)
			}
			if len(resp.Trailer.Get("X-Export-Rows")) > 0 {
				t.Errorf("the trailer is %v", resp.Trailer)
			}
			eventually(t, "the failure is in the log", func() bool {
				return strings.Contains(a.Log.String(), `"operation":"listSessions"`) && strings.Contains(a.Log.String(), `"level":"ERROR"`) && strings.Contains(a.Log.String(), `"error":"service_unavailable"`)
			})
		})
	}
}
