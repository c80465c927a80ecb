package server_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// openZone creates a zone with dynamic client registration enabled.
func openZone(a *servertest.API) string {
	a.TB.Helper()
	return a.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) }).ID
}

func dcrStatus(t *testing.T, a *servertest.API, zone string) client.DCRStatus {
	t.Helper()
	resp, err := a.Admin.GetDCRStatusWithResponse(t.Context(), zone)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

// register registers an application. Each token may register ten a second in each zone.
func register(t *testing.T, as *rawclient.ClientWithResponses, zone string) *rawclient.RegisterApplicationResponse {
	t.Helper()
	resp, err := as.RegisterApplicationWithResponse(t.Context(), zone, client.ApplicationRegistration{Name: "Job"})
	if err != nil {
		t.Error(err) // not Fatal: some tests register in other goroutines
		return new(rawclient.RegisterApplicationResponse)
	}
	return resp
}

func TestRegisterApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, closed, archivedZone := openZone(a), a.Zone().ID, a.DB.ArchivedZone()
	system := a.Zone(func(z *client.NewZone) { z.Name, z.DCREnabled = "caracal.sys/system", new(true) }).ID
	named := func(name string) client.ApplicationRegistration { return client.ApplicationRegistration{Name: name} }
	during := func(seconds int64) client.ApplicationRegistration {
		return client.ApplicationRegistration{Name: "x", ExpiresIn: &seconds}
	}
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string // "": a new one
		body client.ApplicationRegistration
		want code.Code // "" is 201
	}{
		{"one hour by default", a.Admin, "", named("Job"), ""},
		{"for one second", a.Admin, "", during(1), ""},
		{"for one hour", a.Admin, "", during(3600), ""},
		{"for zero seconds", a.Admin, zone, during(0), code.InvalidApplication},
		{"for longer than an hour", a.Admin, zone, during(3601), code.InvalidApplication},
		{"by a zone token", a.ClientFor(zone, "write"), zone, named("Job"), ""},
		{"a name of one space", a.Admin, "", named(" "), code.InvalidApplication},
		{"the longest name", a.Admin, "", named(strings.Repeat("😀", 200)), ""},
		{"name too long", a.Admin, zone, named(strings.Repeat("é", 201)), code.InvalidApplication},
		{"name empty", a.Admin, zone, named(""), code.InvalidApplication},
		{"reserved name", a.Admin, "", named("caracal.sys/x"), ""},
		{"reserved name, not bootstrap", a.ClientFor("", "write"), zone, named("caracal.sys/x"), code.ReservedNamespace},
		{"registration disabled", a.Admin, closed, named("x"), code.DCRDisabled},
		{"zone unknown", a.Admin, "nowhere", named("x"), code.ZoneNotFound},
		{"zone archived", a.Admin, archivedZone, named("x"), code.ZoneNotFound},
		{"system zone", a.Admin, system, named("x"), ""},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system, named("x"), code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), zone, named("x"), code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.zone == "" {
				tt.zone = openZone(a)
			}
			resp, err := tt.as.RegisterApplicationWithResponse(t.Context(), tt.zone, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			lives := time.Hour
			if tt.body.ExpiresIn != nil {
				lives = time.Duration(*tt.body.ExpiresIn) * time.Second
			}
			created := *resp.JSON201
			ends := created.CreatedAt.Add(lives)
			if created.ExpiresAt == nil || !created.ExpiresAt.Equal(ends) {
				t.Fatalf("created at %v, it expires at %v", created.CreatedAt, created.ExpiresAt)
			}
			want := client.Application{ID: created.ID, ZoneID: tt.zone, Name: tt.body.Name, RegistrationMethod: "dcr", CreatedAt: created.CreatedAt, ExpiresAt: &ends, Traits: &[]string{}}
			read := readApplication(t, a.Admin, tt.zone, created.ID)
			want.Secrets = firstSecret(t, read)
			if !reflect.DeepEqual(read, want) {
				t.Errorf("read %+v, want %+v", read, want)
			}
			if created.ZoneID != tt.zone || created.Name != tt.body.Name || created.RegistrationMethod != "dcr" {
				t.Errorf("got %+v", created)
			}
		})
	}
}

func TestRegisterApplicationRateLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := openZone(a), openZone(a)
	headers := append(bearer(servertest.Bootstrap), "Content-Type", jsonType)
	admitted := until(t, 500, code.DCRRateLimitExceeded, func() servertest.RawResponse {
		return a.Do("POST", "/v1/zones/"+zone+"/applications/dcr", `{"name":"Job"}`, headers...)
	})
	if admitted < 10 {
		t.Errorf("%d were allowed, want 10", admitted)
	}
	servertest.Expect(t, register(t, a.ClientFor(zone, "write"), zone), http.StatusCreated, "")
	servertest.Expect(t, register(t, a.Admin, other), http.StatusCreated, "")
}

