package server_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
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
		policyVersions = []string{z.DB.PolicyVersion(z.zone)}
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
