// Package auth says who is calling: it recognises admin tokens, remembers the
// ones it has recognised, forgets them when any is revoked, and notes when they
// were used.
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
	// cacheTTL is how long a token is taken for live without a look. Replicas
	// tell each other of revocations, so this bounds only what nobody foresaw.
	cacheTTL = 30 * time.Second
	// cacheSize bounds the memory; only tokens that exist get in.
	cacheSize = 4096
	// timeout is how long a look-up may take that several requests wait for.
	timeout = 5 * time.Second
)

// A Verifier recognises admin tokens. Make one with [New], and run [Verifier.Run]
// beside it: without it nothing is remembered and no use is noted.
type Verifier struct {
	store    *store.Store
	log      *slog.Logger
	debounce time.Duration
	lookups  singleflight.Group

	mu             sync.Mutex
	connected      bool   // we would be told of a revocation
	generation     uint64 // how often everything was forgotten
	cache          map[digest]cacheEntry
	lastTouched    map[string]time.Time // token id -> when its use was last noted
	pendingTouches map[string]struct{}
	counters       Counters
}

// Counters count look-ups, for metrics.
type Counters struct{ Hits, Misses, Failures uint64 }

type digest = [sha256.Size]byte

type cacheEntry struct {
	token store.AdminToken
	until time.Time
}

// New makes a verifier. The use of a token is noted at most once in debounce.
func New(s *store.Store, log *slog.Logger, debounce time.Duration) *Verifier {
	return &Verifier{
		store: s, log: log, debounce: debounce,
		cache: map[digest]cacheEntry{}, lastTouched: map[string]time.Time{}, pendingTouches: map[string]struct{}{},
	}
}

// Bearer is the token in an Authorization header (contract: conventions.md
// §9.1), or "".
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

// Verify is the live token with this text, or invalid_admin_token.
func (v *Verifier) Verify(ctx context.Context, text string) (store.AdminToken, error) {
	if text == "" {
		return store.AdminToken{}, code.InvalidAdminToken
	}
	secret := sha256.Sum256([]byte(text))
	now := time.Now()
	v.mu.Lock()
	have, found := v.cache[secret]
	forgets := v.generation
	hit := found && now.Before(have.until)
	if hit {
		v.counters.Hits++
	} else {
		v.counters.Misses++
	}
	v.mu.Unlock()
	if hit {
		return have.token, nil
	}
	// The key names the generation too: who asks after a revocation must not be
	// answered by a look that began before it.
	key := string(secret[:]) + strconv.FormatUint(forgets, 10)
	looked, err, _ := v.lookups.Do(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		token, err := v.store.AdminTokenBySecret(ctx, secret)
		if err == nil {
			v.remember(secret, token, now, forgets)
		}
		return token, err
	})
	if err != nil {
		v.mu.Lock()
		v.counters.Failures++
		v.mu.Unlock()
		return store.AdminToken{}, err
	}
	return looked.(store.AdminToken), nil
}

// remember keeps a token, unless something was revoked since the look began.
func (v *Verifier) remember(secret digest, token store.AdminToken, since time.Time, forgets uint64) {
	until := since.Add(cacheTTL)
	if token.ExpiresAt != nil && token.ExpiresAt.Before(until) {
		until = *token.ExpiresAt
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.connected || v.generation != forgets {
		return
	}
	if len(v.cache) >= cacheSize {
		clear(v.cache)
	}
	v.cache[secret] = cacheEntry{token, until}
}

// InvalidateCache makes every token prove itself anew.
func (v *Verifier) InvalidateCache() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.generation++
	clear(v.cache)
}

// SetConnected says whether we would be told of a revocation. While we would not,
// nothing is remembered.
func (v *Verifier) SetConnected(yes bool) {
	v.InvalidateCache()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.connected = yes
}

// Stat is what was counted so far.
func (v *Verifier) Stat() Counters {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.counters
}

// MarkUsed notes that a token was used, soon and without making anybody wait.
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

// Run notes uses until ctx ends, and once more then.
func (v *Verifier) Run(ctx context.Context) {
	const flushInterval = time.Second
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			v.flushTouches(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
			defer cancel()
			v.flushTouches(last)
			return
		}
	}
}

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
		v.log.WarnContext(ctx, "could not note that admin tokens were used", "tokens", len(ids), "error", err)
	}
}
