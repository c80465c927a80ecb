package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCreateZone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	taken := a.Zone()
	tests := []struct {
		name string
		as   *rawclient.ClientWithResponses
		body client.NewZone
		want code.Code // "" is 201
	}{
		{"minimal", a.Admin, client.NewZone{Name: "Production"}, ""},
		{"the longest name", a.Admin, client.NewZone{Name: strings.Repeat("é", 120)}, ""},
		{"the longest name in white space", a.Admin, client.NewZone{Name: "\u00a0\ufeff " + strings.Repeat("é", 120) + "\n"}, ""},
		{"name too long", a.Admin, client.NewZone{Name: strings.Repeat("é", 121)}, code.InvalidZone},
		{"name of white space", a.Admin, client.NewZone{Name: " \u2028\t"}, code.InvalidZone},
		{"slug taken", a.Admin, client.NewZone{Name: "Again", Slug: &taken.Slug}, code.ZoneSlugConflict},
		{"slug malformed", a.Admin, client.NewZone{Name: "P", Slug: new("Prod!")}, code.InvalidZone},
		{"slug empty", a.Admin, client.NewZone{Name: "P", Slug: new("")}, code.InvalidZone},
		{"slug too long", a.Admin, client.NewZone{Name: "P", Slug: new(strings.Repeat("s", 256))}, code.InvalidZone},
		{"reserved name", a.Admin, client.NewZone{Name: " Caracal.SYS/system"}, ""},
		{"reserved name, not bootstrap", a.ClientFor("", "write"), client.NewZone{Name: " Caracal.SYS/x"}, code.ReservedNamespace},
		{"reserved name behind a byte order mark", a.ClientFor("", "write"), client.NewZone{Name: "\ufeffcaracal.sys/x"}, code.ReservedNamespace},
		{"reserved slug, not bootstrap", a.ClientFor("", "write"), client.NewZone{Name: "x", Slug: new("caracal-sys-x")}, code.ReservedNamespace},
		{"no token", a.Anonymous(), client.NewZone{Name: "Dev"}, code.InvalidAdminToken},
		{"read token", a.ClientFor("", "read"), client.NewZone{Name: "Dev"}, code.AdminTokenReadOnly},
		{"zone token", a.ClientFor(taken.ID, "write"), client.NewZone{Name: "Dev"}, code.AdminTokenZoneMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.CreateZoneWithResponse(t.Context(), tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want == "" && resp.JSON201.Name != strings.TrimFunc(tt.body.Name, func(r rune) bool { return strings.ContainsRune("\u00a0\ufeff \n", r) }) {
				t.Errorf("the name is %q", resp.JSON201.Name)
			}
		})
	}
}

func TestCreateZoneEqualsGetZone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone(func(z *client.NewZone) { z.Name, z.Slug, z.DCREnabled = "Prod", new("prod-eu"), new(true) })
	if zone.Name != "Prod" || zone.Slug != "prod-eu" || !zone.DCREnabled || !zone.OperatorCoauthorBadge {
		t.Errorf("created %+v", zone)
	}
	resp, err := a.Admin.GetZoneWithResponse(t.Context(), zone.ID)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if *resp.JSON200 != zone {
		t.Errorf("read %+v, created %+v", *resp.JSON200, zone)
	}
}

func TestCreateZoneGeneratesSlug(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	globalClient := a.ClientFor("", "write")
	for _, tt := range []struct{ name, want string }{
		{"Ünïted  Nations (EU)", "n-ted-nations-eu"},
		{"Ünïted  Nations (EU)", "n-ted-nations-eu-2"},
		{"Ünïted  Nations (EU)", "n-ted-nations-eu-3"},
		{"日本", "zone"},
		{"Caracal Sys X", "zone-caracal-sys-x"},
		{"Caracal Sys", "zone-caracal-sys"}, // or a number would lead there
		{"Caracal Sys", "zone-caracal-sys-2"},
	} {
		resp, err := globalClient.CreateZoneWithResponse(t.Context(), client.NewZone{Name: tt.name})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusCreated, "")
		if resp.JSON201.Slug != tt.want {
			t.Errorf("%q got the slug %q, want %q", tt.name, resp.JSON201.Slug, tt.want)
		}
	}
}

func TestCreateZoneConcurrentlyWithOneName(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	const many = 40
	slugs := make([]string, many)
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			resp, err := a.Admin.CreateZoneWithResponse(t.Context(), client.NewZone{Name: "Same"})
			if err != nil || resp.JSON201 == nil {
				t.Errorf("zone %d: %v %s", i, err, resp.Body)
				return
			}
			slugs[i] = resp.JSON201.Slug
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for _, slug := range slugs {
		if seen[slug] {
			t.Errorf("two zones have the slug %q", slug)
		}
		seen[slug] = true
	}
}

