package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"
)

const (
	// silence is how long a stream of events can be silent until the client reconnects. The
	// service sends something every 15 seconds.
	silence = 45 * time.Second
	// maxPause is the longest wait between two attempts to reconnect.
	maxPause = 10 * time.Second
	// maxEvent is the maximum size of a line of a stream of events.
	maxEvent = 16 << 20
)

// FollowZoneEvents returns an iterator over the changes of a zone in the order of their
// commits, each once: first those that are committed already, then new ones as they are
// committed. It begins after the event with the given [ZoneEvent.ID], with the first event
// if that is "", and with the next one to come if it is "now".
//
//	for event, err := range c.FollowZoneEvents(ctx, zone.ID, "now") {
//		if err != nil {
//			return err
//		}
//		fmt.Println(event.ID, event.Type, event.EntityID)
//	}
//
// If the connection is lost or the service is unavailable, the iterator reconnects, and
// resumes after the last event that it has received. It ends when the context ends, or
// with an error that another attempt cannot correct, which it yields, such as
// [CodeEventPositionGone] or [CodeInvalidAdminToken].
//
// With [ResponseJSON], the text is that of the event.
func (c *Client) FollowZoneEvents(ctx context.Context, zoneID, lastEventID string, opts ...CallOption) iter.Seq2[ZoneEvent, error] {
	return func(yield func(ZoneEvent, error) bool) {
		f := follower{client: c, zone: zoneID, last: lastEventID, options: apply(opts)}
		for failures := 0; ; failures++ {
			received, err := f.receive(ctx, yield)
			switch {
			case errors.Is(err, errStopped):
				return
			case ctx.Err() != nil:
				yield(ZoneEvent{}, withContext(ctx, ctx.Err()))
				return
			case err != nil && !retryable(true, err):
				yield(ZoneEvent{}, err)
				return
			}
			if received {
				failures = 0
			}
			select {
			case <-time.After(min(firstWait<<min(failures, 10), maxPause)):
			case <-ctx.Done():
			}
		}
	}
}

// errStopped means that the caller has left the iteration.
var errStopped = errors.New("stopped")

// A follower receives the events of a zone.
type follower struct {
	client  *Client
	zone    string
	last    string // the id of the last event, "now" or ""
	options func(*call)
}

// receive opens a stream, and yields its events until it ends. It reports whether it
// received anything.
func (f *follower) receive(ctx context.Context, yield func(ZoneEvent, error) bool) (received bool, err error) {
	r := request{operation: "listZoneEvents", method: http.MethodGet, path: "/v1/zones/{zoneId}/events", args: []string{f.zone}, status: http.StatusOK, accept: "text/event-stream"}
	position := func(call *call) {
		f.options(call)
		if f.last == "now" || f.last == "" {
			call.setParams(map[string]any{"after": f.last})
		} else {
			call.setHeader("Last-Event-ID", f.last)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var s stream
	resp, err := f.client.retrying(ctx, r, position, func(attempt context.Context, call *call) (resp *response, err error) {
		s, resp, err = f.client.attemptStream(attempt, ctx, call)
		return resp, err
	})
	if err != nil {
		return false, err
	}
	defer s.close()
	silent := time.AfterFunc(silence, func() { cancel(errors.New("the stream is silent")) })
	defer silent.Stop()
	lines := bufio.NewScanner(s.body)
	lines.Buffer(nil, maxEvent)
	var id, data []byte
	for lines.Scan() {
		silent.Reset(silence)
		received = true
		line := lines.Bytes()
		if len(line) > 0 {
			name, value, _ := bytes.Cut(line, []byte(":"))
			value = bytes.TrimPrefix(value, []byte(" "))
			switch string(name) {
			case "id":
				id = bytes.Clone(value)
			case "data":
				data = append(data, value...)
			}
			continue
		}
		if len(id) > 0 {
			f.last = string(id)
		}
		if len(data) == 0 {
			continue
		}
		var event ZoneEvent
		if err := json.Unmarshal(data, &event); err != nil || event.ID == "" {
			return received, resp.fail(fmt.Sprintf("an event of the stream is not JSON of the API: %.100q", data), nil)
		}
		if resp.call.json != nil {
			*resp.call.json = bytes.Clone(data)
		}
		data = data[:0]
		if !yield(event, nil) {
			return received, errStopped
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return received, resp.fail(fmt.Sprintf("an event of the stream exceeds %d MiB", maxEvent>>20), nil)
	}
	return received, nil
}
