package server_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// insertAuditEntries inserts an entry for each combination of two values of each filter
// into a zone, several at the same time. It returns what each is found by, oldest first.
func insertAuditEntries(a *servertest.API, zone string) (rows []map[string]string) {
	for _, actor := range []string{"actor 1", "actor&2"} {
		for _, kind := range []string{"applications", "x,y"} {
			for _, entity := range []string{"entity-1", "entity 2"} {
				for _, method := range []string{"POST", "DELETE"} {
					for _, status := range []string{"200", "404"} {
						n := len(rows)
						row := map[string]string{"id": fmt.Sprintf("e-%03d", n), "actor_id": actor, "entity_type": kind, "entity_id": entity, "method": method, "status_code": status, "request_id": fmt.Sprint("request ", n%3)}
						a.DB.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_id, actor_name, actor_scope, operation, action, method, path, entity_type, entity_id, status_code, payload, occurred_at)
							VALUES ($1, $2, $3, $4, 'name', 'zone', 'o', 'a', $5, '/p', $6, $7, $8::int, '{}', '2026-01-01Z'::timestamptz + $9 * interval '1 microsecond')`,
							zone, row["id"], row["request_id"], actor, method, kind, entity, status, n/3)
						rows = append(rows, row)
					}
				}
			}
		}
	}
	return rows
}

// Every combination of filters returns exactly the rows that match all of them, in the
// order of the list: in one page, page by page, and in an export.
func TestListAuditEntriesByEveryCombinationOfFilters(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for path, zone := range map[string]string{"/v1/zones/z-1/admin-audit": "z-1", "/v1/admin-audit": "-"} {
		rows := insertAuditEntries(a, zone)
		queries := combinations(rows, "actor_id", "entity_type", "entity_id", "method", "status_code", "request_id")
		queries = slices.DeleteFunc(queries, func(q url.Values) bool { return q.Get("method") == "unknown" || q.Get("status_code") == "unknown" })
		for i, query := range queries {
			want := matching(rows, query)
			query.Set("until", "2026-01-02T00:00:00Z") // without the entries of this test's zones and tokens
			if len(query) > 3 && i%5 > 0 {             // some of those with many filters
				continue
			}
			list := path + "?" + query.Encode()
			if got := allIDs(t, a, list+"&limit=7"); !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", list, got, want)
			}
			exported := a.Do("GET", list+"&format=csv&limit=1", "", bearer(servertest.Bootstrap)...)
			var got []string
			for line := range strings.Lines(string(exported.Body)) {
				id, _, _ := strings.Cut(line, ",")
				got = append(got, id)
			}
			if !slices.Equal(got[1:], want) {
				t.Errorf("%s, exported: got %v, want %v", list, got[1:], want)
			}
		}
	}
}

// allIDs returns the ids of a list, page by page.
func allIDs(t *testing.T, a *servertest.API, path string) (ids []string) {
	t.Helper()
	for cursor := new(""); cursor != nil; {
		more := ""
		if *cursor != "" {
			more = "&cursor=" + *cursor
		}
		raw := a.Do("GET", path+more, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		page := decode[rowsPage](t, raw)
		for _, row := range page.Rows {
			ids = append(ids, row.ID)
		}
		if linked := next(raw); (linked != "") != (page.Next != nil) || page.Next != nil && !strings.Contains(linked, "cursor="+*page.Next) {
			t.Fatalf("%s: next_cursor is %v and the Link %q", path, page.Next, linked)
		}
		cursor = page.Next
	}
	return ids
}

// Since is inclusive, until is exclusive, both in microseconds, and both hold on every
// page, whatever the other filters are.
func TestListAuditEntriesByTime(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	rows := insertAuditEntries(a, "z-1")
	at := func(n int) string { return fmt.Sprintf("2026-01-01T00:00:00.%06dZ", n) }
	for _, filter := range []string{"", "request_id=request+1&", "entity_id=entity-1&", "actor_id=actor+1&", "status_code=404&", "entity_type=applications&", "method=POST&"} {
		query, err := url.ParseQuery(strings.TrimSuffix(filter, "&"))
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct{ since, until int }{{0, 1000}, {3, 1000}, {0, 3}, {2, 5}, {4, 4}, {5, 2}} {
			want := matching(slices.Clone(rows), query)
			want = slices.DeleteFunc(want, func(id string) bool {
				n, _ := strconv.Atoi(id[2:])
				return n/3 < tt.since || n/3 >= tt.until
			})
			path := "/v1/zones/z-1/admin-audit?" + filter + "limit=2&since=" + at(tt.since) + "&until=" + at(tt.until)
			if got := allIDs(t, a, path); !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", path, got, want)
			}
		}
	}
}

func TestListAuditEntriesAccess(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone     string
		rows     int
		want     code.Code // "" is 200
		zoneless code.Code
	}{
		{"global token", a.ClientFor("", "read"), zone, 1, "", ""},
		{"zone token", a.ClientFor(zone, "read"), zone, 1, "", code.AdminTokenZoneMismatch},
		{"token of another zone", a.ClientFor(other, "write"), zone, 0, code.AdminTokenZoneMismatch, code.AdminTokenZoneMismatch},
		{"no token", a.Anonymous(), zone, 0, code.InvalidAdminToken, code.InvalidAdminToken},
		{"unknown zone", a.Admin, "unknown", 0, "", ""},
		{"invalid zone", a.Admin, "a b", 0, code.InvalidParams, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListAuditEntriesWithResponse(t.Context(), tt.zone, &rawclient.ListAuditEntriesParams{EntityType: new("zones"), Method: new(client.AuditMethodPOST)})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && len(resp.JSON200.Rows) != tt.rows {
				t.Errorf("got %d rows, want %d", len(resp.JSON200.Rows), tt.rows)
			}
			zoneless, err := tt.as.ListZonelessAuditEntriesWithResponse(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, zoneless, http.StatusOK, tt.zoneless)
			if tt.zoneless == "" && (len(zoneless.JSON200.Rows) == 0 || zoneless.JSON200.Rows[0].ZoneID != nil) {
				t.Errorf("got %+v, want the creation of a global token", zoneless.JSON200.Rows)
			}
		})
	}
}

func TestListAuditEntriesRejectsInvalidQueries(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	insertAuditEntries(a, "z-1")
	for _, path := range []string{"/v1/zones/z-1/admin-audit?", "/v1/admin-audit?"} {
		for _, query := range []string{
			"since=", "since=yesterday", "since=2026-01-01", "since=2026-01-01T00:00:00", "since=2026-01-01T00:00:00%2B02:00", "since=2026-01-01t00:00:00Z", "since=2026-01-01T00:00:00z", "since=2026-02-30T00:00:00Z",
			"since=2026-01-01T25:00:00Z", "since=2026-01-01T00:00:00,5Z", "since=2026-01-01T00:00:00Z&since=2026-01-01T00:00:00Z", "until=2026-13-01T00:00:00Z", "until=x", "actor_id=", "actor_id=" + strings.Repeat("x", 129),
			"entity_type=", "entity_type=" + strings.Repeat("x", 65), "entity_id=", "entity_id=" + strings.Repeat("x", 129), "method=post", "method=HEAD", "method=", "request_id=", "status_code=x", "status_code=600", "status_code=",
			"limit=0", "limit=1001", "format=xml", "entity_id=%00", "actor_id=a&actor_id=b",
		} {
			servertest.Expect(t, a.Do("GET", path+query, "", bearer(servertest.Bootstrap)...), 0, code.InvalidQuery)
		}
		for _, query := range []string{"since=2026-01-01T00:00Z", "since=2026-01-01T00:00:00.123456789Z", "until=0001-01-01T00:00:00Z", "since=9999-12-31T23:59:59Z"} {
			servertest.Expect(t, a.Do("GET", path+query, "", bearer(servertest.Bootstrap)...), http.StatusOK, "")
		}
	}
	raw := a.Do("GET", "/v1/zones/z-1/admin-audit?method=POST&limit=1", "", bearer(servertest.Bootstrap)...)
	cursor := "&cursor=" + *decode[rowsPage](t, raw).Next
	for path, want := range map[string]code.Code{
		"/v1/zones/z-1/admin-audit?method=POST": "", "/v1/zones/z-1/admin-audit?method=POST&format=csv": "", "/v1/zones/z-1/admin-audit?method=DELETE": code.InvalidCursor,
		"/v1/zones/z-1/admin-audit?method=POST&since=2026-01-01T00:00:00Z": code.InvalidCursor, "/v1/zones/z-2/admin-audit?method=POST": code.InvalidCursor, "/v1/admin-audit?method=POST": code.InvalidCursor,
	} {
		servertest.Expect(t, a.Do("GET", path+cursor, "", bearer(servertest.Bootstrap)...), http.StatusOK, want)
	}
}

// A row has all fields of the contract in its order, and in an export also those with
// which it can be verified.
func TestListAuditEntriesRows(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone(func(z *client.NewZone) { z.Name = "<Zone>" })
	eventually(t, "the entry is sealed", func() bool {
		return storetest.Value[bool](a.DB, "SELECT EXISTS (SELECT FROM audit_seals WHERE zone_id = $1)", zone.ID)
	})
	get := func(query string) string {
		raw := a.Do("GET", "/v1/zones/"+zone.ID+"/admin-audit?"+query, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		return string(raw.Body)
	}
	column := func(sql string) string {
		return storetest.Value[string](a.DB, "SELECT "+sql+" FROM audit_entries AS e JOIN audit_seals AS s ON s.entry_id = e.id WHERE e.zone_id = $1", zone.ID)
	}
	at := storetest.Value[time.Time](a.DB, "SELECT occurred_at FROM audit_entries WHERE zone_id = $1", zone.ID).UTC().Format("2006-01-02T15:04:05.000Z")
	want := `{"rows":[{"id":"` + column("e.id") + `","request_id":"` + column("request_id") + `","actor_id":"` + column("actor_id") + `","actor_name":"bootstrap","actor_scope":"global","action":"POST /v1/zones","method":"POST","path":"/v1/zones",` +
		`"entity_type":"zones","entity_id":"` + zone.ID + `","status_code":201,"payload_json":` + column("payload") + `,"occurred_at":"` + at + `","chain_seq":"1","signed":true,"zone_id":"` + zone.ID + `","operation":"createZone"`
	hashes := `,"previous_hash":"` + strings.Repeat("0", 64) + `","hash":"` + column("encode(hash, 'hex')") + `","mac":"` + column("encode(mac, 'hex')") + `"`
	if got := get("format=ndjson"); got != strings.TrimPrefix(want, `{"rows":[`)+hashes+"}\n" {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	want += `}],"next_cursor":null}` + "\n"
	if got := get(""); got != want || !strings.Contains(got, `"name":{"from":null,"to":"\u003cZone\u003e"}`) {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	want = "id,occurred_at,action,method,path,entity_type,entity_id,status_code,actor_id,actor_name,actor_scope,request_id,chain_seq,signed,changed_fields\r\n" +
		column("e.id") + "," + at + ",POST /v1/zones,POST,/v1/zones,zones," + zone.ID + ",201," + column("actor_id") + ",bootstrap,global," + column("request_id") + ",1,true,dcr_enabled name open_registration operator_coauthor_badge slug\r\n"
	if got := get("format=csv"); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	// Without a seal, an actor and an object, and with a payload that is no JSON.
	a.DB.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload, occurred_at) VALUES ($1, 'bare', 'r', 'caracald', 'job', 'job', '', '', 0, '{', '2026-01-01Z')`, zone.ID)
	want = `{"rows":[{"id":"bare","request_id":"r","actor_id":null,"actor_name":"caracald","actor_scope":null,"action":"job","method":"","path":"","entity_type":null,"entity_id":null,"status_code":0,"payload_json":null,` +
		`"occurred_at":"2026-01-01T00:00:00.000Z","chain_seq":null,"signed":false,"zone_id":"` + zone.ID + `","operation":"job"`
	if got := get("status_code=0&format=ndjson"); got != strings.TrimPrefix(want, `{"rows":[`)+`,"previous_hash":null,"hash":null,"mac":null}`+"\n" {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	want += `}],"next_cursor":null}` + "\n"
	if got := get("status_code=0"); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
	if got := get("status_code=0&format=csv"); !strings.HasSuffix(got, "\r\nbare,2026-01-01T00:00:00.000Z,job,,,,,0,,caracald,,r,,false,\r\n") {
		t.Errorf("got\n%s", got)
	}
}
