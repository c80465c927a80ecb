package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestDeleteResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, system := newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	archivedZone, ofOtherZone, ofSystemZone := a.DB.ArchivedZone(), newResourceZone(a).resource(t).ID, system.resource(t).ID
	archived := z.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, archived)
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new resource of z
		want     code.Code
	}{
		{"by a global token", a.ClientFor("", "write"), z.zone, "", ""},
		{"by a zone token", a.ClientFor(z.zone, "write"), z.zone, "", ""},
		{"archived", a.Admin, z.zone, archived, code.ResourceNotFound},
		{"unknown", a.Admin, z.zone, "nothing", code.ResourceNotFound},
		{"of another zone", a.Admin, z.zone, ofOtherZone, code.ResourceNotFound},
		{"zone unknown", a.Admin, "nowhere", "nothing", code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, "nothing", code.ZoneNotFound},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system.zone, ofSystemZone, code.SystemZoneReadOnly},
		{"read token", a.ClientFor(z.zone, "read"), z.zone, "nothing", code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = z.resource(t).ID
			}
			servertest.Expect(t, deleteResource(t, tt.as, tt.zone, tt.id), http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			servertest.Expect(t, getResource(t, a.Admin, tt.zone, tt.id), 0, code.ResourceNotFound)
			servertest.Expect(t, deleteResource(t, tt.as, tt.zone, tt.id), 0, code.ResourceNotFound)
			servertest.Expect(t, updateResource(t, tt.as, tt.zone, tt.id, client.ResourcePatch{Name: new("x")}), 0, code.ResourceNotFound)
		})
	}
}

func TestDeleteResourceWithoutApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	id := z.resource(t).ID
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	_, before := z.totals()
	servertest.Expect(t, deleteResource(t, a.ClientFor(z.zone, "write"), z.zone, id), http.StatusNoContent, "")
	if live, after := z.totals(); after != before || live != 0 {
		t.Errorf("gateways hear %d times of what was not bound; %d are counted", after-before, live)
	}
}
