package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestListDeadLettersRearmDeadLetterAndDiscardDeadLetter(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "OUTBOX_MAX_ATTEMPTS=1")
	zone := a.Zone()
	streams := []string{"caracal.sessions.revoke", "caracal.agents.lifecycle", "caracal.delegations.invalidate", "caracal.policy.invalidate"}
	ids := map[string]string{} // stream -> event
	for _, stream := range streams {
		a.Redis.Set(t.Context(), stream, "a string", 0) // Redis rejects XADD to it
		ids[stream] = a.DB.Event(zone.ID, stream)
	}
	discarded := a.DB.Event(zone.ID, streams[0])
	list := func() []client.DeadLetter {
		t.Helper()
		resp, err := a.Admin.ListDeadLettersWithResponse(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		return *resp.JSON200
	}
	eventually(t, "every event is a dead letter", func() bool { return len(list()) == len(streams)+1 })
	first := list()[len(streams)]
	if first.ID != ids[streams[0]] || first.ZoneID != zone.ID || first.Stream != streams[0] || first.Fields["zone_id"] != zone.ID || first.Attempts != 1 || first.LastError == "" {
		t.Errorf("the oldest dead letter is %+v", first)
	}
	// Dead letters do not make the service unready; the metrics count them.
	servertest.Expect(t, a.Do("GET", "/ready", ""), http.StatusOK, "")
	if text := string(a.Do("GET", "/metrics", "").Body); !containsLine(text, "caracal_api_outbox_dead_total 5") || !containsLine(text, "caracal_api_outbox_pending_total 0") {
		t.Errorf("the metrics are\n%s", text)
	}

	discard, err := a.Admin.DiscardDeadLetterWithResponse(t.Context(), discarded)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, discard, http.StatusNoContent, "")
	for _, stream := range streams {
		a.Redis.Del(t.Context(), stream)
		rearm, err := a.Admin.RearmDeadLetterWithResponse(t.Context(), ids[stream])
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, rearm, http.StatusNoContent, "")
		eventually(t, "the retried event is published on "+stream, func() bool {
			entries, err := a.Redis.XRange(t.Context(), stream, "-", "+").Result()
			return err == nil && len(entries) == 1 && entries[0].Values["outbox_id"] == ids[stream]
		})
	}
	if left := list(); len(left) != 0 {
		t.Errorf("the dead letters that are left are %+v", left)
	}
	for _, id := range []string{ids[streams[0]], discarded, "unknown"} {
		rearm, err := a.Admin.RearmDeadLetterWithResponse(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, rearm, 0, code.DeadLetterNotFound)
		discard, err := a.Admin.DiscardDeadLetterWithResponse(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, discard, 0, code.DeadLetterNotFound)
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE entity_type = 'dead-letters' AND zone_id = $1 AND status_code = 204", zone.ID); n != len(streams)+1 {
		t.Errorf("there are %d audit entries, want one for each dead letter", n)
	}
}
