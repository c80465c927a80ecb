// Package sealer seals the entries of the audit log: it numbers them, in an order that
// follows the commits, and chains their hashes (see [caracal.run/management/store/chain]).
//
// Every replica seals whatever any replica has committed, one at a time: a step is a
// short transaction that takes a lock, so there is no leader and no lease, and a replica
// that crashes in a step leaves nothing behind. A replica seals its own entries within
// milliseconds, and those of a replica that crashed within a second. No request waits.
package sealer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"caracal.run/management/store"
)

const (
	batch        = 500                   // entries per transaction
	coalesce     = 5 * time.Millisecond  // time to wait for more entries: a step costs as much as a request
	minInterval  = 25 * time.Millisecond // between two steps, while there are many writes
	retryLocked  = 20 * time.Millisecond // while another replica is sealing
	pollInterval = time.Second           // for entries of a replica that crashed
)

// A Sealer seals audit entries.
type Sealer struct {
	store  *store.Store
	log    *slog.Logger
	key    []byte
	sealed atomic.Uint64

	mu      sync.Mutex
	changed chan struct{} // closed after the next step that seals entries
}

// New returns a sealer, which [Sealer.Run] starts. If key is nil, seals are not signed.
func New(s *store.Store, log *slog.Logger, key []byte) *Sealer {
	return &Sealer{store: s, log: log, key: key, changed: make(chan struct{})}
}

// Sealed returns the number of entries that this process has sealed.
func (s *Sealer) Sealed() uint64 { return s.sealed.Load() }

// Changed returns a channel that is closed when this process has sealed entries again.
func (s *Sealer) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Run seals entries until ctx ends.
func (s *Sealer) Run(ctx context.Context) {
	failing := false
	for {
		begun := time.Now()
		next := pollInterval
		switch err := s.Seal(ctx); {
		case ctx.Err() != nil:
			return
		case errors.Is(err, store.ErrSealing):
			next = retryLocked
		case err != nil && !failing:
			failing = true
			s.log.WarnContext(ctx, "failed to seal audit entries", "error", err)
		case err == nil && failing:
			failing = false
			s.log.InfoContext(ctx, "sealing audit entries again")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
			continue
		case <-s.store.Recorded():
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(coalesce, minInterval-time.Since(begun))):
		}
	}
}

// Seal seals the entries that are committed. It returns [store.ErrSealing] if another
// replica is doing that.
func (s *Sealer) Seal(ctx context.Context) error {
	for {
		n, err := s.store.SealEntries(ctx, s.key, batch)
		if err != nil {
			return err
		}
		if n > 0 {
			s.sealed.Add(uint64(n))
			s.mu.Lock()
			close(s.changed)
			s.changed = make(chan struct{})
			s.mu.Unlock()
		}
		if n < batch {
			return nil
		}
	}
}
