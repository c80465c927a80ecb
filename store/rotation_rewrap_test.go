package store_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/store/storetest"
)

func TestRewrapEveryDataKey(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "eldest-", 100)
	addZones(t, d, sealing(t, d, kek2, kek1), "elder-", 150)
	before := opened(t, d, keysOf(t, kek2, kek1))
	s := sealing(t, d, kek3, kek2, kek1)
	id1, id2, id3 := keysOf(t, kek1).Current(), keysOf(t, kek2).Current(), keysOf(t, kek3).Current()

	run(t, s.RewrapDataKeys, 100, 200, 250)
	if after := opened(t, d, keysOf(t, kek3)); len(after) != 250 || !maps.Equal(before, after) {
		t.Errorf("of %d secrets, %d open with the new key alone", len(before), len(after))
	}
	for prefix, from := range map[string]string{"eldest-": id1, "elder-": id2} {
		auditChange := fmt.Sprintf(`"changes":{"wrapped_by":{"from":%q,"to":%q}}`, from, id3)
		if n := storetest.Value[int](d, `SELECT count(DISTINCT zone_id) FROM audit_entries WHERE entity_type = 'data-keys' AND entity_id = '1' AND action = operation AND zone_id LIKE $1 AND payload LIKE '%' || $2 || '%'`,
			prefix+"%", auditChange); n != map[string]int{"eldest-": 100, "elder-": 150}[prefix] {
			t.Errorf("the trail of %d of the zones %s… says so", n, prefix)
		}
	}
	entries := storetest.Value[int](d, "SELECT count(*) FROM audit_entries")
	if entries != 2*250 { // one for each key's making, one for its rewrapping
		t.Errorf("the trail has %d entries", entries)
	}

	run(t, s.RewrapDataKeys)
	if isRetryable := storetest.Value[int](d, "SELECT count(*) FROM audit_entries"); isRetryable != entries {
		t.Errorf("when there is nothing to do, the trail grows by %d", isRetryable-entries)
	}
	if err := sealing(t, d, kek3).CheckKeys(t.Context()); err != nil {
		t.Errorf("without the old keys: %v", err)
	}
}

func TestRewrapResumesAfterInterruption(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 250)
	s := sealing(t, d, kek2, kek1)
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.RewrapDataKeys(ctx, cause, func(int) { cancel() }); err == nil {
		t.Error("it was not broken off")
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys WHERE wrapped_by = $1", keysOf(t, kek2).Current()); n != 100 {
		t.Errorf("%d were rewrapped, want one batch", n)
	}
	if n := len(opened(t, d, keysOf(t, kek2, kek1))); n != 250 {
		t.Errorf("%d secrets open half way", n)
	}
	run(t, s.RewrapDataKeys, 100, 150)
	if n := len(opened(t, d, keysOf(t, kek2))); n != 250 {
		t.Errorf("%d secrets open at the end", n)
	}
}

// Whoever seals holds the data key's row a little, so that it stays.
func TestRewrapDoesNotWaitForKeyShareLocks(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 3)
	s := sealing(t, d, kek2, kek1)
	asService(t, d, "zone-2", func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "INSERT INTO providers (zone_id, id, name, identifier, kind, secret_config_keys, secret_config, data_key) VALUES ('zone-2', 'q', 'x', 'q', 'api_key', '{k}', 'x', 1)"); err != nil {
			t.Fatal(err)
		}
		run(t, s.RewrapDataKeys, 3)
	})
}

// What another rotation holds is not passed by: it may have been killed.
func TestRewrapWaitsForLockedDataKeys(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, sealing(t, d, kek1), "zone-", 3)
	s := sealing(t, d, kek2, kek1)
	var got steps
	done := make(chan error, 1)
	asService(t, d, "zone-2", func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "UPDATE data_keys SET wrapped = wrapped"); err != nil {
			t.Fatal(err)
		}
		go func() { done <- s.RewrapDataKeys(ctx, cause, got.add) }()
		for len(done) == 0 && !somebodyWaits(d) {
			if err := t.Context().Err(); err != nil {
				t.Fatal(err)
			}
		}
	}) // its transaction is undone
	if err := <-done; err != nil || !slices.Equal(got, []int{3}) {
		t.Errorf("its progress is %v: %v", got, err)
	}
}
