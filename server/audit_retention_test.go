package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/storetest"
)

func TestGetAuditRetention(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "AUDIT_RETENTION_DAYS=60")
	zone := a.Zone().ID
	for _, tt := range []struct {
		name   string
		stored int // 0: none
		as     *rawclient.ClientWithResponses
		want   client.AuditRetention
		code   code.Code // "" is 200
	}{
		{"never set", 0, a.ClientFor("", "read"), client.AuditRetention{RetentionDays: 60, MaxDays: 60}, ""},
		{"set", 30, a.ClientFor("", "write"), client.AuditRetention{RetentionDays: 30, MaxDays: 60}, ""},
		{"above the present limit", 61, a.Admin, client.AuditRetention{RetentionDays: 60, MaxDays: 60}, ""},
		{"token of a zone", 30, a.ClientFor(zone, "read"), client.AuditRetention{}, code.AdminTokenZoneMismatch},
	} {
		if tt.stored > 0 {
			a.DB.Exec("INSERT INTO audit_retention (retention_days) VALUES ($1) ON CONFLICT (only_row) DO UPDATE SET retention_days = $1", tt.stored)
		}
		resp, err := tt.as.GetAuditRetentionWithResponse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, tt.code)
		if tt.code != "" {
			continue
		}
		got := *resp.JSON200
		if (got.UpdatedAt == nil) != (tt.stored == 0) {
			t.Errorf("%s: updated_at is %v", tt.name, got.UpdatedAt)
		}
		if got.UpdatedAt = nil; got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestUpdateAuditRetention(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "AUDIT_RETENTION_DAYS=60")
	zone := a.Zone().ID
	put := func(as *rawclient.ClientWithResponses, days int, match string) *rawclient.UpdateAuditRetentionResponse {
		t.Helper()
		params := &rawclient.UpdateAuditRetentionParams{}
		if match != "" {
			params.IfMatch = &match
		}
		resp, err := as.UpdateAuditRetentionWithResponse(t.Context(), params, client.AuditRetentionUpdate{RetentionDays: days})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	before, err := a.Admin.GetAuditRetentionWithResponse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := before.HTTPResponse.Header.Get("ETag")
	servertest.Expect(t, put(a.Admin, 30, `"other"`), http.StatusOK, code.VersionConflict)
	changed := put(a.Admin, 30, first)
	servertest.Expect(t, changed, http.StatusOK, "")
	tag := changed.HTTPResponse.Header.Get("ETag")
	if got := *changed.JSON200; got.RetentionDays != 30 || got.MaxDays != 60 || got.UpdatedAt == nil || tag == first {
		t.Errorf("got %+v with the ETag %s, before %s", got, tag, first)
	}
	servertest.Expect(t, put(a.Admin, 20, first), http.StatusOK, code.VersionConflict)
	same := put(a.Admin, 30, "")
	servertest.Expect(t, same, http.StatusOK, "")
	if same.HTTPResponse.Header.Get("ETag") != tag {
		t.Error("a request that changed nothing changed the ETag")
	}
	above := put(a.Admin, 61, "")
	servertest.Expect(t, above, http.StatusOK, code.RetentionAboveLimit)
	if !strings.Contains(string(above.Body), `"max_days":60`) {
		t.Errorf("got %s", above.Body)
	}
	servertest.Expect(t, put(a.Admin, 0, ""), http.StatusOK, code.InvalidBody)
	servertest.Expect(t, put(a.ClientFor("", "read"), 10, ""), http.StatusOK, code.AdminTokenReadOnly)
	servertest.Expect(t, put(a.ClientFor(zone, "write"), 10, ""), http.StatusOK, code.AdminTokenZoneMismatch)
	for _, body := range []string{"", "{}", `{"retention_days":"30"}`, `{"retention_days":1.5}`, `{"retention_days":null}`, `{"retention_days":30,"x":1}`, "[]"} {
		raw := a.Do("PUT", "/v1/audit-retention", body, append(bearer(servertest.Bootstrap), "Content-Type", "application/json")...)
		if raw.StatusCode() != http.StatusBadRequest {
			t.Errorf("%s: got %d %s", body, raw.StatusCode(), raw.Body)
		}
	}
	entries := storetest.Column[string](a.DB, "SELECT payload FROM audit_entries WHERE operation = 'updateAuditRetention' AND status_code = 200")
	if len(entries) != 1 || !strings.Contains(entries[0], `"changes":{"retention_days":{"from":60,"to":30}}`) {
		t.Errorf("the audit entries are %q", entries)
	}
}

// Expired months are dropped by the job and what has expired is not ingested, both with
// the retention that was set.
func TestAuditRetentionIsApplied(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "AUDIT_RETENTION_DAYS=365")
	old := time.Now().AddDate(0, 0, -75)
	a.DB.AuditEvent("z", map[string]any{"id": "old", "occurred_at": old})
	a.DB.AuditEvent("z", map[string]any{"id": "new"})
	a.Service.RunJobs(t.Context())
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_events"); n != 2 {
		t.Fatalf("%d events are stored before the retention is set", n)
	}
	resp, err := a.Admin.UpdateAuditRetentionWithResponse(t.Context(), &rawclient.UpdateAuditRetentionParams{}, client.AuditRetentionUpdate{RetentionDays: 40})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	a.Service.RunJobs(t.Context())
	if ids := storetest.Column[string](a.DB, "SELECT id FROM audit_events"); len(ids) != 1 || ids[0] != "new" {
		t.Errorf("the events %v remain", ids)
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_chain_checkpoints WHERE zone_id = 'z' AND first_seq = 1 AND last_seq = 1"); n != 1 {
		t.Errorf("%d checkpoints", n)
	}
	if err := ingest.Publish(t.Context(), a.Redis, auditKey(t), ingest.Event{ID: "late", ZoneID: "z", OccurredAt: old}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the expired event is a dead letter", func() bool { return a.Redis.XLen(t.Context(), ingest.DeadLetterStream).Val() == 1 })
}

// Partitions exist for the months to come, and counts of decisions are deleted.
func TestAuditJobs(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for month := range 4 {
		a.DB.Exec("SELECT create_audit_partitions($1, $1)", time.Now().AddDate(0, -month, 0))
	}
	partitions := func() int {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'audit_events'::regclass")
	}
	before := partitions()
	a.DB.Exec("DROP TABLE audit_partitions.audit_events_" + time.Now().UTC().AddDate(0, 2, -time.Now().UTC().Day()+1).Format("y2006m01"))
	a.DB.AuditEvent("z", map[string]any{"occurred_at": time.Now().Add(-47 * time.Hour)})
	a.DB.AuditEvent("z", map[string]any{"occurred_at": time.Now().Add(-49 * time.Hour)})
	a.Service.RunJobs(t.Context())
	if after := partitions(); after != before {
		t.Errorf("%d partitions before, %d after", before, after)
	}
	if n := storetest.Value[int](a.DB, "SELECT sum(count) FROM audit_decision_counts"); n != 1 {
		t.Errorf("%d decisions are counted, want those of the last two days", n)
	}
}
