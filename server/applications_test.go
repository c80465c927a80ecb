package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// newApplication creates a managed application.
func newApplication(t *testing.T, a *servertest.API, zone string, traits ...string) client.RegisteredApplication {
	t.Helper()
	body := client.NewApplication{Name: "Billing", RegistrationMethod: "managed"}
	if traits != nil {
		body.Traits = &traits
	}
	resp, err := a.Admin.CreateApplicationWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// readApplication is an application as somebody sees it.
func readApplication(t *testing.T, as *client.ClientWithResponses, zone, id string) client.Application {
	t.Helper()
	resp, err := as.GetApplicationWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	return *resp.JSON200
}

// problemOf is what a refusal says.
func problemOf(t *testing.T, answer servertest.Response) client.Problem {
	t.Helper()
	return decode[client.Problem](t, servertest.RawResponse{Body: answer.GetBody()})
}

// eachPage walks a list and says how many pages it had.
func eachPage[T any](t *testing.T, a *servertest.API, path string, visit func(T)) (pages int) {
	t.Helper()
	for ; path != ""; pages++ {
		raw := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		for _, one := range decode[[]T](t, raw) {
			visit(one)
		}
		path = next(raw)
	}
	return pages
}

// next is the path of the next page, or "".
func next(raw servertest.RawResponse) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(raw.Header.Get("Link"), "<"), ">")
	return path
}

// systemZone creates a zone that belongs to Caracal itself.
func systemZone(a *servertest.API) client.Zone {
	return a.Zone(func(z *client.NewZone) { z.Name = "caracal.sys/system" })
}

// somebodyElses is an application of another zone, of which an id is as good as none.
func somebodyElses(t *testing.T, a *servertest.API) string {
	t.Helper()
	return newApplication(t, a, a.Zone().ID).ID
}

const archiveApplication = "UPDATE applications SET archived_at = now() WHERE zone_id = $1 AND id = $2"

func TestCreateApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system, gone := a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	named := func(name string) client.NewApplication {
		return client.NewApplication{Name: name, RegistrationMethod: "managed"}
	}
	for _, tt := range []struct {
		name string
		as   *client.ClientWithResponses
		zone string
		body client.NewApplication
		want code.Code // "" is 201
	}{
		{"minimal", a.Admin, zone, named("Billing"), ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, named("Billing"), ""},
		{"by a global token", a.ClientFor("", "write"), zone, named("Billing"), ""},
		{"with traits", a.Admin, zone, client.NewApplication{Name: "x", RegistrationMethod: "managed", Traits: &[]string{"team:a", "b"}}, ""},
		{"a name of one space", a.Admin, zone, named(" "), ""},
		{"the longest name", a.Admin, zone, named(strings.Repeat("😀", 200)), ""},
		{"name too long", a.Admin, zone, named(strings.Repeat("é", 201)), code.InvalidApplication},
		{"name empty", a.Admin, zone, named(""), code.InvalidApplication},
		{"registered by somebody else", a.Admin, zone, client.NewApplication{Name: "x", RegistrationMethod: "dcr"}, code.InvalidApplication},
		{"registered nohow", a.Admin, zone, client.NewApplication{Name: "x"}, code.InvalidApplication},
		{"registered as nobody does", a.Admin, zone, client.NewApplication{Name: "x", RegistrationMethod: "Managed"}, code.InvalidApplication},
		{"reserved name", a.Admin, zone, named("caracal.sys/console"), ""},
		{"reserved name, not bootstrap", a.ClientFor("", "write"), zone, named(" Caracal.SYS/console"), code.ReservedNamespace},
		{"zone unknown", a.Admin, "nowhere", named("x"), code.ZoneNotFound},
		{"zone archived", a.Admin, gone, named("x"), code.ZoneNotFound},
		{"Caracal's own zone", a.Admin, system, named("x"), ""},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system, named("x"), code.SystemZoneReadOnly},
		{"Caracal's own zone, by its own token", a.ClientFor(system, "write"), system, named("x"), code.SystemZoneReadOnly},
		{"read token", a.ClientFor("", "read"), zone, named("x"), code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.as.CreateApplicationWithResponse(t.Context(), tt.zone, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			made, traits := *resp.JSON201, []string{}
			if tt.body.Traits != nil {
				traits = *tt.body.Traits
			}
			want := client.Application{ID: made.ID, ZoneID: tt.zone, Name: tt.body.Name, RegistrationMethod: "managed", CreatedAt: made.CreatedAt, Traits: &traits}
			if read := readApplication(t, a.Admin, tt.zone, made.ID); !reflect.DeepEqual(read, want) {
				t.Errorf("read %+v, want %+v", read, want)
			}
			if made.ZoneID != tt.zone || made.Name != tt.body.Name || made.RegistrationMethod != "managed" || made.ExpiresAt != nil {
				t.Errorf("answered %+v", made)
			}
		})
	}
}

func TestGetApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	live, gone, elsewhere := newApplication(t, a, zone).ID, newApplication(t, a, zone).ID, somebodyElses(t, a)
	a.DB.Exec(archiveApplication, zone, gone)
	a.DB.DCRApplications(zone, 1)
	a.DB.Exec("UPDATE applications SET expires_at = now() - interval '1 minute' WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
	expired := storetest.Value[string](a.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string
		want     code.Code
	}{
		{"global read", a.ClientFor("", "read"), zone, live, ""},
		{"zone read", a.ClientFor(zone, "read"), zone, live, ""},
		{"expired, not yet archived", a.Admin, zone, expired, ""},
		{"archived", a.Admin, zone, gone, code.ApplicationNotFound},
		{"unknown", a.Admin, zone, "nobody", code.ApplicationNotFound},
		{"of another zone", a.Admin, zone, elsewhere, code.ApplicationNotFound},
		{"zone unknown", a.Admin, "nowhere", live, code.ApplicationNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resp, err := tt.as.GetApplicationWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("asked for %s, got %+v", tt.id, resp.JSON200)
			}
		})
	}
}

func TestListApplications(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, empty := a.Zone().ID, a.Zone().ID
	first, gone, last := newApplication(t, a, zone).ID, newApplication(t, a, zone).ID, newApplication(t, a, zone).ID
	a.DB.Exec(archiveApplication, zone, gone)
	somebodyElses(t, a)
	for _, tt := range []struct {
		name string
		as   *client.ClientWithResponses
		zone string
		want []string // ids; none is [] and not null
	}{
		{"global read", a.ClientFor("", "read"), zone, []string{last, first}},
		{"zone read", a.ClientFor(zone, "read"), zone, []string{last, first}},
		{"of a zone that has none", a.Admin, empty, nil},
		{"of a zone that there is not", a.Admin, "nowhere", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
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

func TestUpdateApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system, gone := a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, elsewhere, systems := newApplication(t, a, zone).ID, somebodyElses(t, a), newApplication(t, a, system).ID
	a.DB.Exec(archiveApplication, zone, archived)
	a.DB.DCRApplications(zone, 1)
	dcr := storetest.Value[string](a.DB, "SELECT id FROM applications WHERE zone_id = $1 AND registration_method = 'dcr'", zone)
	named := func(name string) client.ApplicationPatch { return client.ApplicationPatch{Name: &name} }
	secret := func(length int) client.ApplicationPatch {
		return client.ApplicationPatch{ClientSecret: new(strings.Repeat("s", length))}
	}
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string // id "": a new application
		body     client.ApplicationPatch
		want     code.Code
	}{
		{"name", a.Admin, zone, "", named("New name"), ""},
		{"name of one space", a.Admin, zone, "", named(" "), ""},
		{"traits", a.Admin, zone, "", client.ApplicationPatch{Traits: &[]string{"control:x", "b"}}, ""},
		{"no traits any more", a.Admin, zone, "", client.ApplicationPatch{Traits: &[]string{}}, ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "", client.ApplicationPatch{Name: new("x"), Traits: &[]string{"team:b"}}, ""},
		{"registered by itself", a.Admin, zone, dcr, named("New name"), ""},
		{"the shortest secret", a.Admin, zone, "", secret(16), ""},
		{"secret too short", a.Admin, zone, "", secret(15), code.InvalidApplication},
		{"secret too long", a.Admin, zone, "", secret(1025), code.InvalidApplication},
		{"name empty", a.Admin, zone, "", named(""), code.InvalidApplication},
		{"name too long", a.Admin, zone, "", named(strings.Repeat("é", 201)), code.InvalidApplication},
		{"nothing", a.Admin, zone, "", client.ApplicationPatch{}, code.NoFields},
		{"nothing, of nothing", a.Admin, zone, "nobody", client.ApplicationPatch{}, code.NoFields},
		{"reserved name", a.ClientFor("", "write"), zone, "", named("caracal.sys/x"), code.ReservedNamespace},
		{"reserved name and bad traits", a.ClientFor("", "write"), zone, "", client.ApplicationPatch{Name: new("caracal.sys/x"), Traits: &[]string{""}}, code.ReservedNamespace},
		{"unknown", a.Admin, zone, "nobody", named("x"), code.ApplicationNotFound},
		{"archived", a.Admin, zone, archived, named("x"), code.ApplicationNotFound},
		{"of another zone", a.Admin, zone, elsewhere, named("x"), code.ApplicationNotFound},
		{"zone unknown", a.Admin, "nowhere", "nobody", named("x"), code.ZoneNotFound},
		{"zone archived", a.Admin, gone, "nobody", named("x"), code.ZoneNotFound},
		{"Caracal's own zone", a.Admin, system, "", named("x"), ""},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system, systems, named("x"), code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
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
			if read := readApplication(t, tt.as, tt.zone, tt.id); !reflect.DeepEqual(*resp.JSON200, want) || !reflect.DeepEqual(read, want) {
				t.Errorf("answered %+v, then read %+v, want %+v", *resp.JSON200, read, want)
			}
		})
	}
}

