package server_test

import (
	"testing"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// The service seals every entry of the audit log: of changes, of denied requests, and of
// replicas that crashed before they sealed them.
func TestServiceSealsAuditEntries(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec(`INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload) VALUES ('-', 'crashed', 'r', 'a', 'o', 'a', 'm', 'p', 200, '{}')`)
	db.Exec("INSERT INTO audit_unsealed (zone_id, entry_id) VALUES ('-', 'crashed')")
	a := servertest.NewReplica(t, db, storetest.RedisURL(t))
	zone := a.Zone().ID
	a.Do("DELETE", "/v1/zones/"+zone+"/applications/unknown", "", bearer(servertest.Bootstrap)...)
	eventually(t, "every entry is sealed", func() bool {
		return storetest.Value[int](db, `SELECT count(*) FROM audit_seals AS s JOIN audit_entries AS e USING (zone_id) WHERE e.id = s.entry_id AND s.mac IS NOT NULL
			AND (e.id = 'crashed' OR e.operation IN ('createZone', 'deleteApplication'))`) == 3
	})
	metrics := string(a.Do("GET", "/metrics", "").Body)
	if !containsLine(metrics, "caracal_api_audit_unsealed 0") || !containsLine(metrics, "caracal_api_audit_oldest_unsealed_age_seconds 0") || containsLine(metrics, "caracal_api_audit_sealed_total 0") {
		t.Errorf("the metrics are\n%s", metrics)
	}
}
