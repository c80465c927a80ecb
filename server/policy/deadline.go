package policy

import (
	"context"
	"sync/atomic"
	"time"
)

// EvaluationTimeout limits the processor time of the evaluation of the rules of policies
// and of a decision. What else the machine does is not counted, so that a decision does
// not depend on it, unless the evaluation takes longer than [maxDuration]. (It is counted
// on systems other than Linux: see [threadTime].)
const EvaluationTimeout = 250 * time.Millisecond

// maxDuration limits the duration of an evaluation on a busy machine.
const maxDuration = 20 * EvaluationTimeout

// A deadline ends an evaluation. It implements [topdown.Cancel], whose methods the
// evaluator calls at each step. It reads the processor time of its thread only when so
// much time has passed that it can be used up.
type deadline struct {
	used        func() time.Duration // processor time of the thread
	start       time.Duration        // used at the start
	until       time.Time
	state       atomic.Int32
	timer       *time.Timer
	ctxReleased func() bool
}

// States of a deadline.
const (
	running int32 = iota
	due           // the processor time is to be read
	over
)

// newDeadline starts a deadline, which ends with ctx, too. Until it is stopped, the
// goroutine must be locked to its thread, whose processor time used returns.
func newDeadline(ctx context.Context, used func() time.Duration) *deadline {
	d := &deadline{used: used, start: used(), until: time.Now().Add(maxDuration)}
	d.timer = time.AfterFunc(EvaluationTimeout, func() { d.state.CompareAndSwap(running, due) })
	d.ctxReleased = context.AfterFunc(ctx, d.Cancel)
	return d
}

func (d *deadline) stop() {
	d.timer.Stop()
	d.ctxReleased()
}

// Cancel implements [topdown.Cancel].
func (d *deadline) Cancel() { d.state.Store(over) }

// Cancelled implements [topdown.Cancel].
func (d *deadline) Cancelled() bool {
	switch d.state.Load() {
	case running:
		return false
	case over:
		return true
	}
	left := min(EvaluationTimeout-(d.used()-d.start), time.Until(d.until))
	if left <= 0 {
		d.Cancel()
		return true
	}
	if d.state.CompareAndSwap(due, running) {
		d.timer.Reset(left)
	}
	return false
}
