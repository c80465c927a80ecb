//go:build faults

package faults_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A client that does not read its stream of zone events is disconnected, while others are
// served. It can resume after the last event that it has received.
func TestClientsThatDoNotReadEventsAreDisconnected(t *testing.T) {
	t.Parallel()
	const events = 1000
	b := newBackends(t)
	s := b.start("streaming")
	// Together, the events are larger than every buffer on the way to the client.
	b.superuser(fmt.Sprintf(`WITH e AS (INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, entity_type, entity_id, status_code, payload)
			SELECT 'zone-1', 'entry-' || n, 'request', 'somebody', 'updateZone', 'PATCH /v1', 'PATCH', '/v1', 'zones', 'zone-1', 200,
				jsonb_build_object('change', 'updated', 'changed_fields', jsonb_build_array('name'), 'changes', jsonb_build_object('name', jsonb_build_object('from', '', 'to', repeat('x', 20000))))::text
			FROM generate_series(1, %d) AS n RETURNING zone_id, id)
		INSERT INTO audit_unsealed (zone_id, entry_id) SELECT zone_id, id FROM e`, events))
	b.checkSeals(s)
	conn := dial(t, s)
	if err := conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	const path = "/v1/zones/zone-1/events"
	if _, err := io.WriteString(conn, strings.Replace(requestHead(http.MethodGet, path, 0), "\r\n", "\r\nAccept: text/event-stream\r\n", 1)); err != nil {
		t.Fatal(err)
	}
	open := func() float64 { return s.metric("caracal_api_event_streams") }
	eventually(t, 10*time.Second, "the stream is open", func() bool { return open() == 1 })
	eventually(t, 60*time.Second, "the stream is ended", func() bool {
		if status, body := s.get("/v1/zones"); status != http.StatusOK {
			t.Errorf("another request got %d %s", status, body)
		}
		return open() == 0
	})
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	received, _ := io.ReadAll(conn) // until the connection ends, in whatever way
	last := 0
	for event := range strings.SplitSeq(string(received[:max(0, strings.LastIndex(string(received), "\n\n"))]), "\n\n") {
		if id := eventID(event); id > 0 {
			last = id
		}
	}
	if last == 0 || last == events {
		t.Fatalf("the client received event %d of %d", last, events)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Last-Event-ID", strconv.Itoa(last))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for next := last + 1; next <= events && lines.Scan(); {
		if id := eventID(lines.Text()); id == next {
			next++
		} else if id > next {
			t.Fatalf("event %d follows %d", id, next-1)
		}
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
	_ = resp.Body.Close()
	b.waitIdle(s)
	s.terminate()
	t.Logf("the client received %d of %d events until it was disconnected", last, events)
}

// eventID returns the number in the id of an event, or 0 if it has none.
func eventID(event string) int {
	for line := range strings.Lines(event) {
		if text, isID := strings.CutPrefix(line, "id: "); isID {
			id, _ := strconv.Atoi(strings.TrimSpace(text))
			return id
		}
	}
	return 0
}
