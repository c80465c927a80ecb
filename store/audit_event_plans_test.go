package store_test

import (
	"fmt"
	"testing"
	"time"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// fillEventsOfZone inserts audit events of zone z1 over more than three months, each with
// a decision, type, application, label, session and request that is common. Four of them
// have rare ones instead. The last one is the oldest.
func fillEventsOfZone(db *storetest.DB, count int) {
	const days = 100
	db.Exec("SELECT create_audit_partitions(now() - $1 * interval '1 day', now())", days+1)
	db.Exec(`INSERT INTO audit_events (zone_id, id, occurred_at, event_type, request_id, decision, metadata, chain_seq, content_sha256)
		SELECT 'z1', 'e-' || n, now() - n * interval '1 day' * $2 / $1, CASE WHEN rare THEN 'rare' ELSE 'token_exchange' END, 'r-' || CASE WHEN rare THEN 'rare' ELSE (n % 500)::text END,
			CASE WHEN rare THEN 'partial' WHEN n % 10 = 0 THEN 'deny' ELSE 'allow' END,
			jsonb_build_object('application_id', 'a-' || CASE WHEN rare THEN 'rare' ELSE (n % 10)::text END, 'session_id', 's-' || CASE WHEN rare THEN 'rare' ELSE (n % 500)::text END,
				'agent_session_id', 'g-' || CASE WHEN rare THEN 'rare' ELSE (n % 500)::text END, 'agent_labels', jsonb_build_array('common', CASE WHEN rare THEN 'rare' ELSE 'other' END))::text, n, ''
		FROM (SELECT n, n % ($1 / 4) = 0 AS rare FROM generate_series(1, $1::int) AS n) AS numbers`, count, days)
	db.Exec("INSERT INTO audit_event_labels SELECT zone_id, jsonb_array_elements_text(metadata::jsonb -> 'agent_labels'), occurred_at, id FROM audit_events")
	db.Exec("ANALYZE audit_events, audit_event_labels")
}

// A page of the list of audit events is read from the index of its filter, in order, and
// from no partition after the one in which it ends: how many rows are read depends
// neither on the number of events nor on the position.
func TestListAuditEventsReadsOnlyAPage(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	fillEventsOfZone(db, 50_000)
	const page = listedPage
	now := time.Now().UTC()
	ago := func(days int) string { return now.AddDate(0, 0, -days).Format(time.RFC3339Nano) }
	deep := map[string]string{"BeforeTime": ago(70), "BeforeID": "e"}
	window := map[string]string{"BeforeTime": ago(20), "BeforeID": "", "Since": ago(22)}
	with := func(position map[string]string, more ...string) map[string]string {
		set := map[string]string{}
		for name, value := range position {
			set[name] = value
		}
		for i := 0; i < len(more); i += 2 {
			set[more[i]] = more[i+1]
		}
		return set
	}
	const labels = "audit_event_labels_pkey"
	plans := []listPlan{
		{"listAuditEvents", with(nil), "audit_events_listed", page, page},
		{"listAuditEvents", with(deep), "audit_events_listed", page, page},
		{"listAuditEvents", with(window), "audit_events_listed", page, page},
		{"listAuditEventsByRequest", with(nil, "RequestID", "r-rare", "Decision", "allow"), "audit_events_by_request", 4, 0},
		{"listAuditEventsByRequest", with(nil, "RequestID", "r-rare", "SessionID", "s-rare", "AgentSessionID", "g-rare", "Label", "rare", "ApplicationID", "a-rare", "EventType", "rare", "Decision", "partial"), "audit_events_by_request", 4, 4},
		{"listAuditEventsByRequest", with(nil, "RequestID", "r-rare", "Label", "other"), "audit_events_by_request", 4, 0},
		{"listAuditEventsByLabel", with(nil, "Label", "common", "Decision", "allow", "ApplicationID", "a-7"), labels, 10 * page, page},
		{"listAuditEventsByLabel", with(nil, "Label", "rare", "Decision", "deny"), labels, 4, 0},
		{"listAuditEventsOfRequest", map[string]string{"RequestID": "r-rare", "AfterTime": "-infinity", "AfterID": ""}, "audit_events_by_request", 4, 4},
		{"listAuditEventsOfRequest", map[string]string{"RequestID": "r-7", "AfterTime": "-infinity", "AfterID": ""}, "audit_events_by_request", page, page},
		{"listAuditEventsOfRequest", map[string]string{"RequestID": "r-rare", "AfterTime": "-infinity", "AfterID": "", "Decision": "deny"}, "audit_events_by_request", 4, 0},
	}
	for _, filter := range []struct{ query, parameter, common, rare, index string }{
		{"listAuditEventsByRequest", "RequestID", "r-7", "r-rare", "audit_events_by_request"},
		{"listAuditEventsBySession", "SessionID", "s-7", "s-rare", "audit_events_by_session"},
		{"listAuditEventsByAgentSession", "AgentSessionID", "g-7", "g-rare", "audit_events_by_agent_session"},
		{"listAuditEventsByLabel", "Label", "common", "rare", labels},
		{"listAuditEventsByApplication", "ApplicationID", "a-7", "a-rare", "audit_events_by_application"},
		{"listAuditEventsByType", "EventType", "token_exchange", "rare", "audit_events_by_type"},
		{"listAuditEventsByDecision", "Decision", "allow", "partial", "audit_events_by_decision"},
	} {
		plans = append(plans,
			listPlan{filter.query, with(nil, filter.parameter, filter.common), filter.index, page, page},
			listPlan{filter.query, with(nil, filter.parameter, filter.rare), filter.index, 4, 4},
			listPlan{filter.query, with(nil, filter.parameter, "unknown"), filter.index, 0, 0},
		)
		if filter.common[:2] != "r-" && filter.common[:2] != "s-" && filter.common[:2] != "g-" { // those have less than a page
			plans = append(plans,
				listPlan{filter.query, with(deep, filter.parameter, filter.common), filter.index, page, page},
				listPlan{filter.query, with(window, filter.parameter, filter.common), filter.index, page, page},
			)
		}
	}
	lookups := map[string]int{"listAuditEventsByLabel": 1} // of the event of each label
	for _, tt := range plans {
		t.Run(fmt.Sprint(tt.query, tt.set), func(t *testing.T) {
			tt.check(t, db, -1, []string{"audit_events_pkey", "audit_events_listed", "audit_events_chain"}, lookups[tt.query]*tt.read)
		})
	}
}

// Choosing the filter whose index is scanned reads few rows, too.
func TestListAuditEventsChoosesTheMostSelectiveFilter(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	fillEventsOfZone(db, 20_000)
	s := db.Store().For(store.System)
	request, session, application, label, kind, deny, allow := new("r-7"), new("s-7"), new("a-7"), new("common"), new("token_exchange"), new("deny"), new("allow")
	for _, tt := range []struct {
		filter store.AuditEventFilter
		want   string
	}{
		{store.AuditEventFilter{}, ""},
		{store.AuditEventFilter{Decision: allow}, "decision"},
		{store.AuditEventFilter{RequestID: request, SessionID: session, ApplicationID: application, Label: label, EventType: kind, Decision: deny}, "request_id"},
		{store.AuditEventFilter{ApplicationID: application, Label: label, EventType: kind, Decision: deny, AgentSessionID: new("g-7")}, "agent_session_id"},
		{store.AuditEventFilter{ApplicationID: application, Label: label, Decision: allow}, "label"},
		{store.AuditEventFilter{ApplicationID: application, Decision: new("partial")}, "decision"},
		{store.AuditEventFilter{ApplicationID: application, EventType: new("rare"), Label: label}, "event_type"},
		{store.AuditEventFilter{ApplicationID: new("unknown"), RequestID: request}, "application_id"},
	} {
		got, err := store.MostSelectiveOfEvents(t.Context(), s, "z1", tt.filter)
		if err != nil || got != tt.want {
			t.Errorf("%+v: got %q, %v, want %q", tt.filter, got, err, tt.want)
		}
	}
	values := map[string]string{
		"ZoneID": "z1", "RowLimit": "500", "BeforeTime": "infinity", "Since": "-infinity", "RequestID": "r-7", "SessionID": "s-7", "AgentSessionID": "g-7", "Label": "common",
		"ApplicationID": "a-7", "EventType": "token_exchange", "Decision": "allow",
	}
	root, text := execute(t, listPlanner(t, db), "countAuditEventsByFilter", values)
	read, parents := map[string]int{}, parentIndexes(db)
	root.walk(func(n planNode) {
		if n.Relation != "" {
			read[parents[n.Index]] += n.read()
		}
	})
	for _, name := range []string{"audit_events_by_request", "audit_events_by_session", "audit_events_by_agent_session", "audit_event_labels_pkey", "audit_events_by_application", "audit_events_by_type", "audit_events_by_decision"} {
		if n := read[name]; n == 0 || n > 500 {
			t.Errorf("read %d rows of %s: %v\n%s", n, name, read, text)
		}
		delete(read, name)
	}
	if len(read) > 0 {
		t.Errorf("read %v, too\n%s", read, text)
	}
}
