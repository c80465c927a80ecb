package ingest_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"caracal.run/management/store/ingest"
	"caracal.run/management/store/storetest"
)

// The rows are those of the format that all producers and verifiers share.
func TestStoresWorkedExample(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.add(`{"id":"0198c0de-0000-7000-8000-0000000000a1","zone_id":"zone-1","event_type":"token_exchange","request_id":"req-1","decision":"allow","policy_set_version_id":"psv-3","manifest_sha":"aa11",
		"evaluation_status":"complete","determining_policies_json":[{"policy":"caracal-payments-mint"}],"diagnostics_json":[],"metadata_json":{"application_id":"app-pay-01","resource":"resource://bank"},
		"occurred_at":"2026-07-01T12:00:00.123456789Z","unknown":[1]}`)
	second := `{"id":"0198c0de-0000-7000-8000-0000000000a2","zone_id":"zone-1","event_type":"token_exchange","request_id":"req-2","decision":"deny","evaluation_status":"exchange_denied",
		"determining_policies_json":null,"metadata_json":{"requested":["resource://x"]},"occurred_at":"2026-07-01T14:00:01+02:00"}`
	s.add(second)
	i, _ := s.start(func(c *ingest.Config) { c.RetentionDays = 36500 })
	s.acknowledged()
	rows := storetest.Column[string](s.db, `SELECT concat_ws(' ', chain_seq, event_type, request_id, decision, coalesce(policy_set_id, '-'), coalesce(policy_set_version_id, '-'), coalesce(manifest_sha, '-'), evaluation_status,
		coalesce(determining_policies, '-'), coalesce(diagnostics, '-'), metadata, extract(epoch FROM occurred_at), content_sha256, coalesce(prev_content_sha256, '-'), chain_hmac, application_id) FROM audit_events WHERE zone_id = 'zone-1' ORDER BY chain_seq`)
	want := []string{
		`1 token_exchange req-1 allow - psv-3 aa11 complete [{"policy": "caracal-payments-mint"}] [] {"resource": "resource://bank", "application_id": "app-pay-01"} 1782907200.123456 ` +
			`d6521fd40e0b32f186e859d8a185813f98cb948e73f9b2f52d82472b14c218fe - 559283856d929badf8c8b2a55da7bcd952433c503a51bed20958bdfcbcbde67e app-pay-01`,
		`2 token_exchange req-2 deny - - - exchange_denied - - {"requested": ["resource://x"]} 1782907201.000000 ` +
			`6136492b412ee1a5b061054b93d4b4c35e9db06c77e1b0781ca25ae6c430c836 d6521fd40e0b32f186e859d8a185813f98cb948e73f9b2f52d82472b14c218fe facf06d1659af7bf2702a2e6301d3a0b9605922f596239328800219c94bf6b59`,
	}
	if !slices.Equal(rows, want) {
		t.Errorf("the rows are\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
	if sig := storetest.Value[string](s.db, "SELECT ingest_signature FROM audit_events WHERE chain_seq = 2"); sig != signature(second) {
		t.Errorf("the signature is %s", sig)
	}
	if counts := storetest.Column[string](s.db, "SELECT minute || decision || count FROM audit_decision_counts ORDER BY decision"); !slices.Equal(counts, []string{"2026-07-01 12:00:00+00allow1", "2026-07-01 12:00:00+00deny1"}) {
		t.Errorf("the counts are %v", counts)
	}
	if n := i.Stat().Inserts; n != 2 {
		t.Errorf("counted %d inserted events", n)
	}
	s.checkChain("zone-1")
}

// What Publish appends is stored, and each label once.
func TestPublish(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	e := ingest.Event{ID: "e", ZoneID: "z", EventType: "control.invoke", Decision: "allow", Metadata: map[string]any{"agent_labels": []any{"b", "a", "b", 1, "", strings.Repeat("x", 65)}}, OccurredAt: time.Now()}
	if err := ingest.Publish(t.Context(), s.redis, key, e, e); err != nil {
		t.Fatal(err)
	}
	i, _ := s.start()
	s.acknowledged()
	if labels := storetest.Column[string](s.db, "SELECT label FROM audit_event_labels WHERE zone_id = 'z' AND event_id = 'e' ORDER BY 1"); !slices.Equal(labels, []string{"a", "b"}) {
		t.Errorf("the labels are %q", labels)
	}
	if n, stat := s.stored("z"), i.Stat(); n != 1 || stat.Inserts != 1 || stat.Duplicates != 1 {
		t.Errorf("stored %d events, counted %+v", n, stat)
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	valid := event("z", "valid")
	with := func(old, replacement string) string {
		if !strings.Contains(valid, old) {
			t.Fatalf("%s is not in %s", old, valid)
		}
		return strings.Replace(valid, old, replacement, 1)
	}
	want := map[string]string{
		s.addEntry("id", "e"):                                   "missing_data_field",
		s.addEntry("data", valid):                               "hmac_verify_failed",
		s.addEntry("data", valid, "sig", "xyz"):                 "hmac_verify_failed",
		s.addEntry("data", valid, "sig", signature(valid+" ")):  "hmac_verify_failed",
		s.addEntry("data", valid, "sig", signature(valid)[:62]): "hmac_verify_failed",
	}
	occurredAt := valid[strings.Index(valid, `"occurred_at"`):]
	for data, reason := range map[string]string{
		"":                                   "unexpected end of JSON",
		"[]":                                 "must be an object",
		"null":                               "must be an object",
		valid + "x":                          `unexpected 'x' at byte`,
		valid[:len(valid)-1]:                 "unexpected end of JSON",
		with(`"id":"valid",`, ""):            "id: must not be empty",
		with(`"id":"valid"`, `"id":""`):      "id: must not be empty",
		with(`"id":"valid"`, `"id":7`):       "id: must be a string",
		with(`"id":"valid"`, `"ID":"valid"`): "id: must not be empty",
		with(`"id":"valid"`, `"id":"`+strings.Repeat("x", 513)+`"`):   "id: must be at most 512 bytes",
		with(`"zone_id":"z",`, ""):                                    "zone_id: must not be empty",
		with(`"id":"valid"`, `"id":"`+strings.Repeat("e", 129)+`"`):   "id: must have 1 to 128 of the characters",
		with(`"zone_id":"z"`, `"zone_id":"*"`):                        "zone_id: must have 1 to 128 of the characters",
		with(`"decision":"allow"`, `"decision":true`):                 "decision: must be a string",
		with(`"decision":"allow"`, `"decision":"a\u0000"`):            `\u0000 cannot be stored`,
		with(`"decision":"allow"`, `"decision":"a\u001fb"`):           "decision: must not contain control characters",
		with(`"decision":"allow"`, "\"decision\":\"\xff\""):           "invalid UTF-8",
		with(`"diagnostics_json":null`, `"diagnostics_json":{}`):      "diagnostics_json: must be an array or null",
		with(`"metadata_json":{`, `"metadata_json":[],"x":{`):         "metadata_json: must be an object or null",
		with(`"application_id":"a"`, `"application_id":1e9999`):       "the exponent of a number is too large",
		with(`"application_id":"a"`, `"application_id":"\ud800"`):     "unpaired surrogate",
		with(occurredAt, `"x":1}`):                                    "occurred_at: must not be empty",
		with(occurredAt, `"occurred_at":1}`):                          "occurred_at: must be a string",
		with(occurredAt, `"occurred_at":"2026-01-01"}`):               "occurred_at: must be a date-time according to RFC 3339",
		with(occurredAt, `"occurred_at":"2026-02-30T00:00:00Z"}`):     "occurred_at: must be a date-time according to RFC 3339",
		with(occurredAt, `"occurred_at":"0001-01-01T00:00:00Z"}`):     "occurred_at: must not be before the retention period",
		eventAt("z", "valid", time.Now().AddDate(0, 0, -31)):          "occurred_at: must not be before the retention period",
		eventAt("z", "valid", time.Now().Add(25*time.Hour)):           "occurred_at: must not be in the future",
		with(`{"id"`, `{"x":"`+strings.Repeat("x", 256<<10)+`","id"`): "longer than 262144 bytes",
	} {
		want[s.add(data)] = "json_parse_error:" + reason
	}
	last := s.add(valid)
	i, _ := s.start(func(c *ingest.Config) { c.RetentionDays = 30 })
	s.acknowledged()
	got := s.deadLetters()
	for id, reason := range want {
		if !strings.HasPrefix(got[id], reason) {
			t.Errorf("%s is a dead letter because of %q, want %q", id, got[id], reason)
		}
	}
	if n := s.stored("z"); n != 1 || got[last] != "" || len(got) != len(want) {
		t.Errorf("stored %d events, have %d dead letters, want 1 and %d", n, len(got), len(want))
	}
	if stat := i.Stat(); stat.DeadLetters != uint64(len(want)) || stat.HMACFailures != 4 || stat.ParseErrors != uint64(len(want)-5) {
		t.Errorf("counted %+v", stat)
	}
}

// A dead letter has the fields of the entry.
func TestDeadLetterHasFieldsOfEntry(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	id := s.addEntry("id", "e", "data", "{}", "sig", "no", "other", "x")
	s.start()
	s.acknowledged()
	all := s.redis.XRange(t.Context(), ingest.DeadLetterStream, "-", "+").Val()
	if len(all) != 1 {
		t.Fatalf("have %d dead letters", len(all))
	}
	values := all[0].Values
	if ms, err := strconv.ParseInt(values["received_at"].(string), 10, 64); err != nil || time.Since(time.UnixMilli(ms)) > time.Hour {
		t.Errorf("received at %v", values["received_at"])
	}
	delete(values, "received_at")
	if got, want := fmt.Sprint(values), "map[reason:hmac_verify_failed src_data:{} src_id:"+id+" src_other:x src_sig:no]"; got != want {
		t.Errorf("the dead letter is %s, want %s", got, want)
	}
}

// Without a key, signatures are not verified and not stored, and the chain has no MACs.
func TestWithoutKey(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	s.addEntry("data", event("z", "unsigned"))
	s.addEntry("data", event("z", "signed"), "sig", "whatever")
	s.start(func(c *ingest.Config) { c.Key = nil })
	s.acknowledged()
	if n := storetest.Value[int](s.db, "SELECT count(*) FROM audit_events WHERE ingest_signature IS NULL AND chain_hmac IS NULL"); n != 2 {
		t.Errorf("%d events have neither a signature nor a MAC, want 2", n)
	}
	s.checkChain("z")
}

// Events with the ID of a stored event and other content are not stored: neither in the
// same batch nor later, nor with the time of another month.
func TestReplayWithOtherContent(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	at := time.Now()
	original := eventAt("z", "e", at)
	s.add(original)
	s.add(original)
	inBatch := s.add(strings.Replace(original, "allow", "deny", 1))
	i, stop := s.start()
	s.acknowledged()
	stop()
	s.add(original)
	later := s.add(strings.Replace(original, "allow", "deny", 1))
	otherMonth := s.add(eventAt("z", "e", at.AddDate(0, -2, 0)))
	s.add(eventAt("other-zone", "e", at))
	again, _ := s.start()
	s.acknowledged()
	if n, other := s.stored("z"), s.stored("other-zone"); n != 1 || other != 1 {
		t.Errorf("stored %d and %d events, want one in each zone", n, other)
	}
	dead := s.deadLetters()
	for _, id := range []string{inBatch, later, otherMonth} {
		if dead[id] != "tamper_on_replay" {
			t.Errorf("%s is a dead letter because of %q", id, dead[id])
		}
	}
	if len(dead) != 3 || i.Stat().TamperReplays != 1 || again.Stat().TamperReplays != 2 {
		t.Errorf("have %d dead letters, counted %d and %d", len(dead), i.Stat().TamperReplays, again.Stat().TamperReplays)
	}
	// The same event that is replayed twice has one alert.
	alerts := storetest.Column[string](s.db, `SELECT kind || ' ' || event_id || ' ' || (detail = 'stored=' || content_sha256 || ' incoming=' || a.id) FROM audit_ingest_alerts AS a JOIN audit_events AS e ON e.zone_id = a.zone_id AND e.id = a.event_id`)
	if !slices.Equal(alerts, []string{"content_mismatch_on_replay e true", "content_mismatch_on_replay e true"}) {
		t.Errorf("the alerts are %q", alerts)
	}
	s.checkChain("z")
}

// Events of months that have no partition yet are stored; so are those of a month whose
// partition was dropped while the ingester ran.
func TestCreatesPartitions(t *testing.T) {
	t.Parallel()
	s := newSetup(t)
	old := time.Now().AddDate(0, -5, 0)
	s.add(eventAt("z", "e1", old))
	s.start()
	s.acknowledged()
	s.db.Exec("SELECT drop_audit_partition($1)", old)
	s.add(eventAt("z", "e2", old))
	s.add(event("z", "e3"))
	s.acknowledged()
	if n, dead := s.stored("z"), s.deadLetters(); n != 2 || len(dead) != 0 {
		t.Errorf("stored %d events, dead letters %v", n, dead)
	}
}
