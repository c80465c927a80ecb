package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// DataKey returns the data key that seals a zone's secrets. It creates the key if
// the zone has none yet, and returns zone_not_found if the zone is not active.
// Call it before a transaction: unwrapping a key can be slow, and no lock should
// be held meanwhile.
func (s *Store) DataKey(ctx context.Context, cause Cause, zone string) (seal.DataKey, error) {
	const maxAttempts = 2
	for range maxAttempts {
		row, err := s.For(cause.Actor).shared.GetDataKey(ctx, zone)
		if err == nil {
			return s.keys.Unwrap(seal.Wrapped{Zone: zone, Number: row.Number, KEKID: row.WrappedBy, Bytes: row.Wrapped})
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return seal.DataKey{}, err
		}
		key, wrapped := s.keys.NewDataKey(zone, 1)
		// The key is recorded as its own operation: it remains even if the request fails.
		cause := Cause{Actor: cause.Actor, RequestID: cause.RequestID, Operation: "make data key"}
		added := false
		err = s.InTx(ctx, cause, func(tx *Tx) (err error) {
			if _, err := tx.requireZone(ctx, zone, shared); err != nil {
				return err
			}
			added, err = tx.addDataKey(ctx, wrapped)
			return err
		})
		if err != nil || added {
			return key, err
		}
	}
	return seal.DataKey{}, fmt.Errorf("failed to create a data key for zone %s", zone)
}

// OpenSecret opens a secret that is sealed with a zone's data key of the given number. If
// that fails for another reason than an unavailable database, the error wraps
// [ErrNotOpened].
func (s *Store) OpenSecret(ctx context.Context, cause Cause, number int32, location seal.Location, sealed []byte) (seal.Plaintext, error) {
	rows, err := s.For(cause.Actor).shared.ListDataKeys(ctx, location.Zone)
	if err != nil {
		return nil, err
	}
	keys, err := s.unwrapAll(location.Zone, rows)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOpened, err)
	}
	secret, err := openSecret(keys, number, location, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotOpened, err)
	}
	return secret, nil
}

// ErrNotOpened means that a sealed secret cannot be opened.
var ErrNotOpened = errors.New("a sealed secret cannot be opened")

// addDataKey inserts a data key and reports whether it did: it does not if the
// zone has a current key or one with the same number.
func (tx *Tx) addDataKey(ctx context.Context, w seal.Wrapped) (bool, error) {
	n, err := tx.q.InsertDataKey(ctx, db.InsertDataKeyParams{ZoneID: w.Zone, Number: w.Number, WrappedBy: w.KEKID, Wrapped: w.Bytes})
	if err != nil || n == 0 {
		return false, err
	}
	tx.recordDataKey(w, diff(nil, auditFields{"wrapped_by": w.KEKID}))
	return true, nil
}

func (tx *Tx) recordDataKey(w seal.Wrapped, c auditChange) {
	tx.record(w.Zone, audit.DataKeys, strconv.Itoa(int(w.Number)), c)
}

// CheckKeys returns an error that wraps [ErrKeyMissing] and lists the ids if the
// service lacks key-encryption keys that wrap data keys of zones. Those of stored responses
// do not count: without them, the service does everything but repeat these responses.
func (s *Store) CheckKeys(ctx context.Context) error {
	needed, err := s.For(System).q.ListDataKeyWrappers(ctx)
	if err != nil {
		return err
	}
	if missing := s.keys.Missing(needed); len(missing) > 0 {
		return fmt.Errorf("%w: the database has data keys that are wrapped by %v", ErrKeyMissing, missing)
	}
	return nil
}

// ErrKeyMissing means that the service lacks a key-encryption key that wraps data
// keys in the database.
var ErrKeyMissing = errors.New("a key-encryption key is missing")
