package server_test

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// eventScene stores audit events with two values of each filter, in many combinations.
// Each three have the same time. The last one is the newest.
func eventScene(a *servertest.API, zone string) (events []map[string]string) {
	const count = 48
	at := time.Now().UTC().Truncate(time.Second)
	a.DB.AuditEvents(zone, count, func(i int) map[string]any {
		value := func(bit int, values ...string) string { return values[(i*0x9e3779b1)>>(8+bit)&1] }
		e := map[string]string{
			"id": fmt.Sprintf("event-%02d", i), "request_id": value(0, "req,1", "req 2&"), "decision": value(1, "allow", "deny"), "event_type": value(2, "token_exchange", "control.invoke"),
			"application_id": value(3, "a-1", "a-2"), "agent_session_id": value(4, "g-1", "g-2"), "session_id": value(5, "s-1", "s-2"), "label": value(6, `{"a,b`, "c"),
		}
		events = append(events, e)
		return map[string]any{
			"id": e["id"], "occurred_at": at.Add(time.Duration(i/3) * time.Microsecond), "request_id": e["request_id"], "decision": e["decision"], "event_type": e["event_type"],
			"metadata": map[string]any{"application_id": e["application_id"], "agent_session_id": e["agent_session_id"], "session_id": e["session_id"], "agent_labels": []string{"all", e["label"]}},
		}
	})
	return events
}

// Each combination of filters returns exactly the events that match all of them, in the
// order of the list: in one page, page by page, and in an export.
func TestListAuditEventsByEveryCombinationOfFilters(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	events := eventScene(a, zone)
	eventScene(a, a.Zone().ID)
	get := func(query url.Values, more string) (ids []string, next *string) {
		raw := a.Do("GET", "/v1/zones/"+zone+"/audit?"+query.Encode()+more, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		page := decode[rowsPage](t, raw)
		for _, row := range page.Rows {
			ids = append(ids, row.ID)
		}
		return ids, page.Next
	}
	names := []string{"request_id", "decision", "event_type", "application_id", "agent_session_id", "session_id", "label"}
	queries := []url.Values{}
	for set := range 1 << len(names) {
		query := url.Values{}
		for i, name := range names {
			if set>>i&1 == 1 {
				query.Set(name, events[set%len(events)][name])
			}
		}
		queries = append(queries, query)
	}
	for _, name := range names {
		if name != "decision" {
			queries = append(queries, url.Values{name: {"unknown"}}, url.Values{name: {"unknown"}, "decision": {"allow"}})
		}
	}
	for _, query := range queries {
		want := matching(events, query)
		if got, next := get(query, ""); !slices.Equal(got, want) || next != nil {
			t.Errorf("%s: got %v and the next page %v, want %v", query, got, next, want)
		}
		if len(query) > 2 {
			continue
		}
		got, next := get(query, "&limit=2")
		for next != nil {
			var more []string
			more, next = get(query, "&limit=2&cursor="+*next)
			got = append(got, more...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s, page by page: got %v, want %v", query, got, want)
		}
		exported := a.Do("GET", "/v1/zones/"+zone+"/audit?"+query.Encode()+"&format=csv&limit=1&fields=id", "", bearer(servertest.Bootstrap)...)
		if got := strings.Fields(string(exported.Body)); !slices.Equal(got[1:], want) {
			t.Errorf("%s, exported: got %v, want %v", query, got[1:], want)
		}
	}
}

// since is inclusive and until exclusive, to the microsecond.
func TestListAuditEventsBetweenTimes(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, at := range []string{"2026-02-28T23:59:59.999999Z", "2026-03-01T00:00:00Z", "2026-03-01T00:00:00.000001Z", "2026-03-01T00:01:00Z"} {
		a.DB.AuditEvent(zone, map[string]any{"id": at, "occurred_at": at})
	}
	for _, tt := range []struct{ query, want string }{
		{"", "2026-03-01T00:01:00Z 2026-03-01T00:00:00.000001Z 2026-03-01T00:00:00Z 2026-02-28T23:59:59.999999Z"},
		{"since=2026-03-01T00:00Z", "2026-03-01T00:01:00Z 2026-03-01T00:00:00.000001Z 2026-03-01T00:00:00Z"},
		{"since=2026-03-01T00:00:00.0000001Z", "2026-03-01T00:01:00Z 2026-03-01T00:00:00.000001Z"},
		{"since=2026-03-01T00:00:00.000001Z&until=2026-03-01T00:01Z", "2026-03-01T00:00:00.000001Z"},
		{"until=2026-03-01T00:00:00.00Z", "2026-02-28T23:59:59.999999Z"},
		{"until=2026-03-01T00:00:00.000000001Z", "2026-03-01T00:00:00Z 2026-02-28T23:59:59.999999Z"},
		{"since=2026-02-28T23:59:59Z&until=2026-03-01T00:00:01Z&decision=allow", "2026-03-01T00:00:00.000001Z 2026-03-01T00:00:00Z 2026-02-28T23:59:59.999999Z"},
		{"since=2026-02-28T23:59:59Z&until=2026-03-01T00:00:01Z&decision=allow&application_id=application-1", "2026-03-01T00:00:00.000001Z 2026-03-01T00:00:00Z 2026-02-28T23:59:59.999999Z"},
		{"since=2026-03-01T00:00:00Z&until=2026-03-01T00:00:00Z", ""},
		{"since=2026-04-01T00:00:00Z&until=2026-03-01T00:00:00Z", ""}, {"until=0001-01-01T00:00Z", ""},
		{"since=0000-01-01T00:00Z&until=9999-12-31T23:59:59.9Z", "2026-03-01T00:01:00Z 2026-03-01T00:00:00.000001Z 2026-03-01T00:00:00Z 2026-02-28T23:59:59.999999Z"},
	} {
		for _, limit := range []string{"1", "1000"} {
			var got []string
			path := "/v1/zones/" + zone + "/audit?limit=" + limit + "&" + tt.query
			for path != "" {
				raw := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
				servertest.Expect(t, raw, http.StatusOK, "")
				for _, row := range decode[rowsPage](t, raw).Rows {
					got = append(got, row.ID)
				}
				path = next(raw)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%s, %s per page: got %v, want %s", tt.query, limit, got, tt.want)
			}
		}
	}
}

func TestListAuditEventsAccess(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	eventScene(a, zone)
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		rows int
		want code.Code // "" is 200
	}{
		{"global token", a.ClientFor("", "read"), zone, 48, ""},
		{"zone token", a.ClientFor(zone, "read"), zone, 48, ""},
		{"token of another zone", a.ClientFor(other, "write"), zone, 0, code.AdminTokenZoneMismatch},
		{"no token", a.Anonymous(), zone, 0, code.InvalidAdminToken},
		{"unknown zone", a.Admin, "unknown", 0, ""},
		{"invalid zone", a.Admin, "a b", 0, code.InvalidParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListAuditEventsWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && len(resp.JSON200.Rows) != tt.rows {
				t.Errorf("got %d events, want %d", len(resp.JSON200.Rows), tt.rows)
			}
		})
	}
}

