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

// A replicaSet has the URLs of the replicas that a load calls, as a load balancer
// does.
type replicaSet struct {
	mu    sync.Mutex
	calls int // of next
	urls  []string
}

func (r *replicaSet) add(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.urls = append(r.urls, url)
}

func (r *replicaSet) remove(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.urls = slices.DeleteFunc(r.urls, func(u string) bool { return u == url })
}

// next returns the URLs one after the other (round robin), "" if there is none.
func (r *replicaSet) next() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.urls) == 0 {
		return ""
	}
	r.calls++
	return r.urls[r.calls%len(r.urls)]
}

func TestKilledProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	const kills, workers = 50, 2
	b := newBackends(t)
	var replicas replicaSet
	first := b.start("first")
	replicas.add(first.url)
	l := b.startLoad(denseInterval, replicas.next)
	l.allowKills()
	began := time.Now()
	first.kill()
	replicas.remove(first.url)
	var all sync.WaitGroup
	killedEarly := make([]int, workers) // number of processes killed before they served
	for worker := range workers {
		r := rand.New(rand.NewPCG(l.seed, uint64(1000+worker)))
		all.Go(func() {
			for n := range kills/workers - (1 - worker) { // worker 0 has one less: the kill above
				s, serving := b.spawn("killed")
				early := make(<-chan time.Time)
				if n%5 == 0 {
					early = time.After(time.Duration(r.IntN(500)) * time.Millisecond)
				}
				select {
				case <-early:
					killedEarly[worker]++
				case <-serving:
					replicas.add(s.url)
					time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
				}
				s.kill()
				replicas.remove(s.url) // after the kill, so that some requests go to a dead process
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	during := l.takeCounts()
	last := b.start("last")
	replicas.add(last.url)
	recovery := l.waitRecovered(5 * time.Second)
	l.runFor(300 * time.Millisecond)
	l.stop()
	b.checkSeals(last)
	b.waitIdle(last)
	b.checkInvariants(l)
	last.terminate()
	t.Logf("%d kills in %v, %v of them before the process served: %v; recovered after %v", kills, took.Round(time.Millisecond), killedEarly, during, recovery.Round(time.Millisecond))
}

// An accepted request is one that the service has begun to handle, and so logs. A
// caller that connects while the service exits may get a connection error, but
// then its request has changed nothing.
func TestSIGTERMUnderLoadDropsNoAcceptedRequest(t *testing.T) {
	t.Parallel()
	const restarts = 3
	b := newBackends(t)
	var replicas replicaSet
	s := b.start("api-0")
	replicas.add(s.url)
	l := b.startLoad(denseInterval, replicas.next)
	for n := range restarts {
		l.runFor(300 * time.Millisecond)
		l.allowKills()
		began := time.Now()
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.waitForExit()
		took := time.Since(began)
		replicas.remove(s.url)
		checkDelivered(t, l, s)
		t.Logf("the service exited %v after SIGTERM", took.Round(time.Millisecond))
		s = b.start("api-" + string(rune('1'+n)))
		replicas.add(s.url)
		l.waitRecovered(5 * time.Second)
	}
	l.stop()
	b.waitIdle(s)
	b.checkInvariants(l)
	s.terminate()
}

// checkDelivered checks that the caller of each request that the service has
// logged received a response with the logged status.
func checkDelivered(t *testing.T, l *load, s *service) {
	t.Helper()
	eventually(t, maxRequestTime, "every caller has the response that the service logged", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		for id, status := range s.statuses {
			if strings.HasPrefix(id, "load-") && l.statuses[id] != status {
				return false
			}
		}
		return true
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, status := range s.statuses {
		if strings.HasPrefix(id, "load-") && l.statuses[id] != status {
			t.Errorf("request %s: the service logged status %d, the caller got %d", id, status, l.statuses[id])
		}
	}
}

// A load balancer that removes a replica once /ready fails sees no error, because
// the service still accepts requests during the drain delay.
func TestSIGTERMWithDrainDelayCausesNoErrors(t *testing.T) {
	t.Parallel()
	b := newBackends(t)
	var replicas replicaSet
	draining, remaining := b.start("draining", "DRAIN_DELAY_MS=1000"), b.start("remaining")
	replicas.add(draining.url)
	replicas.add(remaining.url)
	l := b.startLoad(denseInterval, replicas.next)
	if err := draining.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, time.Second, "/ready returns that the service is draining", func() bool {
		status, body := draining.get("/ready")
		return status == http.StatusServiceUnavailable && strings.Contains(body, `"draining":true`)
	})
	replicas.remove(draining.url)
	draining.waitForExit()
	checkDelivered(t, l, draining)
	after := l.runFor(300 * time.Millisecond)
	l.stop()
	b.waitIdle(remaining)
	b.checkInvariants(l)
	remaining.terminate()
	t.Logf("/ready failed after %v; load after the exit: %v", took.Round(time.Millisecond), after)
}
