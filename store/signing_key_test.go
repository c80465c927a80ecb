package store_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// signingKey returns the signing key of a zone.
func signingKey(t *testing.T, s *store.Store, zone string) store.SigningKey {
	t.Helper()
	key, err := s.SigningKey(t.Context(), cause, zone)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rotate rotates the signing key of a zone.
func rotate(t *testing.T, s *store.Store, zone string) (created db.SigningKey) {
	t.Helper()
	sealer := dataKey(t, s, zone)
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) (err error) {
		created, err = tx.RotateSigningKey(t.Context(), zone, sealer)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// verificationKeys returns the IDs of the keys that verify the tokens of a zone.
func verificationKeys(t *testing.T, s *store.Store, zone string) (ids []string) {
	t.Helper()
	keys, err := s.For(store.Actor{Zone: zone}).VerificationKeys(t.Context(), zone)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	return ids
}

// keyEntries returns the audit entries of signing keys: ID and change, in their order.
func keyEntries(d *storetest.DB) []string {
	return storetest.Column[string](d, `SELECT entity_id || ' ' || (payload::jsonb ->> 'change') || ' ' || operation
		FROM audit_entries WHERE entity_type = 'signing-keys' ORDER BY occurred_at, entity_id`)
}

func TestSigningKeyCreatesOneKeyPerZone(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	replicas := []*store.Store{openStore(t, d, kek1), openStore(t, d, kek1)}
	zone := newZone(t, replicas[0]).ID
	if ids := verificationKeys(t, replicas[0], zone); len(ids) > 0 {
		t.Errorf("a new zone has the keys %q", ids)
	}
	keys := make([]store.SigningKey, 20)
	var all sync.WaitGroup
	for n := range keys {
		all.Go(func() {
			var err error
			if keys[n], err = replicas[n%2].SigningKey(t.Context(), cause, zone); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	for _, key := range keys {
		if key.ID != keys[0].ID || !key.Private().Equal(keys[0].Private()) {
			t.Fatalf("got %s and %s", key, keys[0])
		}
	}
	if got := keyEntries(d); !slices.Equal(got, []string{keys[0].ID + " created make signing key"}) {
		t.Errorf("audit entries %q", got)
	}
	public, err := replicas[0].For(store.Actor{Zone: zone}).VerificationKeys(t.Context(), zone)
	if err != nil || len(public) != 1 || public[0].ID != keys[0].ID {
		t.Fatalf("got %+v, %v", public, err)
	}
	verifier, err := public[0].JWK.Key()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("text"))
	signature, err := ecdsa.SignASN1(rand.Reader, keys[0].Private(), digest[:])
	if err != nil || !ecdsa.VerifyASN1(verifier, digest[:], signature) {
		t.Errorf("the public key does not verify: %v", err)
	}
}

func TestRotateSigningKeyOverlaps(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone, other := newZone(t, s).ID, newZone(t, s).ID
	first := signingKey(t, s, zone)
	otherKey := signingKey(t, s, other)
	second := rotate(t, s, zone)
	third := rotate(t, s, zone)
	if got := signingKey(t, s, zone); got.ID != third.ID {
		t.Errorf("signs with %s, want %s", got, third.ID)
	}
	if got := verificationKeys(t, s, zone); !slices.Equal(got, []string{third.ID, second.ID, first.ID}) {
		t.Errorf("verifies with %q, want %q", got, []string{third.ID, second.ID, first.ID})
	}
	want := []string{
		first.ID + " created make signing key", otherKey.ID + " created make signing key",
		first.ID + " updated", second.ID + " created", second.ID + " updated", third.ID + " created",
	}
	got := keyEntries(d)
	for i, entry := range got {
		if i >= len(want) || !strings.HasPrefix(entry, want[i]) {
			t.Fatalf("audit entries %q, want %q", got, want)
		}
	}
	// The rotation says until when the key verifies, and nothing of the private key.
	payload := storetest.Value[string](d, "SELECT payload FROM audit_entries WHERE entity_id = $1 AND payload LIKE '%retires_at%' AND payload LIKE '%updated%'", first.ID)
	retires := storetest.Value[time.Time](d, "SELECT retires_at FROM signing_keys WHERE id = $1", first.ID)
	if in := time.Until(retires); in < 23*time.Hour || in > 25*time.Hour || !strings.Contains(payload, retires.UTC().Format("2006-01-02T15:04")) || strings.Contains(payload, "private_key") {
		t.Errorf("retires in %v, audit entry %s", in, payload)
	}
	d.Exec("UPDATE signing_keys SET retires_at = now() - interval '1 second' WHERE id = $1", first.ID)
	if got := verificationKeys(t, s, zone); !slices.Equal(got, []string{third.ID, second.ID}) {
		t.Errorf("after 24 hours, verifies with %q", got)
	}
	if got := verificationKeys(t, s, other); !slices.Equal(got, []string{otherKey.ID}) {
		t.Errorf("the other zone verifies with %q", got)
	}
}

// Concurrent rotations each replace the key of the one before.
func TestConcurrentRotationsOfSigningKey(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone := newZone(t, s).ID
	sealer := dataKey(t, s, zone)
	var all sync.WaitGroup
	for n := range 6 {
		all.Go(func() {
			var err error
			if n%3 == 0 {
				_, err = s.SigningKey(t.Context(), cause, zone)
			} else {
				err = s.InTx(t.Context(), cause, func(tx *store.Tx) error {
					_, err := tx.RotateSigningKey(t.Context(), zone, sealer)
					return err
				})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := storetest.Value[int](d, "SELECT count(*) FROM signing_keys WHERE retires_at IS NULL"); n != 1 {
		t.Errorf("%d keys sign, want 1", n)
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM signing_keys"); n < 4 || n > 5 { // a key is made first, or a rotation makes it
		t.Errorf("%d keys, want one for each of 4 rotations, and at most one before", n)
	}
}

func TestSigningKeyOfZoneThatIsNotActive(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone, archived := newZone(t, s).ID, d.ArchivedZone()
	signingKey(t, s, zone)
	d.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", zone)
	if ids := verificationKeys(t, s, zone); len(ids) > 0 {
		t.Errorf("tokens of an archived zone verify with %q", ids)
	}
	for _, id := range []string{archived, "unknown"} {
		if _, err := s.SigningKey(t.Context(), cause, id); !errors.Is(err, code.ZoneNotFound) {
			t.Errorf("%s: got %v", id, err)
		}
	}
}

func TestSigningKeyPrintsNoSecret(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	key := signingKey(t, s, newZone(t, s).ID)
	private, err := key.Private().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secret := new(big.Int).SetBytes(private)
	text, err := json.Marshal(map[string]any{"key": key})
	if err != nil {
		t.Fatal(err)
	}
	held := struct{ key store.SigningKey }{key}
	for _, printed := range []string{fmt.Sprintf("%v %+v %#v %s %d %x", key, key, key, key, key, key), fmt.Sprintf("%+v %#v", held, held), string(text)} {
		if strings.Contains(printed, secret.String()) || strings.Contains(strings.ToLower(printed), secret.Text(16)) {
			t.Errorf("prints the private key: %s", printed)
		}
	}
	if got := fmt.Sprint(key); got != "signing key "+key.ID {
		t.Errorf("prints %q", got)
	}
}
