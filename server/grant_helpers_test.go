package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// grantOf returns a grant to create: of the zone's application, for user-7 and a
// resource with the scopes read and write.
func (z resourceZone) grantOf(resource string, change ...func(*client.NewGrant)) client.NewGrant {
	n := client.NewGrant{ApplicationID: z.application, UserID: "user-7", ResourceID: resource, Scopes: []string{"read"}}
	for _, f := range change {
		f(&n)
	}
	return n
}

// grant creates a grant.
func (z resourceZone) grant(t *testing.T, resource string, change ...func(*client.NewGrant)) client.Grant {
	t.Helper()
	resp := createGrant(t, z.Admin, z.zone, z.grantOf(resource, change...))
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

func createGrant(t *testing.T, as *rawclient.ClientWithResponses, zone string, body client.NewGrant) *rawclient.CreateGrantResponse {
	t.Helper()
	resp, err := as.CreateGrantWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func getGrant(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) *rawclient.GetGrantResponse {
	t.Helper()
	resp, err := as.GetGrantWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
