//go:build faults

package faults_test

import (
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/store/private"
)

// A link is a way to a server that can be cut: what is underway is then held up,
// in both directions, and nobody is told.
type link struct {
	addr string

	mu    sync.Mutex
	moved *sync.Cond
	cut   bool
	done  bool
}

// newLink is a way to a unix socket, by way of TCP.
func newLink(t *testing.T, socket string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{addr: listener.Addr().String()}
	l.moved = sync.NewCond(&l.mu)
	t.Cleanup(func() {
		_ = listener.Close()
		l.set(func() { l.cut, l.done = false, true })
	})
	go func() {
		for {
			here, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer here.Close()
				l.passable()
				there, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer there.Close()
				var both sync.WaitGroup
				both.Go(func() { l.carry(there, here) })
				both.Go(func() { l.carry(here, there) })
				both.Wait()
			}()
		}
	}()
	return l
}

func (l *link) carry(to, from net.Conn) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		l.passable()
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	// An end is news too, for both sides.
	_ = to.Close()
	_ = from.Close()
	_, _ = io.Copy(io.Discard, from)
}

// passable waits until the link is not cut.
func (l *link) passable() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.cut && !l.done {
		l.moved.Wait()
	}
}

func (l *link) set(how func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how()
	l.moved.Broadcast()
}

func TestOneOfTwoReplicasIsCutOff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		from    string
		refuses bool // its callers notice
	}{
		{"from Postgres", "Postgres", true},
		{"from Redis", "Redis", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const takeover = 15 * time.Second
			w := newWorld(t)
			at, err := url.Parse(w.servers.PostgresURL(private.Service, "caracal"))
			if err != nil {
				t.Fatal(err)
			}
			sockets := at.Query().Get("host")
			links := map[string]*link{"Postgres": newLink(t, sockets+"/.s.PGSQL.5432"), "Redis": newLink(t, strings.TrimPrefix(w.servers.RedisURL(), "unix://"))}
			// The first leads.
			far := w.start("far", "DATABASE_URL=postgres://"+private.Service+"@"+links["Postgres"].addr+"/caracal?sslmode=disable", "REDIS_URL=redis://"+links["Redis"].addr)
			near := w.start("near")
			var replicas fleet
			replicas.add(far.url)
			replicas.add(near.url)
			l := w.load(steady, replicas.any)
			before := l.lasts(300 * time.Millisecond)
			if n := near.metric("caracal_api_outbox_published_total"); n != 0 {
				t.Fatalf("the other leads: it has published %v", n)
			}
			if tt.refuses {
				l.breaking()
			}
			links[tt.from].set(func() { links[tt.from].cut = true })
			took := eventually(t, takeover, "the other publishes", func() bool { return near.metric("caracal_api_outbox_published_total") > 0 })
			during := l.take()
			if during.slowest > unhurried && !tt.refuses {
				t.Errorf("while it was cut off, a request took %v", during.slowest)
			}
			// Where one is cut off, callers go to the other.
			replicas.remove(far.url)
			l.recovers(bound + statementTimeout + idleInTxTimeout)
			alone := l.lasts(300 * time.Millisecond)
			links[tt.from].set(func() { links[tt.from].cut = false })
			healed := eventually(t, 10*time.Second, "it serves again", func() bool { status, _ := far.get("/v1/zones"); return status == 200 })
			if tt.refuses {
				l.breaking() // its pool may still hold a connection that has died
			}
			replicas.add(far.url)
			l.recovers(5 * time.Second)
			after := l.lasts(300 * time.Millisecond)
			l.stop()
			w.settles(far, near)
			w.keeps(l)
			far.terminate()
			near.terminate()
			t.Logf("before: %v\nduring: %v\nthe other took over after %v\nalone: %v\nhealed after %v\nafter: %v", before, during, took.Round(time.Millisecond), alone, healed.Round(time.Millisecond), after)
		})
	}
}
