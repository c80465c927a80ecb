package outbox

import (
	"context"
	"time"

	"caracal.run/management/store"
)

// A State is whether events are published, by whichever replica is the leader.
type State string

// The states of the outbox.
const (
	OK         State = "ok"
	Stalled    State = "stalled"     // there are pending events, and none is published
	NoLeader   State = "no_leader"   // no replica is the leader
	TwoLeaders State = "two_leaders" // this replica acted as the leader although another one was, seconds ago
)

// Watch looks every second whether events are published, until ctx ends, and logs when
// that changes. Every replica watches, so that the failure of the leader does not go
// unnoticed. While Postgres is unavailable, the state does not change.
func (p *Publisher) Watch(ctx context.Context) {
	const interval, timeout = time.Second, 2 * time.Second
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var seen observation
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lookup, cancel := context.WithTimeout(ctx, timeout)
		now, err := p.store.OutboxProgress(lookup)
		cancel()
		if err != nil {
			seen = observation{} // the leader could not publish either
			continue
		}
		seen.update(now)
		state := seen.state()
		if time.Since(time.Unix(0, p.leaseTaken.Load())) < conflictShown {
			state = TwoLeaders
		}
		if p.state.Swap(state) == state {
			continue
		}
		if state == OK {
			p.log.InfoContext(ctx, "outbox recovered", "leader", now.Holder)
		} else {
			p.log.ErrorContext(ctx, "outbox does not progress", "state", string(state), "leader", now.Holder, "term", now.Term)
		}
	}
}

const (
	// stallLimit is longer than a change of leaders and the pause of a zone.
	stallLimit = 5 * time.Second
	// conflictShown is longer than the interval of most readiness checks.
	conflictShown = 15 * time.Second
)

// An observation is what Watch saw last, and since when, by the clock of this process:
// the clock of the database can be set back.
type observation struct {
	store.OutboxProgress
	leaseSince    time.Time // a leader renews its lease
	progressSince time.Time // an event is pending, and neither it nor the last dispatch changed
}

func (o *observation) update(now store.OutboxProgress) {
	if now.Term != o.Term || now.ExpiresAt != o.ExpiresAt || o.leaseSince.IsZero() {
		o.leaseSince = time.Now()
	}
	if now.OldestPending == 0 || now.OldestPending != o.OldestPending || now.LastDispatch != o.LastDispatch || o.progressSince.IsZero() {
		o.progressSince = time.Now()
	}
	o.OutboxProgress = now
}

func (o *observation) state() State {
	switch {
	case time.Since(o.leaseSince) > stallLimit:
		return NoLeader
	case time.Since(o.progressSince) > stallLimit:
		return Stalled
	}
	return OK
}
