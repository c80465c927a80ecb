//go:build faults

package faults_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Entries are sealed once each, in a valid chain, although the process that seals them is
// killed again and again.
func TestKilledProcessesSealEachEntryOnce(t *testing.T) {
	t.Parallel()
	const entries, kills = 8_000, 5
	b := newBackends(t)
	key := "AUDIT_HMAC_KEY=" + streamKey
	b.superuser(fmt.Sprintf(`WITH e AS (INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload)
			SELECT CASE n %% 3 WHEN 0 THEN '-' ELSE 'zone-' || n %% 3 END, 'entry-' || n, 'request', 'somebody', 'updateZone', 'PATCH /v1', 'PATCH', '/v1', 200, '{}' FROM generate_series(1, %d) AS n RETURNING zone_id, id)
		INSERT INTO audit_unsealed (zone_id, entry_id) SELECT zone_id, id FROM e`, entries))
	sealed := func() int { return column[int](b, "SELECT count(*) FROM audit_seals")[0] }
	midway := 0 // kills while there were entries to seal
	for n := range kills {
		before := sealed()
		s, _ := b.spawn(fmt.Sprint("killed-", n), key)
		eventually(t, 30*time.Second, "entries are sealed", func() bool { now := sealed(); return now > before || now >= entries })
		s.kill()
		if sealed() < entries {
			midway++
		}
	}
	last := b.start("last", key)
	b.checkSeals(last)
	if n := sealed(); n < entries || midway == 0 {
		t.Errorf("%d of %d entries have seals after %d kills while entries were sealed", n, entries, midway)
	}
	last.terminate()
	t.Logf("%d of %d kills were while entries were sealed", midway, kills)
}

// checkSeals waits until a service has sealed all audit entries, and lets it verify the
// chain of each zone and that of the entries without a zone.
func (b *backends) checkSeals(s *service) {
	b.t.Helper()
	eventually(b.t, 30*time.Second, "every entry is sealed", func() bool {
		left, err := tryColumn[int](b, "SELECT count(*) FROM audit_unsealed")
		return err == nil && left[0] == 0
	})
	checked := 0
	for _, zone := range column[string](b, "SELECT zone_id FROM audit_entries UNION SELECT zone_id FROM audit_seals") {
		path := "/v1/zones/" + zone + "/admin-audit/verify"
		if zone == "-" {
			path = "/v1/admin-audit/verify"
		}
		status, body := s.get(path)
		var result struct {
			Valid, Complete bool
			EntriesChecked  int `json:"entries_checked"`
		}
		if err := json.Unmarshal([]byte(body), &result); err != nil || status != http.StatusOK || !result.Valid || !result.Complete {
			b.t.Errorf("%s: status %d: %s", path, status, body)
		}
		checked += result.EntriesChecked
	}
	if entries := column[int](b, "SELECT count(*) FROM audit_entries")[0]; checked != entries || checked == 0 {
		b.t.Errorf("%d entries are verified, and there are %d", checked, entries)
	}
}
