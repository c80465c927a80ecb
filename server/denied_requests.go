package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// deniedRequests writes denied requests to the audit log in the background. This is
// best effort: an entry can be lost, but a denied request has changed nothing.
type deniedRequests struct {
	store   *store.Store
	log     *slog.Logger
	queue   chan middleware.DeniedRequest
	dropped atomic.Uint64
}

func newDeniedRequests(s *store.Store, log *slog.Logger) *deniedRequests {
	const queueSize = 1024
	return &deniedRequests{store: s, log: log, queue: make(chan middleware.DeniedRequest, queueSize)}
}

// add queues a denied request, or drops it if the queue is full. It never blocks.
func (d *deniedRequests) add(denied middleware.DeniedRequest) {
	select {
	case d.queue <- denied:
	default:
		d.dropped.Add(1)
	}
}

// run writes queued requests until ctx is done, and then the remaining ones.
func (d *deniedRequests) run(ctx context.Context) {
	for {
		select {
		case denied := <-d.queue:
			d.write(ctx, denied)
		case <-ctx.Done():
			for {
				select {
				case denied := <-d.queue:
					d.write(ctx, denied)
				default:
					return
				}
			}
		}
	}
}

func (d *deniedRequests) write(ctx context.Context, denied middleware.DeniedRequest) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	zone := auditZone(denied.Cause.Actor, denied.Zone)
	if err := d.store.RecordDenied(ctx, denied.Cause, zone, denied.EntityKind, denied.EntityID); err != nil {
		d.dropped.Add(1)
		d.log.WarnContext(ctx, "failed to write audit entry for denied request", "request_id", denied.Cause.RequestID, "error", err)
	}
}

// auditZone returns the zone whose audit log records a denied request. For a zone
// token it is always the token's zone, so that no caller can write to the audit log
// of another zone. For a global token it is the zone in the path, if there is one.
func auditZone(actor store.Actor, pathZone string) string {
	switch {
	case !actor.Global():
		return actor.Zone
	case middleware.IsID(pathZone):
		return pathZone
	}
	return store.NoZone
}
