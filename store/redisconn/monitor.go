package redisconn

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// A Monitor checks the connection periodically and logs when its state changes.
type Monitor struct {
	client *Client
	needs  Needs
	log    *slog.Logger
	last   atomic.Pointer[State] // nil: not checked yet
}

// NewMonitor returns a monitor. [Monitor.Run] starts it.
func NewMonitor(client *Client, needs Needs, log *slog.Logger) *Monitor {
	return &Monitor{client: client, needs: needs, log: log}
}

// Check returns the current state, in at most a second.
func (m *Monitor) Check(ctx context.Context) State {
	const timeout = time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return m.client.Check(ctx, m.needs)
}

// Allows reports whether a capability worked at the last periodic check.
func (m *Monitor) Allows(c Capability) bool {
	last := m.last.Load()
	return last != nil && !slices.Contains(last.Missing, c)
}

// Run checks the connection until ctx ends, and logs the first state and each change.
func (m *Monitor) Run(ctx context.Context) {
	const interval = 2 * time.Second
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		state := m.Check(ctx)
		if ctx.Err() != nil {
			return
		}
		if last := m.last.Swap(&state); last == nil || !last.equal(state) {
			m.logState(ctx, state)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// equal reports whether two states differ in nothing but the text of the error, which
// can contain numbers of ports.
func (s State) equal(t State) bool {
	return s.Reason == t.Reason && s.Command == t.Command && slices.Equal(s.Missing, t.Missing)
}

func (m *Monitor) logState(ctx context.Context, s State) {
	switch {
	case len(s.Missing) == 0:
		m.log.InfoContext(ctx, "redis available")
	case s.Reason.Unreachable():
		m.log.WarnContext(ctx, "redis unreachable", "reason", s.Reason, "missing", s.Missing, "error", s.Err)
	default:
		m.log.WarnContext(ctx, "redis degraded", "reason", s.Reason, "missing", s.Missing, "command", s.Command, "error", s.Err)
	}
}
