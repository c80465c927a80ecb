package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestDeleteZone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	archived, mine := a.DB.ArchivedZone(), a.Zone().ID
	system := a.Zone(func(z *client.NewZone) { z.Name = "caracal.sys/other" }).ID
	for _, tt := range []struct {
		name, zone string // zone "": a new one
		as         *rawclient.ClientWithResponses
		ifMatch    string
		want       code.Code // "" is 204
	}{
		{"by a global token", "", a.ClientFor("", "write"), "", ""},
		{"by its own token", mine, a.ClientFor(mine, "write"), "", ""},
		{"as it was read", "", a.Admin, `"1"`, ""},
		{"as it was not read", "", a.Admin, `"2"`, code.VersionConflict},
		{"by another zone's token", "", a.ClientFor(a.Zone().ID, "write"), "", code.AdminTokenZoneMismatch},
		{"by a read token", "", a.ClientFor("", "read"), "", code.AdminTokenReadOnly},
		{"unknown", "nowhere", a.Admin, "", code.ZoneNotFound},
		{"archived", archived, a.Admin, "", code.ZoneNotFound},
		{"archived, at a version", archived, a.Admin, `"2"`, code.ZoneNotFound},
		{"Caracal's own", systemZone(a).ID, a.Admin, "", ""},
		{"Caracal's own, not bootstrap", system, a.ClientFor("", "write"), "", code.SystemZoneReadOnly},
		{"Caracal's own, by its own token", system, a.ClientFor(system, "write"), "", code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.zone == "" {
				tt.zone = a.Zone().ID
			}
			resp, err := tt.as.DeleteZoneWithResponse(t.Context(), tt.zone, &rawclient.DeleteZoneParams{IfMatch: fromNullable(tt.ifMatch)})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			read, err := a.Admin.GetZoneWithResponse(t.Context(), tt.zone)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, read, 0, code.ZoneNotFound)
			servertest.Expect(t, deleteZone(t, scene{API: a, zone: tt.zone}, "", ""), 0, code.ZoneNotFound)
		})
	}
}

func TestDeleteZoneRevokesItsTokensImmediately(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	other := a.Zone().ID
	stays := a.ClientFor(other, "read")
	status := func(as *rawclient.ClientWithResponses, zone string) int {
		t.Helper()
		resp, err := as.GetZoneWithResponse(t.Context(), zone)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode()
	}
	late := 0
	for range 20 { // what is remembered of a token may be forgotten soon or at once
		zone := a.Zone().ID
		deleter, reader := a.ClientFor(zone, "write"), a.ClientFor(zone, "read")
		if got := status(reader, zone); got != http.StatusOK {
			t.Fatalf("its token was answered %d", got)
		}
		resp, err := deleter.DeleteZoneWithResponse(t.Context(), zone, nil)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusNoContent, "")
		for _, as := range []*rawclient.ClientWithResponses{reader, deleter} {
			if status(as, zone) != http.StatusUnauthorized {
				late++
			}
		}
	}
	if late > 0 {
		t.Errorf("of 40 tokens %d worked on after their zone was gone", late)
	}
	if got := status(stays, other); got != http.StatusOK {
		t.Errorf("another zone's token was answered %d", got)
	}
}

func TestDeleteZoneKeepsSlugReserved(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	servertest.Expect(t, deleteZone(t, scene{API: a, zone: zone.ID}, "", ""), http.StatusNoContent, "")
	created, err := a.Admin.CreateZoneWithResponse(t.Context(), client.NewZone{Name: "x", Slug: &zone.Slug})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, created, 0, code.ZoneSlugConflict)
	again := a.Zone()
	if again.Slug != zone.Slug+"-2" {
		t.Errorf("the next slug is %q", again.Slug)
	}
	updated, err := a.Admin.UpdateZoneWithResponse(t.Context(), again.ID, nil, client.ZonePatch{Slug: &zone.Slug})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, updated, 0, code.ZoneSlugConflict)
}
