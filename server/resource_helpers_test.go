package server_test

import (
	"net/http"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

const controlAudience = "caracal-control"

// A resourceZone is a zone with what a resource there needs.
type resourceZone struct {
	*servertest.API
	zone, provider, application string
}

func newResourceZone(a *servertest.API) resourceZone { return resourcesOf(a, a.Zone().ID) }

func resourcesOf(a *servertest.API, zone string) resourceZone {
	return resourceZone{a, zone, a.DB.Provider(zone), a.DB.Application(zone)}
}

// body is a resource that may be made, as often as one likes.
func (z resourceZone) body(change ...func(*client.NewResource)) client.NewResource {
	b := client.NewResource{
		Name: new("Invoices"), UpstreamURL: new("https://upstream.example.com"), Scopes: []string{"read", "write"},
		CredentialProviderID: &z.provider, GatewayApplicationID: &z.application,
		Operations: []client.NewResourceOperation{{Method: "GET", Path: "/invoices", Scope: "read"}},
	}
	for _, f := range change {
		f(&b)
	}
	return b
}

// resource creates a resource.
func (z resourceZone) resource(t *testing.T, change ...func(*client.NewResource)) client.Resource {
	t.Helper()
	resp := createResource(t, z.Admin, z.zone, z.body(change...))
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// control creates the control resource.
func (z resourceZone) control(t *testing.T) client.Resource {
	t.Helper()
	resp := createResource(t, z.Admin, z.zone, controlBody())
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

func controlBody() client.NewResource {
	return client.NewResource{Name: new("Control"), Identifier: new(controlAudience), Scopes: []string{"control"}}
}

// totals are how many resources of the zone are counted as live, and how often
// gateways have had to look.
func (z resourceZone) totals() (live, revision int64) {
	return storetest.Value[int64](z.DB, "SELECT coalesce(sum(live), 0)::bigint FROM resource_totals WHERE zone_id = $1", z.zone),
		storetest.Value[int64](z.DB, "SELECT coalesce(sum(binding_revision), 0)::bigint FROM resource_totals WHERE zone_id = $1", z.zone)
}

// checkTotals fails unless as many live resources are counted as there are.
func (z resourceZone) checkTotals(t *testing.T) {
	t.Helper()
	live, _ := z.totals()
	if there := storetest.Value[int64](z.DB, "SELECT count(*) FROM resources WHERE zone_id = $1 AND archived_at IS NULL", z.zone); live != there {
		t.Errorf("%d resources are counted, and %d are live", live, there)
	}
}

// dcrApplications are two applications that registered themselves, of which one has
// expired.
func dcrApplications(z resourceZone) (live, expired string) {
	z.DB.DCRApplications(z.zone, 2)
	all := storetest.Column[string](z.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", z.zone)
	z.DB.Exec("UPDATE applications SET expires_at = now() - interval '1 minute' WHERE zone_id = $1 AND id = $2", z.zone, all[1])
	return all[0], all[1]
}

func createResource(t *testing.T, as *rawclient.ClientWithResponses, zone string, body client.NewResource) *rawclient.CreateResourceResponse {
	t.Helper()
	resp, err := as.CreateResourceWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func getResource(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) *rawclient.GetResourceResponse {
	t.Helper()
	resp, err := as.GetResourceWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func readResource(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) client.Resource {
	t.Helper()
	resp := getResource(t, as, zone, id)
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

func updateResource(t *testing.T, as *rawclient.ClientWithResponses, zone, id string, body client.ResourcePatch) *rawclient.UpdateResourceResponse {
	t.Helper()
	resp, err := as.UpdateResourceWithResponse(t.Context(), zone, id, nil, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func deleteResource(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) *rawclient.DeleteResourceResponse {
	t.Helper()
	resp, err := as.DeleteResourceWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// concurrently runs all and waits for them.
func concurrently(all ...func()) {
	var running sync.WaitGroup
	start := make(chan struct{})
	for _, f := range all {
		running.Go(func() {
			<-start
			f()
		})
	}
	close(start)
	running.Wait()
}

const (
	archiveProvider = "UPDATE providers SET archived_at = now() WHERE zone_id = $1 AND id = $2"
	archiveResource = "UPDATE resources SET archived_at = now() WHERE zone_id = $1 AND id = $2"
)
