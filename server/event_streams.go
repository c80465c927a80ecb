package server

import (
	"context"
	"sync"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

// eventStreams are the open streams of zone events. One goroutine looks for new events of
// all their zones with one query: when this process has sealed entries, and a few times a
// second, because other replicas seal entries too.
type eventStreams struct {
	store  *store.Store
	sealed func() <-chan struct{} // returns a channel that is closed when this process has sealed entries again

	mu      sync.Mutex
	streams map[*openStream]struct{}
	byToken map[string]int
}

// An openStream is a stream of a zone's events.
type openStream struct {
	zone, token string
	head        int64         // the last position that it was woken for
	advanced    chan struct{} // receives a value when the zone may have new events
}

func newEventStreams(s *store.Store, sealed func() <-chan struct{}) *eventStreams {
	return &eventStreams{store: s, sealed: sealed, streams: map[*openStream]struct{}{}, byToken: map[string]int{}}
}

// open registers a stream of a token, or returns too_many_streams. The caller must close
// it.
func (e *eventStreams) open(zone, token string) (*openStream, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.streams) >= maxStreams || e.byToken[token] >= maxTokenStreams {
		return nil, code.TooManyStreams
	}
	stream := &openStream{zone: zone, token: token, advanced: make(chan struct{}, 1)}
	e.streams[stream] = struct{}{}
	e.byToken[token]++
	return stream, nil
}

func (e *eventStreams) close(stream *openStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.streams, stream)
	if e.byToken[stream.token]--; e.byToken[stream.token] == 0 {
		delete(e.byToken, stream.token)
	}
}

// count returns the number of open streams.
func (e *eventStreams) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.streams)
}

// run wakes the streams whose zones have new events until ctx ends.
func (e *eventStreams) run(ctx context.Context) {
	const pollInterval = 250 * time.Millisecond
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		sealed := e.sealed() // before the look, so that it misses nothing
		e.wake(ctx)
		select {
		case <-ctx.Done():
			return
		case <-sealed:
		case <-tick.C:
		}
	}
}

func (e *eventStreams) wake(ctx context.Context) {
	zones := e.zones()
	if len(zones) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, eventReadLimit)
	defer cancel()
	heads, err := e.store.ZoneEventHeads(ctx, zones)
	if err != nil {
		return // the next look comes soon, and the streams find out with their token
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for stream := range e.streams {
		if head := heads[stream.zone]; head != stream.head {
			stream.head = head
			select {
			case stream.advanced <- struct{}{}:
			default: // a wake-up is already pending
			}
		}
	}
}

// zones returns the zones of the open streams, each once.
func (e *eventStreams) zones() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	seen := map[string]bool{}
	zones := []string{}
	for stream := range e.streams {
		if !seen[stream.zone] {
			seen[stream.zone] = true
			zones = append(zones, stream.zone)
		}
	}
	return zones
}
