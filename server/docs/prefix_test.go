//go:build browser

package docs_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"caracal.run/management/server/servertest"
)

// Behind a proxy that serves the API below a path, the page loads its files and
// sends its requests below that path.
func TestPageWorksBelowAPath(t *testing.T) {
	a := servertest.New(t, "PUBLIC_URL=/caracal")
	target, err := url.Parse(a.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.StripPrefix("/caracal", httputil.NewSingleHostReverseProxy(target)))
	defer proxy.Close()
	b := open(t, "light", 1280, 900)
	b.visit(proxy.URL + "/caracal/docs")
	b.shows("#operations", "Create a zone")
	b.write("#token", servertest.Bootstrap)
	b.visit(proxy.URL + "/caracal/docs#/zones/listZones")
	b.click("#operations-zones-listZones.is-open .execute")
	b.shows("#operations-zones-listZones .live-responses-table .response-col_status", "200")
	b.shows(".is-open .request-url", proxy.URL+"/caracal/v1/zones")
	b.sameOriginOnly(proxy.URL)
}
