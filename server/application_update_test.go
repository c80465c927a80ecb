package server_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestUpdateApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system, archivedZone := a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, ofOtherZone, ofSystemZone := newApplication(t, a, zone).ID, applicationOfOtherZone(t, a), newApplication(t, a, system).ID
	a.DB.Exec(archiveApplication, zone, archived)
	a.DB.DCRApplications(zone, 1)
	dcr := storetest.Value[string](a.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
	named := func(name string) client.ApplicationPatch { return client.ApplicationPatch{Name: &name} }
	secret := func(length int) client.ApplicationPatch {
		return client.ApplicationPatch{ClientSecret: new(strings.Repeat("s", length))}
	}
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new application
		body     client.ApplicationPatch
		want     code.Code
	}{
		{"name", a.Admin, zone, "", named("New name"), ""},
		{"name of one space", a.Admin, zone, "", named(" "), code.InvalidApplication},
		{"traits", a.Admin, zone, "", client.ApplicationPatch{Traits: &[]string{"control:x", "b"}}, ""},
		{"empty traits", a.Admin, zone, "", client.ApplicationPatch{Traits: &[]string{}}, ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "", client.ApplicationPatch{Name: new("x"), Traits: &[]string{"team:b"}}, ""},
		{"dynamically registered", a.Admin, zone, dcr, named("New name"), ""},
		{"the shortest secret", a.Admin, zone, "", secret(16), ""},
		{"secret too short", a.Admin, zone, "", secret(15), code.InvalidApplication},
		{"secret too long", a.Admin, zone, "", secret(1025), code.InvalidApplication},
		{"name empty", a.Admin, zone, "", named(""), code.InvalidApplication},
		{"name too long", a.Admin, zone, "", named(strings.Repeat("é", 201)), code.InvalidApplication},
		{"no fields", a.Admin, zone, "", client.ApplicationPatch{}, code.NoFields},
		{"no fields, unknown", a.Admin, zone, "unknown", client.ApplicationPatch{}, code.NoFields},
		{"reserved name", a.ClientFor("", "write"), zone, "", named("caracal.sys/x"), code.ReservedNamespace},
		{"reserved name and bad traits", a.ClientFor("", "write"), zone, "", client.ApplicationPatch{Name: new("caracal.sys/x"), Traits: &[]string{""}}, code.ReservedNamespace},
		{"unknown", a.Admin, zone, "unknown", named("x"), code.ApplicationNotFound},
		{"archived", a.Admin, zone, archived, named("x"), code.ApplicationNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, named("x"), code.ApplicationNotFound},
		{"zone unknown", a.Admin, "nowhere", "unknown", named("x"), code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, "unknown", named("x"), code.ZoneNotFound},
		{"system zone", a.Admin, system, "", named("x"), ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, ofSystemZone, named("x"), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = newApplication(t, a, tt.zone, "team:a").ID
			}
			var want client.Application
			if tt.want == "" {
				want = readApplication(t, tt.as, tt.zone, tt.id)
			}
			resp, err := tt.as.UpdateApplicationWithResponse(t.Context(), tt.zone, tt.id, nil, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want != "" {
				return
			}
			if tt.body.Name != nil {
				want.Name = *tt.body.Name
			}
			if tt.body.Traits != nil && want.Traits != nil {
				want.Traits = tt.body.Traits
			}
			if tt.body.ClientSecret != nil {
				want.Secrets = resp.JSON200.Secrets // see TestRotateApplicationSecretOverlap
			}
			if read := readApplication(t, tt.as, tt.zone, tt.id); !reflect.DeepEqual(*resp.JSON200, want) || !reflect.DeepEqual(read, want) {
				t.Errorf("got %+v, then read %+v, want %+v", *resp.JSON200, read, want)
			}
		})
	}
}

func TestUpdateApplicationIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newApplication(t, a, zone).ID
	read, err := a.Admin.GetApplicationWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	first := read.HTTPResponse.Header.Get("ETag")
	update := func(ifMatch, name string) *rawclient.UpdateApplicationResponse {
		t.Helper()
		resp, err := a.Admin.UpdateApplicationWithResponse(t.Context(), zone, id, &rawclient.UpdateApplicationParams{IfMatch: &ifMatch}, client.ApplicationPatch{Name: &name})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	remove := func(ifMatch string) servertest.Response {
		t.Helper()
		resp, err := a.Admin.DeleteApplicationWithResponse(t.Context(), zone, id, &rawclient.DeleteApplicationParams{IfMatch: &ifMatch})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	changed := update(first, "Second")
	servertest.Expect(t, changed, http.StatusOK, "")
	second := changed.HTTPResponse.Header.Get("ETag")
	servertest.Expect(t, update(first, "Third"), 0, code.VersionConflict)
	servertest.Expect(t, remove(first), 0, code.VersionConflict)
	if got := readApplication(t, a.Admin, zone, id); got.Name != "Second" || first == second {
		t.Errorf("its name is %q; its version went from %s to %s", got.Name, first, second)
	}
	servertest.Expect(t, remove(fmt.Sprintf(`"77", %s`, second)), http.StatusNoContent, "")
}
