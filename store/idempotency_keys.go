package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store/seal"
)

// An IdempotentRequest is a request with an Idempotency-Key. However often it is sent, and
// to whichever replica, it has its effect once, and every success response is the same:
//
//  1. [Store.BeginIdempotent] returns the stored response, if there is one. The request is
//     then not processed again.
//  2. Otherwise, the request is processed with a [Cause] that names it. The first batch of
//     its transaction inserts the row of the key, and fails with idempotency_key_in_use if
//     another transaction is processing a request with the key, or has committed one since.
//  3. [Store.InTx] does not commit the transaction, because the response is not known yet.
//     [IdempotentRequest.Commit] adds the response to the row and commits.
//
// So the change and its response are committed together or not at all, wherever the process
// ends. A request that fails is rolled back, and leaves no row.
//
// It is used by one goroutine at a time.
type IdempotentRequest struct {
	zone, id string
	digest   []byte // of the request
	expired  bool   // there is a row that is no longer kept
	key      seal.DataKey
	tx       *Tx // the open transaction; nil: none
	ended    []func(error)
}

// An IdempotencyKey is a key and its scope: keys of other actors, operations and path
// parameters are other keys.
type IdempotencyKey struct {
	Zone                   string // of the objects that the operation changes, or NoZone
	Actor, Operation, Text string
	Params                 []string // the values of the path parameters
}

// id returns the id of the row: a digest of the key and its scope, of one length however
// long they are. Guesses of the key can be tested against it in the database, so that it
// hides random keys, but not one made from something confidential that can be guessed.
func (k IdempotencyKey) id() string {
	digest := sha256.New()
	for _, part := range append([]string{k.Actor, k.Operation, k.Text}, k.Params...) {
		_ = binary.Write(digest, binary.BigEndian, uint64(len(part)))
		_, _ = digest.Write([]byte(part))
	}
	return base64.RawURLEncoding.EncodeToString(digest.Sum(nil))
}

// recordKey is the number of a data key that seals one response. Those of zones count from
// 1, so that neither can stand for the other.
//
// Each response has a data key of its own, because it is deleted before keys are due to be
// replaced, because responses that belong to no zone are sealed, too, and because the key of
// a zone would have to be read first.
const recordKey = 0

// storedResponse returns the location of a sealed response.
func storedResponse(zone, id string) seal.Location {
	return seal.Location{Zone: zone, Table: "idempotency_keys", Column: "response", Row: id}
}

// BeginIdempotent returns the stored response of a request, or, if there is none, the
// request to process. digest identifies the request without its key: BeginIdempotent returns
// idempotency_key_reused if the key was used for another one. The digest is sealed with the
// response: passwords in requests could be guessed with it.
//
// It returns another error if the key-encryption key of the stored response is missing. The
// request must not be processed then, because it has been.
func (s *Store) BeginIdempotent(ctx context.Context, actor Actor, key IdempotencyKey, digest [sha256.Size]byte) (*IdempotentRequest, seal.Plaintext, error) {
	r := &IdempotentRequest{zone: key.Zone, id: key.id(), digest: digest[:]}
	row, err := s.For(actor).shared.GetIdempotencyKey(ctx, db.GetIdempotencyKeyParams{ZoneID: r.zone, ID: r.id})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return r, nil, nil
	case err != nil:
		return nil, nil, err
	case row.Expired: // the job has not deleted it yet
		r.expired = true
		return r, nil, nil
	}
	stored, response, err := s.openResponse(r.zone, r.id, row.WrappedBy, row.Wrapped, row.Response)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("stored response of a request: %w", err)
	case subtle.ConstantTimeCompare(stored, r.digest) == 0:
		return nil, nil, code.IdempotencyKeyReused
	}
	return nil, response, nil
}

// openResponse returns the digest of a request and the response to it.
func (c *core) openResponse(zone, id, wrappedBy string, wrapped, sealed []byte) (digest, response seal.Plaintext, err error) {
	key, err := c.keys.Unwrap(seal.Wrapped{Zone: zone, Number: recordKey, KEKID: wrappedBy, Bytes: wrapped})
	if err != nil {
		return nil, nil, err
	}
	text, err := key.Open(storedResponse(zone, id), sealed)
	if err == nil && len(text) < sha256.Size {
		err = seal.ErrDecrypt
	}
	if err != nil {
		return nil, nil, err
	}
	return text[:sha256.Size], text[sha256.Size:], nil
}

