//go:build faults

package faults_test

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/store/private"
)

// A proxy forwards TCP connections to a server. While it is blocked it forwards
// nothing, in both directions, and closes no connection, as in a network
// partition.
type proxy struct {
	addr string

	mu      sync.Mutex
	changed *sync.Cond // on mu
	blocked bool
	stopped bool
}

// newProxy starts a proxy for the server at a Unix socket.
func newProxy(t *testing.T, socket string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: listener.Addr().String()}
	p.changed = sync.NewCond(&p.mu)
	t.Cleanup(func() {
		_ = listener.Close()
		p.set(func() { p.blocked, p.stopped = false, true })
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				p.waitUnblocked()
				upstream, err := net.Dial("unix", socket)
				if err != nil {
					return
				}
				defer upstream.Close()
				var both sync.WaitGroup
				both.Go(func() { p.forward(upstream, conn) })
				both.Go(func() { p.forward(conn, upstream) })
				both.Wait()
			}()
		}
	}()
	return p
}

// forward copies from one connection to the other until one of them is closed,
// except while the proxy is blocked.
func (p *proxy) forward(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.waitUnblocked()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	// If one side closes its connection, close the other one too.
	_ = to.Close()
	_ = from.Close()
	_, _ = io.Copy(io.Discard, from)
}

// waitUnblocked waits while the proxy is blocked.
func (p *proxy) waitUnblocked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.blocked && !p.stopped {
		p.changed.Wait()
	}
}

// set runs f, which changes the state of the proxy.
func (p *proxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.changed.Broadcast()
}

// The leader is the replica that publishes events. If a network partition
// separates it from Postgres or Redis, the other replica becomes the leader and
// serves requests alone.
func TestOtherReplicaTakesOverWhenLeaderIsPartitioned(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		from         string
		requestsFail bool // requests to the partitioned replica fail
	}{
		{"from Postgres", "Postgres", true},
		{"from Redis", "Redis", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const takeover = 15 * time.Second
			b := newBackends(t)
			databaseURL, err := url.Parse(b.servers.PostgresURL(private.Service, "caracal"))
			if err != nil {
				t.Fatal(err)
			}
			sockets := databaseURL.Query().Get("host")
			proxies := map[string]*proxy{"Postgres": newProxy(t, sockets+"/.s.PGSQL.5432"), "Redis": newProxy(t, strings.TrimPrefix(b.servers.RedisURL(), "unix://"))}
			// The replica that starts first becomes the leader.
			leader := b.start("leader", "DATABASE_URL=postgres://"+private.Service+"@"+proxies["Postgres"].addr+"/caracal?sslmode=disable", "REDIS_URL=redis://"+proxies["Redis"].addr)
			other := b.start("other")
			var replicas replicaSet
			replicas.add(leader.url)
			replicas.add(other.url)
			l := b.startLoad(steadyInterval, replicas.next)
			before := l.runFor(300 * time.Millisecond)
			if n := other.metric("caracal_api_outbox_published_total"); n != 0 {
				t.Fatalf("the other replica has published %v events before the partition, want 0", n)
			}
			if tt.requestsFail {
				l.allowFailures()
			}
			proxies[tt.from].set(func() { proxies[tt.from].blocked = true })
			partitioned := time.Now()
			during := l.runFor(maxRequestTime)
			if during.slowest > maxLatency && !tt.requestsFail {
				t.Errorf("during the partition, a request took %v, want at most %v", during.slowest, maxLatency)
			}
			// As a load balancer would do, send requests to the other replica only. While
			// callers also wait for the partitioned one, they may cause no event at all.
			replicas.remove(leader.url)
			eventually(t, takeover-time.Since(partitioned), "the other replica publishes", func() bool { return other.metric("caracal_api_outbox_published_total") > 0 })
			took := time.Since(partitioned)
			l.waitRecovered(maxRequestTime + statementTimeout + idleInTxTimeout)
			alone := l.runFor(300 * time.Millisecond)
			proxies[tt.from].set(func() { proxies[tt.from].blocked = false })
			recovery := eventually(t, 10*time.Second, "the partitioned replica serves again", func() bool { status, _ := leader.get("/v1/zones"); return status == http.StatusOK })
			if tt.requestsFail {
				l.allowFailures() // the pool of the replica may still have broken connections
			}
			replicas.add(leader.url)
			l.waitRecovered(5 * time.Second)
			after := l.runFor(300 * time.Millisecond)
			l.stop()
			b.waitIdle(leader, other)
			b.checkInvariants(l)
			leader.terminate()
			other.terminate()
			t.Logf("before: %v\nduring: %v\nthe other replica took over after %v\nalone: %v\nthe partitioned replica recovered after %v\nafter: %v", before, during, took.Round(time.Millisecond), alone, recovery.Round(time.Millisecond), after)
		})
	}
}
