package policy_test

import (
	"sync"
	"testing"

	"caracal.run/management/server/policy"
)

// TestBundleIsSafeForConcurrentUse decides with one bundle in several goroutines: with
// and without rules that depend on the input, and with explanations. It is meant for
// the race detector. It is not parallel, because a decision has a deadline.
func TestBundleIsSafeForConcurrentUse(t *testing.T) {
	frozen := compile(t, ids, grantsOf(10), confinement, risk, `restrict contains "x" if input.session.id == "frozen"`)
	open := compile(t, ids, grants, confinement, risk)
	requests := []struct {
		bundle *policy.Bundle
		input  policy.Input
		want   string
	}{
		{frozen, parseInput(t, mintInput(nil)), "allow"},
		{frozen, parseInput(t, mintInput(object{"session.id": "frozen"})), "deny"},
		{frozen, parseInput(t, bootstrapInput(object{"resource.identifier": "resource://bank"})), "allow"},
		{open, parseInput(t, mintInput(nil)), "allow"},
		{open, parseInput(t, useInput(nil)), "allow"},
		{open, parseInput(t, mintInput(object{"principal.labels": []string{"viewer"}})), "deny"},
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				for _, r := range requests {
					if got, err := r.bundle.Decide(t.Context(), r.input); err != nil || got.Decision != r.want {
						t.Errorf("got %+v and %v, want %s", got, err, r.want)
					}
				}
			}
			for _, r := range requests {
				if got, err := r.bundle.Explain(t.Context(), r.input, true); err != nil || got.Result.Decision != r.want {
					t.Errorf("explained %+v and %v, want %s", got.Result, err, r.want)
				}
			}
		})
	}
	wg.Wait()
}
