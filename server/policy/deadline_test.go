package policy

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// An evaluation that waits for the processor, on a busy machine, goes on until it has used
// its processor time, or for the maximum duration.
func TestDeadlineCountsProcessorTime(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		share float64 // of the time in which the thread has the processor
		want  time.Duration
	}{
		"the thread has the processor":               {1, 250 * time.Millisecond},
		"it has the processor for a quarter of time": {0.25, time.Second},
		"it has it for a hundredth":                  {0.01, 5 * time.Second},
		"it never has it":                            {0, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				const before = time.Hour // of other goroutines on the thread
				reads := 0
				d := newDeadline(t.Context(), func() time.Duration {
					reads++
					return before + time.Duration(float64(time.Since(began))*tt.share)
				})
				defer d.stop()
				for !d.Cancelled() {
					time.Sleep(time.Millisecond) // in the time of the bubble: a step
					synctest.Wait()
				}
				if took := time.Since(began); took < tt.want || took > tt.want+2*time.Millisecond {
					t.Errorf("it ended after %v, want %v", took, tt.want)
				}
				if reads > 25 {
					t.Errorf("it read the processor time %d times", reads)
				}
				if !d.Cancelled() {
					t.Error("it does not stay over")
				}
			})
		})
	}
}

func TestDeadlineEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := newDeadline(ctx, func() time.Duration { return 0 })
		defer d.stop()
		if d.Cancelled() {
			t.Error("it is over at the start")
		}
		cancel()
		synctest.Wait()
		if !d.Cancelled() {
			t.Error("it is not over after its context")
		}
	})
}

// BenchmarkDeadline measures what each evaluation pays for its deadline.
func BenchmarkDeadline(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		runtime.LockOSThread()
		d := newDeadline(b.Context(), threadTime)
		d.Cancelled()
		d.stop()
		runtime.UnlockOSThread()
	}
}
