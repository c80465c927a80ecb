// Package auth authenticates callers by their admin tokens. It caches verified
// tokens, empties the cache when a token is revoked, and records when tokens were
// last used.
package auth

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
)

const (
	// cacheTTL is how long a verified token is cached.
	cacheTTL = 30 * time.Second
	// maxStaleness limits for how long a revoked token is accepted, by a replica that
	// is not notified of the revocation: the cache is not used unless this replica has
	// looked for revocations within this time.
	maxStaleness = time.Second
	// pollInterval is the time between two looks for revocations.
	pollInterval = 250 * time.Millisecond
	// cacheSize is the number of tokens at which the cache is emptied. Only active
	// tokens are cached.
	cacheSize = 4096
	// timeout limits a lookup, which several requests may share, and the last write
	// of uses at shutdown.
	timeout = 5 * time.Second
)

// A Verifier verifies admin tokens. It caches them while [Verifier.WatchRevocations]
// runs, and records their use while [Verifier.Run] runs.
type Verifier struct {
	store    *store.Store
	log      *slog.Logger
	debounce time.Duration
	lookups  singleflight.Group

	mu             sync.Mutex
	epoch          int64     // of the last look for revocations (store.AdminTokensEpoch)
	watched        time.Time // when that look began
	generation     uint64    // increases when InvalidateCache is called
	cache          map[digest]cacheEntry
	lastTouched    map[string]time.Time // by token id: when its use was last marked
	pendingTouches map[string]struct{}  // ids of tokens whose use is to be recorded
	counters       Counters
}

// Counters count verifications, for metrics.
type Counters struct{ Hits, Misses, Failures uint64 }

type digest = [sha256.Size]byte

type cacheEntry struct {
	token store.AdminToken
	until time.Time
}

// New returns a verifier that records the use of a token at most once in debounce.
func New(s *store.Store, log *slog.Logger, debounce time.Duration) *Verifier {
	return &Verifier{
		store: s, log: log, debounce: debounce,
		cache: map[digest]cacheEntry{}, lastTouched: map[string]time.Time{}, pendingTouches: map[string]struct{}{},
	}
}

// Bearer returns the bearer token (RFC 6750 §2.1) in the values of the Authorization
// header. It returns "" if there is no token, more than one value, or a token of
// more than 4096 bytes.
func Bearer(authorization []string) string {
	const maxLength = 4096
	if len(authorization) != 1 {
		return ""
	}
	text, found := strings.CutPrefix(authorization[0], "Bearer ")
	text = strings.TrimSpace(text)
	if !found || len(text) > maxLength {
		return ""
	}
	return text
}

// Verify returns the active admin token with the given text. It returns
// invalid_admin_token if there is none.
func (v *Verifier) Verify(ctx context.Context, text string) (store.AdminToken, error) {
	if text == "" {
		return store.AdminToken{}, code.InvalidAdminToken
	}
	hash := sha256.Sum256([]byte(text))
	now := time.Now()
	v.mu.Lock()
	cached, found := v.cache[hash]
	generation := v.generation
	hit := found && now.Before(cached.until) && now.Sub(v.watched) < maxStaleness
	if hit {
		v.counters.Hits++
	} else {
		v.counters.Misses++
	}
	v.mu.Unlock()
	if hit {
		return cached.token, nil
	}
	// The key contains the generation, so that a request after a revocation does
	// not share a lookup that began before it.
	key := string(hash[:]) + strconv.FormatUint(generation, 10)
	token, err, _ := v.lookups.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		token, err := v.store.AdminTokenBySecret(ctx, hash)
		if err == nil {
			v.cacheToken(hash, token, now, generation)
		}
		return token, err
	})
	if err != nil {
		v.mu.Lock()
		v.counters.Failures++
		v.mu.Unlock()
		return store.AdminToken{}, err
	}
	return token.(store.AdminToken), nil
}

// cacheToken caches a token that was looked up at lookedUp. It does not if the cache
// was invalidated since then.
func (v *Verifier) cacheToken(hash digest, token store.AdminToken, lookedUp time.Time, generation uint64) {
	until := lookedUp.Add(cacheTTL)
	if token.ExpiresAt != nil && token.ExpiresAt.Before(until) {
		until = *token.ExpiresAt
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.generation != generation {
		return
	}
	if len(v.cache) >= cacheSize {
		clear(v.cache)
	}
	v.cache[hash] = cacheEntry{token, until}
}

// InvalidateCache empties the cache. The results of lookups that are in progress are
// not cached.
func (v *Verifier) InvalidateCache() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.generation++
	clear(v.cache)
}

// WatchRevocations looks for revocations a few times a second until ctx is done, and
// empties the cache when there are new ones. Notifications make that happen sooner
// ([Verifier.InvalidateCache]); they can be lost, as behind a connection pooler.
func (v *Verifier) WatchRevocations(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	failed := false
	for {
		start := time.Now()
		lookup, cancel := context.WithTimeout(ctx, maxStaleness)
		epoch, err := v.store.AdminTokensEpoch(lookup)
		cancel()
		switch {
		case err == nil:
			failed = false
			v.setWatched(epoch, start)
		case ctx.Err() == nil && !failed:
			failed = true
			v.log.WarnContext(ctx, "failed to look for revoked tokens, looking up each token", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (v *Verifier) setWatched(epoch int64, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.epoch != epoch {
		v.generation++
		clear(v.cache)
	}
	v.epoch, v.watched = epoch, at
}

// Stat returns the counters.
func (v *Verifier) Stat() Counters {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counters
}

// MarkUsed marks a token as used. [Verifier.Run] records that in the database.
func (v *Verifier) MarkUsed(id string) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if last, found := v.lastTouched[id]; found && now.Sub(last) < v.debounce {
		return
	}
	v.lastTouched[id] = now
	v.pendingTouches[id] = struct{}{}
}

// Run writes the marked uses to the database every second until ctx is done, and
// then a last time.
func (v *Verifier) Run(ctx context.Context) {
	const flushInterval = time.Second
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			v.flushTouches(ctx)
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
			defer cancel()
			v.flushTouches(ctx)
			return
		}
	}
}

// flushTouches writes the marked uses to the database. If that fails, they are lost:
// last_used_at is best effort.
func (v *Verifier) flushTouches(ctx context.Context) {
	now := time.Now()
	v.mu.Lock()
	ids := make([]string, 0, len(v.pendingTouches))
	for id := range v.pendingTouches {
		ids = append(ids, id)
	}
	clear(v.pendingTouches)
	for id, at := range v.lastTouched {
		if now.Sub(at) > v.debounce {
			delete(v.lastTouched, id)
		}
	}
	v.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	if err := v.store.TouchAdminTokens(ctx, ids, now, v.debounce); err != nil {
		v.log.WarnContext(ctx, "failed to update last_used_at", "tokens", len(ids), "error", err)
	}
}
