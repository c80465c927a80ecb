package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"caracal.run/management/server/jobs"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// A script returns the results of a job's batches, one after another.
type script []any // int: objects changed; error: fails

func (s *script) batch(context.Context, *store.Store) (int, error) {
	next := (*s)[0]
	*s = (*s)[1:]
	if err, failed := next.(error); failed {
		return 0, err
	}
	return next.(int), nil
}

func TestJobRunsUntilNothingIsDue(t *testing.T) {
	t.Parallel()
	results := script{500, 500, 7, 0, "not reached"}
	r := jobs.New(nil, slog.New(slog.DiscardHandler), jobs.Job{Name: "x", Interval: time.Hour, Batch: results.batch})
	r.RunAll(t.Context())
	if got := r.Stats()[0]; got.Job != "x" || got.Runs != 1 || got.Errors != 0 || got.Changed != 1007 || got.LastSuccess.IsZero() {
		t.Errorf("%+v", got)
	}
	if len(results) != 1 {
		t.Errorf("left %v", results)
	}
}

// A job that fails waits for its interval, and the log has a line for each change of
// state.
func TestJobLogsFirstFailureAndRecovery(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelInfo}))
	results := script{errors.New("first"), 3, errors.New("second"), errors.New("third"), 0, 0, errors.New("fourth")}
	r := jobs.New(nil, log, jobs.Job{Name: "x", Interval: time.Hour, Batch: results.batch})
	for range 6 {
		r.RunAll(t.Context())
	}
	var lines []string
	for line := range strings.Lines(text.String()) {
		_, line, _ = strings.Cut(line, "level=")
		lines = append(lines, strings.TrimSpace(line))
	}
	want := []string{
		`ERROR msg="job failed, retrying at its interval" job=x error=first`,
		`INFO msg="job succeeded again" job=x`,
		`ERROR msg="job failed, retrying at its interval" job=x error=fourth`,
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("logged\n%s", strings.Join(lines, "\n"))
	}
	if got := r.Stats()[0]; got.Runs != 6 || got.Errors != 4 || got.Changed != 3 {
		t.Errorf("%+v", got)
	}
}

func TestJobsRunSoonAndThenAtTheirIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var often, seldom []time.Duration // of the runs, since the start
		record := func(runs *[]time.Duration) func(context.Context, *store.Store) (int, error) {
			return func(context.Context, *store.Store) (int, error) {
				*runs = append(*runs, time.Since(began))
				return 0, nil
			}
		}
		r := jobs.New(nil, slog.New(slog.DiscardHandler), jobs.Job{Name: "often", Interval: time.Minute, Batch: record(&often)}, jobs.Job{Name: "seldom", Interval: time.Hour, Batch: record(&seldom)})
		ctx, cancel := context.WithTimeout(t.Context(), 59*time.Minute)
		defer cancel()
		r.Run(ctx) // in the time of the bubble
		if len(often) < 56 || len(often) > 63 || len(seldom) < 1 || len(seldom) > 2 {
			t.Errorf("ran %d and %d times", len(often), len(seldom))
		}
		if often[0] > 15*time.Second || seldom[0] > 15*time.Second {
			t.Errorf("ran first after %v and %v", often[0], seldom[0])
		}
		for i, at := range often[1:] {
			if gap := at - often[i]; gap < 57*time.Second || gap > 63*time.Second {
				t.Errorf("ran again after %v", gap)
			}
		}
	})
}

// A shutdown interrupts a batch. It is no failure of the job, and Run waits for its end.
func TestShutdownInterruptsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		ended := false
		r := jobs.New(nil, slog.New(slog.NewTextHandler(&text, nil)), jobs.Job{Name: "x", Interval: time.Hour, Batch: func(ctx context.Context, _ *store.Store) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // in the time of the bubble: a rollback
			ended = true
			return 0, ctx.Err()
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r.Run(ctx)
		if got := r.Stats()[0]; !ended || got.Errors != 0 || text.Len() > 0 {
			t.Errorf("ended: %v, %+v, log: %s", ended, got, &text)
		}
	})
}
