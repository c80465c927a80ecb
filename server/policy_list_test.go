package server_test

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestListPolicies(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, empty, other := a.Zone().ID, a.Zone().ID, a.Zone().ID
	first, archived, last := newPolicy(t, a, zone, "first").ID, newPolicy(t, a, zone, "archived").ID, newPolicy(t, a, zone, "last").ID
	a.DB.Exec(archivePolicy, zone, archived)
	newPolicyVersion(t, a, zone, first, documentOf("x")) // neither moves a policy nor lists it twice
	newPolicy(t, a, other, "other")
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		want []string // IDs; none is [] and not null
	}{
		{"global read token", a.ClientFor("", "read"), zone, []string{last, first}},
		{"zone read token", a.ClientFor(zone, "read"), zone, []string{last, first}},
		{"zone without policies", a.Admin, empty, nil},
		{"unknown zone", a.Admin, "unknown", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListPoliciesWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			var got []string
			for _, p := range *resp.JSON200 {
				got = append(got, p.ID)
			}
			if !slices.Equal(got, tt.want) || tt.want == nil && strings.TrimSpace(string(resp.Body)) != "[]" {
				t.Errorf("got %s, want %v", resp.Body, tt.want)
			}
		})
	}
	token := a.Token(other, "read").Token
	servertest.Expect(t, a.Do("GET", "/v1/zones/"+zone+"/policies", "", bearer(token)...), 0, code.AdminTokenZoneMismatch)
}

func TestListPoliciesPagesWithEqualTimestamps(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	const many = 47
	for _, in := range []string{zone, other} {
		a.DB.Exec(`INSERT INTO policies (zone_id, id, name, owner_type, latest_version, created_by, created_at)
			SELECT $1, 'p-' || n, 'Policy ' || n, 'customer', 1, 'x', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $2) AS n`, in, many)
	}
	seen := map[string]int{}
	pages := eachPage(t, a, "/v1/zones/"+zone+"/policies?limit=10", func(p client.Policy) {
		if p.ZoneID != zone {
			t.Errorf("got %+v of another zone", p)
		}
		seen[p.ID]++
	})
	for n := range many {
		if id := fmt.Sprintf("p-%d", n+1); seen[id] != 1 {
			t.Errorf("%s was listed %d times", id, seen[id])
		}
	}
	if pages != 5 || len(seen) != many {
		t.Errorf("got %d policies on %d pages, want %d on 5", len(seen), pages, many)
	}
	first := a.Do("GET", "/v1/zones/"+zone+"/policies?limit=10", "", bearer(servertest.Bootstrap)...)
	for _, path := range []string{strings.Replace(next(first), zone, other, 1), strings.Replace(next(first), "/policies", "/resources", 1)} {
		servertest.Expect(t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
	}
}

func TestListPolicyVersions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	p, archived, ofOtherZone := newPolicy(t, a, zone, "p"), newPolicy(t, a, zone, "archived"), newPolicy(t, a, other, "other")
	second := newPolicyVersion(t, a, zone, p.ID, documentOf("x"))
	servertest.Expect(t, deletePolicy(t, a.Admin, zone, archived.ID), http.StatusNoContent, "")
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     []string
		code     code.Code
	}{
		{"global read token", a.ClientFor("", "read"), zone, p.ID, []string{second.ID, p.VersionID}, ""},
		{"zone read token", a.ClientFor(zone, "read"), zone, p.ID, []string{second.ID, p.VersionID}, ""},
		{"archived policy", a.Admin, zone, archived.ID, []string{archived.VersionID}, ""},
		{"unknown policy", a.Admin, zone, "unknown", nil, code.PolicyNotFound},
		{"policy of another zone", a.Admin, zone, ofOtherZone.ID, nil, code.PolicyNotFound},
		{"unknown zone", a.Admin, "unknown", p.ID, nil, code.PolicyNotFound},
		{"token of another zone", a.ClientFor(other, "read"), zone, p.ID, nil, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListPolicyVersionsWithResponse(t.Context(), tt.zone, tt.id, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.code)
			if tt.code != "" {
				return
			}
			var got []string
			for _, v := range *resp.JSON200 {
				got = append(got, v.ID)
			}
			if !slices.Equal(got, tt.want) || strings.Contains(string(resp.Body), "app_ids") {
				t.Errorf("got %s, want %v without content", resp.Body, tt.want)
			}
		})
	}
}

// Pages have versions in the order of their numbers, whatever their times, and do not
// move while versions are added.
func TestListPolicyVersionsPages(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p, sibling := newPolicy(t, a, zone, "p"), newPolicy(t, a, zone, "sibling")
	const many = 23
	for _, policy := range []string{p.ID, sibling.ID} {
		a.DB.Exec(`INSERT INTO policy_versions (zone_id, id, policy_id, version, content, content_sha256, schema_version, created_by, created_at)
			SELECT $1, $2 || '-' || n, $2, n, 'x', 'x', 'x', 'x', timestamptz '2026-01-01Z' + (n * 7 % 5) * interval '1 second' FROM generate_series(2, $3) AS n`, zone, policy, many)
		a.DB.Exec("UPDATE policies SET latest_version = $3 WHERE zone_id = $1 AND id = $2", zone, policy, many)
	}
	var got []int32
	path := "/v1/zones/" + zone + "/policies/" + p.ID + "/versions"
	pages := eachPage(t, a, path+"?limit=5", func(v client.PolicyVersionSummary) {
		if v.PolicyID != p.ID {
			t.Errorf("got %+v of another policy", v)
		}
		if len(got) == 0 {
			newPolicyVersion(t, a, zone, p.ID, documentOf("added"))
		}
		got = append(got, v.Version)
	})
	var want []int32
	for n := range many {
		want = append(want, int32(many-n))
	}
	if !slices.Equal(got, want) || pages != 5 {
		t.Errorf("got the versions %v on %d pages, want %v on 5", got, pages, want)
	}
	first := a.Do("GET", path+"?limit=5", "", bearer(servertest.Bootstrap)...)
	for _, other := range []string{strings.Replace(next(first), p.ID, sibling.ID, 1), strings.Replace(next(first), "/"+p.ID+"/versions", "", 1)} {
		servertest.Expect(t, a.Do("GET", other, "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
	}
}

// A cursor has no signature: a client can make one that no page contains.
func TestListPolicyVersionsForgedCursor(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p := newPolicy(t, a, zone, "p")
	scope := fnv.New64a()
	_, _ = fmt.Fprintf(scope, "versions of policy %s of %s", p.ID, zone)
	for after, want := range map[string]code.Code{"2": "", "x": code.InvalidCursor, "99999999999": code.InvalidCursor, "1.5": code.InvalidCursor} {
		cursor := binary.BigEndian.AppendUint64([]byte{1}, scope.Sum64())
		cursor = append(binary.BigEndian.AppendUint64(cursor, 0), after...)
		raw := a.Do("GET", "/v1/zones/"+zone+"/policies/"+p.ID+"/versions?cursor="+base64.RawURLEncoding.EncodeToString(cursor), "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, want)
	}
}
