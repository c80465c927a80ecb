package jobs_test

import (
	"testing"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

func TestOldIdempotencyKeysAreDeleted(t *testing.T) {
	t.Parallel()
	b := newBench(t, "z")
	kept := []string{b.IdempotencyKey("z", 0), b.IdempotencyKey(store.NoZone, 23)}
	b.IdempotencyKey("z", 25)
	b.IdempotencyKey(store.NoZone, 1000)
	b.run("delete-idempotency-keys", 2)
	b.run("delete-idempotency-keys", 0)
	same(t, "keys", storetest.Column[string](b.DB, "SELECT id FROM idempotency_keys"), kept...)
}