func TestDeleteApplication(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, system, gone := a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, elsewhere, systems := newApplication(t, a, zone).ID, somebodyElses(t, a), newApplication(t, a, system).ID
	a.DB.Exec(archiveApplication, zone, archived)
	for _, tt := range []struct {
		name     string
		as       *client.ClientWithResponses
		zone, id string // id "": a new application
		want     code.Code
	}{
		{"by a global token", a.ClientFor("", "write"), zone, "", ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "", ""},
		{"archived", a.Admin, zone, archived, code.ApplicationNotFound},
		{"unknown", a.Admin, zone, "nobody", code.ApplicationNotFound},
		{"of another zone", a.Admin, zone, elsewhere, code.ApplicationNotFound},
		{"zone unknown", a.Admin, "nowhere", "nobody", code.ZoneNotFound},
		{"zone archived", a.Admin, gone, "nobody", code.ZoneNotFound},
		{"Caracal's own zone", a.Admin, system, "", ""},
		{"Caracal's own zone, not bootstrap", a.ClientFor("", "write"), system, systems, code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.id == "" {
				tt.id = newApplication(t, a, tt.zone).ID
			}
			remove := func() servertest.Response {
				resp, err := tt.as.DeleteApplicationWithResponse(t.Context(), tt.zone, tt.id, nil)
				if err != nil {
					t.Fatal(err)
				}
				return resp
			}
			servertest.Expect(t, remove(), http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			resp, err := a.Admin.GetApplicationWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, 0, code.ApplicationNotFound)
			servertest.Expect(t, remove(), 0, code.ApplicationNotFound)
		})
	}
}