func TestListAuditEventsRejectsInvalidQueries(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	eventScene(a, zone)
	get := func(query string) servertest.RawResponse {
		return a.Do("GET", "/v1/zones/"+zone+"/audit?"+query, "", bearer(servertest.Bootstrap)...)
	}
	long := strings.Repeat("x", 129)
	for query, field := range map[string]string{
		"since=2026-03-01": "since", "since=2026-03-01T00:00:00%2B00:00": "since", "since=2026-03-01t00:00:00Z": "since", "since=2026-03-01T00:00:00z": "since", "since=2026-02-29T00:00:00Z": "since",
		"until=2026-13-01T00:00Z": "until", "until=2026-03-01T24:00:00Z": "until", "until=2026-03-01T00:00:60Z": "until", "until=2026-03-01T00:60Z": "until", "until=2026-03-01T00:00:00.Z": "until",
		"until=2026-03-01T00:00:00,5Z": "until", "until=": "until", "since=2026-03-01T00:00Z&since=2026-03-01T00:00Z": "since", "until=2026-04-31T00:00:00.123Z": "until", "since=+2026-03-01T00:00Z": "since",
		"request_id=": "request_id", "request_id=a&request_id=b": "request_id", "decision=Deny": "decision", "decision=": "decision", "event_type=": "event_type", "application_id=" + long: "application_id",
		"agent_session_id=" + long: "agent_session_id", "session_id=" + long: "session_id", "label=" + long[:65]: "label", "label=": "label", "limit=0": "limit", "limit=1001": "limit", "format=xml": "format",
		"fields=": "fields", "fields=id&fields=id": "fields", "fields=" + strings.Repeat("id,", 334): "fields", "session_id=%00": "session_id",
	} {
		raw := get(query)
		servertest.Expect(t, raw, 0, code.InvalidQuery)
		if !strings.Contains(string(raw.Body), `"path":["`+field+`"]`) {
			t.Errorf("%s: got %s", query, raw.Body)
		}
	}
	for query, message := range map[string]string{
		"fields=,": "must not be empty", "fields=+,%09": "must not be empty", "fields=id,zone_id": "must not contain zone_id", "fields=metadata_json": "must not contain metadata_json", "fields=ID": "must not contain ID",
		"fields=id+decision": "must not contain id decision", "fields=session_id&format=csv": "must not contain session_id",
	} {
		raw := get(query)
		servertest.Expect(t, raw, 0, code.InvalidFields)
		if !strings.Contains(string(raw.Body), `{"path":["fields"],"message":"`+message+`"}`) {
			t.Errorf("%s: got %s", query, raw.Body)
		}
	}
	cursor := *decode[rowsPage](t, get("decision=allow&limit=1")).Next
	for query, want := range map[string]code.Code{
		"decision=allow": "", "decision=allow&fields=id": "", "decision=allow&format=csv": "", "x=1": code.InvalidCursor, "decision=deny": code.InvalidCursor, "decision=allow&since=2020-01-01T00:00Z": code.InvalidCursor,
	} {
		servertest.Expect(t, get(query+"&cursor="+cursor), http.StatusOK, want)
	}
	servertest.Expect(t, get("decision=allow&cursor=eyJ0cyI6Im5vbnNlbnNlIiwiaWQiOiJ4In0"), 0, code.InvalidCursor)
}