func TestRegisterApplicationLimitCountsOnlyActive(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := openZone(a)
	a.DB.DCRApplications(zone, 1000)
	newApplication(t, a, zone)
	// one reduces the number of active applications.
	one := func(change string) {
		a.DB.Exec("UPDATE applications SET "+change+` WHERE zone_id = $1 AND id = (SELECT id FROM applications
			WHERE zone_id = $1 AND registration_method = 'dcr' AND archived_at IS NULL AND expires_at > now() LIMIT 1)`, zone)
	}
	servertest.Expect(t, register(t, a.Admin, zone), 0, code.DCRLimitExceeded)
	one("expires_at = now()")
	servertest.Expect(t, register(t, a.Admin, zone), http.StatusCreated, "")
	servertest.Expect(t, register(t, a.Admin, zone), 0, code.DCRLimitExceeded)
	one("archived_at = now()")
	servertest.Expect(t, register(t, a.Admin, zone), http.StatusCreated, "")
	servertest.Expect(t, register(t, a.Admin, zone), 0, code.DCRLimitExceeded)
}

func TestRegisterApplicationLimitUnderConcurrency(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := openZone(a)
	const free, tokens, each = 5, 4, 5
	a.DB.DCRApplications(zone, 1000-free)
	responses := make(chan *rawclient.RegisterApplicationResponse, tokens*each)
	for range tokens { // several, so that none reaches its rate limit
		as := a.ClientFor(zone, "write")
		for range each {
			go func() { responses <- register(t, as, zone) }()
		}
	}
	got := map[int]int{}
	for range tokens * each {
		resp := <-responses
		if resp.JSON201 == nil {
			servertest.Expect(t, resp, 0, code.DCRLimitExceeded)
		}
		got[resp.StatusCode()]++
	}
	if status := dcrStatus(t, a, zone); got[http.StatusCreated] != free || status.LiveDCRApplications != 1000 {
		t.Errorf("%d were allowed and %d are active", got[http.StatusCreated], status.LiveDCRApplications)
	}
}

func TestGetDCRStatus(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	open, closed, archivedZone := openZone(a), a.Zone().ID, a.DB.ArchivedZone()
	a.DB.DCRApplications(open, 5)
	a.DB.DCRApplications(closed, 1)
	newApplication(t, a, open)
	ids := storetest.Column[string](a.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", open)
	a.DB.Exec(archiveApplication, open, ids[0])
	a.DB.Exec("UPDATE applications SET expires_at = now() WHERE id = $1", ids[1])
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		open bool
		live int64
		want code.Code
	}{
		{"open", a.ClientFor("", "read"), open, true, 3, ""},
		{"closed", a.ClientFor(closed, "read"), closed, false, 1, ""},
		{"unknown", a.Admin, "nowhere", false, 0, code.ZoneNotFound},
		{"archived", a.Admin, archivedZone, false, 0, code.ZoneNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.GetDCRStatusWithResponse(t.Context(), tt.zone)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if want := (client.DCRStatus{ID: tt.zone, DCREnabled: tt.open, LiveDCRApplications: tt.live}); tt.want == "" && *resp.JSON200 != want {
				t.Errorf("got %+v, want %+v", *resp.JSON200, want)
			}
		})
	}
}

