package server_test

import (
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// newApplication creates a managed application.
func newApplication(t *testing.T, a *servertest.API, zone string, traits ...string) client.RegisteredApplication {
	t.Helper()
	body := client.NewApplication{Name: "Billing", RegistrationMethod: "managed"}
	if traits != nil {
		body.Traits = &traits
	}
	resp, err := a.Admin.CreateApplicationWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// readApplication returns an application as a client sees it.
func readApplication(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) client.Application {
	t.Helper()
	resp, err := as.GetApplicationWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

// firstSecret returns the secret that an application was created with.
func firstSecret(t *testing.T, a client.Application) *[]client.ApplicationSecret {
	t.Helper()
	if a.Secrets == nil || len(*a.Secrets) != 1 {
		t.Fatalf("%+v has more or less than one secret", a)
	}
	return &[]client.ApplicationSecret{{ID: (*a.Secrets)[0].ID, CreatedAt: a.CreatedAt}}
}

// problemOf returns the body of an error response.
func problemOf(t *testing.T, resp servertest.Response) rawclient.Problem {
	t.Helper()
	return decode[rawclient.Problem](t, servertest.RawResponse{Body: resp.GetBody()})
}

// eachPage calls visit for each item of a list, page by page. It returns the
// number of pages.
func eachPage[T any](t *testing.T, a *servertest.API, path string, visit func(T)) (pages int) {
	t.Helper()
	for ; path != ""; pages++ {
		raw := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		for _, one := range decode[[]T](t, raw) {
			visit(one)
		}
		path = next(raw)
	}
	return pages
}

// next returns the path of the next page; "" if there is none.
func next(raw servertest.RawResponse) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(raw.Header.Get("Link"), "<"), ">")
	return path
}

// systemZone creates a zone that is reserved for Caracal.
func systemZone(a *servertest.API) client.Zone {
	return a.Zone(func(z *client.NewZone) { z.Name = "caracal.sys/system" })
}

// applicationOfOtherZone creates a zone with an application and returns the
// application's ID.
func applicationOfOtherZone(t *testing.T, a *servertest.API) string {
	t.Helper()
	return newApplication(t, a, a.Zone().ID).ID
}

const archiveApplication = "UPDATE applications SET archived_at = now() WHERE zone_id = $1 AND id = $2"
