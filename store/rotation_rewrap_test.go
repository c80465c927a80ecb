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

func TestRewrapDataKeysRewrapsEveryKey(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, openStore(t, d, kek1), "oldest-", 100)
	addZones(t, d, openStore(t, d, kek2, kek1), "old-", 150)
	before := opened(t, d, keysOf(t, kek2, kek1))
	s := openStore(t, d, kek3, kek2, kek1)
	id1, id2, id3 := keysOf(t, kek1).Current(), keysOf(t, kek2).Current(), keysOf(t, kek3).Current()

	run(t, s.RewrapDataKeys, 100, 200, 250)
	if after := opened(t, d, keysOf(t, kek3)); len(after) != 250 || !maps.Equal(before, after) {
		t.Errorf("%d of %d secrets open with only the new key", len(after), len(before))
	}
	for prefix, from := range map[string]string{"oldest-": id1, "old-": id2} {
		change := fmt.Sprintf(`"changes":{"wrapped_by":{"from":%q,"to":%q}}`, from, id3)
		if n := storetest.Value[int](d, `SELECT count(DISTINCT zone_id) FROM audit_entries WHERE entity_type = 'data-keys' AND entity_id = '1' AND action = operation AND zone_id LIKE $1 AND payload LIKE '%' || $2 || '%'`,
			prefix+"%", change); n != map[string]int{"oldest-": 100, "old-": 150}[prefix] {
			t.Errorf("%d zones %s… have an audit entry of the change", n, prefix)
		}
	}
	entries := storetest.Value[int](d, "SELECT count(*) FROM audit_entries")
	if entries != 2*250 { // one for the creation of each key, one for its rewrapping
		t.Errorf("%d audit entries, want %d", entries, 2*250)
	}

	run(t, s.RewrapDataKeys)
	if after := storetest.Value[int](d, "SELECT count(*) FROM audit_entries"); after != entries {
		t.Errorf("a rewrap without anything to do added %d audit entries", after-entries)
	}
	if err := openStore(t, d, kek3).CheckKeys(t.Context()); err != nil {
		t.Errorf("without the old keys: %v", err)
	}
}

func TestRewrapDataKeysResumesAfterInterruption(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, openStore(t, d, kek1), "zone-", 250)
	s := openStore(t, d, kek2, kek1)
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.RewrapDataKeys(ctx, cause, func(int) { cancel() }); err == nil {
		t.Error("the rewrap was not interrupted")
	}
	if n := storetest.Value[int](d, "SELECT count(*) FROM data_keys WHERE wrapped_by = $1", keysOf(t, kek2).Current()); n != 100 {
		t.Errorf("%d data keys were rewrapped, want one batch of 100", n)
	}
	if n := len(opened(t, d, keysOf(t, kek2, kek1))); n != 250 {
		t.Errorf("%d secrets open after the interruption, want 250", n)
	}
	run(t, s.RewrapDataKeys, 100, 150)
	if n := len(opened(t, d, keysOf(t, kek2))); n != 250 {
		t.Errorf("%d secrets open at the end, want 250", n)
	}
}

// A transaction that seals a secret locks the data key's row FOR KEY SHARE, which
// does not block the rewrap.
func TestRewrapDoesNotWaitForKeyShareLocks(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, openStore(t, d, kek1), "zone-", 3)
	s := openStore(t, d, kek2, kek1)
	asService(t, d, "zone-2", func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "INSERT INTO providers (zone_id, id, name, identifier, kind, secret_config_keys, secret_config, data_key) VALUES ('zone-2', 'q', 'x', 'q', 'api_key', '{k}', 'x', 1)"); err != nil {
			t.Fatal(err)
		}
		run(t, s.RewrapDataKeys, 3)
	})
}

// A rewrap waits for keys that another rotation has locked instead of skipping them:
// the other rotation can fail.
func TestRewrapWaitsForLockedDataKeys(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	addZones(t, d, openStore(t, d, kek1), "zone-", 3)
	s := openStore(t, d, kek2, kek1)
	var got steps
	done := make(chan error, 1)
	asService(t, d, "zone-2", func(ctx context.Context, tx pgx.Tx) {
		if _, err := tx.Exec(ctx, "UPDATE data_keys SET wrapped = wrapped"); err != nil {
			t.Fatal(err)
		}
		go func() { done <- s.RewrapDataKeys(ctx, cause, got.add) }()
		for len(done) == 0 && !lockAwaited(d) {
			if err := t.Context().Err(); err != nil {
				t.Fatal(err)
			}
		}
	}) // asService rolls the transaction back
	if err := <-done; err != nil || !slices.Equal(got, []int{3}) {
		t.Errorf("progress %v, want 3: %v", got, err)
	}
}
