package servertest

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
)

// A Stream is an open stream of zone events. Its data are validated against the spec.
type Stream struct {
	tb     testing.TB
	cancel context.CancelFunc
	body   io.ReadCloser
	op     Operation
	events chan client.ZoneEvent // closed when the stream ends

	// Position is the last id that was received before the last event of Next.
	Position string
}

// Stream opens a stream of events. Headers are pairs of name and value. The stream ends
// with the test, if it has not ended before.
func (a *API) Stream(token, path string, headers ...string) *Stream {
	a.TB.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a.TB.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+path, nil)
	if err != nil {
		a.TB.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		a.TB.Fatal(err)
	}
	op, found := operationOf(r.Method, r.URL.Path)
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if !found || resp.StatusCode != http.StatusOK || op.Responses.Status(http.StatusOK).Value.Content[kind] == nil || kind != "text/event-stream" {
		text, _ := io.ReadAll(resp.Body)
		a.TB.Fatalf("the stream is not open: %d %s", resp.StatusCode, text)
	}
	s := &Stream{tb: a.TB, cancel: cancel, body: resp.Body, op: op, events: make(chan client.ZoneEvent, 1<<16)}
	go s.read()
	return s
}

// read receives events until the stream ends. An event of the type position has no data.
func (s *Stream) read() {
	defer close(s.events)
	defer s.body.Close()
	schema := s.op.Responses.Status(http.StatusOK).Value.Content["application/json"].Schema.Value.Properties["rows"].Value.Items.Value
	var id, kind, data string
	lines := bufio.NewReader(s.body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			id = value
		case "event":
			kind = value
		case "data":
			data = value
		case ":": // a comment
		case "":
			var event client.ZoneEvent
			if data != "" {
				var value any
				if err := json.Unmarshal([]byte(data), &value); err != nil {
					s.tb.Errorf("the data %q: %v", data, err)
				} else if err := schema.VisitJSON(value); err != nil {
					s.tb.Errorf("the data %q: %v", data, err)
				}
				if err := json.Unmarshal([]byte(data), &event); err != nil || event.ID != id || event.Type != kind {
					s.tb.Errorf("the event %s %s has the data %q: %v", id, kind, data, err)
				}
			} else if id != "" {
				event = client.ZoneEvent{ID: id}
			}
			if event.ID != "" {
				s.events <- event
			}
			id, kind, data = "", "", ""
		default:
			s.tb.Errorf("the line %q", line)
		}
	}
}

// Next waits for the next event and returns it, or false if the stream has ended.
func (s *Stream) Next() (client.ZoneEvent, bool) {
	s.tb.Helper()
	const timeout = 10 * time.Second
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case event, open := <-s.events:
			switch {
			case !open:
				return event, false
			case event.Type == "":
				s.Position = event.ID
				continue
			}
			return event, true
		case <-timer.C:
			s.tb.Fatal("timed out waiting for an event")
		}
	}
}

// Close ends the stream.
func (s *Stream) Close() { s.cancel() }
