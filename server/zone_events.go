package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/middleware"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

// ListZoneEvents handles GET /v1/zones/{zoneId}/events.
func (s *Server) ListZoneEvents(ctx context.Context, req api.ListZoneEventsRequestObject) (api.ListZoneEventsResponseObject, error) {
	scope := "events of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, new(valueOr(req.Params.Limit, defaultRowLimit)), scope)
	if err != nil {
		return nil, err
	}
	after, err := s.eventPosition(ctx, req, page)
	if err != nil {
		return nil, err
	}
	if middleware.RequestInfoFrom(ctx).WantsStream {
		return eventStream(func(w http.ResponseWriter) error { return s.streamZoneEvents(ctx, w, req.ZoneID, after) }), nil
	}
	events, last, err := s.storeFor(ctx).ZoneEvents(ctx, req.ZoneID, after, page.Limit)
	if err != nil {
		return nil, err
	}
	var link, next *string
	if last == after+int64(page.Limit) {
		link, next = nextPage(ctx, page, scope, numberPosition(last))
	}
	rows := mapSlice(events, func(e store.ZoneEvent) api.ZoneEvent { return toZoneEvent(req.ZoneID, e) })
	return api.ListZoneEvents200JSONResponse{
		Body: api.ZoneEventPage{Rows: rows, NextCursor: next}, Headers: api.ListZoneEvents200ResponseHeaders{Link: link},
	}, nil
}

// eventPosition returns the position after which a request asks for events: of the
// cursor, else of Last-Event-ID, else of the parameter after.
func (s *Server) eventPosition(ctx context.Context, req api.ListZoneEventsRequestObject, page store.Page) (int64, error) {
	if page.After != store.FirstPosition {
		position, err := strconv.ParseInt(page.After.ID, 10, 64)
		if err != nil {
			return 0, invalidCursor()
		}
		return position, nil
	}
	if id := middleware.RequestInfoFrom(ctx).LastEventID; id != "" {
		position, err := strconv.ParseInt(id, 10, 64)
		if err != nil || position < 0 {
			return 0, code.InvalidCursor.At("must be the id of an event", "Last-Event-ID")
		}
		return position, nil
	}
	switch after := valueOr(req.Params.After, "0"); after {
	case "now":
		heads, err := s.storeFor(ctx).ZoneEventHeads(ctx, []string{req.ZoneID})
		return heads[req.ZoneID], err
	default:
		return strconv.ParseInt(after, 10, 64) // the spec has checked it
	}
}

// toZoneEvent converts an event.
func toZoneEvent(zone string, e store.ZoneEvent) api.ZoneEvent {
	entry := e.Entry
	return api.ZoneEvent{
		ID: strconv.FormatInt(e.Seq, 10), Type: e.Type, ZoneID: zone, EntityType: *entry.EntityType, EntityID: valueOr(entry.EntityID, ""),
		Operation: *entry.Operation, ActorID: entry.ActorID, ActorName: *entry.ActorName, ActorScope: (*api.ZoneEventActorScope)(entry.ActorScope),
		RequestID: *entry.RequestID, Changes: e.Changes, SecretChanged: e.SecretChanged, OccurredAt: timestamp.Time(*entry.OccurredAt),
	}
}

// An eventStream is a response of server-sent events.
type eventStream func(http.ResponseWriter) error

// VisitListZoneEventsResponse writes the response.
func (e eventStream) VisitListZoneEventsResponse(w http.ResponseWriter) error { return e(w) }

const (
	eventsAtOnce    = 200              // entries that a stream reads at once, and keeps in memory
	heartbeat       = 15 * time.Second // between two writes, for proxies and to notice a lost client
	tokenInterval   = time.Second      // between two verifications of the token
	streamTimeout   = 20 * time.Second // how long a client may take to receive what is written at once
	eventReadLimit  = 5 * time.Second  // for one read of events
	maxStreams      = 1000             // in this process
	maxTokenStreams = 20               // of one token in this process
)

// streamZoneEvents sends the events of a zone after a position, and then new ones as they
// are sealed, until the client disconnects or reads too slowly, the token is no longer
// valid, or the service stops. If it fails after it has begun, the client reconnects with
// the last id that it has received.
func (s *Server) streamZoneEvents(ctx context.Context, w http.ResponseWriter, zone string, after int64) error {
	info := middleware.RequestInfoFrom(ctx)
	stream, err := s.streams.open(zone, info.Token.ID)
	if err != nil {
		return err
	}
	defer s.streams.close(stream)
	out := eventWriter{ResponseWriter: w, control: http.NewResponseController(w), writeTimeout: streamTimeout}
	beat, verify := time.NewTicker(heartbeat), time.NewTicker(tokenInterval)
	defer beat.Stop()
	defer verify.Stop()
	for {
		events, last, err := s.nextZoneEvents(ctx, zone, after)
		if err != nil {
			return err
		}
		if !out.begun {
			out.begin()
			if info.Method == http.MethodHead {
				return nil
			}
			out.position(after) // to resume from, if the connection is lost before the first event
		}
		for _, e := range events {
			out.event(toZoneEvent(zone, e))
		}
		if last > after {
			beat.Reset(heartbeat)
			if len(events) == 0 || events[len(events)-1].Seq != last {
				out.position(last)
			}
		}
		if err := out.send(); err != nil {
			return err
		}
		if last == after+eventsAtOnce {
			after = last
			continue
		}
		after = last
		for waiting := true; waiting; {
			select {
			case <-stream.advanced:
				waiting = false
			case <-beat.C:
				out.comment()
				if err := out.send(); err != nil {
					return err
				}
			case <-verify.C:
				if _, err := s.verifier.Verify(ctx, info.Bearer); err != nil {
					return nil
				}
			case <-s.draining:
				return nil
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (s *Server) nextZoneEvents(ctx context.Context, zone string, after int64) ([]store.ZoneEvent, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, eventReadLimit)
	defer cancel()
	return s.storeFor(ctx).ZoneEvents(ctx, zone, after, eventsAtOnce)
}

// An eventWriter writes server-sent events.
type eventWriter struct {
	http.ResponseWriter
	control      *http.ResponseController
	writeTimeout time.Duration // how long the client may take to receive what is sent at once
	begun        bool
	buffer       []byte // what is not sent yet
}

// begin sends the header.
func (w *eventWriter) begin() {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no")           // a proxy such as nginx must pass on each event at once
	_ = w.control.SetReadDeadline(time.Time{}) // which would end the context; fails only if the client has disconnected
	w.begun = true
	w.WriteHeader(http.StatusOK)
}

func (w *eventWriter) event(e api.ZoneEvent) {
	w.buffer = append(append(append(w.buffer, "id: "...), e.ID...), "\nevent: "...)
	w.buffer = append(append(w.buffer, e.Type...), "\ndata: "...)
	w.buffer = append(e.AppendJSON(w.buffer), "\n\n"...)
}

// position sends the id of an entry that is no change.
func (w *eventWriter) position(seq int64) {
	w.buffer = append(strconv.AppendInt(append(w.buffer, "id: "...), seq, 10), "\n\n"...)
}

func (w *eventWriter) comment() { w.buffer = append(w.buffer, ":\n\n"...) }

// send sends the buffer. It returns an error if the client has disconnected or reads too
// slowly.
func (w *eventWriter) send() error {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.writeTimeout)) // fails only if the client has disconnected
	_, err := w.Write(w.buffer)
	w.buffer = w.buffer[:0]
	if err != nil {
		return err
	}
	return w.control.Flush()
}
