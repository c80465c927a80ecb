package server_test

import (
	"net/http"
	"slices"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestAddPolicyVersion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, archivedZone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	p, archived, ofOtherZone, ofSystemZone := newPolicy(t, a, zone, "p").ID, newPolicy(t, a, zone, "archived").ID, newPolicy(t, a, other, "other").ID, newPolicy(t, a, system, "system").ID
	a.DB.Exec(archivePolicy, zone, archived)
	global := a.ClientFor("", "write")
	for _, tt := range []struct {
		name          string
		as            *rawclient.ClientWithResponses
		zone, id      string
		schemaVersion *string
		want          code.Code // "" is 201
	}{
		{"by a global token", global, zone, p, nil, ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, p, new("2026-05-20"), ""},
		{"earlier schema version", a.Admin, zone, p, new("2026-03-16"), ""},
		{"archived", a.Admin, zone, archived, nil, code.PolicyNotFound},
		{"unknown", a.Admin, zone, "unknown", nil, code.PolicyNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, nil, code.PolicyNotFound},
		{"unknown zone", a.Admin, "unknown", p, nil, code.ZoneNotFound},
		{"archived zone", a.Admin, archivedZone, p, nil, code.ZoneNotFound},
		{"system zone", a.Admin, system, ofSystemZone, nil, ""},
		{"system zone, not by the bootstrap token", global, system, ofSystemZone, nil, code.SystemZoneReadOnly},
		{"read token", a.ClientFor(zone, "read"), zone, p, nil, code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other, "write"), zone, p, nil, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			content := documentOf(tt.name)
			resp := addPolicyVersion(t, tt.as, tt.zone, tt.id, client.NewPolicyVersion{Content: content, SchemaVersion: tt.schemaVersion})
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			schemaVersion := "2026-05-20"
			if tt.schemaVersion != nil {
				schemaVersion = *tt.schemaVersion
			}
			got := getPolicyVersion(t, a.Admin, tt.zone, tt.id, resp.JSON201.ID)
			servertest.Expect(t, got, http.StatusOK, "")
			if v := got.JSON200; v.Content != content || v.SchemaVersion != schemaVersion || v.Version != resp.JSON201.Version {
				t.Errorf("added %+v, got %+v", resp.JSON201, v)
			}
		})
	}
}

func TestAddPolicyVersionInvalidContent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p := newPolicy(t, a, zone, "p").ID
	etag := policyETag(t, a, zone, p)
	for _, tt := range invalidPolicies {
		t.Run(tt.name, func(t *testing.T) {
			body := client.NewPolicyVersion{Content: tt.content, SchemaVersion: tt.schemaVersion}
			tt.expect(t, addPolicyVersion(t, a.Admin, zone, p, body))
			tt.expect(t, addPolicyVersion(t, a.Admin, zone, "unknown", body)) // the content is checked first
		})
	}
	if got := policyETag(t, a, zone, p); got != etag {
		t.Errorf("the ETag was %s and is %s", etag, got)
	}
}

func TestAddPolicyVersionChangesETag(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p := newPolicy(t, a, zone, "p")
	before, updated := policyETag(t, a, zone, p.ID), storetest.Value[string](a.DB, "SELECT updated_at::text FROM policies WHERE zone_id = $1 AND id = $2", zone, p.ID)
	newPolicyVersion(t, a, zone, p.ID, documentOf("p"))
	after := policyETag(t, a, zone, p.ID)
	if now := storetest.Value[string](a.DB, "SELECT updated_at::text FROM policies WHERE zone_id = $1 AND id = $2", zone, p.ID); after == before || now == updated {
		t.Errorf("the ETag was %s and is %s, and updated_at was %s and is %s", before, after, updated, now)
	}
}

// Versions that are added concurrently have numbers without gaps, and the times are
// in the order of the numbers.
func TestAddPolicyVersionConcurrently(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p := newPolicy(t, a, zone, "p").ID
	const many = 24
	var mu sync.Mutex
	numbers := []int32{1}
	var all []func()
	for range many {
		all = append(all, func() {
			resp, err := a.Admin.AddPolicyVersionWithResponse(t.Context(), zone, p, client.NewPolicyVersion{Content: documentOf("x")})
			if err != nil || resp.JSON201 == nil {
				t.Errorf("got %v, %+v", err, resp)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			numbers = append(numbers, resp.JSON201.Version)
		})
	}
	concurrently(all...)
	slices.Sort(numbers)
	for i, n := range numbers {
		if n != int32(i+1) {
			t.Fatalf("the numbers are %v", numbers)
		}
	}
	stored := storetest.Column[int32](a.DB, "SELECT version FROM policy_versions WHERE zone_id = $1 AND policy_id = $2 ORDER BY created_at", zone, p)
	if !slices.Equal(stored, numbers) || len(stored) != many+1 {
		t.Errorf("in the order of their times, the versions are %v", stored)
	}
	if latest := storetest.Value[int32](a.DB, "SELECT latest_version FROM policies WHERE zone_id = $1 AND id = $2", zone, p); latest != many+1 {
		t.Errorf("latest_version is %d, want %d", latest, many+1)
	}
}

func TestCreatePolicyConcurrently(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, name := range []string{"one", "two", "three"} {
		const many = 8
		var mu sync.Mutex
		statuses := map[int]int{}
		var all []func()
		for range many {
			all = append(all, func() {
				resp, err := a.Admin.CreatePolicyWithResponse(t.Context(), zone, client.NewPolicy{Name: name, Content: documentOf("x")})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				statuses[resp.StatusCode()]++
			})
		}
		concurrently(all...)
		if statuses[http.StatusCreated] != 1 || statuses[http.StatusConflict] != many-1 {
			t.Errorf("%s: the responses by status are %v", name, statuses)
		}
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM policy_versions"); n != 3 {
		t.Errorf("%d versions were stored, want 3", n)
	}
}
