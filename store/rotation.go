package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// rotationBatch is how many rows a transaction of a rotation holds: few, so that
// nobody waits for it for long.
const rotationBatch = 100

// RewrapDataKeys wraps every data key that another key-encryption key wraps with
// the current one, and tells how many it has done after each batch. It can be
// broken off anywhere and begun again. A zone whose key does not open is passed,
// and named in the end.
func (s *Store) RewrapDataKeys(ctx context.Context, cause Cause, progress func(done int)) error {
	needed, err := s.For(cause.Actor).q.ListDataKeyWrappers(ctx)
	if err != nil {
		return err
	}
	broken := map[string]error{} // by zone
	err = inBatches(ctx, s, cause, progress, func(tx *Tx) (found, done int, err error) {
		current := s.keys.Current() // which may change meanwhile
		others := slices.DeleteFunc(slices.Clone(needed), func(id string) bool { return id == current })
		rows, err := tx.q.LockDataKeysWrappedBy(ctx, db.LockDataKeysWrappedByParams{
			WrappedBy: others, Passed: slices.AppendSeq([]string{}, maps.Keys(broken)), RowLimit: rotationBatch,
		})
		if err != nil {
			return 0, 0, err
		}
		for _, row := range rows {
			key, err := s.keys.Unwrap(seal.Wrapped{Zone: row.ZoneID, Number: row.Number, KEKID: row.WrappedBy, Bytes: row.Wrapped})
			if err != nil {
				broken[row.ZoneID] = err
				continue
			}
			done++
			w := s.keys.Wrap(key)
			if err := tx.q.RewrapDataKey(ctx, db.RewrapDataKeyParams{ZoneID: w.Zone, Number: w.Number, WrappedBy: w.KEKID, Wrapped: w.Bytes}); err != nil {
				return 0, 0, err
			}
			tx.recordDataKey(w, diff(auditFields{"wrapped_by": row.WrappedBy}, auditFields{"wrapped_by": w.KEKID}))
		}
		return len(rows), done, nil
	})
	return errors.Join(append(slices.Collect(maps.Values(broken)), err)...)
}

// inBatches runs transactions until one finds nothing to do.
func inBatches(ctx context.Context, s *Store, cause Cause, progress func(done int), one func(*Tx) (found, done int, err error)) error {
	for all := 0; ; progress(all) {
		found, done := 0, 0
		err := s.InTx(ctx, cause, func(tx *Tx) (err error) {
			found, done, err = one(tx)
			return err
		})
		if err != nil || found == 0 {
			return err
		}
		all += done
	}
}

// ReplaceDataKeys gives each zone whose data key is older than some time a new
// one, and tells how many it has done. What is sealed goes on opening with the
// old keys, until [Store.Reseal]. Ages are by the database's clock: by one that
// goes ahead of it, the new keys would be old too.
func (s *Store) ReplaceDataKeys(ctx context.Context, cause Cause, older time.Duration, progress func(done int)) error {
	before, err := s.For(cause.Actor).q.GetTimeBefore(ctx, older.Seconds())
	if err != nil {
		return err
	}
	return inBatches(ctx, s, cause, progress, func(tx *Tx) (found, done int, err error) {
		zones, err := tx.q.ListZonesWithOldDataKey(ctx, db.ListZonesWithOldDataKeyParams{Before: before, RowLimit: rotationBatch})
		if err != nil {
			return 0, 0, err
		}
		// In the order in which RewrapDataKeys locks, so that two rotations wait for each other at the worst.
		slices.SortFunc(zones, func(a, b db.ListZonesWithOldDataKeyRow) int { return cmp.Compare(a.ZoneID, b.ZoneID) })
		for _, zone := range zones {
			retired, err := tx.q.RetireDataKey(ctx, db.RetireDataKeyParams(zone))
			if err != nil {
				return 0, 0, err
			}
			if retired == 0 {
				continue
			}
			_, wrapped := s.keys.NewDataKey(zone.ZoneID, zone.Number+1)
			added, err := tx.addDataKey(ctx, wrapped)
			if err != nil {
				return 0, 0, err
			}
			if !added {
				return 0, 0, fmt.Errorf("zone %s has a data key %d that is newer than its current one", zone.ZoneID, wrapped.Number)
			}
		}
		return len(zones), len(zones), nil
	})
}

