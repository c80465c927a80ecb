package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestListApplications(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, empty := a.Zone().ID, a.Zone().ID
	first, archived, last := newApplication(t, a, zone).ID, newApplication(t, a, zone).ID, newApplication(t, a, zone).ID
	a.DB.Exec(archiveApplication, zone, archived)
	applicationOfOtherZone(t, a)
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		want []string // IDs; an empty list is [], not null
	}{
		{"global read", a.ClientFor("", "read"), zone, []string{last, first}},
		{"zone read", a.ClientFor(zone, "read"), zone, []string{last, first}},
		{"of an empty zone", a.Admin, empty, nil},
		{"of an unknown zone", a.Admin, "nowhere", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListApplicationsWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			var got []string
			for _, one := range *resp.JSON200 {
				got = append(got, one.ID)
			}
			if !slices.Equal(got, tt.want) || tt.want == nil && strings.TrimSpace(string(resp.Body)) != "[]" {
				t.Errorf("got %s, want %v", resp.Body, tt.want)
			}
		})
	}
}

func TestListApplicationsPagesWithEqualTimestamps(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	const many = 47
	for prefix, z := range map[string]string{"a-": zone, "b-": other} {
		a.DB.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, created_at)
			SELECT $1, $3 || n, 'App', 'managed', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $2) AS n`, z, many, prefix)
	}
	a.DB.Exec(archiveApplication, other, "b-1")
	seen := map[string]int{}
	pages := eachPage(t, a, "/v1/zones/"+zone+"/applications?limit=10", func(one client.Application) {
		if one.ZoneID != zone {
			t.Errorf("an application of another zone is listed: %+v", one)
		}
		seen[one.ID]++
	})
	for n := range many {
		if id := fmt.Sprintf("a-%d", n+1); seen[id] != 1 {
			t.Errorf("%s was seen %d times", id, seen[id])
		}
	}
	if pages != 5 || len(seen) != many {
		t.Errorf("%d applications on %d pages", len(seen), pages)
	}
	first := a.Do("GET", "/v1/zones/"+zone+"/applications?limit=10", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, a.Do("GET", strings.Replace(next(first), zone, other, 1), "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
}
