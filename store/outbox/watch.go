package outbox

import (
	"context"
	"log/slog"
	"time"
)

// A State tells whether events are published, by whichever replica is the leader.
type State string

// The states of the outbox.
const (
	OK         State = "ok"
	Stalled    State = "stalled"     // there are pending events, and none is published
	NoLeader   State = "no_leader"   // no replica is the leader
	TwoLeaders State = "two_leaders" // this replica acted as the leader although another one was, seconds ago
)

// Watch looks every few seconds whether events are published, until ctx ends, and
// logs when that changes. Every replica watches, so that the failure of the leader
// does not go unnoticed. While Postgres is unavailable, the state does not change.
func (p *Publisher) Watch(ctx context.Context) {
	const interval, timeout = 2 * time.Second, 2 * time.Second
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lookup, cancel := context.WithTimeout(ctx, timeout)
		state, details, err := p.look(lookup)
		cancel()
		if err != nil || p.state.Swap(state) == state {
			continue
		}
		if state == OK {
			p.log.InfoContext(ctx, "outbox recovered", details...)
		} else {
			p.log.ErrorContext(ctx, "outbox does not progress", append(details, slog.String("state", string(state)))...)
		}
	}
}

// look reads the state and what explains it.
func (p *Publisher) look(ctx context.Context) (State, []any, error) {
	const limit = 5 * time.Second     // longer than a change of leaders and the pause of a zone
	const conflict = 15 * time.Second // longer than the interval of most readiness checks
	progress, err := p.store.OutboxProgress(ctx)
	if err != nil {
		return "", nil, err
	}
	state := OK
	switch {
	case progress.ExpiredSeconds > limit.Seconds():
		state = NoLeader
	case time.Since(time.Unix(0, p.leaseLost.Load())) < conflict:
		state = TwoLeaders
	case progress.OldestPendingSeconds > limit.Seconds() && progress.LastDispatchSeconds > limit.Seconds():
		state = Stalled
	}
	return state, []any{
		slog.String("leader", progress.Holder), slog.Int64("term", progress.Term),
		slog.Float64("oldest_pending_seconds", progress.OldestPendingSeconds),
	}, nil
}
