package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// TestListProvidersEqualsGetProvider because a list is written by hand.
func TestListProvidersEqualsGetProvider(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	var want []string // newest first
	for i, s := range samples {
		name := fmt.Sprintf("%d \"\\</script>& é😀", i)
		want = slices.Insert(want, 0, newProvider(t, a, zone, client.NewProvider{Name: &name, Kind: s.kind, ConfigJSON: rawConfig(s.config)}).ID)
	}
	a.DB.Exec("UPDATE providers SET name = name || $1", "\u2028\x7f\n") // no operation stores these
	archived := a.DB.Provider(zone)
	servertest.Expect(t, deleteProvider(t, a.Admin, zone, archived), http.StatusNoContent, "")
	a.DB.Provider(a.Zone().ID)
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		want []string // ids; none is [] and not null
	}{
		{"global read", a.ClientFor("", "read"), zone, want},
		{"zone read", a.ClientFor(zone, "read"), zone, want},
		{"of a zone that has none", a.Admin, a.Zone().ID, nil},
		{"of a zone that there is not", a.Admin, "nowhere", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			listed, err := tt.as.ListProvidersWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, listed, http.StatusOK, "")
			var got []string
			for i, one := range decode[[]json.RawMessage](t, servertest.RawResponse{Body: listed.Body}) {
				id := (*listed.JSON200)[i].ID
				got = append(got, id)
				read, err := tt.as.GetProviderWithResponse(t.Context(), tt.zone, id)
				if err != nil {
					t.Fatal(err)
				}
				if !equalJSON(t, one, read.Body) {
					t.Errorf("the list shows\n%s\nand it shows itself as\n%s", one, read.Body)
				}
			}
			if !slices.Equal(got, tt.want) || tt.want == nil && strings.TrimSpace(string(listed.Body)) != "[]" {
				t.Errorf("got %s, want %v", listed.Body, tt.want)
			}
		})
	}
}

func TestListProvidersPagesWithEqualTimestamps(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	const many = 47
	for _, z := range []string{zone, other} {
		a.DB.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind, created_at, archived_at)
			SELECT $1, 'p-' || n, 'Provider', 'provider://p-' || n, 'none', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond',
				CASE WHEN n % 10 = 0 THEN now() END FROM generate_series(1, $2) AS n`, z, many)
	}
	want := storetest.Column[string](a.DB, "SELECT id FROM providers WHERE zone_id = $1 AND archived_at IS NULL ORDER BY created_at DESC, id DESC", zone)
	var got []string
	pages := eachPage(t, a, "/v1/zones/"+zone+"/providers?limit=10", func(one client.Provider) {
		if one.ZoneID != zone {
			t.Errorf("saw %+v", one)
		}
		got = append(got, one.ID)
	})
	if !slices.Equal(got, want) || pages != 5 || len(want) != many-4 {
		t.Errorf("on %d pages: %v, want %v", pages, got, want)
	}
	first := a.Do("GET", "/v1/zones/"+zone+"/providers?limit=10", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, first, http.StatusOK, "")
	for _, path := range []string{strings.Replace(next(first), zone, other, 1), strings.Replace(next(first), "/providers", "/applications", 1)} {
		servertest.Expect(t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
	}
}
