package server_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestListResources(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, empty, other := newResourceZone(a), a.Zone().ID, newResourceZone(a)
	first, archived, control, last := z.resource(t).ID, z.resource(t).ID, z.control(t).ID, z.resource(t).ID
	a.DB.Exec(archiveResource, z.zone, archived)
	other.resource(t)
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		want []string // ids; none is [] and not null
	}{
		{"global read", a.ClientFor("", "read"), z.zone, []string{last, control, first}},
		{"zone read", a.ClientFor(z.zone, "read"), z.zone, []string{last, first}},
		{"of a zone that has none", a.Admin, empty, nil},
		{"of a zone that there is not", a.Admin, "nowhere", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListResourcesWithResponse(t.Context(), tt.zone, nil)
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

func TestListResourcesPagesWithEqualTimestamps(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newResourceZone(a), newResourceZone(a)
	const many = 47
	for _, in := range []resourceZone{z, other} {
		a.DB.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement, created_at)
			SELECT $1, 'r-' || n, 'Resource', 'urn:' || n, '{read}', $2, 'enforced', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $3) AS n`, in.zone, in.provider, many)
	}
	seen := map[string]int{}
	pages := eachPage(t, a, "/v1/zones/"+z.zone+"/resources?limit=10", func(one client.Resource) {
		if one.ZoneID != z.zone {
			t.Errorf("saw %+v", one)
		}
		seen[one.ID]++
	})
	for n := range many {
		if id := fmt.Sprintf("r-%d", n+1); seen[id] != 1 {
			t.Errorf("%s was seen %d times", id, seen[id])
		}
	}
	if pages != 5 || len(seen) != many {
		t.Errorf("%d resources on %d pages", len(seen), pages)
	}
	first := a.Do("GET", "/v1/zones/"+z.zone+"/resources?limit=10", "", bearer(servertest.Bootstrap)...)
	for _, path := range []string{strings.Replace(next(first), z.zone, other.zone, 1), strings.Replace(next(first), "/resources", "/providers", 1)} {
		servertest.Expect(t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
	}
}

// A page hides the control resource and is full nevertheless.
func TestListResourcesFillsPagesWithoutControlResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	z.resource(t)
	z.control(t)
	z.resource(t)
	resp, err := a.ClientFor(z.zone, "read").ListResourcesWithResponse(t.Context(), z.zone, &rawclient.ListResourcesParams{Limit: new(2)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if link := resp.HTTPResponse.Header.Get("Link"); len(*resp.JSON200) != 2 || link != "" {
		t.Errorf("it has %d resources and a link to %q", len(*resp.JSON200), link)
	}
}

// A page is written by hand, an item by encoding/json.
func TestListResourcesEqualsGetResource(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	hard := "\"\\</>&\u2028\u2029\u007f\t\n\x01é😀\uFFFD"
	z.resource(t, func(b *client.NewResource) {
		b.Identifier, b.Scopes = new(`urn:<&>"\é😀`), []string{hard, "", hard}
		b.Operations = nil
		b.UpstreamURL = new(`https://x.example.com/<&>"é?'`)
		b.OperationEnforcement = new(client.OperationEnforcementTransportUniform)
	})
	a.DB.Exec("UPDATE resources SET name = $1, operations = jsonb_build_array(jsonb_build_object('method', $1::text, 'path', $1::text, 'scope', $1::text))", hard) // which no operation stores
	z.resource(t, func(b *client.NewResource) { b.Operations = nil })
	z.control(t)
	unbound := z.resource(t)
	a.DB.Exec("UPDATE resources SET gateway_application_id = NULL, updated_at = '2026-07-01 12:00:00.1239Z' WHERE id = $1", unbound.ID)
	list := a.Do("GET", "/v1/zones/"+z.zone+"/resources", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, list, http.StatusOK, "")
	page := decode[[]map[string]any](t, list)
	if len(page) != 4 {
		t.Fatalf("it has %d resources", len(page))
	}
	for _, listed := range page {
		item := a.Do("GET", fmt.Sprintf("/v1/zones/%s/resources/%s", z.zone, listed["id"]), "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, item, http.StatusOK, "")
		if one := decode[map[string]any](t, item); !reflect.DeepEqual(listed, one) {
			t.Errorf("the list shows\n%v\nand the item is\n%v", listed, one)
		}
	}
}
