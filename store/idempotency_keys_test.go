package store_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"caracal.run/management/gen/code"
	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

var idempotencyKey = store.IdempotencyKey{Zone: store.NoZone, Actor: "a", Operation: "o", Params: []string{"p"}, Text: "key"}

// process processes a request, which creates a zone and returns its id.
func process(t *testing.T, s *store.Store, key store.IdempotencyKey) (id string) {
	t.Helper()
	r, stored, err := s.BeginIdempotent(t.Context(), cause.Actor, key, sha256.Sum256([]byte("request")))
	if err != nil || stored != nil {
		t.Fatal(r, stored, err)
	}
	of := cause
	of.Idempotent = r
	err = s.InTx(t.Context(), of, func(tx *store.Tx) error {
		z, err := tx.CreateZone(t.Context(), store.NewZone{Name: "Zone"})
		id = z.ID
		return err
	})
	if err != nil || !r.Pending() {
		t.Fatal(err)
	}
	if err := r.Commit(t.Context(), seal.Plaintext(id)); err != nil {
		t.Fatal(err)
	}
	return id
}

// The rotation of key-encryption keys includes the keys of stored responses.
func TestStoredResponsesAreRewrapped(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	id := process(t, openStore(t, d, kek1), idempotencyKey)
	run(t, openStore(t, d, kek2, kek1).RewrapDataKeys, 1)
	s := openStore(t, d, kek2)
	run(t, s.VerifySecrets, 1)
	_, stored, err := s.BeginIdempotent(t.Context(), cause.Actor, idempotencyKey, sha256.Sum256([]byte("request")))
	if err != nil || string(stored) != id {
		t.Errorf("got %s, %v", []byte(stored), err)
	}
}

// Without the key-encryption key of a stored response, the service runs, and does not
// process the request again.
func TestStoredResponseWhoseKeyIsMissing(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	process(t, openStore(t, d, kek1), idempotencyKey)
	s := openStore(t, d, kek2)
	if err := s.CheckKeys(t.Context()); err != nil {
		t.Error(err)
	}
	r, stored, err := s.BeginIdempotent(t.Context(), cause.Actor, idempotencyKey, sha256.Sum256([]byte("request")))
	if r != nil || stored != nil || err == nil || !strings.Contains(err.Error(), "stored response") || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("got %v, %v, %v", r, stored, err)
	}
}

// A digest of a request with a password would allow to guess the password.
func TestStoredResponseHasNoDigestOfRequest(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	process(t, openStore(t, d, kek1), idempotencyKey)
	digest := sha256.Sum256([]byte("request"))
	if row := storetest.Value[string](d, "SELECT to_jsonb(k)::text FROM idempotency_keys AS k"); strings.Contains(row, hex.EncodeToString(digest[:])) {
		t.Errorf("got %s", row)
	}
}