const fullMetadata = `{"application_id":"a<b>","application_name":"=cmd","resource":"resource://bank","requested_scopes":["bank:read","bank:write"],"agent_session_id":"g-1","session_id":"s-1","agent_lifecycle":"task",` +
	`"agent_labels":["a,b","c"],"delegation_edge_id":"","delegation_hop_count":1.50,"method":"GET","latency_ms":12,"upstream_status":200,"result_class":null,"reason":{"token":"x","why":["\"quoted\"",{"API_key":1}]}}`

// A row has all fields in their order, or those that the request selects in its order,
// without the values of secrets.
func TestListAuditEventsRows(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	a.DB.AuditEvent(zone, map[string]any{
		"id": "full", "occurred_at": "2026-03-01T00:00:00.0019Z", "event_type": "token_exchange", "request_id": "r-1", "decision": "deny", "evaluation_status": "complete", "metadata": jsonText(fullMetadata),
	})
	a.DB.AuditEvent(zone, map[string]any{"id": "empty", "occurred_at": "2026-02-01T00:00:00Z", "event_type": nil, "request_id": nil, "decision": nil, "evaluation_status": nil, "metadata": nil})
	get := func(query string) string {
		raw := a.Do("GET", "/v1/zones/"+zone+"/audit?"+query, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		return string(raw.Body)
	}
	full := get("limit=1")
	// Postgres orders the fields, and the text of a number is kept.
	for _, want := range []string{
		`{"rows":[{"id":"full","zone_id":"` + zone + `","event_type":"token_exchange","request_id":"r-1","decision":"deny","evaluation_status":"complete","metadata_json":{"method":"GET",`,
		`"reason":{"why":["\"quoted\"",{"API_key":"[redacted]"}],"token":"[redacted]"}`, `"delegation_hop_count":1.50`, `"session_id":"s-1"`, `"application_id":"a<b>"`, `,"occurred_at":"2026-03-01T00:00:00.001Z","ingested_at":"`,
	} {
		if !strings.Contains(full, want) {
			t.Errorf("got %s, want %s", full, want)
		}
	}
	for _, tt := range []struct{ query, want string }{
		{"since=2026-03-01T00:00Z&fields=decision,+id,,decision,reason,result_class,", `{"rows":[{"decision":"deny","id":"full","reason":{"why":["\"quoted\"",{"API_key":"[redacted]"}],"token":"[redacted]"},"result_class":null}],"next_cursor":null}` + "\n"},
		{"until=2026-03-01T00:00Z&fields=method,event_type,occurred_at", `{"rows":[{"event_type":null,"occurred_at":"2026-02-01T00:00:00.000Z"}],"next_cursor":null}` + "\n"},
		{"until=2026-03-01T00:00Z&fields=agent_labels", `{"rows":[{}],"next_cursor":null}` + "\n"},
		{"until=2026-03-01T00:00Z&fields=agent_labels&format=ndjson", "{}\n"},
		{"format=ndjson&fields=latency_ms,id", "{\"latency_ms\":12,\"id\":\"full\"}\n{\"id\":\"empty\"}\n"},
		{"fields=chain_seq,occurred_at_ns,id", `{"rows":[{"chain_seq":"1","occurred_at_ns":"1772323200001900000","id":"full"},{"chain_seq":"2","occurred_at_ns":"1769904000000000000","id":"empty"}],"next_cursor":null}` + "\n"},
		{"format=csv&fields=id,chain_seq,manifest_sha,chain_hmac,diagnostics_json", "id,chain_seq,manifest_sha,chain_hmac,diagnostics_json\r\nfull,1,aa11,,\r\nempty,2,aa11,,\r\n"},
		{"format=csv&fields=id,agent_labels,id,reason,application_name", "id,agent_labels,id,reason,application_name\r\n" +
			`full,"a,b c",full,"{""why"":[""\""quoted\"""",{""API_key"":""[redacted]""}],""token"":""[redacted]""}",'=cmd` + "\r\nempty,,empty,,\r\n"},
	} {
		if got := get(tt.query); got != tt.want {
			t.Errorf("%s: got\n%s, want\n%s", tt.query, got, tt.want)
		}
	}
	// Exports also have the evidence.
	hash := func(id string) string {
		return storetest.Value[string](a.DB, "SELECT content_sha256 FROM audit_events WHERE id = $1", id)
	}
	exported := strings.SplitAfter(get("format=ndjson"), "\n")
	empty := `{"id":"empty","zone_id":"` + zone + `","event_type":null,"request_id":null,"decision":null,"evaluation_status":null,"metadata_json":null,"occurred_at":"2026-02-01T00:00:00.000Z","ingested_at":"`
	evidence := `","occurred_at_ns":"1769904000000000000","policy_set_id":null,"policy_set_version_id":"psv-1","manifest_sha":"aa11","determining_policies_json":[],"diagnostics_json":[],` +
		`"chain_seq":"2","content_sha256":"` + hash("empty") + `","prev_content_sha256":"` + hash("full") + `","chain_hmac":null}` + "\n"
	if !strings.HasPrefix(exported[1], empty) || !strings.HasSuffix(exported[1], evidence) || len(exported[1]) != len(empty+"2006-01-02T15:04:05.000Z"+evidence) {
		t.Errorf("got\n%s, want\n%s%s", exported[1], empty, evidence)
	}
	for i, redacted := range []bool{true, false} {
		link, has, err := server.ParseExportedAuditEvent([]byte(exported[i]))
		if err != nil || has != redacted || link.Seq != int64(i+1) || (link.Event.ContentHash() == link.ContentHash) == redacted {
			t.Errorf("%s is parsed as %+v, %t, %v", exported[i], link, has, err)
		}
	}
	lines, err := csv.NewReader(strings.NewReader(get("format=csv&limit=1"))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	ingested := lines[1][6]
	if _, err := time.Parse("2006-01-02T15:04:05.000Z", ingested); err != nil {
		t.Error(err)
	}
	want := []string{
		"full", "2026-03-01T00:00:00.001Z", "token_exchange", "deny", "complete", "r-1", ingested, "a<b>", "'=cmd", "resource://bank", "bank:read bank:write", "g-1", "task", "a,b c", "", "1.50", "GET", "12", "200", "",
		`{"why":["\"quoted\"",{"API_key":"[redacted]"}],"token":"[redacted]"}`,
	}
	if !slices.Equal(lines[1], want) || len(lines) != 3 {
		t.Errorf("got %q, want %q", lines[1], want)
	}
}

// jsonText is JSON that is encoded as it is.
type jsonText string

func (text jsonText) MarshalJSON() ([]byte, error) { return []byte(text), nil }