// insert queues the insertion of the row. It is sent with the first statement of the
// transaction.
func (r *IdempotentRequest) insert(ctx context.Context, tx *Tx) error {
	if r.tx != nil {
		return errors.New("a request with an Idempotency-Key must have one transaction")
	}
	deferred := db.New(deferredConn{tx.conn})
	if r.expired {
		if err := deferred.DeleteExpiredIdempotencyKey(ctx, db.DeleteExpiredIdempotencyKeyParams{ZoneID: r.zone, ID: r.id}); err != nil {
			return err
		}
	}
	key, wrapped := tx.keys.NewRecordKey(r.zone, recordKey)
	r.key = key
	return deferred.InsertIdempotencyKey(ctx, db.InsertIdempotencyKeyParams{ZoneID: r.zone, ID: r.id, WrappedBy: wrapped.KEKID, Wrapped: wrapped.Bytes})
}

// Pending reports whether the request has changed something and must be committed.
func (r *IdempotentRequest) Pending() bool { return r.tx != nil }

// AfterCommit calls f when the transaction of the request has ended, with the error of
// Commit, or internal_error if it was rolled back. If no transaction is open, what the
// operation changed is committed: AfterCommit then calls f at once, with nil. r can be nil,
// of a request without a key.
func (r *IdempotentRequest) AfterCommit(f func(error)) {
	if r == nil || !r.Pending() {
		f(nil)
		return
	}
	r.ended = append(r.ended, f)
}

// end calls the functions of AfterCommit.
func (r *IdempotentRequest) end(err error) {
	for _, f := range r.ended {
		f(err)
	}
	r.ended = nil
}

// Commit stores the response and commits the transaction of the request. It returns
// idempotency_key_in_use or service_unavailable. If it returns service_unavailable, the
// transaction may have been committed.
func (r *IdempotentRequest) Commit(ctx context.Context, response seal.Plaintext) (err error) {
	tx := r.tx
	r.tx = nil
	defer func() {
		tx.close(ctx)
		r.end(err)
	}()
	err = db.New(deferredConn{tx.conn}).SetIdempotentResponse(ctx, db.SetIdempotentResponseParams{
		ZoneID: r.zone, ID: r.id, Response: r.key.Seal(storedResponse(r.zone, r.id), slices.Concat(r.digest, response)),
	})
	if err == nil {
		err = tx.commit(ctx)
	}
	if isRetryable(err) {
		return code.ServiceUnavailable.Because(err)
	}
	return mapError(err)
}

// Rollback ends the transaction of the request if it is not committed.
func (r *IdempotentRequest) Rollback(ctx context.Context) {
	if r.tx != nil {
		r.tx.close(ctx)
		r.tx = nil
		r.end(code.InternalError.Because(errors.New("the transaction was rolled back")))
	}
}

// DeleteIdempotencyKeys deletes at most limit keys that were used more than 24 hours ago,
// with their responses, and returns how many.
func (s *Store) DeleteIdempotencyKeys(ctx context.Context, limit int) (int, error) {
	n, err := s.For(System).q.DeleteIdempotencyKeys(ctx, int32(limit))
	return int(n), err
}

// rewrapResponses rewraps a batch of the keys of stored responses that other key-encryption
// keys than the current one wrap, without those of failed zones, to which it adds.
func (tx *Tx) rewrapResponses(ctx context.Context, others []string, failed map[string]error) (found, done int, err error) {
	rows, err := tx.q.LockIdempotencyKeysWrappedBy(ctx, db.LockIdempotencyKeysWrappedByParams{
		WrappedBy: others, SkippedZones: zonesOf(failed), RowLimit: rotationBatch,
	})
	if err != nil {
		return 0, 0, err
	}
	for _, row := range rows {
		key, err := tx.keys.Unwrap(seal.Wrapped{Zone: row.ZoneID, Number: recordKey, KEKID: row.WrappedBy, Bytes: row.Wrapped})
		if err != nil {
			failed[row.ZoneID] = err
			continue
		}
		done++
		w := tx.keys.Wrap(key)
		if err := tx.q.RewrapIdempotencyKey(ctx, db.RewrapIdempotencyKeyParams{ZoneID: w.Zone, ID: row.ID, WrappedBy: w.KEKID, Wrapped: w.Bytes}); err != nil {
			return 0, 0, err
		}
	}
	return len(rows), done, nil
}

// openResponses opens every stored response.
func (v *verifier) openResponses(ctx context.Context) error {
	page := db.ListIdempotencyKeysParams{RowLimit: rotationBatch}
	for {
		rows, err := v.store.For(v.cause.Actor).q.ListIdempotencyKeys(ctx, page)
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if _, _, err := v.store.openResponse(row.ZoneID, row.ID, row.WrappedBy, row.Wrapped, row.Response); err != nil {
				return fmt.Errorf("zone %s: %w", row.ZoneID, err)
			}
			v.count()
			page.AfterZone, page.AfterID = row.ZoneID, row.ID
		}
	}
}
