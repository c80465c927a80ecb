package store_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

var cause = store.Cause{Actor: store.System, RequestID: "test", Operation: "test"}

func newZone(t *testing.T, s *store.Store) db.Zone {
	t.Helper()
	var zone db.Zone
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) (err error) {
		zone, err = tx.CreateZone(t.Context(), store.NewZone{Name: "Zone"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func TestInTxRollsBackAfterError(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store()
	failure := errors.New("failure")
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		if _, err := tx.CreateZone(t.Context(), store.NewZone{Name: "Zone"}); err != nil {
			return err
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v, want %v", err, failure)
	}
	for _, table := range []string{"zones", "audit_entries", "outbox"} {
		if n := storetest.Value[int](d, "SELECT count(*) FROM "+table); n != 0 {
			t.Errorf("%s has %d rows, want 0", table, n)
		}
	}
}

// A transaction function can end with deferred statements that no other statement
// follows.
func TestInTxSendsDeferredStatementsBeforeCommit(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store()
	zone := newZone(t, s)
	const update = "UPDATE zones SET version = version + $1::integer WHERE id = $2"
	err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		for range 2 {
			if err := tx.Defer(t.Context(), update, 10, zone.ID); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := storetest.Value[int](d, "SELECT version FROM zones WHERE id = $1", zone.ID); v != 21 {
		t.Errorf("the version is %d, want 21", v)
	}

	err = s.InTx(t.Context(), cause, func(tx *store.Tx) error {
		if err := tx.Defer(t.Context(), update, 10, zone.ID); err != nil {
			return err
		}
		return tx.Defer(t.Context(), "SELECT 1 / 0")
	})
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "22012" { // division_by_zero
		t.Errorf("a deferred statement that fails: got %v", err)
	}
	if v := storetest.Value[int](d, "SELECT version FROM zones WHERE id = $1", zone.ID); v != 21 {
		t.Errorf("after a failed statement the version is %d, want 21", v)
	}
}

func TestStoreAccessesOnlyItsZone(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store()
	zone := newZone(t, s)
	if _, err := s.Zone(t.Context(), zone.ID); !errors.Is(err, code.ZoneNotFound) {
		t.Errorf("unscoped: %v", err)
	}
	if _, err := s.For(store.Actor{Zone: "elsewhere"}).Zone(t.Context(), zone.ID); !errors.Is(err, code.ZoneNotFound) {
		t.Errorf("scoped to another zone: %v", err)
	}
	if _, err := s.For(store.Actor{Zone: zone.ID}).Zone(t.Context(), zone.ID); err != nil {
		t.Errorf("scoped to the zone: %v", err)
	}
	err := s.InTx(t.Context(), store.Cause{Actor: store.Actor{Zone: "it's"}}, func(tx *store.Tx) error {
		_, err := tx.UpdateZone(t.Context(), zone.ID, store.Precondition{}, store.ZonePatch{Name: new("x")})
		return err
	})
	if !errors.Is(err, code.ZoneNotFound) {
		t.Errorf("transaction scoped to another zone: %v", err)
	}
}

// After a deadlock, both transactions commit, and each change is applied once.
func TestInTxRetriesAfterDeadlock(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store()
	one, two := newZone(t, s), newZone(t, s)
	var both sync.WaitGroup
	firstLocked := make(chan struct{}, 2)
	for _, order := range [][2]string{{one.ID, two.ID}, {two.ID, one.ID}} {
		both.Go(func() {
			first := true
			err := s.InTx(t.Context(), cause, func(tx *store.Tx) error {
				for i, id := range order {
					if _, err := tx.UpdateZone(t.Context(), id, store.Precondition{}, store.ZonePatch{Name: &order[0]}); err != nil {
						return err
					}
					if i == 0 && first {
						first = false
						firstLocked <- struct{}{}
						for len(firstLocked) < 2 { // until the other transaction has locked its first zone too
							if err := context.Cause(t.Context()); err != nil {
								return err
							}
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	both.Wait()
	for _, id := range []string{one.ID, two.ID} {
		if v := storetest.Value[int](d, "SELECT version FROM zones WHERE id = $1", id); v != 3 {
			t.Errorf("zone %s has version %d, want 3", id, v)
		}
	}
}
