package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestGetProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	live, archived, ofOtherZone := a.DB.Provider(zone), a.DB.Provider(zone), a.DB.Provider(other)
	servertest.Expect(t, deleteProvider(t, a.Admin, zone, archived), http.StatusNoContent, "")
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code
	}{
		{"global read", a.ClientFor("", "read"), zone, live, ""},
		{"zone read", a.ClientFor(zone, "read"), zone, live, ""},
		{"archived", a.Admin, zone, archived, code.ProviderNotFound},
		{"unknown", a.Admin, zone, "unknown", code.ProviderNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, code.ProviderNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ProviderNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.GetProviderWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("asked for %s, got %s", tt.id, resp.Body)
			}
		})
	}
}
