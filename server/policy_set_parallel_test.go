package server_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// Requests that change the policy sets of a zone at the same time leave at most one
// active, and a history that agrees with it, with the events, and with their order in
// the stream.
func TestActivatePolicySetInParallel(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	policyVersion := insertPolicyVersion(a.DB, z.zone)
	const workers, rounds = 6, 40
	var mu sync.Mutex
	versions := map[string][]string{} // policy set -> versions
	var sets []string
	lastActive := "" // the policy set of the last response to an activation or rollback
	newSet := func() {
		set, version := a.DB.PolicySet(z.zone, policyVersion)
		mu.Lock()
		defer mu.Unlock()
		sets, versions[set] = append(sets, set), []string{version}
	}
	for range 4 {
		newSet()
	}
	pick := func(random *rand.Rand) (set, version string, shadow *string) {
		mu.Lock()
		defer mu.Unlock()
		set = sets[random.IntN(len(sets))]
		of := versions[set]
		if random.IntN(3) == 0 {
			shadow = new(of[random.IntN(len(of))])
		}
		return set, of[random.IntN(len(of))], shadow
	}
	pickActive := func(otherwise string) string {
		mu.Lock()
		defer mu.Unlock()
		return cmp.Or(lastActive, otherwise)
	}
	activated := func(now *client.PolicySetActivation) {
		mu.Lock()
		defer mu.Unlock()
		if now != nil {
			lastActive = now.PolicySetID
		}
	}
	counts := map[string]int{} // operation and status -> number of responses
	var all []func()
	for worker := range uint64(workers) {
		all = append(all, func() {
			random := rand.New(rand.NewPCG(worker, 0))
			for range rounds {
				set, version, shadow := pick(random)
				var resp servertest.Response
				var err error
				operation := ""
				switch random.IntN(12) {
				case 0, 1, 2, 3, 4:
					operation = "activate"
					activation, activateErr := a.Admin.ActivatePolicySetWithResponse(t.Context(), z.zone, set, client.NewPolicySetActivation{VersionID: version, ShadowVersionID: shadow})
					if activateErr == nil {
						activated(activation.JSON202)
					}
					resp, err = activation, activateErr
				case 5:
					operation = "deactivate"
					resp, err = a.Admin.DeactivatePolicySetWithResponse(t.Context(), z.zone, pickActive(set))
				case 6, 7, 8, 9:
					operation = "rollback"
					rollback, rollbackErr := a.Admin.RollbackPolicySetWithResponse(t.Context(), z.zone, pickActive(set))
					if rollbackErr == nil {
						activated(rollback.JSON202)
					}
					resp, err = rollback, rollbackErr
				case 10:
					operation = "delete"
					newSet()
					mu.Lock()
					sets = slices.DeleteFunc(sets, func(s string) bool { return s == set })
					mu.Unlock()
					resp, err = a.Admin.DeletePolicySetWithResponse(t.Context(), z.zone, set, nil)
				case 11:
					operation = "add"
					added, addErr := a.Admin.AddPolicySetVersionWithResponse(t.Context(), z.zone, set, client.NewPolicySetVersion{Manifest: []client.NewManifestEntry{{PolicyVersionID: policyVersion}}})
					if addErr == nil && added.JSON201 != nil {
						mu.Lock()
						versions[set] = append(versions[set], added.JSON201.ID)
						mu.Unlock()
					}
					resp, err = added, addErr
				}
				if err != nil || !slices.Contains([]int{http.StatusCreated, http.StatusAccepted, http.StatusNoContent, http.StatusNotFound, http.StatusConflict}, resp.StatusCode()) {
					t.Errorf("%s: %v: %s", operation, err, resp.GetBody())
				}
				mu.Lock()
				counts[fmt.Sprint(operation, " ", resp.StatusCode())]++
				mu.Unlock()
			}
		})
	}
	concurrently(all...)
	// A rollback succeeds only if nothing else comes in between, so the last one is alone.
	last, _, _ := pick(rand.New(rand.NewPCG(0, 0)))
	for _, version := range []string{versions[last][0], a.DB.PolicySetVersion(z.zone, last, policyVersion)} {
		servertest.Expect(t, activatePolicySet(t, a.Admin, z.zone, last, version, ""), http.StatusAccepted, "")
	}
	servertest.Expect(t, rollbackPolicySet(t, a.Admin, z.zone, last), http.StatusAccepted, "")
	counts["rollback 202"]++
	t.Logf("responses: %v", counts)
	for _, one := range []string{"activate 202", "rollback 202", "deactivate 202", "delete 204", "add 201"} {
		if counts[one] == 0 {
			t.Errorf("no response is %s", one)
		}
	}

	count := func(what, sql string) {
		t.Helper()
		if n := storetest.Value[int](a.DB, sql, z.zone); n != 0 {
			t.Errorf("%d %s", n, what)
		}
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM policy_sets WHERE zone_id = $1 AND active_version_id IS NOT NULL", z.zone); n > 1 {
		t.Errorf("%d policy sets are active", n)
	}
	count("archived policy sets are active", "SELECT count(*) FROM policy_sets WHERE zone_id = $1 AND archived_at IS NOT NULL AND (active_version_id IS NOT NULL OR shadow_version_id IS NOT NULL)")
	count("numbers are missing in the history", "SELECT coalesce(max(number), 0) - count(*) FROM policy_activations WHERE zone_id = $1")
	count("changes do not begin with what the one before left", `SELECT count(*) FROM policy_activations AS a JOIN policy_activations AS before ON before.zone_id = a.zone_id AND before.number = a.number - 1
		WHERE a.zone_id = $1 AND (a.previous_policy_set_id, a.previous_version_id, a.previous_shadow_version_id) IS DISTINCT FROM (before.policy_set_id, before.version_id, before.shadow_version_id)`)
	count("times are not in the order of the numbers", `SELECT count(*) FROM policy_activations AS a JOIN policy_activations AS before ON before.zone_id = a.zone_id AND before.number = a.number - 1
		WHERE a.zone_id = $1 AND a.created_at < before.created_at`)
	count("changes have no event that agrees", `SELECT count(*) FROM policy_activations AS a LEFT JOIN outbox AS o ON o.zone_id = a.zone_id AND o.id = a.outbox_id AND o.stream = 'caracal.policy.invalidate'
		AND o.fields - 'zone_id' = jsonb_strip_nulls(jsonb_build_object('policy_set_id', coalesce(a.policy_set_id, a.previous_policy_set_id), 'policy_set_version_id', a.version_id, 'shadow_version_id', a.shadow_version_id))
		WHERE a.zone_id = $1 AND o.id IS NULL`)
	if last, bound := storetest.Value[string](a.DB, "SELECT concat_ws(' ', policy_set_id, version_id, shadow_version_id) FROM policy_activations WHERE zone_id = $1 ORDER BY number DESC LIMIT 1", z.zone), z.bound(); last != bound {
		t.Errorf("%q is active, and the last change is to %q", bound, last)
	}
	// The order of the stream is the order of the history.
	want := storetest.Column[string](a.DB, "SELECT outbox_id FROM policy_activations WHERE zone_id = $1 ORDER BY number", z.zone)
	var got []string
	for _, fields := range z.published(t, len(want)) {
		got = append(got, fields["outbox_id"])
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the events are in the order\n%v, want\n%v", got, want)
	}
	count("version numbers are missing", `SELECT coalesce(sum(last - n), 0)::bigint FROM (SELECT max(version) AS last, count(*) AS n FROM policy_set_versions WHERE zone_id = $1 GROUP BY policy_set_id) AS v`)
}
