// Package jobs runs periodic work: it expires and terminates what has lapsed, and deletes
// what ended long ago.
//
// Every replica runs every job. A job works in bounded batches, each a transaction, and
// changes only objects that are still due when they are locked. So replicas that run it at
// the same time change each object once, a process that is killed leaves nothing half
// done, and no request waits for long. No lock outlasts a transaction, so that jobs work
// through a connection pooler.
package jobs

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"caracal.run/management/store"
)

// A Job is work that becomes due with time.
type Job struct {
	Name     string // operation of the audit entries, and label of the metrics
	Interval time.Duration
	// Batch does a bounded part of what is due and returns how many objects it changed. It
	// is called again at once if it changed some and did not fail. The store is scoped to
	// [store.System].
	Batch func(ctx context.Context, s *store.Store) (changed int, err error)
}

// A Runner runs jobs. [Runner.Run] starts it.
type Runner struct {
	store *store.Store
	log   *slog.Logger
	jobs  []*job
}

type job struct {
	Job
	runs, errors, changed atomic.Uint64
	lastSuccess           atomic.Int64 // Unix nanoseconds; 0: none
	failing               atomic.Bool
}

// New returns a runner. The store must be scoped to [store.System].
func New(s *store.Store, log *slog.Logger, all ...Job) *Runner {
	r := &Runner{store: s, log: log}
	for _, j := range all {
		r.jobs = append(r.jobs, &job{Job: j})
	}
	return r
}

// maxFirstDelay is the longest time until the first run of a job. Replicas that start at
// the same time run it at different times.
const maxFirstDelay = 15 * time.Second

// Run runs each job soon and then at its interval, until ctx ends. It returns when all
// have stopped.
func (r *Runner) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, j := range r.jobs {
		running.Go(func() {
			delay := rand.N(min(maxFirstDelay, j.Interval))
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(delay):
				}
				r.run(ctx, j)
				delay = j.Interval - j.Interval/20 + rand.N(j.Interval/10) // replicas drift apart
			}
		})
	}
	running.Wait()
}

// RunAll runs each job once, one after another, and returns when nothing is due.
func (r *Runner) RunAll(ctx context.Context) {
	for _, j := range r.jobs {
		r.run(ctx, j)
	}
}

// run runs batches of a job until one changes nothing or fails. It logs only the first
// failure, and the success that follows it.
func (r *Runner) run(ctx context.Context, j *job) {
	total := 0
	for {
		changed, err := j.Batch(ctx, r.store)
		total += changed
		j.changed.Add(uint64(changed))
		switch {
		case ctx.Err() != nil: // the shutdown interrupted the batch
			return
		case err != nil:
			j.runs.Add(1)
			j.errors.Add(1)
			if !j.failing.Swap(true) {
				r.log.ErrorContext(ctx, "job failed, retrying at its interval", "job", j.Name, "error", err)
			}
			return
		case changed > 0:
			continue
		}
		j.runs.Add(1)
		j.lastSuccess.Store(time.Now().UnixNano())
		if j.failing.Swap(false) {
			r.log.InfoContext(ctx, "job succeeded again", "job", j.Name)
		}
		if total > 0 {
			r.log.DebugContext(ctx, "job done", "job", j.Name, "changed", total)
		}
		return
	}
}

// Stat has the counts of one job since the runner was created.
type Stat struct {
	Job         string
	Runs        uint64 // including those that failed
	Errors      uint64
	Changed     uint64    // objects
	LastSuccess time.Time // zero: no run has succeeded
}

// Stats returns the counts of all jobs.
func (r *Runner) Stats() []Stat {
	all := make([]Stat, len(r.jobs))
	for i, j := range r.jobs {
		all[i] = Stat{Job: j.Name, Runs: j.runs.Load(), Errors: j.errors.Load(), Changed: j.changed.Load()}
		if at := j.lastSuccess.Load(); at != 0 {
			all[i].LastSuccess = time.Unix(0, at)
		}
	}
	return all
}
