package issuer

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// loadTimeout limits a lookup of keys, which several requests may share.
const loadTimeout = 5 * time.Second

// keyTimes are the times of a key cache.
type keyTimes struct {
	fresh    time.Duration // for how long keys are used without loading them again
	stale    time.Duration // for how long keys are used if they cannot be loaded again
	interval time.Duration // the minimum between two attempts to load the keys of a zone
}

// A keyCache caches the public keys of zones. It loads the keys of a zone again if a token
// names a key that it does not know, but not more often than at an interval: everybody can
// send such tokens.
type keyCache struct {
	load  func(ctx context.Context, zone string) (map[string]*ecdsa.PublicKey, error)
	times keyTimes
	// keepsKeys makes an empty set of keys an error if keys are known, because a service that
	// loses all its keys at once is probably broken. A nil set is none.
	keepsKeys bool
	now       func() time.Time
	loads     singleflight.Group

	mu    sync.Mutex
	zones map[string]zoneKeys
}

// zoneKeys are the keys of a zone as they were last loaded.
type zoneKeys struct {
	keys   map[string]*ecdsa.PublicKey
	loaded time.Time // the last successful attempt
	tried  time.Time // the last attempt
	err    error     // of the last attempt
}

// errNoKeys means that a zone had keys and has none any more.
var errNoKeys = errors.New("the issuer has no keys any more")

func newKeyCache(load func(context.Context, string) (map[string]*ecdsa.PublicKey, error), times keyTimes) *keyCache {
	return &keyCache{load: load, times: times, now: time.Now, zones: map[string]zoneKeys{}}
}

// key returns the key of a zone with an ID, or nil if there is none. It returns an error
// if the keys cannot be loaded.
func (c *keyCache) key(ctx context.Context, zone, id string) (*ecdsa.PublicKey, error) {
	now := c.now()
	known, found := c.get(zone)
	key := known.keys[id]
	if found && key != nil && now.Sub(known.loaded) < c.times.fresh {
		return key, nil
	}
	if !found || now.Sub(known.tried) >= c.times.interval {
		known = c.reload(ctx, zone, known)
	}
	switch key := known.keys[id]; {
	case key != nil && now.Sub(known.loaded) < max(c.times.fresh, c.times.stale):
		return key, nil
	case known.err != nil:
		return nil, known.err
	}
	return nil, nil
}

func (c *keyCache) get(zone string) (known zoneKeys, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, found = c.zones[zone]
	return known, found
}

// reload loads the keys of a zone. If that fails, it keeps those that are known.
func (c *keyCache) reload(ctx context.Context, zone string, known zoneKeys) zoneKeys {
	loaded, _, _ := c.loads.Do(zone, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
		defer cancel()
		if current, _ := c.get(zone); current.tried.After(known.tried) { // another call has just loaded them
			return current, nil
		}
		known.tried = c.now()
		keys, err := c.load(ctx, zone)
		if err == nil && keys != nil && len(keys) == 0 && len(known.keys) > 0 && c.keepsKeys {
			err = errNoKeys
		}
		if known.err = err; err == nil {
			known.keys, known.loaded = keys, known.tried
		}
		c.put(zone, known)
		return known, nil
	})
	return loaded.(zoneKeys)
}

// put stores the keys of a zone. If there are too many zones, it drops the one whose last
// attempt is the longest ago, and those without keys before others: tokens can name zones that
// do not exist.
func (c *keyCache) put(zone string, keys zoneKeys) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, found := c.zones[zone]; !found && len(c.zones) >= maxZones {
		oldest, first := "", true
		for other, k := range c.zones {
			present := c.zones[oldest]
			empty := len(k.keys) == 0
			if first || empty && len(present.keys) > 0 || empty == (len(present.keys) == 0) && k.tried.Before(present.tried) {
				oldest, first = other, false
			}
		}
		delete(c.zones, oldest)
	}
	c.zones[zone] = keys
}
