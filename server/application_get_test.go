package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestGetApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	live, archived, ofOtherZone := newApplication(t, a, zone).ID, newApplication(t, a, zone).ID, applicationOfOtherZone(t, a)
	a.DB.Exec(archiveApplication, zone, archived)
	a.DB.DCRApplications(zone, 1)
	a.DB.Exec("UPDATE applications SET expires_at = now() - interval '1 minute' WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
	expired := storetest.Value[string](a.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code
	}{
		{"global read", a.ClientFor("", "read"), zone, live, ""},
		{"zone read", a.ClientFor(zone, "read"), zone, live, ""},
		{"expired, not yet archived", a.Admin, zone, expired, ""},
		{"archived", a.Admin, zone, archived, code.ApplicationNotFound},
		{"unknown", a.Admin, zone, "unknown", code.ApplicationNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, code.ApplicationNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ApplicationNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.GetApplicationWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("requested %s, got %+v", tt.id, resp.JSON200)
			}
		})
	}
}
