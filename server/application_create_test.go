package server_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestCreateApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system, archivedZone := a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	named := func(name string) client.NewApplication {
		return client.NewApplication{Name: name, RegistrationMethod: "managed"}
	}
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		body client.NewApplication
		want code.Code // "" is 201
	}{
		{"minimal", a.Admin, zone, named("Billing"), ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, named("Billing"), ""},
		{"by a global token", a.ClientFor("", "write"), zone, named("Billing"), ""},
		{"with traits", a.Admin, zone, client.NewApplication{Name: "x", RegistrationMethod: "managed", Traits: &[]string{"team:a", "b"}}, ""},
		{"a name of one space", a.Admin, zone, named(" "), code.InvalidApplication},
		{"the longest name", a.Admin, zone, named(strings.Repeat("😀", 200)), ""},
		{"name too long", a.Admin, zone, named(strings.Repeat("é", 201)), code.InvalidApplication},
		{"name empty", a.Admin, zone, named(""), code.InvalidApplication},
		{"registration method dcr", a.Admin, zone, client.NewApplication{Name: "x", RegistrationMethod: "dcr"}, code.InvalidApplication},
		{"no registration method", a.Admin, zone, client.NewApplication{Name: "x"}, code.InvalidApplication},
		{"unknown registration method", a.Admin, zone, client.NewApplication{Name: "x", RegistrationMethod: "Managed"}, code.InvalidApplication},
		{"reserved name", a.Admin, zone, named("caracal.sys/console"), ""},
		{"reserved name, not bootstrap", a.ClientFor("", "write"), zone, named(" Caracal.SYS/console"), code.ReservedNamespace},
		{"zone unknown", a.Admin, "nowhere", named("x"), code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, named("x"), code.ZoneNotFound},
		{"system zone", a.Admin, system, named("x"), ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, named("x"), code.SystemZoneReadOnly},
		{"system zone, by its own token", a.ClientFor(system, "write"), system, named("x"), code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), zone, named("x"), code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.CreateApplicationWithResponse(t.Context(), tt.zone, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			created, traits := *resp.JSON201, []string{}
			if tt.body.Traits != nil {
				traits = *tt.body.Traits
			}
			want := client.Application{ID: created.ID, ZoneID: tt.zone, Name: tt.body.Name, RegistrationMethod: "managed", CreatedAt: created.CreatedAt, Traits: &traits}
			read := readApplication(t, a.Admin, tt.zone, created.ID)
			want.Secrets = firstSecret(t, read)
			if !reflect.DeepEqual(read, want) {
				t.Errorf("read %+v, want %+v", read, want)
			}
			if created.ZoneID != tt.zone || created.Name != tt.body.Name || created.RegistrationMethod != "managed" || created.ExpiresAt != nil {
				t.Errorf("got %+v", created)
			}
		})
	}
}
