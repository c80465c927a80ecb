package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

var auditKey = []byte("a key with 32 bytes for the seals")

// renameZone updates a zone, which inserts one audit entry.
func renameZone(ctx context.Context, s *store.Store, zone, name string) error {
	return s.InTx(ctx, cause, func(tx *store.Tx) error {
		_, err := tx.UpdateZone(ctx, zone, store.Precondition{}, store.ZonePatch{Name: &name})
		return err
	})
}

func sealAll(t *testing.T, s *store.Store) {
	t.Helper()
	for {
		n, err := s.SealEntries(t.Context(), auditKey, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

// checkChains checks that every entry has one seal, that the chains have no gaps, and
// that each seal follows the one before it.
func checkChains(t *testing.T, d *storetest.DB) {
	t.Helper()
	for problem, sql := range map[string]string{
		"entries without a seal": "SELECT count(*) FROM audit_entries AS e WHERE NOT EXISTS (SELECT FROM audit_seals AS s WHERE s.zone_id = e.zone_id AND s.entry_id = e.id)",
		"queued entries":         "SELECT count(*) FROM audit_unsealed",
		"gaps":                   "SELECT count(*) FROM (SELECT seq, row_number() OVER (PARTITION BY zone_id ORDER BY seq) AS n FROM audit_seals) AS numbered WHERE seq <> n",
		"seals that do not follow the one before them": `SELECT count(*) FROM audit_seals AS s LEFT JOIN audit_seals AS p ON p.zone_id = s.zone_id AND p.seq = s.seq - 1
			WHERE s.previous <> coalesce(p.hash, decode(repeat('00', 32), 'hex'))`,
		"heads that are not the last seal": `SELECT count(*) FROM audit_seals AS s LEFT JOIN audit_seal_heads AS h ON h.zone_id = s.zone_id
			WHERE s.seq = (SELECT max(seq) FROM audit_seals AS l WHERE l.zone_id = s.zone_id) AND (h.seq, h.hash) IS DISTINCT FROM (s.seq, s.hash)`,
	} {
		if n := storetest.Value[int](d, sql); n != 0 {
			t.Errorf("%d %s", n, problem)
		}
	}
}

func TestSealEntriesChainsEachZone(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store()
	zones := []string{newZone(t, s).ID, newZone(t, s).ID}
	for n := range 5 {
		for _, zone := range zones {
			if err := renameZone(t.Context(), s, zone, fmt.Sprint("name ", n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.RecordDenied(t.Context(), cause, store.NoZone, "zones", ""); err != nil {
		t.Fatal(err)
	}
	if stat, err := s.SealStat(t.Context()); err != nil || stat.Unsealed != 13 {
		t.Errorf("before: %+v, %v, want 13 unsealed entries", stat, err)
	}
	for n := range 5 { // in batches that end within a zone
		if _, err := s.SealEntries(t.Context(), auditKey, 3); err != nil {
			t.Fatal(n, err)
		}
	}
	if stat, err := s.SealStat(t.Context()); err != nil || stat.Unsealed != 0 || stat.OldestSeconds != 0 {
		t.Errorf("after: %+v, %v", stat, err)
	}
	checkChains(t, d)
	for _, zone := range append(zones, store.NoZone) {
		sealed := storetest.Column[string](d, "SELECT e.id FROM audit_seals AS s JOIN audit_entries AS e ON e.zone_id = s.zone_id AND e.id = s.entry_id WHERE s.zone_id = $1 ORDER BY s.seq", zone)
		if entries := storetest.Column[string](d, "SELECT id FROM audit_entries WHERE zone_id = $1 ORDER BY id", zone); !slices.Equal(sealed, entries) || len(entries) == 0 {
			t.Errorf("the order in %s is %v, want %v", zone, sealed, entries)
		}
	}
}

// An entry of a transaction that commits late gets a number after those that were
// sealed before it, although it was inserted before them.
func TestSealEntriesFollowsOrderOfCommits(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.StoreWith(8)
	zone := newZone(t, s).ID
	sealAll(t, s)
	conn := serviceConn(t, d)
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{
		"SELECT set_config('caracal.zone_id', '*', true)",
		"INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload) SELECT id, 'late', 'r', 'a', 'o', 'a', 'm', 'p', 200, '{}' FROM zones",
		"INSERT INTO audit_unsealed (zone_id, entry_id) SELECT id, 'late' FROM zones",
	} {
		if _, err := tx.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := renameZone(t.Context(), s, zone, "early"); err != nil {
		t.Fatal(err)
	}
	sealAll(t, s)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealAll(t, s)
	checkChains(t, d)
	if last := storetest.Value[string](d, "SELECT entry_id FROM audit_seals ORDER BY seq DESC LIMIT 1"); last != "late" {
		t.Errorf("the last seal is that of %s", last)
	}
}

// Replicas that seal at the same time, and whose connections break, seal each entry once.
func TestSealEntriesByManyReplicas(t *testing.T) {
	t.Parallel()
	const writers, writes, replicas = 3, 40, 3
	d := storetest.New(t)
	s := d.StoreWith(8)
	zones := []string{newZone(t, s).ID, newZone(t, s).ID}
	writing, stop := context.WithCancel(t.Context())
	var sealers, writersDone sync.WaitGroup
	for range replicas {
		replica := d.StoreWith(2)
		sealers.Go(func() {
			for writing.Err() == nil {
				_, _ = replica.SealEntries(t.Context(), auditKey, 7) // fails when its connection ends
			}
		})
	}
	for n := range writers {
		writersDone.Go(func() {
			for i := range writes {
				_ = renameZone(t.Context(), s, zones[i%2], fmt.Sprint(n, " ", i))
				if i%10 == n {
					d.EndActiveConnections()
				}
			}
		})
	}
	writersDone.Wait()
	stop()
	sealers.Wait()
	sealAll(t, d.Store())
	checkChains(t, d)
}

func TestSealEntriesReportsOtherReplica(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	s := d.Store()
	newZone(t, s)
	tx, err := serviceConn(t, d).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT pg_advisory_xact_lock(hashtextextended('audit-seals', 0))"); err != nil {
		t.Fatal(err)
	}
	if n, err := s.SealEntries(t.Context(), auditKey, 10); n != 0 || !errors.Is(err, store.ErrSealing) {
		t.Errorf("got %d, %v, want ErrSealing", n, err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealAll(t, s)
	checkChains(t, d)
}

// Whatever someone changes in the queue, the seals or the heads of one zone, the entries
// of other zones are sealed, and no seal is overwritten.
func TestSealEntriesAfterTampering(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"a queued entry was deleted":      "DELETE FROM audit_entries WHERE zone_id = $1 AND id IN (SELECT entry_id FROM audit_unsealed)",
		"a sealed entry was queued again": "INSERT INTO audit_unsealed (zone_id, entry_id) SELECT zone_id, entry_id FROM audit_seals WHERE zone_id = $1",
		"an entry was queued twice":       "INSERT INTO audit_unsealed (zone_id, entry_id) SELECT zone_id, entry_id FROM audit_unsealed WHERE zone_id = $1",
		"the head was set back":           "UPDATE audit_seal_heads SET seq = 1 WHERE zone_id = $1",
		"the head was set forward":        "UPDATE audit_seal_heads SET seq = seq + 10 WHERE zone_id = $1",
		"the head was deleted":            "DELETE FROM audit_seal_heads WHERE zone_id = $1",
		"the last seal was deleted":       "DELETE FROM audit_seals WHERE zone_id = $1 AND seq = 3",
		"all seals were deleted":          "DELETE FROM audit_seals WHERE zone_id = $1",
		"the hashes have another length":  "UPDATE audit_seal_heads SET hash = 'short' WHERE zone_id = $1",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := storetest.New(t)
			s := d.Store()
			zone, other := newZone(t, s).ID, newZone(t, s).ID
			rename := func(name string) {
				for _, z := range []string{zone, other} {
					if err := renameZone(t.Context(), s, z, name); err != nil {
						t.Fatal(err)
					}
				}
			}
			rename("a")
			rename("b")
			sealAll(t, s)
			rename("c")
			d.Exec(sql, zone)
			before := storetest.Column[string](d, "SELECT to_jsonb(s)::text FROM audit_seals AS s ORDER BY zone_id, seq")
			sealAll(t, s)
			after := storetest.Column[string](d, "SELECT to_jsonb(s)::text FROM audit_seals AS s ORDER BY zone_id, seq")
			for _, seal := range before {
				if !slices.Contains(after, seal) {
					t.Errorf("the seal %s is gone", seal)
				}
			}
			if n := storetest.Value[int](d, "SELECT max(seq) FROM audit_seals WHERE zone_id = $1", other); n != 4 {
				t.Errorf("the other zone has %d seals, want 4", n)
			}
			if n := storetest.Value[int](d, "SELECT count(*) FROM audit_unsealed"); n != 0 {
				t.Errorf("%d entries are still queued", n)
			}
		})
	}
}
