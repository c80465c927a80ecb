package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store"
	"caracal.run/management/store/seal"
	"caracal.run/management/store/storetest"
)

func TestReplaceDataKeysKeepsEverySecret(t *testing.T) {
	t.Parallel()
	const providers, grants = 105, 102
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone, other, archived := newZone(t, s).ID, newZone(t, s).ID, newZone(t, s).ID
	key := dataKey(t, s, zone)
	for n := range providers {
		addProvider(t, s, zone, key, fmt.Sprint("p", n))
	}
	resource := d.Resource(zone)
	for n := range grants {
		addGrant(d, zone, key, resource, fmt.Sprint("u", n), n%2 == 0)
	}
	signingKey(t, s, zone)
	addProvider(t, s, archived, dataKey(t, s, archived), "p")
	d.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archived)
	dataKey(t, s, other) // seals nothing yet
	fixture := d.Provider(zone)
	before := opened(t, d, keysOf(t, kek1))
	if want := providers + grants + grants/2 + 2; len(before) != want {
		t.Fatalf("%d secrets, want %d", len(before), want)
	}
	current := func(zone string) int {
		return storetest.Value[int](d, "SELECT number FROM data_keys WHERE zone_id = $1 AND retired_at IS NULL", zone)
	}
	numbers := func() []string {
		return storetest.Column[string](d, "SELECT number || ' of ' || count(*) FROM data_keys GROUP BY number ORDER BY number")
	}

	d.Exec("UPDATE data_keys SET created_at = now() - interval '2 days' WHERE zone_id <> $1", other)
	run(t, func(ctx context.Context, c store.Cause, progress func(int)) error {
		return s.ReplaceDataKeys(ctx, c, 24*time.Hour, progress)
	}, 2)
	if current(zone) != 2 || current(archived) != 2 || current(other) != 1 {
		t.Errorf("current data keys %d, %d and %d, want 2, 2 and 1", current(zone), current(archived), current(other))
	}
	if !maps.Equal(opened(t, d, keysOf(t, kek1)), before) {
		t.Error("after the replacement, not every secret opens")
	}
	asService(t, d, zone, func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "DELETE FROM data_keys WHERE number = 1"); err == nil || !strings.Contains(err.Error(), "SQLSTATE 23503") {
			t.Errorf("a key in use was deleted: %v", err)
		}
	})

	// Zones in the order of their ids; in each providers, grants and signing keys, in batches.
	version := storetest.Value[int](d, "SELECT sum(version) FROM providers")
	want := []int{100, 105, 205, 207, 208, 209}
	if archived < zone {
		want = []int{1, 101, 106, 206, 208, 209}
	}
	run(t, s.Reseal, want...)
	if !maps.Equal(opened(t, d, keysOf(t, kek1)), before) {
		t.Error("after resealing, not every secret opens")
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM (SELECT data_key FROM providers UNION ALL SELECT data_key FROM provider_grants UNION ALL SELECT data_key FROM signing_keys) AS x WHERE data_key = 1"); n != 0 {
		t.Errorf("%d rows are sealed with the old key", n)
	}
	if now := storetest.Value[int](d, "SELECT sum(version) FROM providers"); now != version {
		t.Error("resealing changed the version of a provider")
	}
	if storetest.Value[bool](d, "SELECT data_key IS NOT NULL OR secret_config IS NOT NULL FROM providers WHERE id = $1", fixture) {
		t.Error("a provider without secrets has one")
	}

	if got := numbers(); !slices.Equal(got, []string{"1 of 3", "2 of 2"}) {
		t.Errorf("just retired: data keys %q", got)
	}
	d.Exec("UPDATE data_keys SET retired_at = now() - interval '4 minutes 50 seconds' WHERE retired_at IS NOT NULL")
	run(t, s.Reseal)
	if got := numbers(); !slices.Equal(got, []string{"1 of 3", "2 of 2"}) {
		t.Errorf("retired recently: data keys %q", got)
	}
	d.Exec("UPDATE data_keys SET retired_at = now() - interval '5 minutes 10 seconds' WHERE retired_at IS NOT NULL")
	run(t, s.Reseal)
	if got := numbers(); !slices.Equal(got, []string{"1 of 1", "2 of 2"}) {
		t.Errorf("retired long ago: data keys %q", got)
	}
	entries := storetest.Column[string](d, "SELECT entity_id || substring(payload FROM '.changed_fields.*') FROM audit_entries WHERE entity_type = 'data-keys' AND zone_id = $1 ORDER BY occurred_at, entity_id", zone)
	created := fmt.Sprintf(`"changed_fields":["wrapped_by"],"changes":{"wrapped_by":{"from":null,"to":%q}},"change":"created"}`, keysOf(t, kek1).Current())
	if !slices.Equal(entries, []string{"1" + created, "2" + created, `1"changed_fields":[],"change":"deleted"}`}) {
		t.Errorf("audit entries %q", entries)
	}
	var progress steps
	if err := s.VerifySecrets(t.Context(), cause, progress.add); err != nil || progress[len(progress)-1] != len(before) {
		t.Errorf("opened %v, want %d: %v", progress, len(before), err)
	}
}

