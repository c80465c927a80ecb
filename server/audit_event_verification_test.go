package server_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/ingest"
	"caracal.run/management/store/storetest"
)

// ingestEvents publishes n audit events of a zone, and waits until they are stored.
func ingestEvents(t *testing.T, a *servertest.API, zone string, n int) {
	t.Helper()
	var events []ingest.Event
	for i := range n {
		events = append(events, ingest.Event{ID: fmt.Sprint("e", i), ZoneID: zone, Decision: "deny", OccurredAt: time.Now()})
	}
	if err := ingest.Publish(t.Context(), a.Redis, auditKey(t), events...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the audit events are stored", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM audit_events WHERE zone_id = $1", zone) == n
	})
}

func TestGetAuditEventHead(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	ingestEvents(t, a, zone, 3)
	hash := storetest.Value[string](a.DB, "SELECT content_sha256 FROM audit_events WHERE chain_seq = 3")
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		seq  string
		want code.Code // "" is 200
	}{
		{"token of the zone", a.ClientFor(zone, "read"), zone, "3", ""},
		{"zone without events", a.Admin, "unknown", "0", ""},
		{"token of another zone", a.ClientFor(a.Zone().ID, "read"), zone, "", code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.GetAuditEventHeadWithResponse(t.Context(), tt.zone)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want != "" {
				return
			}
			got := *resp.JSON200
			if got.ZoneID != tt.zone || got.Seq != tt.seq || (got.Hash == nil) != (tt.seq == "0") || got.Hash != nil && (*got.Hash != hash || got.Mac == nil) {
				t.Errorf("got %s", resp.Body)
			}
		})
	}
}

func TestVerifyAuditEvents(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	ingestEvents(t, a, zone, 20)
	verify := func(t *testing.T, query string) client.AuditEventVerification {
		t.Helper()
		raw := a.Do("GET", "/v1/zones/"+zone+"/audit/verify"+query, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		return decode[client.AuditEventVerification](t, raw)
	}
	if got := verify(t, ""); !got.Valid || !got.Complete || got.EventsChecked != 20 || got.FromSeq != "1" || got.ToSeq != "20" || !got.Signed || !got.SignaturesChecked || got.Fault != nil || got.Head.Seq != "20" {
		t.Errorf("got %+v", got)
	}
	if got := verify(t, "?from_seq=5&to_seq=7"); !got.Valid || got.EventsChecked != 3 || got.FromSeq != "5" || got.ToSeq != "7" {
		t.Errorf("got %+v", got)
	}
	hash := storetest.Value[string](a.DB, "SELECT content_sha256 FROM audit_events WHERE chain_seq = 12")
	if got := verify(t, "?head_seq=12&head_hash="+hash); !got.Valid {
		t.Errorf("got %+v", got)
	}
	if got := verify(t, "?head_seq=11&head_hash="+hash); got.Valid || got.Fault == nil || got.Fault.Reason != client.AuditEventFaultReasonEarlierHeadMismatch {
		t.Errorf("got %+v", got)
	}
	a.DB.Exec("UPDATE audit_events SET decision = 'allow' WHERE chain_seq = 9")
	got := verify(t, "")
	if f := got.Fault; got.Valid || got.ToSeq != "8" || f == nil || f.Seq != "9" || f.ID == nil || *f.ID != "e8" || f.Reason != client.AuditEventFaultReasonContentChanged || f.Detail == "" {
		t.Errorf("got %+v", got)
	}
	if got := verify(t, "?from_seq=10"); !got.Valid {
		t.Errorf("got %+v", got)
	}
	a.DB.Exec("DELETE FROM audit_events WHERE chain_seq IN (1, 20)")
	if got := verify(t, "?from_seq=10"); got.Valid || got.Fault.Seq != "20" || got.Fault.ID != nil || got.Fault.Reason != client.AuditEventFaultReasonEventMissing {
		t.Errorf("got %+v", got)
	}
	if got := verify(t, ""); got.Valid || got.ToSeq != "0" || got.Fault.Seq != "1" {
		t.Errorf("got %+v", got)
	}
	for _, query := range []string{"?from_seq=0", "?from_seq=x", "?from_seq=3&to_seq=2", "?head_seq=1", "?head_hash=" + hash, "?head_seq=1&head_hash=x"} {
		raw := a.Do("GET", "/v1/zones/"+zone+"/audit/verify"+query, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, 0, code.InvalidQuery)
	}
	other, err := a.ClientFor(a.Zone().ID, "read").VerifyAuditEventsWithResponse(t.Context(), zone, &rawclient.VerifyAuditEventsParams{})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, other, http.StatusOK, code.AdminTokenZoneMismatch)
}
