package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/store"
	"caracal.run/management/store/auditchain"
	"caracal.run/management/store/storetest"
)

var chainKey = []byte("a key of the tests, of 32 bytes!")

// appendAuditEvents appends n events of the same time to a zone's chain.
func appendAuditEvents(t *testing.T, s *store.Store, zone string, at time.Time, first, n int) {
	t.Helper()
	if _, err := s.CreateAuditPartitions(t.Context(), at, at); err != nil {
		t.Fatal(err)
	}
	var events []store.AuditEvent
	for i := range n {
		events = append(events, store.AuditEvent{Event: auditchain.Event{
			ID: fmt.Sprintf("e%04d", first+i), ZoneID: zone, Decision: "deny", Metadata: `{"application_id": "a"}`, OccurredAt: at.UTC().Truncate(time.Microsecond),
		}, Labels: []string{"planner"}})
	}
	err := s.InTx(t.Context(), store.Cause{Actor: store.System, Operation: "test"}, func(tx *store.Tx) error {
		_, err := tx.AppendAuditEvents(t.Context(), chainKey, events)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// faults verifies a chain and returns its faults, each as its number and reason.
func faults(t *testing.T, s *store.Store, key []byte, zone string, first, last int64) []string {
	t.Helper()
	v := verifyChain(t, s, key, zone, first, last)
	all := []string{}
	for _, f := range v.Faults {
		all = append(all, fmt.Sprint(f.Seq, " ", f.Reason))
	}
	if (v.Fault == nil) != (len(all) == 0) || v.Fault != nil && *v.Fault != v.Faults[0] || !v.Complete {
		t.Errorf("got %+v", v)
	}
	return all
}

func verifyChain(t *testing.T, s *store.Store, key []byte, zone string, first, last int64) store.AuditVerification {
	t.Helper()
	v, err := s.VerifyAuditChain(t.Context(), key, zone, store.ChainRange{First: first, Last: last, Budget: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Whatever is changed directly in the database is found, at its place.
func TestVerifyAuditChainFindsTampering(t *testing.T) {
	t.Parallel()
	const inEvents = " WHERE zone_id = 'z' AND chain_seq = "
	rehash := `UPDATE audit_events SET content_sha256 = encode(sha256(convert_to(concat_ws(chr(31), id, zone_id, '', '', coalesce(decision, ''), '', '', '', '', 'null', 'null', metadata, (extract(epoch FROM occurred_at) * 1000000)::bigint || '000'), 'UTF8')), 'hex')` + inEvents
	for _, tt := range []struct {
		name string
		sql  []string
		want []string
	}{
		{"nothing", nil, []string{}},
		{"edit of a column", []string{"UPDATE audit_events SET decision = 'allow'" + inEvents + "5"}, []string{"5 content_changed"}},
		{"edit of a text to null", []string{"UPDATE audit_events SET decision = NULL" + inEvents + "5"}, []string{"5 content_changed"}},
		{"edit of the metadata", []string{`UPDATE audit_events SET metadata = '{"application_id": "b"}'` + inEvents + "5"}, []string{"5 content_changed"}},
		{"edit of the time", []string{"UPDATE audit_events SET occurred_at = occurred_at + interval '1 microsecond'" + inEvents + "5"}, []string{"5 content_changed"}},
		{"edit with a new hash", []string{"UPDATE audit_events SET decision = 'allow'" + inEvents + "5", rehash + "5"}, []string{"5 signature_invalid", "6 chain_broken"}},
		{"edit of the last event with a new hash and head", []string{"UPDATE audit_events SET decision = 'allow'" + inEvents + "20", rehash + "20",
			"UPDATE audit_chain_heads SET content_sha256 = (SELECT content_sha256 FROM audit_events" + inEvents + "20) WHERE zone_id = 'z'"}, []string{"20 signature_invalid", "20 head_mismatch"}},
		{"deletion of the first event", []string{"DELETE FROM audit_events" + inEvents + "1"}, []string{"1 event_missing"}},
		{"deletion in the middle", []string{"DELETE FROM audit_events WHERE zone_id = 'z' AND chain_seq IN (7, 8)"}, []string{"7 event_missing"}},
		{"deletion in the middle with new numbers", []string{"DELETE FROM audit_events" + inEvents + "7", "UPDATE audit_events SET chain_seq = chain_seq - 1 WHERE zone_id = 'z' AND chain_seq > 7"}, []string{"7 chain_broken", "20 event_missing"}},
		{"deletion of the last event", []string{"DELETE FROM audit_events" + inEvents + "20"}, []string{"20 event_missing"}},
		{"deletion of the last event with the head moved", []string{"DELETE FROM audit_events" + inEvents + "20",
			"UPDATE audit_chain_heads SET (chain_seq, content_sha256) = (SELECT chain_seq, content_sha256 FROM audit_events" + inEvents + "19) WHERE zone_id = 'z'"}, []string{"19 head_mismatch"}},
		{"deletion of the last event with the head moved and without MAC", []string{"DELETE FROM audit_events" + inEvents + "20",
			"UPDATE audit_chain_heads SET (chain_seq, content_sha256, hmac) = (SELECT chain_seq, content_sha256, NULL FROM audit_events" + inEvents + "19) WHERE zone_id = 'z'"}, []string{"19 head_mismatch"}},
		{"deletion of all events", []string{"DELETE FROM audit_events WHERE zone_id = 'z'"}, []string{"1 event_missing"}},
		{"truncation", []string{"TRUNCATE audit_events"}, []string{"1 event_missing"}},
		{"order of two events", []string{"UPDATE audit_events SET chain_seq = 9 - chain_seq WHERE zone_id = 'z' AND chain_seq IN (4, 5)"}, []string{"4 chain_broken", "5 chain_broken", "6 chain_broken"}},
		{"inserted event", []string{"INSERT INTO audit_events (zone_id, id, occurred_at, metadata, chain_seq, content_sha256) SELECT zone_id, 'new', occurred_at, metadata, chain_seq, content_sha256 FROM audit_events" + inEvents + "9"},
			[]string{"9 content_changed", "9 signature_missing", "9 seq_repeated"}},
		{"event added at the end", []string{"INSERT INTO audit_events (zone_id, id, occurred_at, metadata, chain_seq, prev_content_sha256, content_sha256) SELECT zone_id, 'new', occurred_at, metadata, 21, content_sha256, '' FROM audit_events" + inEvents + "20", rehash + "21"},
			[]string{"21 signature_missing", "20 head_mismatch"}},
		{"event of another zone", []string{"UPDATE audit_events SET zone_id = 'x'" + inEvents + "6", "UPDATE audit_events SET zone_id = 'z' WHERE zone_id = 'other' AND chain_seq = 6"}, []string{"6 content_changed", "6 chain_broken", "7 chain_broken"}},
		{"swapped zones", []string{"UPDATE audit_events SET zone_id = CASE zone_id WHEN 'z' THEN 'other' ELSE 'z' END, id = id || zone_id"}, nil},
		{"MAC removed", []string{"UPDATE audit_events SET chain_hmac = NULL" + inEvents + "6"}, []string{"6 signature_missing"}},
		{"MACs removed from the beginning, and an edit", []string{"UPDATE audit_events SET chain_hmac = NULL, decision = 'allow'" + inEvents + "1", rehash + "1", "UPDATE audit_events SET prev_content_sha256 = (SELECT content_sha256 FROM audit_events" + inEvents + "1)" + inEvents + "2"}, []string{"2 signature_invalid"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			db := storetest.New(t)
			s := db.Store().For(store.System)
			now := time.Now()
			appendAuditEvents(t, s, "z", now, 1, 20)
			appendAuditEvents(t, s, "other", now, 1, 20)
			for _, sql := range tt.sql {
				db.Exec(sql)
			}
			got := faults(t, s, chainKey, "z", 1, 0)
			if tt.want == nil { // swapped zones: everything
				if len(got) < 20 {
					t.Errorf("found %q", got)
				}
				return
			}
			slices.Sort(got)
			want := slices.Clone(tt.want)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}

// A key that did not make the MACs is found; without a key, hashes and links are verified.
func TestVerifyAuditChainWithOtherKeys(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Store().For(store.System)
	appendAuditEvents(t, s, "z", time.Now(), 1, 3)
	if got := faults(t, s, []byte("another key"), "z", 1, 0); !slices.Equal(got, []string{"1 signature_invalid", "2 signature_invalid", "3 signature_invalid", "3 head_mismatch"}) {
		t.Errorf("with another key, found %q", got)
	}
	if got := faults(t, s, nil, "z", 1, 0); len(got) > 0 {
		t.Errorf("without a key, found %q", got)
	}
	db.AuditEvent("fixture", nil) // unsigned
	if got := faults(t, s, chainKey, "fixture", 1, 0); len(got) > 0 {
		t.Errorf("events from before the key was configured: found %q", got)
	}
	if got := faults(t, s, chainKey, "no such zone", 1, 0); len(got) > 0 {
		t.Errorf("no events: found %q", got)
	}
}

// A range is verified together with the link to the event before it.
func TestVerifyAuditChainRange(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Store().For(store.System)
	const count = 2500 // more than two pages
	appendAuditEvents(t, s, "z", time.Now(), 1, count)
	if v := verifyChain(t, s, chainKey, "z", 500, 2000); v.Events != 1501 || v.First != 500 || v.Last != 2000 || v.Fault != nil || !v.Signed {
		t.Errorf("got %+v", v)
	}
	v, err := s.VerifyAuditChain(t.Context(), chainKey, "z", store.ChainRange{First: 1}) // without time
	if err != nil || v.Complete || v.Last != v.Events || v.Events == 0 || v.Fault != nil {
		t.Errorf("got %+v, error %v", v, err)
	}
	db.Exec("UPDATE audit_events SET decision = 'allow' WHERE chain_seq = 499")
	if got := faults(t, s, chainKey, "z", 500, 2000); len(got) > 0 {
		t.Errorf("the event before the range was edited, but its hash was not: found %q", got)
	}
	db.Exec("UPDATE audit_events SET content_sha256 = 'x' WHERE chain_seq = 499")
	if got := faults(t, s, chainKey, "z", 500, 2000); !slices.Equal(got, []string{"500 chain_broken"}) {
		t.Errorf("found %q", got)
	}
	db.Exec("DELETE FROM audit_events WHERE chain_seq = 499")
	if got := faults(t, s, chainKey, "z", 500, 2000); !slices.Equal(got, []string{"499 event_missing"}) {
		t.Errorf("found %q", got)
	}
	db.Exec("DELETE FROM audit_events WHERE chain_seq IN (1500, 2000)")
	if got := faults(t, s, chainKey, "z", 501, 2000); !slices.Equal(got, []string{"1500 event_missing", "2000 event_missing"}) {
		t.Errorf("found %q", got)
	}
	db.Exec("UPDATE audit_events SET chain_seq = 1000 WHERE chain_seq BETWEEN 995 AND 1005")
	if v := verifyChain(t, s, chainKey, "z", 600, 0); v.Events != count-600+1-2 { // also those whose number is repeated at the end of a page
		t.Errorf("verified %d events", v.Events)
	}
}

// Retention drops months in any order of the chain, and what remains verifies.
func TestDroppedMonthsLeaveChainVerifiable(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Store().For(store.System)
	now := time.Now().UTC()
	months := []time.Time{now.AddDate(0, 0, -100), now.AddDate(0, 0, -65), now}
	next := map[string]int{}
	add := func(zone string, month, n int) {
		t.Helper()
		appendAuditEvents(t, s, zone, months[month], next[zone]+1, n)
		next[zone] += n
	}
	add("z", 0, 5)
	add("z", 1, 3)
	add("z", 0, 2) // arrived late
	add("z", 2, 4)
	add("z", 0, 1)
	add("z", 1, 1)
	add("old", 0, 7) // no event will remain
	add("new", 2, 3)
	before := now.AddDate(0, 0, -32)
	for n := 0; ; n++ {
		dropped, err := s.DropExpiredAuditMonth(t.Context(), chainKey, before)
		if err != nil {
			t.Fatal(err)
		}
		if !dropped {
			if n < 2 {
				t.Fatalf("dropped %d months", n)
			}
			break
		}
		for _, zone := range []string{"z", "old", "new"} {
			if got := faults(t, s, chainKey, zone, 1, 0); len(got) > 0 {
				t.Errorf("after month %d, %s has the problems %q", n, zone, got)
			}
		}
	}
	if n := storetest.Value[int](db, "SELECT count(*) FROM audit_events"); n != 7 {
		t.Errorf("%d events remain, want 7", n)
	}
	add("old", 2, 2)
	if seq := storetest.Value[int](db, "SELECT max(chain_seq) FROM audit_events WHERE zone_id = 'old'"); seq != 9 {
		t.Errorf("the chain goes on with %d", seq)
	}
	for _, zone := range []string{"z", "old", "new"} {
		if got := faults(t, s, chainKey, zone, 1, 0); len(got) > 0 {
			t.Errorf("%s has the problems %q", zone, got)
		}
	}
	if v := verifyChain(t, s, chainKey, "z", 1, 0); v.Dropped != 12 || v.Events != 4 || v.Last != 16 {
		t.Errorf("got %+v", v)
	}
	if v := verifyChain(t, s, chainKey, "z", 4, 13); v.First != 1 || v.Last != 13 || v.Fault != nil {
		t.Errorf("got %+v", v)
	}
	for seq, hash := range map[int64]string{
		5:  storetest.Value[string](db, "SELECT last_content_sha256 FROM audit_chain_checkpoints WHERE zone_id = 'z' AND first_seq = 1"),
		13: storetest.Value[string](db, "SELECT content_sha256 FROM audit_events WHERE zone_id = 'z' AND chain_seq = 13"),
	} {
		for _, changed := range []bool{false, true} {
			head := auditchain.Head{Seq: seq, ContentHash: hash}
			if changed {
				head.ContentHash = "another hash"
			}
			v, err := s.VerifyAuditChain(t.Context(), chainKey, "z", store.ChainRange{First: 1, EarlierHead: &head, Budget: time.Minute})
			if err != nil || (v.Fault != nil) != changed || changed && (v.Fault.Reason != auditchain.EarlierHeadMismatch || v.Fault.Seq != seq) {
				t.Errorf("earlier head %+v: fault %+v, error %v", head, v.Fault, err)
			}
		}
	}
	for _, tt := range []struct{ sql, want string }{
		{"UPDATE audit_chain_checkpoints SET last_content_sha256 = 'x' WHERE zone_id = 'z' AND first_seq = 1", "1 checkpoint_invalid, 6 chain_broken"},
		{"UPDATE audit_chain_checkpoints SET hmac = NULL WHERE zone_id = 'z' AND first_seq = 6", "1 checkpoint_invalid, 6 chain_broken, 6 signature_missing"},
		{"DELETE FROM audit_chain_checkpoints WHERE zone_id = 'z'", "1 event_missing, 15 event_missing"},
	} {
		db.Exec(tt.sql)
		got := faults(t, s, chainKey, "z", 1, 0)
		slices.Sort(got)
		if strings.Join(got, ", ") != tt.want {
			t.Errorf("after %s: found %q, want %s", tt.sql, got, tt.want)
		}
	}
}

// A checkpoint never stands for an event that was changed: the gap remains.
func TestDroppedMonthDoesNotHideTampering(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Store().For(store.System)
	old := time.Now().AddDate(0, 0, -100)
	appendAuditEvents(t, s, "z", old, 1, 10)
	appendAuditEvents(t, s, "z", time.Now(), 11, 2)
	db.Exec("UPDATE audit_events SET decision = 'allow' WHERE chain_seq = 3")
	db.Exec("DELETE FROM audit_events WHERE chain_seq = 7")
	for {
		dropped, err := s.DropExpiredAuditMonth(t.Context(), chainKey, time.Now().AddDate(0, 0, -32))
		if err != nil {
			t.Fatal(err)
		}
		if !dropped {
			break
		}
	}
	if got := faults(t, s, chainKey, "z", 1, 0); !slices.Equal(got, []string{"3 event_missing", "7 event_missing"}) {
		t.Errorf("found %q", got)
	}
}

// Only whole months that ended before the time are dropped, and only once.
func TestDropExpiredAuditMonthKeepsOthers(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	s := db.Store().For(store.System)
	month := time.Date(2020, 3, 1, 0, 0, 0, 0, time.UTC)
	appendAuditEvents(t, s, "z", month, 1, 1)
	appendAuditEvents(t, s, "z", month.AddDate(0, 1, 0).Add(-time.Microsecond), 2, 1)
	appendAuditEvents(t, s, "z", month.AddDate(0, 1, 0), 3, 1)
	drop := func(before time.Time) bool {
		t.Helper()
		dropped, err := s.DropExpiredAuditMonth(context.Background(), chainKey, before)
		if err != nil {
			t.Fatal(err)
		}
		return dropped
	}
	if drop(month.AddDate(0, 1, 0).Add(-time.Microsecond)) {
		t.Error("dropped a month that had not ended")
	}
	if !drop(month.AddDate(0, 1, 0)) || drop(month.AddDate(0, 1, 0)) {
		t.Error("did not drop March, or dropped April")
	}
	if ids := storetest.Column[string](db, "SELECT id FROM audit_events"); !slices.Equal(ids, []string{"e0003"}) {
		t.Errorf("the events %v remain", ids)
	}
	if labels := storetest.Column[string](db, "SELECT event_id FROM audit_event_labels"); !slices.Equal(labels, []string{"e0003"}) {
		t.Errorf("labels of the events %v remain", labels)
	}
}
