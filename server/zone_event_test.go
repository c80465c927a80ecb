package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// waitUntilSealed waits until all entries of the audit log are sealed, and so can be read
// as events.
func waitUntilSealed(t *testing.T, a *servertest.API) {
	t.Helper()
	eventually(t, "all audit entries are sealed", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM audit_unsealed") == 0
	})
}

// zoneEvents returns all events of a zone, page by page.
func zoneEvents(t *testing.T, a *servertest.API, zone string, p rawclient.ListZoneEventsParams) (all []client.ZoneEvent) {
	t.Helper()
	for {
		resp, err := a.Admin.ListZoneEventsWithResponse(t.Context(), zone, &p)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		all = append(all, resp.JSON200.Rows...)
		if resp.JSON200.NextCursor == nil {
			return all
		}
		p.Cursor = resp.JSON200.NextCursor
	}
}

func typesOf(events []client.ZoneEvent) (types []string) {
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

func createApplications(t *testing.T, a *servertest.API, zone string, count int) (ids []string) {
	t.Helper()
	for i := range count {
		resp, err := a.Admin.CreateApplicationWithResponse(t.Context(), zone, client.NewApplication{Name: fmt.Sprint("Application ", i), RegistrationMethod: client.NewApplicationRegistrationMethodManaged})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusCreated, "")
		ids = append(ids, resp.JSON201.ID)
	}
	return ids
}

func TestListZoneEvents(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := createApplications(t, a, zone, 1)[0]
	path := "/v1/zones/" + zone + "/applications/" + id
	asZone := append(bearer(a.Token(zone, "write").Token), "X-Request-Id", "req-77", "Content-Type", "application/json")
	servertest.Expect(t, a.Do("PATCH", path, `{"name":"Renamed","client_secret":"a-secret-of-a-person-1"}`, asZone...), http.StatusOK, "")
	servertest.Expect(t, a.Do("DELETE", path, "", append(asZone, "If-Match", `"1"`)...), 0, code.VersionConflict)
	servertest.Expect(t, a.Do("DELETE", path, "", asZone...), http.StatusNoContent, "")
	eventually(t, "the denied request is recorded", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE status_code = 412") == 1
	})
	waitUntilSealed(t, a)
	want := []string{"zones.created", "applications.created", "admin-tokens.created", "applications.updated", "applications.deleted"}
	for _, limit := range []int{1, 2, 100} {
		all := zoneEvents(t, a, zone, rawclient.ListZoneEventsParams{Limit: &limit})
		if got := typesOf(all); !slices.Equal(got, want) {
			t.Fatalf("with pages of %d, the events are %q, want %q", limit, got, want)
		}
		e := all[3]
		if e.EntityType != "applications" || e.EntityID != id || e.ZoneID != zone || e.Operation != "updateApplication" || e.RequestID != "req-77" || e.ActorName != "test" ||
			*e.ActorScope != client.ZoneEventActorScopeZone || !strings.HasPrefix(string(e.Changes), `{"name":{"from":"Application 0","to":"Renamed"},"secrets":{"from":[{"id":`) || !e.SecretChanged {
			t.Errorf("the event of the update is %+v", e)
		}
		if after := zoneEvents(t, a, zone, rawclient.ListZoneEventsParams{Limit: &limit, After: &e.ID}); !slices.Equal(typesOf(after), want[4:]) {
			t.Errorf("after %s, the events are %+v", e.ID, after)
		}
	}
	if none := zoneEvents(t, a, zone, rawclient.ListZoneEventsParams{After: new("now")}); len(none) > 0 {
		t.Errorf("after now, the events are %+v", none)
	}
	if none := zoneEvents(t, a, "unknown", rawclient.ListZoneEventsParams{}); len(none) > 0 {
		t.Errorf("the events of an unknown zone are %+v", none)
	}
	if raw := a.Do("GET", "/v1/zones/"+zone+"/events", "", append(bearer(servertest.Bootstrap), "Last-Event-ID", "1")...); strings.Contains(string(raw.Body), `"id":"1"`) || !strings.Contains(string(raw.Body), `"id":"2"`) {
		t.Errorf("after the Last-Event-ID 1, got %s", raw.Body)
	}
}

