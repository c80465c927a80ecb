package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestDeleteApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system, archivedZone := a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, ofOtherZone, ofSystemZone := newApplication(t, a, zone).ID, applicationOfOtherZone(t, a), newApplication(t, a, system).ID
	a.DB.Exec(archiveApplication, zone, archived)
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new application
		want     code.Code
	}{
		{"by a global token", a.ClientFor("", "write"), zone, "", ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "", ""},
		{"archived", a.Admin, zone, archived, code.ApplicationNotFound},
		{"unknown", a.Admin, zone, "unknown", code.ApplicationNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, code.ApplicationNotFound},
		{"zone unknown", a.Admin, "nowhere", "unknown", code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, "unknown", code.ZoneNotFound},
		{"system zone", a.Admin, system, "", ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, ofSystemZone, code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = newApplication(t, a, tt.zone).ID
			}
			remove := func() servertest.Response {
				resp, err := tt.as.DeleteApplicationWithResponse(t.Context(), tt.zone, tt.id, nil)
				if err != nil {
					t.Fatal(err)
				}
				return resp
			}
			servertest.Expect(t, remove(), http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			resp, err := a.Admin.GetApplicationWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, 0, code.ApplicationNotFound)
			servertest.Expect(t, remove(), 0, code.ApplicationNotFound)
		})
	}
}
