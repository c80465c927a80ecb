package server_test

import (
	"net/http"
	"testing"
	"time"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// A change of policy sets takes few round trips to Postgres, whatever the number of
// policies.
func TestRoundTripsOfPolicySets(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	counter, databaseURL := newRoundTripCounter(t, db)
	// While Redis is unreachable, the publisher of events seldom uses the database.
	a := servertest.NewReplica(t, db, "redis://127.0.0.1:1", "DATABASE_URL="+databaseURL, "OUTBOX_POLL_MS=3600000", "DB_IDLE_TIMEOUT_MS=60000")
	z := newPolicyZone(a)
	policyVersions := []string{insertPolicyVersion(db, z.zone), insertPolicyVersion(db, z.zone), insertPolicyVersion(db, z.zone)}
	best := map[string]int64{}
	measure := func(name string, status int, f func() servertest.Response) servertest.Response {
		t.Helper()
		before := counter.trips.Load() // wait for the background work that the previous request caused
		for idle := 0; idle < 5; idle++ {
			time.Sleep(2 * time.Millisecond)
			if now := counter.trips.Load(); now != before {
				before, idle = now, 0
			}
		}
		resp := f()
		trips := counter.trips.Load() - before
		servertest.Expect(t, resp, status, "")
		if least, measured := best[name]; !measured || trips < least {
			best[name] = trips
		}
		return resp
	}
	path := "/v1/zones/" + z.zone + "/policy-sets"
	get := func(path string) func() servertest.Response {
		return func() servertest.Response { return a.Do("GET", path, "", bearer(servertest.Bootstrap)...) }
	}
	// The minimum of several: the first prepare their statements, and background work
	// adds round trips now and then.
	for range 8 {
		other, _ := z.active(t)
		set := z.set(t).ID
		measure("create", http.StatusCreated, func() servertest.Response {
			return a.Do("POST", path, `{"name":"`+uniqueName("Set")+`"}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		})
		measure("add version", http.StatusCreated, func() servertest.Response {
			return addPolicySetVersion(t, a.Admin, z.zone, set, policyVersions...)
		})
		version, shadow := z.version(t, set, policyVersions...).ID, z.version(t, set, policyVersions...).ID
		measure("activate", http.StatusAccepted, func() servertest.Response { return activatePolicySet(t, a.Admin, z.zone, set, version, shadow) })
		measure("status", http.StatusOK, get(path+"/"+set+"/activation-status"))
		measure("roll back", http.StatusAccepted, func() servertest.Response { return rollbackPolicySet(t, a.Admin, z.zone, set) })
		measure("deactivate", http.StatusAccepted, func() servertest.Response { return deactivatePolicySet(t, a.Admin, z.zone, other) })
		z.activate(t, set, version, "")
		measure("list", http.StatusOK, get(path))
		measure("get", http.StatusOK, get(path+"/"+set))
		measure("list versions", http.StatusOK, get(path+"/"+set+"/versions"))
		measure("get version", http.StatusOK, get(path+"/"+set+"/versions/"+version))
		measure("list activations", http.StatusOK, get("/v1/zones/"+z.zone+"/policy-activations"))
		measure("delete", http.StatusNoContent, func() servertest.Response { return deletePolicySet(t, a.Admin, z.zone, set, "") })
	}
	for name, most := range map[string]int64{
		"create": 3, "add version": 4, "activate": 4, "roll back": 6, "deactivate": 3, "delete": 3,
		"status": 1, "list": 1, "get": 1, "list versions": 1, "get version": 1, "list activations": 1,
	} {
		t.Logf("%s: %d round trips", name, best[name])
		if best[name] > most || best[name] == 0 {
			t.Errorf("%s: %d round trips, want at most %d", name, best[name], most)
		}
	}
}
