package policy

import (
	"container/list"
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"golang.org/x/sync/singleflight"
)

// A Cache keeps the bundles that were used last. Its methods can be called
// concurrently.
type Cache struct {
	maxBytes int

	loading singleflight.Group
	mu      sync.Mutex
	bytes   int
	recent  list.List // of cached, the last used first
	byKey   map[string]*list.Element
}

type cached struct {
	key    string
	bundle *Bundle
	bytes  int
}

// NewCache returns a cache of bundles that take up to about maxBytes of memory.
func NewCache(maxBytes int) *Cache {
	return &Cache{maxBytes: maxBytes, byKey: map[string]*list.Element{}}
}

// Bundle returns the bundle with a key, which must identify the zone and the content
// of the modules, such as the digest of a manifest. If the cache does not have it, it
// compiles the modules that load returns. Concurrent calls with one key compile it
// once; load must not depend on which of them it is called for.
func (c *Cache) Bundle(ctx context.Context, key string, load func(context.Context) ([]Module, error)) (*Bundle, error) {
	if b := c.get(key); b != nil {
		return b, nil
	}
	// A caller that goes away must not fail the others.
	result := c.loading.DoChan(key, func() (_ any, err error) {
		defer func() {
			if p := recover(); p != nil { // singleflight would end the process
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		ctx := context.WithoutCancel(ctx)
		modules, err := load(ctx)
		if err != nil {
			return nil, err
		}
		b, err := Compile(ctx, modules)
		if err != nil {
			return nil, err
		}
		c.put(key, b, bundleBytes(b, modules))
		return b, nil
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Bundle), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bundleBytes estimates the memory of a bundle. If restrict depends on the input, the
// bundle contains the compiled modules too.
func bundleBytes(b *Bundle, modules []Module) int {
	const fixed, compiled = 4 << 10, 200
	bytes := fixed + valueBytes(b.documents)
	if b.restrict == nil {
		for _, m := range modules {
			bytes += compiled * len(m.Content)
		}
	}
	return bytes
}

// valueBytes estimates the memory of a value: each term has a position in the source.
func valueBytes(value ast.Value) int {
	const term, key = 250, 150
	bytes := term
	switch value := value.(type) {
	case ast.String:
		bytes += len(value)
	case ast.Object:
		value.Foreach(func(k, v *ast.Term) { bytes += key + valueBytes(k.Value) + valueBytes(v.Value) })
	case ast.Set:
		value.Foreach(func(t *ast.Term) { bytes += key + valueBytes(t.Value) })
	case *ast.Array:
		value.Foreach(func(t *ast.Term) { bytes += valueBytes(t.Value) })
	}
	return bytes
}

func (c *Cache) get(key string) *Bundle {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cached).bundle
}

// put adds a bundle and removes the least recently used ones that do not fit.
func (c *Cache) put(key string, b *Bundle, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if bytes > c.maxBytes || c.byKey[key] != nil {
		return
	}
	c.byKey[key] = c.recent.PushFront(&cached{key: key, bundle: b, bytes: bytes})
	for c.bytes += bytes; c.bytes > c.maxBytes; {
		last := c.recent.Remove(c.recent.Back()).(*cached)
		delete(c.byKey, last.key)
		c.bytes -= last.bytes
	}
}
