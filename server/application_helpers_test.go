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

// readApplication is an application as somebody sees it.
func readApplication(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) client.Application {
	t.Helper()
	resp, err := as.GetApplicationWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

// problemOf is what a refusal says.
func problemOf(t *testing.T, answer servertest.Response) rawclient.Problem {
	t.Helper()
	return decode[rawclient.Problem](t, servertest.RawResponse{Body: answer.GetBody()})
}

// eachPage walks a list and says how many pages it had.
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

// next is the path of the next page, or "".
func next(raw servertest.RawResponse) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(raw.Header.Get("Link"), "<"), ">")
	return path
}

// systemZone creates a zone that belongs to Caracal itself.
func systemZone(a *servertest.API) client.Zone {
	return a.Zone(func(z *client.NewZone) { z.Name = "caracal.sys/system" })
}

// somebodyElses is an application of another zone, of which an id is as good as none.
func somebodyElses(t *testing.T, a *servertest.API) string {
	t.Helper()
	return newApplication(t, a, a.Zone().ID).ID
}

const archiveApplication = "UPDATE applications SET archived_at = now() WHERE zone_id = $1 AND id = $2"