// A key that is no longer kept is another key, although it is not deleted yet. Of two
// requests that replace it, one fails at once.
func TestExpiredIdempotencyKeyIsReplaced(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	first := process(t, s, idempotencyKey)
	d.Exec("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
	other, stored, err := s.BeginIdempotent(t.Context(), cause.Actor, idempotencyKey, sha256.Sum256([]byte("other")))
	if err != nil || stored != nil {
		t.Fatal(stored, err)
	}
	of := cause
	of.Idempotent = other
	create := func(tx *store.Tx) error {
		_, err := tx.CreateZone(t.Context(), store.NewZone{Name: "Zone"})
		return err
	}
	if err := s.InTx(t.Context(), of, create); err != nil {
		t.Fatal(err)
	}
	concurrent, _, err := s.BeginIdempotent(t.Context(), cause.Actor, idempotencyKey, sha256.Sum256([]byte("other")))
	if err != nil {
		t.Fatal(err)
	}
	of.Idempotent = concurrent
	if err := s.InTx(t.Context(), of, create); !errors.Is(err, code.IdempotencyKeyInUse) {
		t.Errorf("got %v", err)
	}
	other.Rollback(t.Context())
	second := process(t, s, idempotencyKey)
	_, stored, err = s.BeginIdempotent(t.Context(), cause.Actor, idempotencyKey, sha256.Sum256([]byte("request")))
	if err != nil || string(stored) != second || first == second {
		t.Errorf("got %s, %v", []byte(stored), err)
	}
}

// What depends on the commit is done after it, and learns how it ended.
func TestAfterCommit(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	var none *store.IdempotentRequest
	zones := func() int { return storetest.Value[int](d, "SELECT count(*) FROM zones") }
	for _, tt := range []struct {
		name  string
		end   func(*store.IdempotentRequest)
		zones int
		want  error
	}{
		{"no key", nil, 0, nil},
		{"rolled back", func(r *store.IdempotentRequest) { r.Rollback(t.Context()) }, 0, code.InternalError},
		{"committed", func(r *store.IdempotentRequest) { _ = r.Commit(t.Context(), nil) }, 1, nil},
		{"connection lost", func(r *store.IdempotentRequest) {
			d.EndActiveConnections()
			_ = r.Commit(t.Context(), nil)
		}, 1, code.ServiceUnavailable},
	} {
		r := none
		if tt.end != nil {
			key := idempotencyKey
			key.Text = tt.name
			var err error
			if r, _, err = s.BeginIdempotent(t.Context(), cause.Actor, key, [sha256.Size]byte{}); err != nil {
				t.Fatal(err)
			}
			of := cause
			of.Idempotent = r
			err = s.InTx(t.Context(), of, func(tx *store.Tx) error {
				_, err := tx.CreateZone(t.Context(), store.NewZone{Name: "Zone"})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		calls := 0
		r.AfterCommit(func(err error) {
			calls++
			if n := zones(); n != tt.zones || !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v with %d zones, want %v with %d", tt.name, err, n, tt.want, tt.zones)
			}
		})
		if tt.end != nil {
			if calls != 0 {
				t.Errorf("%s: called before the end", tt.name)
			}
			tt.end(r)
			r.Rollback(t.Context())
		}
		if calls != 1 {
			t.Errorf("%s: called %d times", tt.name, calls)
		}
	}
}

// If Postgres ends the transaction of a request while its response is made, the request can
// be repeated.
func TestIdleTransactionThatWasEndedIsUnavailable(t *testing.T) {
	t.Parallel()
	if err := store.Explained(&pgconn.PgError{Code: "25P03"}); !errors.Is(err, code.ServiceUnavailable) {
		t.Errorf("got %v", err)
	}
}

// A stored response cannot be moved to another row.
func TestStoredResponseIsBoundToItsRow(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	process(t, s, idempotencyKey)
	other := idempotencyKey
	other.Text = "other"
	process(t, s, other)
	d.Exec("UPDATE idempotency_keys AS k SET wrapped = o.wrapped, response = o.response FROM idempotency_keys AS o WHERE o.id <> k.id")
	for _, key := range []store.IdempotencyKey{idempotencyKey, other} {
		_, stored, err := s.BeginIdempotent(t.Context(), cause.Actor, key, sha256.Sum256([]byte("request")))
		if !errors.Is(err, seal.ErrDecrypt) || stored != nil {
			t.Errorf("got %v, %v", stored, err)
		}
	}
	if err := s.VerifySecrets(t.Context(), cause, func(int) {}); !errors.Is(err, seal.ErrDecrypt) {
		t.Errorf("got %v", err)
	}
}

// A request has one transaction, and what is not committed leaves nothing.
func TestIdempotentRequestHasOneTransaction(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	r, _, err := s.BeginIdempotent(t.Context(), cause.Actor, idempotencyKey, [sha256.Size]byte{})
	if err != nil {
		t.Fatal(err)
	}
	of := cause
	of.Idempotent = r
	create := func(tx *store.Tx) error {
		_, err := tx.CreateZone(t.Context(), store.NewZone{Name: "Zone"})
		return err
	}
	if err := s.InTx(t.Context(), of, create); err != nil {
		t.Fatal(err)
	}
	if err := s.InTx(t.Context(), of, create); err == nil {
		t.Error("a second transaction was begun")
	}
	second, _, err := s.BeginIdempotent(t.Context(), cause.Actor, idempotencyKey, [sha256.Size]byte{})
	if err != nil {
		t.Fatal(err)
	}
	of.Idempotent = second
	if err := s.InTx(t.Context(), of, create); !errors.Is(err, code.IdempotencyKeyInUse) || second.Pending() {
		t.Errorf("got %v", err)
	}
	r.Rollback(t.Context())
	if n := storetest.Value[int](d, "SELECT (SELECT count(*) FROM zones) + (SELECT count(*) FROM idempotency_keys) + (SELECT count(*) FROM audit_entries)"); n != 0 {
		t.Errorf("left %d rows", n)
	}
	process(t, s, idempotencyKey)
	if err := s.InTx(t.Context(), of, create); !errors.Is(err, code.IdempotencyKeyInUse) {
		t.Errorf("got %v after another request was committed", err)
	}
}
