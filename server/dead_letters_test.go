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
	const stream = "no.stream"
	a.Redis.Set(t.Context(), stream, "a string", 0)
	bad, worse := a.DB.Event(zone.ID, stream), a.DB.Event(zone.ID, stream)
	list := func() []client.DeadLetter {
		t.Helper()
		resp, err := a.Admin.ListDeadLettersWithResponse(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		return *resp.JSON200
	}
	eventually(t, "both are dead", func() bool { return len(list()) == 2 })
	letter := list()[1]
	if letter.ID != bad || letter.ZoneID != zone.ID || letter.Stream != stream || letter.Fields["zone_id"] != zone.ID || letter.Attempts != 1 || letter.LastError == "" {
		t.Errorf("the letter is %+v", letter)
	}
	// Readiness is no business of dead letters; metrics are.
	servertest.Expect(t, a.Do("GET", "/ready", ""), http.StatusOK, "")
	if text := string(a.Do("GET", "/metrics", "").Body); !containsLine(text, "caracal_api_outbox_dead_total 2") || !containsLine(text, "caracal_api_outbox_pending_total 0") {
		t.Errorf("the metrics say\n%s", text)
	}

	a.Redis.Del(t.Context(), stream)
	rearmed, err := a.Admin.RearmDeadLetterWithResponse(t.Context(), bad)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, rearmed, http.StatusNoContent, "")
	eventually(t, "the rearmed one arrives", func() bool {
		entries, err := a.Redis.XRange(t.Context(), stream, "-", "+").Result()
		return err == nil && len(entries) == 1 && entries[0].Values["outbox_id"] == bad
	})
	discarded, err := a.Admin.DiscardDeadLetterWithResponse(t.Context(), worse)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, discarded, http.StatusNoContent, "")
	if left := list(); len(left) != 0 {
		t.Errorf("left are %+v", left)
	}
	for _, id := range []string{bad, worse, "unheard-of"} {
		again, err := a.Admin.RearmDeadLetterWithResponse(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, again, 0, code.DeadLetterNotFound)
		gone, err := a.Admin.DiscardDeadLetterWithResponse(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, gone, 0, code.DeadLetterNotFound)
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE entity_type = 'dead-letters' AND zone_id = $1 AND status_code = 204", zone.ID); n != 2 {
		t.Errorf("%d entries in the trail, want one for each", n)
	}
}
