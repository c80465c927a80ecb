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

// rotationBatch is the number of rows that one transaction of a rotation locks. It
// is small, so that other transactions do not wait long.
const rotationBatch = 100

// RewrapDataKeys rewraps every data key, including those of stored responses, that is not
// wrapped by the current key-encryption key, and calls progress with the total after each
// batch. It is safe to interrupt and rerun. It skips the zones whose keys cannot be
// unwrapped and returns their errors, joined.
func (s *Store) RewrapDataKeys(ctx context.Context, cause Cause, progress func(done int)) error {
	needed, err := s.dataKeyWrappers(ctx, cause.Actor)
	if err != nil {
		return err
	}
	failed := map[string]error{} // by zone
	rewrapped := 0
	for _, rewrapBatch := range []func(*Tx, context.Context, []string, map[string]error) (found, done int, err error){(*Tx).rewrapDataKeys, (*Tx).rewrapResponses} {
		before := rewrapped
		report := func(total int) { rewrapped = before + total; progress(rewrapped) }
		err = inBatches(ctx, s, cause, report, func(tx *Tx) (found, done int, err error) {
			current := s.keys.Current() // it can change between batches
			return rewrapBatch(tx, ctx, slices.DeleteFunc(slices.Clone(needed), func(id string) bool { return id == current }), failed)
		})
		if err != nil {
			break
		}
	}
	return errors.Join(append(slices.Collect(maps.Values(failed)), err)...)
}

// dataKeyWrappers returns the ids of the key-encryption keys that wrap data keys.
func (s *Store) dataKeyWrappers(ctx context.Context, actor Actor) ([]string, error) {
	ofZones, err := s.For(actor).q.ListDataKeyWrappers(ctx)
	if err != nil {
		return nil, err
	}
	ofResponses, err := s.For(actor).q.ListIdempotencyKeyWrappers(ctx)
	all := append(ofZones, ofResponses...)
	slices.Sort(all)
	return slices.Compact(all), err
}

// rewrapDataKeys rewraps a batch of the zones' data keys that other key-encryption keys than
// the current one wrap, without those of failed zones, to which it adds.
func (tx *Tx) rewrapDataKeys(ctx context.Context, others []string, failed map[string]error) (found, done int, err error) {
	rows, err := tx.q.LockDataKeysWrappedBy(ctx, db.LockDataKeysWrappedByParams{WrappedBy: others, SkippedZones: zonesOf(failed), RowLimit: rotationBatch})
	if err != nil {
		return 0, 0, err
	}
	for _, row := range rows {
		key, err := tx.keys.Unwrap(seal.Wrapped{Zone: row.ZoneID, Number: row.Number, KEKID: row.WrappedBy, Bytes: row.Wrapped})
		if err != nil {
			failed[row.ZoneID] = err
			continue
		}
		done++
		w := tx.keys.Wrap(key)
		if err := tx.q.RewrapDataKey(ctx, db.RewrapDataKeyParams{ZoneID: w.Zone, Number: w.Number, WrappedBy: w.KEKID, Wrapped: w.Bytes}); err != nil {
			return 0, 0, err
		}
		tx.recordDataKey(w, diff(auditFields{"wrapped_by": row.WrappedBy}, auditFields{"wrapped_by": w.KEKID}))
	}
	return len(rows), done, nil
}

// zonesOf returns the zones whose keys cannot be unwrapped. It is never nil, which would be
// null in SQL.
func zonesOf(failed map[string]error) []string {
	return slices.AppendSeq([]string{}, maps.Keys(failed))
}

// inBatches runs batch in one transaction after another until it finds no rows, and
// calls progress with the total of changed rows after each. batch returns how many
// rows it found and how many of them it changed.
func inBatches(ctx context.Context, s *Store, cause Cause, progress func(done int), batch func(*Tx) (found, done int, err error)) error {
	for total := 0; ; progress(total) {
		found, done := 0, 0
		err := s.InTx(ctx, cause, func(tx *Tx) (err error) {
			found, done, err = batch(tx)
			return err
		})
		if err != nil || found == 0 {
			return err
		}
		total += done
	}
}

