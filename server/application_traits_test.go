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
	"caracal.run/management/store/storetest"
)

func TestCreateApplicationTraitRules(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	globalClient, zoneClient := a.ClientFor("", "write"), a.ClientFor(zone, "write")
	many := func(n int) (traits []string) {
		for i := range n {
			traits = append(traits, fmt.Sprintf("t%d", i))
		}
		return traits
	}
	for _, tt := range []struct {
		name   string
		as     *rawclient.ClientWithResponses
		traits []string
		want   code.Code
		detail string
	}{
		{"none", zoneClient, []string{}, "", ""},
		{"every character", zoneClient, []string{"a", "Z.9_:-", "a::b"}, "", ""},
		{"the maximum number", zoneClient, many(32), "", ""},
		{"one too many", globalClient, many(33), code.TraitCountExceeded, "at most 32 traits allowed"},
		{"one too many, all invalid", zoneClient, slices.Repeat([]string{""}, 33), code.TraitCountExceeded, "at most 32 traits allowed"},
		{"empty", globalClient, []string{""}, code.TraitInvalid, "traits must be 1..128 chars"},
		{"the longest", zoneClient, []string{strings.Repeat("x", 128)}, "", ""},
		{"too long", globalClient, []string{strings.Repeat("x", 129)}, code.TraitInvalid, "traits must be 1..128 chars"},
		{"too long and malformed", globalClient, []string{strings.Repeat("!", 129)}, code.TraitInvalid, "traits must be 1..128 chars"},
		{"a digit first", globalClient, []string{"1a"}, code.TraitInvalid, "trait '1a' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"a space", globalClient, []string{"ok", "a b"}, code.TraitInvalid, "trait 'a b' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"a letter that is not ASCII", globalClient, []string{"é"}, code.TraitInvalid, "trait 'é' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"a line feed at the end", globalClient, []string{"a\n"}, code.TraitInvalid, "trait 'a\n' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"twice", globalClient, []string{"a", "b", "a"}, code.TraitDuplicate, "duplicate trait 'a'"},
		{"malformed twice", globalClient, []string{"!", "!"}, code.TraitInvalid, "trait '!' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"twice, then malformed", globalClient, []string{"a", "a", "!"}, code.TraitDuplicate, "duplicate trait 'a'"},
		{"differing in case", zoneClient, []string{"a", "A"}, "", ""},
		{"privileged, by a global token", globalClient, []string{"control:agent", "caracal.sys:x", "control"}, "", ""},
		{"control", zoneClient, []string{"control:agent"}, code.TraitForbidden, "trait namespace 'control' requires global admin scope"},
		{"control alone", zoneClient, []string{"control"}, code.TraitForbidden, "trait namespace 'control' requires global admin scope"},
		{"caracal.sys", zoneClient, []string{"a", "caracal.sys:x:y"}, code.TraitForbidden, "trait namespace 'caracal.sys' requires global admin scope"},
		{"privileged, then malformed", zoneClient, []string{"control:x", "!"}, code.TraitForbidden, "trait namespace 'control' requires global admin scope"},
		{"malformed, then privileged", zoneClient, []string{"!", "control:x"}, code.TraitInvalid, "trait '!' violates [A-Za-z][A-Za-z0-9._:-]* format"},
		{"Control key", globalClient, []string{"control:invoke", "control:scope:control:app:read", "control:max-ttl:60", "control:expires:2099-01-01T00:00:00Z"}, "", ""},
		{"unknown scope", globalClient, []string{"control:scope:control:app:execute"}, code.TraitInvalid, "trait 'control:scope:control:app:execute': unknown scope"},
		{"expiry that is no time", globalClient, []string{"control:invoke", "control:expires:never"}, code.TraitInvalid, "trait 'control:expires:never': must be given once, with a date-time according to RFC 3339"},
		{"lifetime too long", globalClient, []string{"control:max-ttl:3600"}, code.TraitInvalid, "trait 'control:max-ttl:3600': must be given once, with 60 to 900 seconds"},
		{"almost privileged", zoneClient, []string{"controlx:y", "Control:x", "caracal.sys.x", "caracal:sys", "x:control:y"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
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
			for _, rejected := range []servertest.Response{created, updated} {
				if problem := problemOf(t, rejected); problem.Detail == nil || *problem.Detail != tt.detail {
					t.Errorf("got %s, want the detail %q", rejected.GetBody(), tt.detail)
				}
			}
			if !slices.Equal(*now.Traits, []string{"before"}) {
				t.Errorf("its traits are %q, although they were rejected", *now.Traits)
			}
		})
	}
}

func TestGetApplicationTraitsOnlyForGlobalTokens(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range []struct {
		name    string
		scope   string
		visible bool
	}{
		{"global", "", true}, {"zone", zone, false},
	} {
		for _, traits := range [][]string{{}, {"team:a"}} {
			id := newApplication(t, a, zone, traits...).ID
			t.Run(fmt.Sprint(tt.name, traits), func(t *testing.T) {
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
				for operation, one := range map[string]client.Application{"get": readApplication(t, as, zone, id), "list": (*listed.JSON200)[at], "patch": *changed.JSON200} {
					if (one.Traits != nil) != tt.visible || tt.visible && !slices.Equal(*one.Traits, traits) {
						t.Errorf("%s returned %+v", operation, one)
					}
				}
			})
		}
	}
}

func TestUpdateApplicationWithPrivilegedTraitNeedsGlobalToken(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := newApplication(t, a, zone, "team:a", "control:agent").ID
	zoneClient := a.ClientFor(zone, "write")
	row := func() string {
		return storetest.Value[string](a.DB, "SELECT to_jsonb(applications)::text FROM applications WHERE zone_id = $1 AND id = $2", zone, id)
	}
	before := row()
	for name, patch := range map[string]client.ApplicationPatch{
		"name": {Name: new("x")}, "secret": {ClientSecret: new("a-secret-of-my-own")}, "traits": {Traits: &[]string{}},
	} {
		resp, err := zoneClient.UpdateApplicationWithResponse(t.Context(), zone, id, nil, patch)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, 0, code.TraitForbidden)
		if detail := problemOf(t, resp).Detail; detail == nil || *detail != "trait namespace 'control' requires global admin scope" {
			t.Errorf("%s: got %s", name, resp.Body)
		}
	}
	resp, err := zoneClient.DeleteApplicationWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.TraitForbidden)
	if after := row(); after != before {
		t.Errorf("it was\n%s\nand became\n%s", before, after)
	}
	removed, err := a.ClientFor("", "write").DeleteApplicationWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, removed, http.StatusNoContent, "")
}