func TestAnApplicationIsChangedAndDeletedOnlyAsItWasRead(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newApplication(t, a, zone).ID
	read, err := a.Admin.GetApplicationWithResponse(t.Context(), zone, id)
	if err != nil {
		t.Fatal(err)
	}
	first := read.HTTPResponse.Header.Get("ETag")
	update := func(ifMatch, name string) *client.UpdateApplicationResponse {
		t.Helper()
		resp, err := a.Admin.UpdateApplicationWithResponse(t.Context(), zone, id, &client.UpdateApplicationParams{IfMatch: &ifMatch}, client.ApplicationPatch{Name: &name})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	remove := func(ifMatch string) servertest.Response {
		t.Helper()
		resp, err := a.Admin.DeleteApplicationWithResponse(t.Context(), zone, id, &client.DeleteApplicationParams{IfMatch: &ifMatch})
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

func TestListApplicationsShowsEachOnceThoughTheyShareATimestamp(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	const many = 47
	for _, z := range []string{zone, other} {
		a.DB.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, client_secret_hash, created_at)
			SELECT $1, 'a-' || n, 'App', 'managed', 'sha256$', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $2) AS n`, z, many)
	}
	a.DB.Exec(archiveApplication, other, "a-1")
	seen := map[string]int{}
	pages := eachPage(t, a, "/v1/zones/"+zone+"/applications?limit=10", func(one client.Application) {
		if one.ZoneID != zone {
			t.Errorf("saw %+v", one)
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

func TestTraitRules(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	global, zoned := a.ClientFor("", "write"), a.ClientFor(zone, "write")
	many := func(n int) (traits []string) {
		for i := range n {
			traits = append(traits, fmt.Sprintf("t%d", i))
		}
		return traits
	}
	for _, tt := range []struct {
		name   string
		as     *client.ClientWithResponses
		traits []string
		want   code.Code
		detail string
	}{
		{"none", zoned, []string{}, "", ""},
		{"every character", zoned, []string{"a", "Z.9_:-", "a::b"}, "", ""},
		{"as many as there may be", zoned, many(32), "", ""},
		{"one too many", global, many(33), code.TraitCountExceeded, "at most 32 traits allowed"},
		{"one too many, all wrong", zoned, slices.Repeat([]string{""}, 33), code.TraitCountExceeded, "at most 32 traits allowed"},
		{"empty", global, []string{""}, code.TraitInvalid, "traits must be 1..128 chars"},
		{"the longest", zoned, []string{strings.Repeat("x", 128)}, "", ""},
		{"too long", global, []string{strings.Repeat("x", 129)}, code.TraitInvalid, "traits must be 1..128 chars"},
		{"too long and malformed", global, []string{strings.Repeat("!", 129)}, code.TraitInvalid, "traits must be 1..128 chars"},
		{"a digit first", global, []string{"1a"}, code.TraitInvalid, "trait '1a' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"a space", global, []string{"ok", "a b"}, code.TraitInvalid, "trait 'a b' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"a letter that is not ASCII", global, []string{"é"}, code.TraitInvalid, "trait 'é' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"a line feed at the end", global, []string{"a\n"}, code.TraitInvalid, "trait 'a\n' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"twice", global, []string{"a", "b", "a"}, code.TraitDuplicate, "duplicate trait 'a'"},
		{"malformed twice", global, []string{"!", "!"}, code.TraitInvalid, "trait '!' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"twice, then malformed", global, []string{"a", "a", "!"}, code.TraitDuplicate, "duplicate trait 'a'"},
		{"case tells apart", zoned, []string{"a", "A"}, "", ""},
		{"privileged, by a global token", global, []string{"control:agent", "caracal.sys:x", "control"}, "", ""},
		{"control", zoned, []string{"control:agent"}, code.TraitForbidden, "trait namespace 'control' requires global admin scope"},
		{"control alone", zoned, []string{"control"}, code.TraitForbidden, "trait namespace 'control' requires global admin scope"},
		{"caracal.sys", zoned, []string{"a", "caracal.sys:x:y"}, code.TraitForbidden, "trait namespace 'caracal.sys' requires global admin scope"},
		{"privileged, then malformed", zoned, []string{"control:x", "!"}, code.TraitForbidden, "trait namespace 'control' requires global admin scope"},
		{"malformed, then privileged", zoned, []string{"!", "control:x"}, code.TraitInvalid, "trait '!' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"almost privileged", zoned, []string{"controlx:y", "Control:x", "caracal.sys.x", "caracal:sys", "x:control:y"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			created, err := tt.as.CreateApplicationWithResponse(t.Context(), zone, client.NewApplication{Name: "x", RegistrationMethod: "managed", Traits: &tt.traits})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, created, http.StatusCreated, tt.want)
			id := newApplication(t, a, zone, "before").ID
			updated, err := tt.as.UpdateApplicationWithResponse(t.Context(), zone, id, nil, client.ApplicationPatch{Traits: &tt.traits})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, updated, http.StatusOK, tt.want)
			now := readApplication(t, a.Admin, zone, id)
			if tt.want == "" {
				if !slices.Equal(*now.Traits, tt.traits) {
					t.Errorf("its traits are %q", *now.Traits)
				}
				return
			}
			for _, refused := range []servertest.Response{created, updated} {
				if problem := problemOf(t, refused); problem.Detail == nil || *problem.Detail != tt.detail {
					t.Errorf("got %s, want the detail %q", refused.GetBody(), tt.detail)
				}
			}
			if !slices.Equal(*now.Traits, []string{"before"}) {
				t.Errorf("its traits are %q, though they were refused", *now.Traits)
			}
		})
	}
}

func TestTraitsAreShownToGlobalCallersOnly(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range []struct {
		name  string
		scope string
		shown bool
	}{
		{"global", "", true}, {"zone", zone, false},
	} {
		for _, traits := range [][]string{{}, {"team:a"}} {
			id := newApplication(t, a, zone, traits...).ID
			t.Run(fmt.Sprint(tt.name, traits), func(t *testing.T) {
				t.Parallel()
				as := a.ClientFor(tt.scope, "write")
				listed, err := as.ListApplicationsWithResponse(t.Context(), zone, nil)
				if err != nil {
					t.Fatal(err)
				}
				servertest.Expect(t, listed, http.StatusOK, "")
				changed, err := as.UpdateApplicationWithResponse(t.Context(), zone, id, nil, client.ApplicationPatch{Name: new("x")})
				if err != nil {
					t.Fatal(err)
				}
				servertest.Expect(t, changed, http.StatusOK, "")
				at := slices.IndexFunc(*listed.JSON200, func(one client.Application) bool { return one.ID == id })
				for way, one := range map[string]client.Application{"get": readApplication(t, as, zone, id), "list": (*listed.JSON200)[at], "patch": *changed.JSON200} {
					if (one.Traits != nil) != tt.shown || tt.shown && !slices.Equal(*one.Traits, traits) {
						t.Errorf("%s shows %+v", way, one)
					}
				}
			})
		}
	}
}

func TestAZoneTokenCannotTouchWhatHoldsAPrivilegedTrait(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newApplication(t, a, zone, "team:a", "control:agent").ID
	zoned := a.ClientFor(zone, "write")
	row := func() string {
		return storetest.Value[string](a.DB, "SELECT to_jsonb(applications)::text FROM applications WHERE zone_id = $1 AND id = $2", zone, id)
	}
	before := row()
	for name, patch := range map[string]client.ApplicationPatch{
		"name": {Name: new("x")}, "secret": {ClientSecret: new("a-secret-of-my-own")}, "traits": {Traits: &[]string{}},
	} {
		resp, err := zoned.UpdateApplicationWithResponse(t.Context(), zone, id, nil, patch)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, 0, code.TraitForbidden)
		if detail := problemOf(t, resp).Detail; detail == nil || *detail != "trait namespace 'control' requires global admin scope" {
			t.Errorf("%s: got %s", name, resp.Body)
		}
	}
	resp, err := zoned.DeleteApplicationWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.TraitForbidden)
	if after := row(); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
	removed, err := a.ClientFor("", "write").DeleteApplicationWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, removed, http.StatusNoContent, "")
}

func TestAClientSecretIsShownOnce(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) }).ID
	made := newApplication(t, a, zone)
	registered, err := a.Admin.RegisterApplicationWithResponse(t.Context(), zone, client.ApplicationRegistration{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, registered, http.StatusCreated, "")
	const chosen = "a secret of my own"
	var later strings.Builder // all that is answered after the secrets were shown
	for _, request := range []struct{ method, path, body string }{
		{"GET", "/" + made.ID, ""},
		{"PATCH", "/" + made.ID, `{"client_secret": "` + chosen + `"}`},
		{"PATCH", "/" + made.ID, `{"name": "` + chosen + `", "client_secret": 7}`},
		{"GET", "/" + registered.JSON201.ID, ""},
		{"GET", "", ""},
	} {
		raw := a.Do(request.method, "/v1/zones/"+zone+"/applications"+request.path, request.body, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		later.Write(raw.Body)
	}
	if err := a.Service.Stop(); err != nil { // writes what is left to log
		t.Fatal(err)
	}
	for _, secret := range []string{made.ClientSecret, registered.JSON201.ClientSecret, chosen} {
		if strings.Contains(later.String(), secret) || strings.Contains(a.Log.String(), secret) {
			t.Errorf("%q is in an answer or in the log", secret)
		}
		for _, table := range []string{"applications", "audit_entries", "outbox"} {
			if n := storetest.Value[int](a.DB, "SELECT count(*) FROM "+table+" AS t WHERE strpos(to_jsonb(t)::text, $1) > 0", secret); n > 0 {
				t.Errorf("%q is in %s", secret, table)
			}
		}
	}
	if entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE payload LIKE '%argon2id$%' OR payload LIKE '%sha256$%'"); entries > 0 {
		t.Errorf("the hash of a secret is in %d entries", entries)
	}
}

func TestOfASecretOnlyItsHashIsKept(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	made := newApplication(t, a, zone)
	kept := func() string {
		return storetest.Value[string](a.DB, "SELECT client_secret_hash FROM applications WHERE id = $1", made.ID)
	}
	digest := sha256.Sum256([]byte(made.ClientSecret))
	if want := "sha256$" + base64.RawStdEncoding.EncodeToString(digest[:]); kept() != want {
		t.Errorf("of a generated secret is kept %q, want %q", kept(), want)
	}
	const chosen = "a secret of my own: ß"
	resp, err := a.Admin.UpdateApplicationWithResponse(t.Context(), zone, made.ID, nil, client.ApplicationPatch{ClientSecret: new(chosen)})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	rest, known := strings.CutPrefix(kept(), "$argon2id$v=19$m=65536,t=3,p=2$")
	salt, hash, both := strings.Cut(rest, "$")
	saltBytes, err := base64.RawStdEncoding.DecodeString(salt)
	want := base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(chosen), saltBytes, 3, 65536, 2, 32))
	if !known || !both || err != nil || len(saltBytes) != 16 || hash != want {
		t.Errorf("of a chosen secret is kept %q", kept())
	}
}

func TestWhatHappensToAnApplicationIsInTheTrail(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	zoned := a.ClientFor(zone, "write")
	id := newApplication(t, a, zone, "team:a").ID
	updated, err := zoned.UpdateApplicationWithResponse(t.Context(), zone, id, nil, client.ApplicationPatch{Name: new("Renamed"), ClientSecret: new("a-secret-of-my-own")})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, updated, http.StatusOK, "")
	removed, err := zoned.DeleteApplicationWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, removed, http.StatusNoContent, "")
	got := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, actor_scope, status_code, payload) FROM audit_entries WHERE entity_type = 'applications' AND entity_id = $1 ORDER BY id", id)
	path := "/v1/zones/" + zone + "/applications"
	want := []string{
		"createApplication | POST " + path + ` | global | 201 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["expires_at","name","registration_method","traits"],"changes":{"expires_at":{"from":null,"to":null},"name":{"from":null,"to":"Billing"},"registration_method":{"from":null,"to":"managed"},"traits":{"from":null,"to":["team:a"]}}}`,
		"updateApplication | PATCH " + path + "/" + id + ` | zone | 200 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `","changed_fields":["name"],"changes":{"name":{"from":"Billing","to":"Renamed"}},"secret_rotated":true}`,
		"deleteApplication | DELETE " + path + "/" + id + ` | zone | 204 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `","changed_fields":[]}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the trail says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
