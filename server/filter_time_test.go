package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// A page whose rows match several filters has limited time: no index has all of them.
func TestSeveralFiltersThatAreTooBroad(t *testing.T) {
	t.Parallel()
	a := servertest.NewReplica(t, storetest.New(t), storetest.RedisURL(t), "DB_STATEMENT_TIMEOUT_MS=300", "DB_POOL_MAX=32") // for one export of each list
	zone := a.Zone().ID
	a.DB.AuditEvent(zone, map[string]any{})
	get := func(t *testing.T, path string, want code.Code) {
		t.Helper()
		servertest.Expect(t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...), http.StatusOK, want)
	}
	lists := map[string][]string{
		"/v1/zones/" + zone + "/audit":       {"?decision=allow", "&event_type=token_exchange"},
		"/v1/zones/" + zone + "/admin-audit": {"?entity_type=zones", "&method=POST"},
		"/v1/admin-audit":                    {"?entity_type=zones", "&method=POST"},
	}
	a.DB.Exec("INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, entity_type, status_code, payload) VALUES ('-', 'e', 'r', 'a', 'o', 'a', 'POST', '/v1', 'zones', 200, '{}')")
	for list, filters := range lists {
		get(t, list+filters[0]+filters[1], "")
	}
	// Reading a row takes longer than a statement may.
	for _, table := range []string{"audit_events", "audit_entries"} {
		a.DB.Exec("CREATE POLICY slow ON " + table + " AS RESTRICTIVE FOR SELECT TO caracal_service USING (pg_sleep(60) IS NOT NULL)")
	}
	for list, filters := range lists {
		t.Run(list, func(t *testing.T) {
			get(t, list+filters[0]+filters[1], code.FiltersTooBroad)
			get(t, list+filters[0]+filters[1]+"&format=csv", code.FiltersTooBroad)
			get(t, list+filters[0], code.ServiceUnavailable)
		})
	}
}
