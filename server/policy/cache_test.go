package policy_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"caracal.run/management/server/policy"
)

// load returns a function that counts its calls and returns modules.
func load(calls *atomic.Int64, modules []policy.Module) func(context.Context) ([]policy.Module, error) {
	return func(context.Context) ([]policy.Module, error) {
		calls.Add(1)
		return modules, nil
	}
}

func TestCacheCompilesABundleOnce(t *testing.T) {
	t.Parallel()
	cache := policy.NewCache(1 << 20)
	var calls atomic.Int64
	bundles := make([]*policy.Bundle, 8)
	var wg sync.WaitGroup
	for i := range bundles {
		wg.Go(func() {
			b, err := cache.Bundle(t.Context(), "zone digest", load(&calls, modules(ids, grants)))
			if err != nil {
				t.Error(err)
			}
			bundles[i] = b
		})
	}
	wg.Wait()
	for _, b := range bundles {
		if b != bundles[0] {
			t.Error("concurrent calls returned different bundles")
		}
	}
	if calls.Load() != 1 {
		t.Errorf("loaded %d times", calls.Load())
	}
}

func TestCacheKeepsNoError(t *testing.T) {
	t.Parallel()
	cache := policy.NewCache(1 << 20)
	failed := errors.New("unavailable")
	if _, err := cache.Bundle(t.Context(), "k", func(context.Context) ([]policy.Module, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	var invalid *policy.CompileError
	if _, err := cache.Bundle(t.Context(), "k", load(new(atomic.Int64), modules("restrict := true"))); !errors.As(err, &invalid) {
		t.Errorf("error %v", err)
	}
	if _, err := cache.Bundle(t.Context(), "k", load(new(atomic.Int64), modules(ids))); err != nil {
		t.Error(err)
	}
}

func TestCacheReturnsAnErrorIfLoadPanics(t *testing.T) {
	t.Parallel()
	cache := policy.NewCache(1 << 20)
	if _, err := cache.Bundle(t.Context(), "k", func(context.Context) ([]policy.Module, error) { panic("broken") }); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("error %v", err)
	}
}

func TestCacheReturnsWhenTheCallerIsCanceled(t *testing.T) {
	t.Parallel()
	cache := policy.NewCache(1 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	loading, finish := make(chan struct{}), make(chan struct{})
	slow := func(ctx context.Context) ([]policy.Module, error) {
		close(loading)
		<-finish
		return modules(ids), ctx.Err()
	}
	first := make(chan error)
	go func() {
		_, err := cache.Bundle(ctx, "k", slow)
		first <- err
	}()
	<-loading
	second := make(chan error)
	go func() {
		_, err := cache.Bundle(t.Context(), "k", load(new(atomic.Int64), modules(ids)))
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled caller: %v", err)
	}
	close(finish)
	if err := <-second; err != nil {
		t.Errorf("other caller: %v", err)
	}
}

// TestCacheMemoryIsBounded fills a cache with more bundles than it can keep, of
// constant documents and of rules, and measures the memory of what it keeps.
func TestCacheMemoryIsBounded(t *testing.T) {
	const limit = 4 << 20
	for name, rule := range map[string]string{
		"documents": "",
		"rules":     `restrict contains "read only" if input.action.method != "GET"`,
		"computed":  `confinement := [{"label_prefix": sprintf("%d-%d", [x, y]), "scopes": ["a"]} | some x in [1, 2, 3, 4, 5, 6, 7]; some y in [1, 2, 3, 4, 5, 6, 7]]`,
		"restrict":  `restrict := [[x, y] | some x in [1, 2, 3, 4, 5, 6, 7, 8, 9]; some y in [1, 2, 3, 4, 5, 6, 7, 8, 9]]`,
	} {
		t.Run(name, func(t *testing.T) {
			cache := policy.NewCache(limit)
			var calls atomic.Int64
			key := func(i int) string { return fmt.Sprint(i) }
			fill := func(i int) {
				if _, err := cache.Bundle(t.Context(), key(i), load(&calls, modules(ids, grantsOf(20+i%5), rule+"\nrisk := []"))); err != nil {
					t.Fatal(err)
				}
			}
			fill(0)
			before := heap()
			const count = 300
			for i := range count {
				fill(i)
			}
			if used := heap() - before; used > limit {
				t.Errorf("%d bytes are used, the limit is %d", used, limit)
			}
			fill(count - 1) // the last one is cached
			if calls.Load() != count {
				t.Errorf("compiled %d times, want %d", calls.Load(), count)
			}
			fill(0) // the first one is not
			if calls.Load() != count+1 {
				t.Errorf("compiled %d times, want %d", calls.Load(), count+1)
			}
			runtime.KeepAlive(cache)
		})
	}
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