// A slow request can seal with a data key that was retired after the request read it.
func TestResealFindsSecretsSealedWithRetiredKey(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone := newZone(t, s).ID
	early := dataKey(t, s, zone)
	run(t, replace(s), 1)
	run(t, s.Reseal)
	id := addProvider(t, s, zone, early, "late")
	location := seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}
	if got := opened(t, d, keysOf(t, kek1)); got[location] != "provider://late" {
		t.Errorf("secrets: %q", got)
	}
	d.Exec("UPDATE data_keys SET retired_at = now() - interval '1 hour' WHERE retired_at IS NOT NULL")
	run(t, s.Reseal, 1)
	if got := opened(t, d, keysOf(t, kek1)); got[location] != "provider://late" {
		t.Errorf("secrets after resealing: %q", got)
	}
	if n := storetest.Column[int](d, "SELECT number FROM data_keys"); !slices.Equal(n, []int{2}) {
		t.Errorf("data keys %v, want 2", n)
	}
	run(t, s.Reseal)
}

// Resealing waits for a concurrent update of the provider and keeps its new secret.
func TestResealKeepsSecretOfConcurrentProviderUpdate(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := openStore(t, d, kek1)
	zone := newZone(t, s).ID
	early := dataKey(t, s, zone)
	id := addProvider(t, s, zone, early, "p")
	run(t, replace(s), 1)
	var reseal sync.WaitGroup
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		if _, err := tx.UpdateProvider(t.Context(), zone, id, store.Precondition{}, early, store.ProviderPatch{Configure: func(c store.ProviderConfig) (store.ProviderConfig, error) {
			c.Secrets = seal.Plaintext(`{"api_key":"changed"}`)
			return c, nil
		}}); err != nil {
			return err
		}
		reseal.Go(func() {
			if err := s.Reseal(t.Context(), cause, func(int) {}); err != nil {
				t.Error(err)
			}
		})
		for !lockAwaited(d) {
			if err := t.Context().Err(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	reseal.Wait()
	location := seal.Location{Zone: zone, Table: "providers", Column: "secret_config", Row: id}
	if got := opened(t, d, keysOf(t, kek1)); got[location] != `{"api_key":"changed"}` {
		t.Errorf("secrets: %q", got)
	}
	if n := storetest.Value[int](d, "SELECT data_key FROM providers WHERE id = $1", id); n != 2 {
		t.Errorf("sealed with data key %d, want 2", n)
	}
}

func TestConcurrentRotationsKeepEverySecret(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, openStore(t, d, kek1), "zone-", 120)
	before := opened(t, d, keysOf(t, kek1))
	var all sync.WaitGroup
	for range 3 {
		s := openStore(t, d, kek2, kek1)
		all.Go(func() {
			for _, r := range []rotation{s.RewrapDataKeys, replace(s), s.Reseal} {
				if err := r(t.Context(), cause, func(int) {}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	run(t, openStore(t, d, kek2, kek1).RewrapDataKeys)
	if !maps.Equal(opened(t, d, keysOf(t, kek2)), before) {
		t.Error("not every secret opens with the new key")
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys WHERE retired_at IS NULL"); n != 120 {
		t.Errorf("%d current data keys, want 120", n)
	}
}

func TestRotationSkipsZonesThatDoNotDecrypt(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, openStore(t, d, kek1), "zone-", 6)
	s := openStore(t, d, kek2, kek1)
	zones := storetest.Column[string](d, "SELECT zone_id FROM data_keys ORDER BY zone_id")
	const broken = "\\x010203"
	d.Exec("UPDATE data_keys SET wrapped = $2 WHERE zone_id = $1", zones[1], []byte(broken))
	d.Exec("UPDATE providers SET secret_config = $2 WHERE zone_id = $1", zones[3], []byte(broken))
	ignore := func(int) {}
	if err := s.RewrapDataKeys(t.Context(), store.Cause{Actor: store.System}, ignore); !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), zones[1]) {
		t.Errorf("RewrapDataKeys returned %v", err)
	}
	if err := replace(s)(t.Context(), store.Cause{Actor: store.System}, ignore); err != nil {
		t.Error(err)
	}
	err := s.Reseal(t.Context(), store.Cause{Actor: store.System}, ignore)
	for _, zone := range []string{zones[1], zones[3]} {
		if !errors.Is(err, seal.ErrDecrypt) || !strings.Contains(err.Error(), zone) {
			t.Errorf("Reseal returned %v, want an error for zone %s", err, zone)
		}
	}
	old := keysOf(t, kek1).Current()
	if left := storetest.Column[string](d, "SELECT DISTINCT zone_id FROM data_keys WHERE wrapped_by = $1", old); !slices.Equal(left, zones[1:2]) {
		t.Errorf("the old key wraps data keys of %v, want only %v", left, zones[1:2])
	}
	if left := storetest.Column[string](d, "SELECT DISTINCT zone_id FROM providers WHERE data_key = 1 ORDER BY 1"); !slices.Equal(left, []string{zones[1], zones[3]}) {
		t.Errorf("the first data key seals secrets in %v, want only %v and %v", left, zones[1], zones[3])
	}
}