func TestUpdateZoneDCRShutdown(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	off := func(mode client.ZonePatchDCRShutdown) client.ZonePatch {
		patch := client.ZonePatch{DCREnabled: new(false)}
		if mode != "" {
			patch.DCRShutdown = &mode
		}
		return patch
	}
	mode := new(client.ZonePatchDCRShutdown("keep_live"))
	entry := func(mode string, live, revoked int) string { // the audit entry in addition to that of the zone's change
		return fmt.Sprintf(`DCR shutdown %s | 200 | {"dcr_registration_disabled":true,"dcr_shutdown_mode":"%s","live_dcr_applications":%d,"revoked_applications":%d,"revoked_sessions":0,"terminated_agents":0,"revoked_delegations":0}`,
			mode, mode, live, revoked)
	}
	for _, tt := range []struct {
		name   string
		open   bool
		before int64 // active applications
		patch  client.ZonePatch
		want   code.Code
		after  int64
		entry  string // "": no entry
	}{
		{"no mode", true, 2, off(""), code.DCRShutdownRequired, 2, ""},
		{"keep_live", true, 2, off("keep_live"), "", 2, entry("keep_live", 2, 0)},
		{"revoke_live", true, 2, off("revoke_live"), "", 0, entry("revoke_live", 2, 2)},
		{"no active applications", true, 0, off(""), "", 0, entry("no_live", 0, 0)},
		{"no active applications, keep_live", true, 0, off("keep_live"), "", 0, entry("no_live", 0, 0)},
		{"no active applications, revoke_live", true, 0, off("revoke_live"), "", 0, entry("no_live", 0, 0)},
		{"already off", false, 2, off(""), "", 2, ""},
		{"already off, keep_live", false, 2, off("keep_live"), "", 2, entry("keep_live", 2, 0)},
		{"already off, revoke_live", false, 2, off("revoke_live"), "", 0, entry("revoke_live", 2, 2)},
		{"dcr_enabled is missing", true, 2, client.ZonePatch{Name: new("x"), DCRShutdown: mode}, code.DCRShutdownNotApplicable, 2, ""},
		{"dcr_shutdown only", true, 2, client.ZonePatch{DCRShutdown: mode}, code.DCRShutdownNotApplicable, 2, ""},
		{"dcr_enabled is true", true, 2, client.ZonePatch{DCREnabled: new(true), DCRShutdown: mode}, code.DCRShutdownNotApplicable, 2, ""},
		{"no such mode", true, 2, off("burn"), code.InvalidZone, 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			zone := a.Zone(func(z *client.NewZone) { z.DCREnabled = &tt.open }).ID
			a.DB.DCRApplications(zone, int(tt.before)+1)
			a.DB.Exec("UPDATE applications SET expires_at = now() WHERE zone_id = $1 AND id LIKE '%-1'", zone) // expired applications do not count
			kept := newApplication(t, a, zone).ID
			resp, err := a.ClientFor(zone, "write").UpdateZoneWithResponse(t.Context(), zone, nil, tt.patch)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == code.DCRShutdownRequired {
				if live := problemOf(t, resp).LiveDCRApplications; live == nil || int64(*live) != tt.before {
					t.Errorf("got %s, want live_dcr_applications %d", resp.Body, tt.before)
				}
			}
			if want := (client.DCRStatus{ID: zone, DCREnabled: tt.open && tt.want != "", LiveDCRApplications: tt.after}); dcrStatus(t, a, zone) != want {
				t.Errorf("got %+v, want %+v", dcrStatus(t, a, zone), want)
			}
			readApplication(t, a.Admin, zone, kept)
			var want []string
			if tt.entry != "" {
				want = append(want, tt.entry)
			}
			got := storetest.Column[string](a.DB, `SELECT concat_ws(' | ', action, status_code, payload) FROM audit_entries
				WHERE entity_type = 'zones' AND entity_id = $1 AND action LIKE 'DCR%' AND method = 'PATCH' AND path = '/v1/zones/' || $1`, zone)
			if !slices.Equal(got, want) {
				t.Errorf("the audit entries are %q, want %q", got, want)
			}
			changes := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE action = 'PATCH /v1/zones/' || $1 AND status_code = 200 AND entity_type = 'zones'", zone)
			wantChanges := 0
			if tt.open && tt.want == "" { // otherwise, nothing of the zone changes
				wantChanges = 1
			}
			if changes != wantChanges {
				t.Errorf("%d audit entries contain the change, want %d", changes, wantChanges)
			}
		})
	}
}

func TestUpdateZoneDCRShutdownKeepThenRevoke(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := openZone(a)
	dcrApplications := register(t, a.Admin, zone).JSON201
	shutDown := func(mode client.ZonePatchDCRShutdown, name string) *rawclient.UpdateZoneResponse {
		t.Helper()
		resp, err := a.Admin.UpdateZoneWithResponse(t.Context(), zone, nil,
			client.ZonePatch{DCREnabled: new(false), DCRShutdown: &mode, Name: &name, Slug: &name, OperatorCoauthorBadge: new(false)})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		return resp
	}
	if z := shutDown("keep_live", "closing").JSON200; z.Name != "closing" || z.Slug != "closing" || z.OperatorCoauthorBadge || z.DCREnabled {
		t.Errorf("the other fields of the patch are missing in %+v", z)
	}
	readApplication(t, a.Admin, zone, dcrApplications.ID)
	servertest.Expect(t, register(t, a.Admin, zone), 0, code.DCRDisabled)
	shutDown("revoke_live", "closed")
	resp, err := a.Admin.GetApplicationWithResponse(t.Context(), zone, dcrApplications.ID)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.ApplicationNotFound)
}

func TestRegisterApplicationDuringShutdown(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	as := []*rawclient.ClientWithResponses{a.ClientFor("", "write"), a.ClientFor("", "write")}
	admitted := 0
	for range 10 {
		zone := openZone(a)
		var all sync.WaitGroup
		responses := make([]*rawclient.RegisterApplicationResponse, 14)
		for i := range responses {
			all.Go(func() { responses[i] = register(t, as[i%len(as)], zone) })
		}
		resp, err := a.Admin.UpdateZoneWithResponse(t.Context(), zone, nil, client.ZonePatch{DCREnabled: new(false), DCRShutdown: new(client.ZonePatchDCRShutdown("revoke_live"))})
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusOK, "")
		all.Wait()
		for _, resp := range responses {
			if resp.JSON201 != nil {
				admitted++
			} else {
				servertest.Expect(t, resp, 0, code.DCRDisabled)
			}
		}
		if status := dcrStatus(t, a, zone); status.LiveDCRApplications != 0 || status.DCREnabled {
			t.Errorf("after the shutdown the status is %+v", status)
		}
	}
	if admitted == 0 {
		t.Error("no registration preceded a shutdown: the race was not tested")
	}
}
