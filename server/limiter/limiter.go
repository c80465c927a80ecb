// Package limiter limits requests in fixed windows. Each process counts in memory
// and decides immediately; four times a second it adds its counts to Redis and reads
// the counts of all processes. No request waits for Redis. Without Redis, each
// process limits its own requests only.
package limiter

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A Limiter limits the requests of each key in a window. A limit of 0 means no
// limit.
type Limiter struct {
	prefix string // of the Redis keys
	window time.Duration
	limit  int64

	mu     sync.Mutex
	counts map[string]*counter
	stat   Stat
}

// A Stat counts decisions, for metrics. Without a limit, none are counted.
type Stat struct{ Allowed, Denied uint64 }

// A counter counts the requests of one key in its latest window.
type counter struct {
	window      int64 // number of the window, counted from the Unix epoch
	globalCount int64 // requests of all processes, as of the last sync
	localDelta  int64 // requests of this process since then
}

// New returns a limiter. Its keys in Redis begin with prefix.
func New(prefix string, window time.Duration, limit int) *Limiter {
	return &Limiter{prefix: prefix, window: window, limit: int64(limit), counts: map[string]*counter{}}
}

// Prefix returns the beginning of the limiter's keys in Redis, and whether it has keys:
// without a limit, it has none.
func (l *Limiter) Prefix() (prefix string, used bool) { return l.prefix, l.limit > 0 }

// Limit returns the number of requests in a window, 0 for no limit, and the window.
func (l *Limiter) Limit() (requests int64, window time.Duration) { return l.limit, l.window }

// A Quota is what is left of a limit for a key.
type Quota struct {
	Remaining int64         // requests
	Reset     time.Duration // until the next window
}

// Allow is [Limiter.Take] without the quota.
func (l *Limiter) Allow(key string) bool {
	_, allowed := l.Take(key)
	return allowed
}

// Take counts a request of a key and returns what is left, and whether the request is
// within the limit. Denied requests count too. Without a limit, the quota is zero.
func (l *Limiter) Take(key string) (Quota, bool) {
	const maxKeys = 100_000 // keys in memory
	if l.limit == 0 {
		return Quota{}, true
	}
	now := time.Now()
	window := l.windowOf(now)
	quota := Quota{Reset: time.Duration((window+1)*l.window.Milliseconds()-now.UnixMilli()) * time.Millisecond}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts[key]
	if c == nil && len(l.counts) >= maxKeys {
		key = "" // above the maximum, new keys share one counter
		c = l.counts[key]
	}
	if c == nil || c.window != window {
		c = &counter{window: window}
		l.counts[key] = c
	}
	c.localDelta++
	left := l.limit - c.globalCount - c.localDelta
	if left < 0 {
		l.stat.Denied++
		return quota, false
	}
	l.stat.Allowed++
	quota.Remaining = left
	return quota, true
}

// Exceeded reports whether the limit of a key is exhausted: Allow would return false. It
// counts nothing.
func (l *Limiter) Exceeded(key string) bool {
	if l.limit == 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts[key]
	return c != nil && c.window == l.windowOf(time.Now()) && c.globalCount+c.localDelta >= l.limit
}

// Stat returns the number of decisions.
func (l *Limiter) Stat() Stat {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stat
}

func (l *Limiter) windowOf(t time.Time) int64 { return t.UnixMilli() / l.window.Milliseconds() }

// SyncLoop syncs the limiters with Redis until ctx is done. It sends nothing while
// allowed returns false: if Redis permits INCRBY but not PEXPIRE, the keys would never
// expire.
func SyncLoop(ctx context.Context, client redis.UniversalClient, allowed func() bool, limiters ...*Limiter) {
	const syncInterval = 250 * time.Millisecond
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for _, l := range limiters {
				l.sync(ctx, client, allowed)
			}
		}
	}
}

// sync adds the limiter's counts to Redis and reads those of all processes. Counts
// that do not reach Redis are sent with the next sync.
func (l *Limiter) sync(ctx context.Context, client redis.UniversalClient, allowed func() bool) {
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
	if len(updates) == 0 || !allowed() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	pipe := client.Pipeline()
	for i, u := range updates {
		key := l.prefix + u.key + ":" + strconv.FormatInt(u.count.window, 10)
		updates[i].total = pipe.IncrBy(ctx, key, u.count.localDelta)
		pipe.PExpire(ctx, key, l.window*3/2)
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range updates {
		// If Redis refuses the connection, the client sets no error for the command and
		// leaves its value at 0: a total below the delta is not a reply.
		replied := u.total.Err() == nil && u.total.Val() >= u.count.localDelta
		if c := l.counts[u.key]; replied && c != nil && c.window == u.count.window {
			c.globalCount = u.total.Val()
			c.localDelta -= u.count.localDelta
		}
	}
}