func TestCreateZoneWhenNumberedSlugsAreTaken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	a.DB.Exec(`INSERT INTO zones (id, name, slug, reserved) SELECT 'full-' || n, 'Full', CASE n WHEN 1 THEN 'full' ELSE 'full-' || n END, false FROM generate_series(1, 999) AS n`)
	zone := a.Zone(func(z *client.NewZone) { z.Name = "Full" })
	if !strings.HasPrefix(zone.Slug, "full-") || len(zone.Slug) != len("full-")+32 {
		t.Errorf("the slug is %q", zone.Slug)
	}
}

func TestGetZone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone(), a.Zone()
	archivedZone := a.DB.ArchivedZone()
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		id   string
		want code.Code
	}{
		{"global read", a.ClientFor("", "read"), zone.ID, ""},
		{"own zone", a.ClientFor(zone.ID, "read"), zone.ID, ""},
		{"other zone", a.ClientFor(other.ID, "write"), zone.ID, code.AdminTokenZoneMismatch},
		{"unknown", a.Admin, "nowhere", code.ZoneNotFound},
		{"archived", a.Admin, archivedZone, code.ZoneNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.GetZoneWithResponse(t.Context(), tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
		})
	}
}

func TestUpdateZone(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	taken := a.Zone()
	system := a.Zone(func(z *client.NewZone) { z.Name = "caracal.sys/system" })
	archivedZone := a.DB.ArchivedZone()
	mine := a.Zone()
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		id   string // "": a new zone
		body client.ZonePatch
		want code.Code
	}{
		{"name", a.Admin, "", client.ZonePatch{Name: new(" New name ")}, ""},
		{"slug", a.Admin, "", client.ZonePatch{Slug: new("new-slug")}, ""},
		{"badge", a.Admin, "", client.ZonePatch{OperatorCoauthorBadge: new(false)}, ""},
		{"by a zone token", a.ClientFor(mine.ID, "write"), mine.ID, client.ZonePatch{DCREnabled: new(true)}, ""},
		{"nothing", a.Admin, "", client.ZonePatch{}, code.NoFields},
		{"nothing, of nothing", a.Admin, "nowhere", client.ZonePatch{}, code.NoFields},
		{"name of white space", a.Admin, "", client.ZonePatch{Name: new("  ")}, code.InvalidZone},
		{"slug taken", a.Admin, "", client.ZonePatch{Slug: &taken.Slug}, code.ZoneSlugConflict},
		{"reserved name", a.ClientFor("", "write"), "", client.ZonePatch{Name: new("caracal.sys/x")}, code.ReservedNamespace},
		{"reserved slug", a.ClientFor("", "write"), "", client.ZonePatch{Slug: new("caracal-sys-y")}, code.ReservedNamespace},
		{"unknown", a.Admin, "nowhere", client.ZonePatch{Name: new("x")}, code.ZoneNotFound},
		{"archived", a.Admin, archivedZone, client.ZonePatch{Name: new("x")}, code.ZoneNotFound},
		{"Caracal's own, by the bootstrap token", a.Admin, system.ID, client.ZonePatch{DCREnabled: new(true)}, ""},
		{"Caracal's own, by another", a.ClientFor("", "write"), system.ID, client.ZonePatch{DCREnabled: new(false)}, code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = a.Zone().ID
			}
			resp, err := tt.as.UpdateZoneWithResponse(t.Context(), tt.id, nil, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want != "" {
				return
			}
			read, err := a.Admin.GetZoneWithResponse(t.Context(), tt.id)
			if err != nil {
				t.Fatal(err)
			}
			if *read.JSON200 != *resp.JSON200 {
				t.Errorf("answered %+v, then read %+v", *resp.JSON200, *read.JSON200)
			}
		})
	}
}

func TestUpdateZoneKeepsOtherFields(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	before := a.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) })
	resp, err := a.Admin.UpdateZoneWithResponse(t.Context(), before.ID, nil, client.ZonePatch{Name: new("Other")})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	after := *resp.JSON200
	if !after.UpdatedAt.After(before.UpdatedAt) {
		t.Errorf("updated_at went from %v to %v", before.UpdatedAt, after.UpdatedAt)
	}
	before.Name, before.UpdatedAt = "Other", after.UpdatedAt
	if after != before {
		t.Errorf("got %+v, want %+v", after, before)
	}
}

func TestUpdateZoneIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	read, err := a.Admin.GetZoneWithResponse(t.Context(), zone.ID)
	if err != nil {
		t.Fatal(err)
	}
	etag := read.HTTPResponse.Header.Get("ETag")
	responses := make(chan int, 2)
	for _, name := range []string{"One", "Two"} {
		go func() {
			resp, err := a.Admin.UpdateZoneWithResponse(t.Context(), zone.ID, &rawclient.UpdateZoneParams{IfMatch: &etag}, client.ZonePatch{Name: &name})
			if err != nil {
				t.Error(err)
			}
			responses <- resp.StatusCode()
		}()
	}
	if one, two := <-responses, <-responses; one+two != http.StatusOK+http.StatusPreconditionFailed {
		t.Errorf("answered %d and %d", one, two)
	}
	for _, tt := range []struct {
		header string
		want   code.Code
	}{
		{"*", ""}, {`"77", "3"`, ""}, {etag, code.VersionConflict}, {`W/"3"`, code.VersionConflict}, {`W/"4"`, ""}, {`"5-gzip"`, ""}, {"6", code.InvalidIfMatch}, {"nonsense", code.InvalidIfMatch},
	} {
		resp, err := a.Admin.UpdateZoneWithResponse(t.Context(), zone.ID, &rawclient.UpdateZoneParams{IfMatch: &tt.header}, client.ZonePatch{Name: new("Zone " + tt.header)})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, tt.want)
	}
}

func TestListZonesPagesWithEqualTimestamps(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	const many, page = 47, 10
	a.DB.Exec(`INSERT INTO zones (id, name, slug, reserved, created_at) SELECT 'z-' || n, 'Zone', 'z-' || n, false,
		timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $1) AS n`, many)
	a.DB.ArchivedZone()
	a.Zone(func(z *client.NewZone) { z.Name = "caracal.sys/hidden" })
	seen := map[string]int{}
	pages := 0
	for path := fmt.Sprintf("/v1/zones?limit=%d&kept=a+b", page); path != ""; pages++ {
		raw := a.Do("GET", path, "", "Authorization", "Bearer "+servertest.Bootstrap)
		servertest.Expect(t, raw, http.StatusOK, "")
		zones := decode[[]client.Zone](t, raw)
		for _, z := range zones {
			seen[z.ID]++
		}
		link := raw.Header.Get("Link")
		path = ""
		if link != "" {
			path, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
			if len(zones) != page || !strings.Contains(link, "kept=a+b") || !strings.HasSuffix(link, `; rel="next"`) {
				t.Errorf("%d zones and the link %s", len(zones), link)
			}
		}
	}
	if pages != 5 {
		t.Errorf("%d pages, want 5", pages)
	}
	for n := range many {
		if id := fmt.Sprintf("z-%d", n+1); seen[id] != 1 {
			t.Errorf("%s was seen %d times", id, seen[id])
		}
	}
	if len(seen) != many {
		t.Errorf("%d zones were seen, want %d", len(seen), many)
	}
}

func TestListZonesFullLastPageHasNoNext(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	a.Zone()
	a.Zone()
	resp, err := a.Admin.ListZonesWithResponse(t.Context(), &rawclient.ListZonesParams{Limit: new(2)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if link := resp.HTTPResponse.Header.Get("Link"); len(*resp.JSON200) != 2 || link != "" {
		t.Errorf("%d zones and the link %q", len(*resp.JSON200), link)
	}
}

func TestUpdateZoneIsAudited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone()
	resp, err := a.Admin.UpdateZoneWithResponse(t.Context(), zone.ID, nil, client.ZonePatch{Name: new("Renamed")})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	got := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, entity_type, entity_id, actor_name, actor_scope, status_code, payload) FROM audit_entries WHERE zone_id = $1 ORDER BY id", zone.ID)
	want := []string{
		"createZone | POST /v1/zones | zones | " + zone.ID + ` | bootstrap | global | 201 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["dcr_enabled","name","open_registration","operator_coauthor_badge","slug"],"changes":{"dcr_enabled":{"from":null,"to":false},"name":{"from":null,"to":"Test zone"},"open_registration":{"from":null,"to":false},"operator_coauthor_badge":{"from":null,"to":true},"slug":{"from":null,"to":"test-zone"}},"change":"created"}`,
		"updateZone | PATCH /v1/zones/" + zone.ID + " | zones | " + zone.ID + ` | bootstrap | global | 200 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["name"],"changes":{"name":{"from":"Test zone","to":"Renamed"}},"change":"updated"}`,
	}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