func TestListZoneEventsPositions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	createApplications(t, a, zone, 3)
	waitUntilSealed(t, a)
	path, global := "/v1/zones/"+zone+"/events", bearer(servertest.Bootstrap)
	for _, id := range []string{"x", "-1", "1,2", "9223372036854775808", "1.5"} {
		servertest.Expect(t, a.Do("GET", path, "", append(global, "Last-Event-ID", id)...), 0, code.InvalidCursor)
	}
	for _, query := range []string{"after=x", "after=-1", "after=", "after=1&after=2", "after=1234567890123456789", "limit=0"} {
		servertest.Expect(t, a.Do("GET", path+"?"+query, "", global...), 0, code.InvalidQuery)
	}
	servertest.Expect(t, a.Do("GET", path+"?cursor=x", "", global...), 0, code.InvalidCursor)
	for _, accept := range []string{"application/json", "text/event-stream"} {
		servertest.Expect(t, a.Do("GET", path+"?after=999", "", append(global, "Accept", accept)...), 0, code.EventPositionGone)
	}
	// An entry that someone deleted is skipped, a seal that someone deleted is not: the
	// client cannot know what it misses.
	a.DB.Exec("DELETE FROM audit_entries WHERE id = (SELECT entry_id FROM audit_seals WHERE zone_id = $1 AND seq = 2)", zone)
	if got := zoneEvents(t, a, zone, rawclient.ListZoneEventsParams{}); len(got) != 3 || got[1].ID != "3" {
		t.Errorf("the events are %+v", got)
	}
	a.DB.Exec("DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 3", zone)
	servertest.Expect(t, a.Do("GET", path+"?after=2", "", global...), 0, code.EventPositionGone)
	if raw := a.Do("GET", path, "", global...); !strings.Contains(string(raw.Body), `"id":"1"`) || strings.Contains(string(raw.Body), `"id":"4"`) {
		t.Errorf("before the gap, got %s", raw.Body)
	}
}

func TestStreamZoneEvents(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	b := servertest.NewReplica(t, a.DB, storetest.RedisURL(t))
	zone := a.Zone().ID
	createApplications(t, a, zone, 1)
	waitUntilSealed(t, a)
	path, token := "/v1/zones/"+zone+"/events", a.Token(zone, "read").Token
	waitUntilSealed(t, a)
	all, live := a.Stream(token, path), b.Stream(token, path+"?after=now")
	expect := func(s *servertest.Stream, want ...string) (last string) {
		t.Helper()
		for _, kind := range want {
			event, open := s.Next()
			if !open || event.Type != kind {
				t.Fatalf("the next event is %+v, %t, want %s", event, open, kind)
			}
			last = event.ID
		}
		return last
	}
	expect(all, "zones.created", "applications.created", "admin-tokens.created")
	id := createApplications(t, a, zone, 1)[0] // seen by both replicas, whichever seals it
	expect(all, "applications.created")
	if event, _ := live.Next(); event.EntityID != id || live.Position != "3" {
		t.Errorf("after now (%s), the next event is %+v", live.Position, event)
	}
	live.Close()
	createApplications(t, b, zone, 2)
	last := expect(all, "applications.created")
	resumed := b.Stream(token, path, "Last-Event-ID", last)
	if first, second := expect(all, "applications.created"), expect(resumed, "applications.created"); first != second {
		t.Errorf("the resumed stream has %s, want %s", second, first)
	}
	if head := a.Do("HEAD", path, "", append(bearer(token), "Accept", "text/event-stream")...); head.Response.StatusCode != http.StatusOK || head.Header.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("HEAD got %d %v", head.Response.StatusCode, head.Header)
	}
}