// Reseal seals with its zone's current data key whatever an older one seals,
// tells how many secrets it has done, and deletes the old keys that nothing needs
// any more. A key that was retired less than a request ago is left for the next
// time: a request may be about to seal with it. A zone in which something does
// not open is left, and named in the end.
func (s *Store) Reseal(ctx context.Context, cause Cause, progress func(done int)) error {
	var broken []error
	done := 0
	for after := ""; ; {
		zones, err := s.For(cause.Actor).q.ListZonesWithRetiredDataKey(ctx, db.ListZonesWithRetiredDataKeyParams{After: after, RowLimit: rotationBatch})
		if err != nil || len(zones) == 0 {
			return errors.Join(append(broken, err)...)
		}
		for _, zone := range zones {
			err := s.resealZone(ctx, cause, zone, func(n int) { done += n; progress(done) })
			if err != nil && !errors.Is(err, seal.ErrDecrypt) {
				return errors.Join(append(broken, err)...)
			}
			if err != nil {
				broken = append(broken, fmt.Errorf("zone %s: %w", zone, err))
			}
		}
		after = zones[len(zones)-1]
	}
}

// resealZone tells after each batch how many secrets that had.
func (s *Store) resealZone(ctx context.Context, cause Cause, zone string, progress func(n int)) error {
	const longestRequest = 5 * time.Minute
	keys, err := s.dataKeys(ctx, cause, zone)
	if err != nil {
		return err
	}
	for _, one := range []func(context.Context, string, []seal.DataKey, *Tx) (int, error){resealProviders, resealProviderGrants} {
		told := 0
		sofar := func(n int) { progress(n - told); told = n }
		err := inBatches(ctx, s, cause, sofar, func(tx *Tx) (found, done int, err error) {
			n, err := one(ctx, zone, keys, tx)
			return n, n, err
		})
		if err != nil {
			return err
		}
	}
	return s.InTx(ctx, cause, func(tx *Tx) error { return tx.deleteRetiredDataKeys(ctx, zone, longestRequest) })
}

