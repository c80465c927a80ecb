//go:build faults

package faults_test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A fleet is the replicas that are there just now.
type fleet struct {
	mu   sync.Mutex
	next int
	urls []string
}

func (f *fleet) add(url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.urls = append(f.urls, url)
}

func (f *fleet) remove(url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.urls = slices.DeleteFunc(f.urls, func(one string) bool { return one == url })
}

// any is each of them in turn, or "".
func (f *fleet) any() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.urls) == 0 {
		return ""
	}
	f.next++
	return f.urls[f.next%len(f.urls)]
}

func TestNothingIsLostWhenTheProcessIsKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	const kills, lanes = 50, 2
	w := newWorld(t)
	var replicas fleet
	first := w.start("first")
	replicas.add(first.url)
	l := w.load(dense, replicas.any)
	l.mu.Lock()
	l.breaks, l.faulty = true, true
	l.mu.Unlock()
	began := time.Now()
	first.kill()
	replicas.remove(first.url)
	var all sync.WaitGroup
	unborn := make([]int, lanes) // killed before they served
	for lane := range lanes {
		r := rand.New(rand.NewPCG(l.seed, uint64(1000+lane)))
		all.Go(func() {
			for n := range kills/lanes - (1 - lane) { // the first was one of them
				s, serving := w.spawn("killed")
				early := make(<-chan time.Time)
				if n%5 == 0 {
					early = time.After(time.Duration(r.IntN(500)) * time.Millisecond)
				}
				select {
				case <-early:
					unborn[lane]++
				case <-serving:
					replicas.add(s.url)
					time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
				}
				s.kill()
				replicas.remove(s.url) // its callers meet the dead
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	met := l.take()
	a := w.start("a")
	replicas.add(a.url)
	back := l.recovers(5 * time.Second)
	l.lasts(300 * time.Millisecond)
	l.stop()
	w.settles(a)
	w.keeps(l)
	a.terminate()
	t.Logf("%d kills in %v, %v of them before it served: %v; recovered after %v", kills, took.Round(time.Millisecond), unborn, met, back.Round(time.Millisecond))
}

// Accepted is what the service has begun to work on. Who calls at the very
// moment may find the door shut, but then nothing has happened.
func TestSIGTERMUnderLoadDropsNoAcceptedRequest(t *testing.T) {
	t.Parallel()
	const times = 3
	w := newWorld(t)
	var replicas fleet
	s := w.start("api-0")
	replicas.add(s.url)
	l := w.load(dense, replicas.any)
	for n := range times {
		l.lasts(300 * time.Millisecond)
		l.mu.Lock()
		l.breaks, l.faulty = true, true
		l.mu.Unlock()
		began := time.Now()
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.ended()
		took := time.Since(began)
		replicas.remove(s.url)
		answered(t, l, s)
		t.Logf("it ended %v after SIGTERM", took.Round(time.Millisecond))
		s = w.start("api-" + string(rune('1'+n)))
		replicas.add(s.url)
		l.recovers(5 * time.Second)
	}
	l.stop()
	w.settles(s)
	w.keeps(l)
	s.terminate()
}

// answered fails if the service has worked on a request whose caller heard
// nothing.
func answered(t *testing.T, l *load, s *service) {
	t.Helper()
	eventually(t, bound, "every caller has heard how its request ended", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		for id, status := range s.logged {
			if strings.HasPrefix(id, "load-") && l.answered[id] != status {
				return false
			}
		}
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, status := range s.logged {
		if strings.HasPrefix(id, "load-") && l.answered[id] != status {
			t.Errorf("%s was worked on and answered %d, and its caller heard %d", id, status, l.answered[id])
		}
	}
}

// Callers who heed /ready notice nothing at all.
func TestSIGTERMIsNotNoticedByWhoHeedsReadiness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var replicas fleet
	leaves, stays := w.start("leaves", "DRAIN_DELAY_MS=1000"), w.start("stays")
	replicas.add(leaves.url)
	replicas.add(stays.url)
	l := w.load(dense, replicas.any)
	if err := leaves.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, time.Second, "/ready says that it drains", func() bool {
		status, body := leaves.get("/ready")
		return status == http.StatusServiceUnavailable && strings.Contains(body, `"draining":true`)
	})
	replicas.remove(leaves.url)
	leaves.ended()
	answered(t, l, leaves)
	after := l.lasts(300 * time.Millisecond)
	l.stop()
	w.settles(stays)
	w.keeps(l)
	stays.terminate()
	t.Logf("/ready was red after %v; then: %v", took.Round(time.Millisecond), after)
}
