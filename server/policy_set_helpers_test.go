package server_test

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/outbox"
	"caracal.run/management/store/storetest"
)

// A policyZone is a zone in which policy sets are created.
type policyZone struct {
	*servertest.API
	zone string
}

func newPolicyZone(a *servertest.API) policyZone { return policyZone{a, a.Zone().ID} }

// set creates a policy set with a unique name.
func (z policyZone) set(t *testing.T) client.PolicySet {
	t.Helper()
	resp := createPolicySet(t, z.Admin, z.zone, client.NewPolicySet{Name: uniqueName("Set")})
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// version adds a version to a policy set. Without policy versions, it has a new one.
func (z policyZone) version(t *testing.T, set string, policyVersions ...string) client.AddedPolicySetVersion {
	t.Helper()
	if len(policyVersions) == 0 {
		policyVersions = []string{insertPolicyVersion(z.DB, z.zone)}
	}
	resp := addPolicySetVersion(t, z.Admin, z.zone, set, policyVersions...)
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// addPolicySetVersion adds a version with the default schema version.
func addPolicySetVersion(t *testing.T, as *rawclient.ClientWithResponses, zone, set string, policyVersions ...string) *rawclient.AddPolicySetVersionResponse {
	t.Helper()
	body := client.NewPolicySetVersion{Manifest: []client.NewManifestEntry{}}
	for _, id := range policyVersions {
		body.Manifest = append(body.Manifest, client.NewManifestEntry{PolicyVersionID: id})
	}
	resp, err := as.AddPolicySetVersionWithResponse(t.Context(), zone, set, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// active creates a policy set with one version and activates it.
func (z policyZone) active(t *testing.T) (set, version string) {
	t.Helper()
	set = z.set(t).ID
	version = z.version(t, set).ID
	z.activate(t, set, version, "")
	return set, version
}

// activate activates a version, with a shadow version unless it is "".
func (z policyZone) activate(t *testing.T, set, version, shadow string) client.PolicySetActivation {
	t.Helper()
	resp := activatePolicySet(t, z.Admin, z.zone, set, version, shadow)
	servertest.Expect(t, resp, http.StatusAccepted, "")
	return *resp.JSON202
}

func activatePolicySet(t *testing.T, as *rawclient.ClientWithResponses, zone, set, version, shadow string) *rawclient.ActivatePolicySetResponse {
	t.Helper()
	body := client.NewPolicySetActivation{VersionID: version}
	if shadow != "" {
		body.ShadowVersionID = &shadow
	}
	resp, err := as.ActivatePolicySetWithResponse(t.Context(), zone, set, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func deactivatePolicySet(t *testing.T, as *rawclient.ClientWithResponses, zone, set string) *rawclient.DeactivatePolicySetResponse {
	t.Helper()
	resp, err := as.DeactivatePolicySetWithResponse(t.Context(), zone, set)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func rollbackPolicySet(t *testing.T, as *rawclient.ClientWithResponses, zone, set string) *rawclient.RollbackPolicySetResponse {
	t.Helper()
	resp, err := as.RollbackPolicySetWithResponse(t.Context(), zone, set)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// bound returns what is active in the zone: the ids of the policy set, the version and
// the shadow version, or "" if nothing is.
func (z policyZone) bound() string {
	return strings.Join(storetest.Column[string](z.DB, "SELECT concat_ws(' ', id, active_version_id, shadow_version_id) FROM policy_sets WHERE zone_id = $1 AND active_version_id IS NOT NULL", z.zone), "; ")
}

// history returns a line for each change of the active policy set, oldest first.
func (z policyZone) history() []string {
	return storetest.Column[string](z.DB, `SELECT concat_ws(' ', number, action, policy_set_id, version_id, shadow_version_id, '<', previous_policy_set_id, previous_version_id, previous_shadow_version_id)
		FROM policy_activations WHERE zone_id = $1 ORDER BY number`, z.zone)
}

// published returns the fields of the zone's events on the stream of policies, once
// there are that many. It checks their signatures.
func (z policyZone) published(t *testing.T, count int) (all []map[string]string) {
	t.Helper()
	key, err := hex.DecodeString(servertest.StreamsKey)
	if err != nil {
		t.Fatal(err)
	}
	const stream = "caracal.policy.invalidate"
	eventually(t, fmt.Sprintf("%d events are published", count), func() bool {
		entries, err := z.Redis.XRange(t.Context(), stream, "-", "+").Result()
		all = nil
		for _, e := range entries {
			fields := map[string]string{}
			for name, value := range e.Values {
				fields[name] = value.(string)
			}
			if fields["zone_id"] == z.zone {
				all = append(all, fields)
			}
		}
		return err == nil && len(all) >= count
	})
	for _, fields := range all {
		if fields["_sig"] != outbox.Sign(key, stream, fields) {
			t.Errorf("the signature of %v is invalid", fields)
		}
		delete(fields, "_sig")
	}
	if len(all) != count {
		t.Errorf("%d events are published, want %d", len(all), count)
	}
	return all
}

// insertPolicyVersion inserts a policy with one version, which grants nothing, and returns
// the id of the version. Versions of several policies do not contradict each other.
func insertPolicyVersion(db *storetest.DB, zone string) string {
	return insertPolicyVersionWith(db, zone, dataDocument+fmt.Sprintf("grants[%q] := {\"application\": \"billing\", \"roles\": {}}\n", uniqueName("resource://")))
}

// insertPolicyVersionWith is like insertPolicyVersion with a given content.
func insertPolicyVersionWith(db *storetest.DB, zone, content string) string {
	_, version := db.PolicyWith(zone, content)
	return version
}

var nameCounter atomic.Int64

// uniqueName returns a name that no other object has.
func uniqueName(prefix string) string { return fmt.Sprintf("%s %d", prefix, nameCounter.Add(1)) }

func createPolicySet(t *testing.T, as *rawclient.ClientWithResponses, zone string, body client.NewPolicySet) *rawclient.CreatePolicySetResponse {
	t.Helper()
	resp, err := as.CreatePolicySetWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func getPolicySet(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) *rawclient.GetPolicySetResponse {
	t.Helper()
	resp, err := as.GetPolicySetWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// deletePolicySet archives a policy set. ifMatch "" sends no header.
func deletePolicySet(t *testing.T, as *rawclient.ClientWithResponses, zone, id, ifMatch string) *rawclient.DeletePolicySetResponse {
	t.Helper()
	var params *rawclient.DeletePolicySetParams
	if ifMatch != "" {
		params = &rawclient.DeletePolicySetParams{IfMatch: &ifMatch}
	}
	resp, err := as.DeletePolicySetWithResponse(t.Context(), zone, id, params)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