// A transaction that began early and commits late is sealed late: it gets a position
// after those that clients have passed.
func TestStreamZoneEventsSkipsNoLateTransaction(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	stream := a.Stream(servertest.Bootstrap, "/v1/zones/"+zone+"/events")
	tx := ownerTx(t, a.DB)
	for _, sql := range []string{
		`INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, entity_type, entity_id, status_code, payload)
		 VALUES ($1, '0-late', 'r', 'a', 'o', 'a', 'm', 'p', 'applications', 'late', 200, '{"change":"created"}')`,
		"INSERT INTO audit_unsealed (zone_id, entry_id) VALUES ($1, '0-late')",
	} {
		if _, err := tx.Exec(t.Context(), sql, zone); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	next := func(count int) {
		t.Helper()
		for range count {
			event, open := stream.Next()
			if !open {
				t.Fatalf("the stream has ended after %q", got)
			}
			got = append(got, event.EntityID)
		}
	}
	want := append([]string{zone}, createApplications(t, a, zone, 3)...)
	next(4)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(1)
	want = append(append(want, "late"), createApplications(t, a, zone, 1)...)
	next(1)
	if !slices.Equal(got, want) {
		t.Errorf("the events are of %q, want %q", got, want)
	}
}

// Many concurrent transactions, and clients that reconnect: each event arrives once, and
// those of one object in the order of its versions.
func TestStreamZoneEventsOfConcurrentTransactions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const writers, updates = 6, 12
	ids := createApplications(t, a, zone, writers)
	stream := a.Stream(servertest.Bootstrap, "/v1/zones/"+zone+"/events")
	var writing sync.WaitGroup
	for _, id := range ids {
		writing.Go(func() {
			for n := range updates {
				resp, err := a.Admin.UpdateApplicationWithResponse(t.Context(), zone, id, nil, client.ApplicationPatch{Name: new(strconv.Itoa(n))})
				if err != nil || resp.StatusCode() != http.StatusOK {
					t.Errorf("%v: %s", err, resp.Body)
				}
			}
		})
	}
	last, updated := "0", map[string]int{}
	for n := range 1 + writers + writers*updates {
		if n%20 == 19 { // reconnect
			stream.Close()
			stream = a.Stream(servertest.Bootstrap, "/v1/zones/"+zone+"/events", "Last-Event-ID", last)
		}
		event, open := stream.Next()
		if before, now := atoi(t, last), atoi(t, event.ID); !open || now <= before {
			t.Fatalf("after %s, the event is %+v, %t", last, event, open)
		}
		last = event.ID
		if event.Type == "applications.updated" {
			if want := fmt.Sprintf(`"to":"%d"`, updated[event.EntityID]); !strings.Contains(string(event.Changes), want) {
				t.Errorf("the change is %s, want %s", event.Changes, want)
			}
			updated[event.EntityID]++
		}
	}
	writing.Wait()
	for _, id := range ids {
		if updated[id] != updates {
			t.Errorf("%d updates of %s", updated[id], id)
		}
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStreamZoneEventsEnds(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	path := "/v1/zones/" + zone + "/events?after=now"
	revoked, expiring, other := a.Token(zone, "read"), a.Token(zone, "read"), a.Token(zone, "read")
	ended := func(s *servertest.Stream) {
		t.Helper()
		for {
			if _, open := s.Next(); !open {
				return
			}
		}
	}
	first, second, third := a.Stream(revoked.Token, path), a.Stream(expiring.Token, path), a.Stream(other.Token, path)
	servertest.Expect(t, deleteToken(t, a.Admin, revoked.ID), http.StatusNoContent, "")
	ended(first)
	a.DB.Exec("UPDATE admin_tokens SET expires_at = now() WHERE id = $1", expiring.ID)
	a.DB.Exec("UPDATE admin_tokens_epoch SET epoch = epoch + 1") // so that no replica uses its cache
	ended(second)
	createApplications(t, a, zone, 1)
	for {
		event, open := third.Next()
		if !open {
			t.Fatal("the stream of another token has ended")
		}
		if event.Type == "applications.created" {
			break
		}
	}
	if err := a.Service.Stop(); err != nil { // does not wait until it must close the connections
		t.Error(err)
	}
	ended(third)
}

func TestStreamZoneEventsLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	path, token := "/v1/zones/"+zone+"/events", a.Token(zone, "read").Token
	var streams []*servertest.Stream
	for range 20 {
		streams = append(streams, a.Stream(token, path))
	}
	asStream := append(bearer(token), "Accept", "text/event-stream")
	denied := a.Do("GET", path, "", asStream...)
	servertest.Expect(t, denied, 0, code.TooManyStreams)
	if denied.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	a.Stream(servertest.Bootstrap, path).Close() // of another token
	servertest.Expect(t, a.Do("GET", path, "", bearer(token)...), http.StatusOK, "")
	streams[0].Close()
	eventually(t, "a closed stream makes room", func() bool { return a.Do("HEAD", path, "", asStream...).Response.StatusCode == http.StatusOK })
	if metrics := string(a.Do("GET", "/metrics", "").Body); !strings.Contains(metrics, "caracal_api_event_streams ") {
		t.Errorf("the metrics are\n%s", metrics)
	}
}