// ReplaceDataKeys creates a new data key for each zone whose current one is older
// than minAge and retires the old one, and calls progress with the total after
// each batch. Secrets remain sealed with the old keys until [Store.Reseal]. Ages are
// measured by the database's clock, which also sets the creation time: by the
// clock of this process, if it is ahead, new keys would count as old.
func (s *Store) ReplaceDataKeys(ctx context.Context, cause Cause, minAge time.Duration, progress func(done int)) error {
	before, err := s.For(cause.Actor).q.GetTimeBefore(ctx, minAge.Seconds())
	if err != nil {
		return err
	}
	return inBatches(ctx, s, cause, progress, func(tx *Tx) (found, done int, err error) {
		zones, err := tx.q.ListZonesWithOldDataKey(ctx, db.ListZonesWithOldDataKeyParams{Before: before, RowLimit: rotationBatch})
		if err != nil {
			return 0, 0, err
		}
		// RewrapDataKeys locks in the same order, so that two rotations do not deadlock.
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

// Reseal reseals with the zone's current data key every secret that is sealed with
// a retired one, calls progress with the total after each batch, and deletes the
// retired keys that are no longer used. It keeps a key that was retired recently,
// because a running request can still seal with it. It skips the rest of a zone in
// which a secret cannot be opened and returns the errors of such zones, joined.
func (s *Store) Reseal(ctx context.Context, cause Cause, progress func(done int)) error {
	var failed []error
	done := 0
	for after := ""; ; {
		zones, err := s.For(cause.Actor).q.ListZonesWithRetiredDataKey(ctx, db.ListZonesWithRetiredDataKeyParams{After: after, RowLimit: rotationBatch})
		if err != nil || len(zones) == 0 {
			return errors.Join(append(failed, err)...)
		}
		for _, zone := range zones {
			err := s.resealZone(ctx, cause, zone, func(n int) { done += n; progress(done) })
			if err != nil && !errors.Is(err, seal.ErrDecrypt) {
				return errors.Join(append(failed, err)...)
			}
			if err != nil {
				failed = append(failed, fmt.Errorf("zone %s: %w", zone, err))
			}
		}
		after = zones[len(zones)-1]
	}
}

// resealZone reseals the secrets of one zone and deletes its unused retired keys. It
// calls progress with the number of rows of each batch.
func (s *Store) resealZone(ctx context.Context, cause Cause, zone string, progress func(n int)) error {
	const maxRequestDuration = 5 * time.Minute
	keys, err := s.dataKeys(ctx, cause, zone)
	if err != nil {
		return err
	}
	for _, resealBatch := range []func(context.Context, string, []seal.DataKey, *Tx) (int, error){resealProviders, resealProviderGrants, resealSigningKeys} {
		reported := 0
		report := func(total int) { progress(total - reported); reported = total }
		err := inBatches(ctx, s, cause, report, func(tx *Tx) (found, done int, err error) {
			n, err := resealBatch(ctx, zone, keys, tx)
			return n, n, err
		})
		if err != nil {
			return err
		}
	}
	return s.InTx(ctx, cause, func(tx *Tx) error { return tx.deleteRetiredDataKeys(ctx, zone, maxRequestDuration) })
}

// dataKeys returns all data keys of a zone, unwrapped, the current one last.
func (s *Store) dataKeys(ctx context.Context, cause Cause, zone string) ([]seal.DataKey, error) {
	rows, err := s.For(cause.Actor).q.ListDataKeys(ctx, zone)
	if err != nil {
		return nil, err
	}
	return s.unwrapAll(zone, rows)
}

// dataKeys returns all data keys of a zone, unwrapped, the current one last.
func (tx *Tx) dataKeys(ctx context.Context, zone string) ([]seal.DataKey, error) {
	rows, err := tx.q.ListDataKeys(ctx, zone)
	if err != nil {
		return nil, err
	}
	return tx.unwrapAll(zone, rows)
}

func (c *core) unwrapAll(zone string, rows []db.ListDataKeysRow) ([]seal.DataKey, error) {
	keys := make([]seal.DataKey, len(rows))
	for i, row := range rows {
		var err error
		keys[i], err = c.keys.Unwrap(seal.Wrapped{Zone: zone, Number: row.Number, KEKID: row.WrappedBy, Bytes: row.Wrapped})
		if err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// reseal opens a secret with the data key of the given number and seals it with the
// current one, the last of keys. A nil secret stays nil.
func reseal(keys []seal.DataKey, number int32, location seal.Location, sealed []byte) ([]byte, error) {
	if sealed == nil {
		return nil, nil
	}
	secret, err := openSecret(keys, number, location, sealed)
	if err != nil {
		return nil, err
	}
	return keys[len(keys)-1].Seal(location, secret), nil
}

// openSecret opens a secret with the data key of the given number.
func openSecret(keys []seal.DataKey, number int32, location seal.Location, sealed []byte) (seal.Plaintext, error) {
	for _, key := range keys {
		if key.Number == number {
			return key.Open(location, sealed)
		}
	}
	return nil, fmt.Errorf("zone %s has no data key %d", location.Zone, number)
}

// resealProviders reseals a batch of a zone's providers and returns its size.
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

// resealProviderGrants reseals a batch of a zone's provider grants and returns its
// size.
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

// resealSigningKeys reseals a batch of a zone's signing keys and returns its size.
func resealSigningKeys(ctx context.Context, zone string, keys []seal.DataKey, tx *Tx) (int, error) {
	current := keys[len(keys)-1].Number
	rows, err := tx.q.LockSigningKeysSealedBefore(ctx, db.LockSigningKeysSealedBeforeParams{ZoneID: zone, Number: current, RowLimit: rotationBatch})
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		sealed, err := reseal(keys, row.DataKey, privateSigningKey(zone, row.ID), row.PrivateKey)
		if err != nil {
			return 0, err
		}
		if err := tx.q.ResealSigningKey(ctx, db.ResealSigningKeyParams{ZoneID: zone, ID: row.ID, PrivateKey: sealed, DataKey: current}); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

// grantToken returns the location of a provider grant's sealed token.
func grantToken(zone, id, column string) seal.Location {
	return seal.Location{Zone: zone, Table: "provider_grants", Column: column, Row: id}
}

// deleteRetiredDataKeys deletes a zone's data keys that are no longer used and were
// retired longer than minAge ago.
func (tx *Tx) deleteRetiredDataKeys(ctx context.Context, zone string, minAge time.Duration) error {
	numbers, err := tx.q.DeleteRetiredDataKeys(ctx, db.DeleteRetiredDataKeysParams{ZoneID: zone, MinAgeSeconds: minAge.Seconds()})
	for _, number := range numbers {
		tx.record(zone, audit.DataKeys, strconv.Itoa(int(number)), deleted)
	}
	return err
}

// VerifySecrets opens every sealed secret. It calls progress with the number of
// opened secrets at regular intervals and at the end, and returns an error at the
// first secret that cannot be opened.
func (s *Store) VerifySecrets(ctx context.Context, cause Cause, progress func(done int)) error {
	v := &verifier{store: s, cause: cause, progress: progress}
	providers := db.ListSealedProvidersParams{RowLimit: rotationBatch}
	for {
		rows, err := s.For(cause.Actor).q.ListSealedProviders(ctx, providers)
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
			providers.AfterZone, providers.AfterKey, providers.AfterID = row.ZoneID, row.DataKey, row.ID
		}
	}
	grants := db.ListSealedProviderGrantsParams{RowLimit: rotationBatch}
	for {
		rows, err := s.For(cause.Actor).q.ListSealedProviderGrants(ctx, grants)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if err := v.open(ctx, row.DataKey, grantToken(row.ZoneID, row.ID, "access_token"), row.AccessToken); err != nil {
				return err
			}
			if err := v.open(ctx, row.DataKey, grantToken(row.ZoneID, row.ID, "refresh_token"), row.RefreshToken); err != nil {
				return err
			}
			grants.AfterZone, grants.AfterKey, grants.AfterID = row.ZoneID, row.DataKey, row.ID
		}
	}
	signing := db.ListSealedSigningKeysParams{RowLimit: rotationBatch}
	for {
		rows, err := s.For(cause.Actor).q.ListSealedSigningKeys(ctx, signing)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if err := v.open(ctx, row.DataKey, privateSigningKey(row.ZoneID, row.ID), row.PrivateKey); err != nil {
				return err
			}
			signing.AfterZone, signing.AfterKey, signing.AfterID = row.ZoneID, row.DataKey, row.ID
		}
	}
	if err := v.openResponses(ctx); err != nil {
		return err
	}
	progress(v.done)
	return nil
}

// A verifier opens secrets, counts them and caches the data keys of one zone.
type verifier struct {
	store    *Store
	cause    Cause
	progress func(done int)
	done     int
	zone     string
	keys     []seal.DataKey // of zone
}

// open opens a secret and counts it. It ignores a nil secret.
func (v *verifier) open(ctx context.Context, number int32, location seal.Location, sealed []byte) (err error) {
	if sealed == nil {
		return nil
	}
	if v.zone != location.Zone || number > v.keys[len(v.keys)-1].Number { // another zone, or a key newer than the cache
		if v.keys, err = v.store.dataKeys(ctx, v.cause, location.Zone); err != nil {
			return err
		}
		v.zone = location.Zone
	}
	if _, err := openSecret(v.keys, number, location, sealed); err != nil {
		return fmt.Errorf("zone %s: %w", location.Zone, err)
	}
	v.count()
	return nil
}

func (v *verifier) count() {
	v.done++
	if v.done%rotationBatch == 0 {
		v.progress(v.done)
	}
}
