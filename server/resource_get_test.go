package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestGetResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newResourceZone(a), newResourceZone(a)
	live, archived, ofOtherZone := z.resource(t).ID, z.resource(t).ID, other.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, archived)
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code
	}{
		{"global read", a.ClientFor("", "read"), z.zone, live, ""},
		{"zone read", a.ClientFor(z.zone, "read"), z.zone, live, ""},
		{"archived", a.Admin, z.zone, archived, code.ResourceNotFound},
		{"unknown", a.Admin, z.zone, "nothing", code.ResourceNotFound},
		{"of another zone", a.Admin, z.zone, ofOtherZone, code.ResourceNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ResourceNotFound},
		{"token of another zone", a.ClientFor(other.zone, "read"), z.zone, live, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := getResource(t, tt.as, tt.zone, tt.id)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("asked for %s, got %+v", tt.id, resp.JSON200)
			}
		})
	}
}
