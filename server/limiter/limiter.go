// Package limiter counts requests in fixed windows. Each process counts for
// itself and answers at once; a few times a second it tells Redis what it
// counted and learns what all have counted together. Without Redis each
// process limits alone.
package limiter

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Limiter admits so many requests of a key in a window. A limit of 0 admits
// all.
type Limiter struct {
	prefix string // of the Redis keys
	window time.Duration
	limit  int64

	mu     sync.Mutex
	counts map[string]*counter
	stat   Stat
}

// A Stat counts decisions, for metrics. What needs none, because there is no
// limit, is not counted.
type Stat struct{ Allowed, Denied uint64 }

// A counter is one key's in its latest window.
type counter struct {
	window      int64 // since 1970
	globalCount int64 // what all have counted, as last heard
	localDelta  int64 // what we counted since
}

// New makes a limiter; its keys in Redis begin with prefix.
func New(prefix string, window time.Duration, limit int) *Limiter {
	return &Limiter{prefix: prefix, window: window, limit: int64(limit), counts: map[string]*counter{}}
}

// Allow counts a request of key and says whether it is still within the limit.
// What is refused counts too.
func (l *Limiter) Allow(key string) bool {
	const maxKeys = 100_000 // keys in memory
	if l.limit == 0 {
		return true
	}
	window := l.windowOf(time.Now())
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts[key]
	if c == nil && len(l.counts) >= maxKeys {
		key = "" // so many keys are nobody's honest use: those that come now share one count
		c = l.counts[key]
	}
	if c == nil || c.window != window {
		c = &counter{window: window}
		l.counts[key] = c
	}
	c.localDelta++
	if c.globalCount+c.localDelta > l.limit {
		l.stat.Denied++
		return false
	}
	l.stat.Allowed++
	return true
}

// Stat is what was decided so far.
func (l *Limiter) Stat() Stat {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stat
}

func (l *Limiter) windowOf(t time.Time) int64 { return t.UnixMilli() / l.window.Milliseconds() }

// SyncLoop tells Redis what the limiters counted, and them what all counted,
// until ctx ends.
func SyncLoop(ctx context.Context, client *redis.Client, limiters ...*Limiter) {
	const syncInterval = 250 * time.Millisecond
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, l := range limiters {
				l.sync(ctx, client)
			}
		}
	}
}

// sync does one round for one limiter. What Redis did not take is told the
// next time.
func (l *Limiter) sync(ctx context.Context, client *redis.Client) {
	const timeout = time.Second
	type update struct {
		key   string
		count counter
		total *redis.IntCmd
	}
	now := l.windowOf(time.Now())
	var updates []update
	l.mu.Lock()
	for key, c := range l.counts {
		switch {
		case c.window != now:
			delete(l.counts, key)
		case c.localDelta > 0:
			updates = append(updates, update{key: key, count: *c})
		}
	}
	l.mu.Unlock()
	if len(updates) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	pipe := client.Pipeline()
	for i, n := range updates {
		key := l.prefix + n.key + ":" + strconv.FormatInt(n.count.window, 10)
		updates[i].total = pipe.IncrBy(ctx, key, n.count.localDelta)
		pipe.PExpire(ctx, key, l.window*3/2)
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range updates {
		// A total below what was told is no reply: the client leaves it untouched
		// when Redis refused the connection itself.
		update := n.total.Err() == nil && n.total.Val() >= n.count.localDelta
		if c := l.counts[n.key]; update && c != nil && c.window == n.count.window {
			c.globalCount = n.total.Val()
			c.localDelta -= n.count.localDelta
		}
	}
}
