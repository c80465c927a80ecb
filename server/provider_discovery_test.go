package server_test

import (
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/provider/authserver"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestDiscoverProvider(t *testing.T) {
	t.Parallel()
	upstream, err := authserver.Start(authserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = upstream.Close() })
	a := servertest.WithEgress(t, upstream.Egress())
	zone := a.Zone().ID
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		resource string
		want     code.Code
		detail   string
	}{
		{"found", a.Admin, upstream.Resource(), "", "The metadata is valid."},
		{"token of a zone", a.ClientFor(zone, "write"), upstream.Resource(), "", "The metadata is valid."},
		{"not found", a.Admin, upstream.URL + "/other", "", "The server has no metadata."},
		{"internal", a.Admin, "https://169.254.169.254/", "", "The host of the URL must be a DNS name, not an IP address."},
		{"no URL", a.Admin, "mcp", "", "The resource must be an https URL without a user name, password or fragment."},
		{"empty", a.Admin, "", code.InvalidBody, ""},
		{"too long", a.Admin, "https://mcp.example.com/" + strings.Repeat("x", 2048), code.InvalidBody, ""},
		{"read token", a.ClientFor("", "read"), upstream.Resource(), code.AdminTokenReadOnly, ""},
		{"no token", a.Anonymous(), upstream.Resource(), code.InvalidAdminToken, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.DiscoverProviderWithResponse(t.Context(), client.ProviderToDiscover{Resource: tt.resource})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if got := resp.JSON200; got != nil && (got.Detail != tt.detail || got.Found != strings.HasPrefix(tt.detail, "The metadata is valid") || (got.ConfigJSON != nil) != got.Found) {
				t.Errorf("got %s, want %q", resp.Body, tt.detail)
			}
		})
	}
	t.Cleanup(func() {
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM providers"); n != 0 {
			t.Errorf("%d providers are stored", n)
		}
	})
}
