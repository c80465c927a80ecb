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

// DataKey is the key that seals a zone's secrets, made when the first is about
// to be sealed. A request asks for it before its transaction: what unwraps it
// need not be near, and others must not wait for that.
func (s *Store) DataKey(ctx context.Context, cause Cause, zone string) (seal.DataKey, error) {
	const tries = 2
	for range tries {
		row, err := s.For(cause.Actor).q.GetDataKey(ctx, zone)
		if err == nil {
			return s.keys.Unwrap(seal.Wrapped{Zone: zone, Number: row.Number, KEKID: row.WrappedBy, Bytes: row.Wrapped})
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return seal.DataKey{}, err
		}
		key, wrapped := s.keys.NewDataKey(zone, 1)
		// It stays even if the request that it is made for is refused, and is no part of that.
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
	return seal.DataKey{}, fmt.Errorf("zone %s has no data key and does not get one", zone)
}

// addDataKey says whether nobody else was faster.
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

// CheckKeys says which key-encryption key is missing that some zone needs.
func (s *Store) CheckKeys(ctx context.Context) error {
	needed, err := s.For(System).q.ListDataKeyWrappers(ctx)
	if err != nil {
		return err
	}
	if notFoundAs := s.keys.Missing(needed); len(notFoundAs) > 0 {
		return fmt.Errorf("%w: the database has data keys that are wrapped by %v", ErrKeyMissing, notFoundAs)
	}
	return nil
}

// ErrKeyMissing is that a key-encryption key which the database needs is not
// among the service's.
var ErrKeyMissing = errors.New("a key-encryption key is missing")
