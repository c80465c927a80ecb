package server

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"caracal.run/management/server/middleware"
	"caracal.run/management/store"
)

// deniedRequests records who was refused what, after the answer, as well as it can:
// nothing changed, so nothing is lost but the note.
type deniedRequests struct {
	store   *store.Store
	log     *slog.Logger
	queue   chan deniedRequest
	dropped atomic.Uint64
}

type deniedRequest struct {
	cause      store.Cause
	zone       string
	kind, item string
}

func newDeniedRequests(s *store.Store, log *slog.Logger) *deniedRequests {
	const queueSize = 1024
	return &deniedRequests{store: s, log: log, queue: make(chan deniedRequest, queueSize)}
}

// add notes a refusal without making anybody wait.
func (r *deniedRequests) add(cause store.Cause, zone string) {
	kind, item := auditedEntity(cause.Path)
	select {
	case r.queue <- deniedRequest{cause, auditZoneOf(cause.Actor, zone), kind, item}:
	default:
		r.dropped.Add(1)
	}
}

// run writes until ctx ends, and then what is left.
func (r *deniedRequests) run(ctx context.Context) {
	for {
		select {
		case one := <-r.queue:
			r.write(ctx, one)
		case <-ctx.Done():
			for {
				select {
				case one := <-r.queue:
					r.write(ctx, one)
				default:
					return
				}
			}
		}
	}
}

func (r *deniedRequests) write(ctx context.Context, one deniedRequest) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := r.store.RecordDenied(ctx, one.cause, one.zone, one.kind, one.item); err != nil {
		r.dropped.Add(1)
		r.log.WarnContext(ctx, "could not record a refusal", "request_id", one.cause.RequestID, "error", err)
	}
}

// auditZoneOf is the zone in whose trail a refusal belongs: the one in the
// path, if the caller may see it, and otherwise the caller's own. Nobody writes
// into the trail of a zone that is closed to them.
func auditZoneOf(actor store.Actor, path string) string {
	switch {
	case !actor.Global():
		return actor.Zone
	case middleware.IsID(path):
		return path
	}
	return store.NoZone
}

// collections are what an audit entry may name (contract: admin-audit.md §2.1).
var collections = []string{"zones", "applications", "providers", "resources", "admin-tokens", "dead-letters"}

// auditedEntity is the right-most collection in a path and the item after it.
func auditedEntity(path string) (kind, item string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i := len(parts) - 2; i >= 0; i-- {
		if !slices.Contains(collections, parts[i]) {
			continue
		}
		id, err := url.PathUnescape(parts[i+1])
		if err != nil || !middleware.IsID(id) {
			return "", ""
		}
		return parts[i], id
	}
	return "", ""
}
