package server

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// deniedRequests writes denied requests to the audit log in the background. It is
// best effort: a denied request changed nothing, so only its entry can be lost.
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

// run writes queued requests until ctx is done, and then those that are left.
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

// auditZone returns the zone whose audit log a denied request belongs to: the one
// in the path if the caller has access to it, otherwise the caller's own. A
// caller cannot write to the audit log of another zone.
func auditZone(actor store.Actor, inPath string) string {
	switch {
	case !actor.Global():
		return actor.Zone
	case middleware.IsID(inPath):
		return inPath
	}
	return store.NoZone
}
