package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/db"
	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// Pages whose rows share memory have the same rows as others, and never those of another
// zone, while many are read at once and some of the readers leave.
func TestRowsThatShareMemoryAreThoseOfTheirZone(t *testing.T) {
	t.Parallel()
	const zones, rows, readers, reads = 5, 40, 16, 40
	d := storetest.New(t)
	s := d.Store()
	s.ConnectShared()
	for n := range zones {
		zone := fmt.Sprint("zone-", n)
		d.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_id, actor_name, operation, action, method, path, entity_type, status_code, payload, occurred_at)
			SELECT $1, $1 || '-' || n, repeat($1, n), CASE WHEN n % 2 = 0 THEN $1 END, $1, $1, $1, $1, $1, CASE WHEN n % 3 = 0 THEN repeat($1, n) END, n, repeat($1, 40 - n), now() - n * interval '1 second'
			FROM generate_series(1, $2) AS n`, zone, rows)
		d.Exec("INSERT INTO audit_seals (zone_id, seq, entry_id, previous, hash, mac, occurred_at) SELECT zone_id, status_code, id, 'p', convert_to(zone_id, 'UTF8'), 'm', occurred_at FROM audit_entries WHERE zone_id = $1 AND status_code % 5 > 0", zone)
		d.AuditEvents(zone, rows, func(i int) map[string]any {
			return map[string]any{"request_id": strings.Repeat(zone, i), "decision": []any{"allow", nil, "deny"}[i%3], "metadata": map[string]any{"session_id": zone, "resource": strings.Repeat(zone, rows-i)}}
		})
	}
	var all sync.WaitGroup
	for n := range readers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			for range reads {
				zone := fmt.Sprint("zone-", r.IntN(zones))
				as := s.For([]store.Actor{{Zone: zone}, store.System}[r.IntN(2)])
				page := store.Page{After: store.FirstPosition, Limit: int32(r.IntN(rows + 5))}
				if r.IntN(4) == 0 { // leaves while the page is read
					ctx, leave := context.WithCancel(t.Context())
					go leave()
					_ = as.EachAuditEntry(ctx, zone, store.AuditFilter{}, page, func(*store.ListedAuditEntry) {})
					continue
				}
				i := 0
				entries, err := as.AuditEntries(t.Context(), zone, store.AuditFilter{}, page)
				eachErr := as.EachAuditEntry(t.Context(), zone, store.AuditFilter{}, page, func(e *store.ListedAuditEntry) {
					if i >= len(entries) || !reflect.DeepEqual(*e, entries[i]) || e.ZoneID != zone {
						t.Errorf("entry %d is %v", i, *e)
					}
					i++
				})
				if err != nil || eachErr != nil || i != len(entries) || i != min(rows, int(page.Limit)+1) {
					t.Errorf("%d and %d entries, %v and %v", len(entries), i, err, eachErr)
				}
				i = 0
				events, err := as.AuditEvents(t.Context(), zone, store.AuditEventFilter{}, page)
				eachErr = as.EachAuditEvent(t.Context(), zone, store.AuditEventFilter{}, page, func(e *db.ListedAuditEvent) {
					if i >= len(events) || !reflect.DeepEqual(*e, events[i]) || e.ZoneID != zone {
						t.Errorf("event %d is %v", i, *e)
					}
					i++
				})
				if err != nil || eachErr != nil || i != len(events) || i != min(rows, int(page.Limit)+1) {
					t.Errorf("%d and %d events, %v and %v", len(events), i, err, eachErr)
				}
			}
		})
	}
	all.Wait()
}

// A global actor's list of a zone sees no other zone, whatever its query selects.
func TestGlobalListSeesOnlyItsZone(t *testing.T) {
	t.Parallel()
	d := storetest.New(t)
	for _, zone := range []string{"a", "b"} {
		d.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ($1, 'Zone', $1, false)", zone)
	}
	for _, tt := range []struct{ actor, zone, want string }{{store.AllZones, "a", "a"}, {"b", "a", "b"}, {"b", "b", "b"}, {"", "a", ""}} {
		for _, conn := range d.Store().For(store.Actor{Zone: tt.actor}).ListConnections(tt.zone) {
			var got string
			if err := conn.QueryRow(t.Context(), "SELECT coalesce(string_agg(id, ' '), '') FROM zones").Scan(&got); err != nil || got != tt.want {
				t.Errorf("an actor of zone %q sees %q in the list of %q, %v; want %q", tt.actor, got, tt.zone, err, tt.want)
			}
		}
	}
}