// dataKeys are all of a zone's, the current one last.
func (s *Store) dataKeys(ctx context.Context, cause Cause, zone string) ([]seal.DataKey, error) {
	rows, err := s.For(cause.Actor).q.ListDataKeys(ctx, zone)
	if err != nil {
		return nil, err
	}
	keys := make([]seal.DataKey, len(rows))
	for i, row := range rows {
		keys[i], err = s.keys.Unwrap(seal.Wrapped{Zone: zone, Number: row.Number, KEKID: row.WrappedBy, Bytes: row.Wrapped})
		if err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// reseal seals with the current key what one of the keys has sealed for a place.
// Nothing stays nothing.
func reseal(keys []seal.DataKey, number int32, place seal.Location, sealed []byte) ([]byte, error) {
	if sealed == nil {
		return nil, nil
	}
	secret, err := openSecret(keys, number, place, sealed)
	if err != nil {
		return nil, err
	}
	return keys[len(keys)-1].Seal(place, secret), nil
}

func openSecret(keys []seal.DataKey, number int32, place seal.Location, sealed []byte) (seal.Plaintext, error) {
	for _, key := range keys {
		if key.Number == number {
			return key.Open(place, sealed)
		}
	}
	return nil, fmt.Errorf("zone %s has no data key %d", place.Zone, number)
}

func resealProviders(ctx context.Context, zone string, keys []seal.DataKey, tx *Tx) (int, error) {
	current := keys[len(keys)-1].Number
	rows, err := tx.q.LockProvidersSealedBefore(ctx, db.LockProvidersSealedBeforeParams{ZoneID: zone, Number: &current, RowLimit: rotationBatch})
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		sealed, err := reseal(keys, row.DataKey, providerSecrets(zone, row.ID), row.SecretConfig)
		if err != nil {
			return 0, err
		}
		if err := tx.q.ResealProvider(ctx, db.ResealProviderParams{ZoneID: zone, ID: row.ID, SecretConfig: sealed, DataKey: current}); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

func resealProviderGrants(ctx context.Context, zone string, keys []seal.DataKey, tx *Tx) (int, error) {
	current := keys[len(keys)-1].Number
	rows, err := tx.q.LockProviderGrantsSealedBefore(ctx, db.LockProviderGrantsSealedBeforeParams{ZoneID: zone, Number: &current, RowLimit: rotationBatch})
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		access, err := reseal(keys, row.DataKey, grantToken(zone, row.ID, "access_token"), row.AccessToken)
		if err != nil {
			return 0, err
		}
		refresh, err := reseal(keys, row.DataKey, grantToken(zone, row.ID, "refresh_token"), row.RefreshToken)
		if err != nil {
			return 0, err
		}
		err = tx.q.ResealProviderGrant(ctx, db.ResealProviderGrantParams{ZoneID: zone, ID: row.ID, AccessToken: access, RefreshToken: refresh, DataKey: current})
		if err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

func grantToken(zone, id, column string) seal.Location {
	return seal.Location{Zone: zone, Table: "provider_grants", Column: column, Row: id}
}

func (tx *Tx) deleteRetiredDataKeys(ctx context.Context, zone string, longer time.Duration) error {
	numbers, err := tx.q.DeleteRetiredDataKeys(ctx, db.DeleteRetiredDataKeysParams{ZoneID: zone, Longer: longer.Seconds()})
	for _, number := range numbers {
		tx.record(zone, audit.DataKeys, strconv.Itoa(int(number)), noFields)
	}
	return err
}

// VerifySecrets opens everything that is sealed, tells how many secrets did, and
// stops at the first that does not.
func (s *Store) VerifySecrets(ctx context.Context, cause Cause, progress func(done int)) error {
	v := &verifier{store: s, cause: cause, progress: progress}
	after := db.ListSealedProvidersParams{RowLimit: rotationBatch}
	for {
		rows, err := s.For(cause.Actor).q.ListSealedProviders(ctx, after)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if err := v.open(ctx, row.DataKey, providerSecrets(row.ZoneID, row.ID), row.SecretConfig); err != nil {
				return err
			}
			after.AfterZone, after.AfterKey, after.AfterID = row.ZoneID, row.DataKey, row.ID
		}
	}
	next := db.ListSealedProviderGrantsParams{RowLimit: rotationBatch}
	for {
		rows, err := s.For(cause.Actor).q.ListSealedProviderGrants(ctx, next)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			progress(v.done)
			return nil
		}
		for _, row := range rows {
			if err := v.open(ctx, row.DataKey, grantToken(row.ZoneID, row.ID, "access_token"), row.AccessToken); err != nil {
				return err
			}
			if err := v.open(ctx, row.DataKey, grantToken(row.ZoneID, row.ID, "refresh_token"), row.RefreshToken); err != nil {
				return err
			}
			next.AfterZone, next.AfterKey, next.AfterID = row.ZoneID, row.DataKey, row.ID
		}
	}
}

// A verifier remembers the keys of the zone that it is in.
type verifier struct {
	store    *Store
	cause    Cause
	progress func(done int)
	done     int
	zone     string
	keys     []seal.DataKey
}

func (v *verifier) open(ctx context.Context, number int32, place seal.Location, sealed []byte) (err error) {
	if sealed == nil {
		return nil
	}
	if v.zone != place.Zone || number > v.keys[len(v.keys)-1].Number { // or newer than what we remember
		if v.keys, err = v.store.dataKeys(ctx, v.cause, place.Zone); err != nil {
			return err
		}
		v.zone = place.Zone
	}
	if _, err := openSecret(v.keys, number, place, sealed); err != nil {
		return fmt.Errorf("zone %s: %w", place.Zone, err)
	}
	v.done++
	if v.done%rotationBatch == 0 {
		v.progress(v.done)
	}
	return nil
}
