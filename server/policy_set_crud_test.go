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
	"caracal.run/management/store/storetest"
)

func TestCreatePolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, reservedZone, archivedZone := newPolicyZone(a), newPolicyZone(a), systemZone(a).ID, a.DB.ArchivedZone()
	taken, archived := z.set(t), z.set(t)
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived.ID, ""), http.StatusNoContent, "")
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		body client.NewPolicySet
		want code.Code // "" is 201
	}{
		{"minimal", a.ClientFor(z.zone, "write"), z.zone, client.NewPolicySet{Name: "Minimal"}, ""},
		{"with a description", a.ClientFor("", "write"), z.zone, client.NewPolicySet{Name: "Complete", Description: new("What for")}, ""},
		{"name of an archived policy set", a.Admin, z.zone, client.NewPolicySet{Name: archived.Name}, ""},
		{"name in use in another zone", a.Admin, other.zone, client.NewPolicySet{Name: taken.Name}, ""},
		{"longest name", a.Admin, z.zone, client.NewPolicySet{Name: strings.Repeat("é", 200)}, ""},
		{"name in use", a.Admin, z.zone, client.NewPolicySet{Name: taken.Name}, code.PolicySetNameConflict},
		{"reserved name", a.ClientFor("", "write"), z.zone, client.NewPolicySet{Name: " Caracal.SYS/set"}, code.ReservedNamespace},
		{"reserved name, bootstrap token", a.Admin, z.zone, client.NewPolicySet{Name: "caracal.sys/set"}, ""},
		{"empty name", a.Admin, z.zone, client.NewPolicySet{}, code.InvalidBody},
		{"too long name", a.Admin, z.zone, client.NewPolicySet{Name: strings.Repeat("x", 201)}, code.InvalidBody},
		{"too long description", a.Admin, z.zone, client.NewPolicySet{Name: "x", Description: new(strings.Repeat("x", 2001))}, code.InvalidBody},
		{"unknown zone", a.Admin, "unknown", client.NewPolicySet{Name: "x"}, code.ZoneNotFound},
		{"archived zone", a.Admin, archivedZone, client.NewPolicySet{Name: "x"}, code.ZoneNotFound},
		{"reserved zone", a.ClientFor("", "write"), reservedZone, client.NewPolicySet{Name: "x"}, code.SystemZoneReadOnly},
		{"read token", a.ClientFor(z.zone, "read"), z.zone, client.NewPolicySet{Name: "x"}, code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := createPolicySet(t, tt.as, tt.zone, tt.body)
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want != "" {
				return
			}
			set := *resp.JSON201
			if set.ZoneID != tt.zone || set.Name != tt.body.Name || !reflect.DeepEqual(set.Description, tt.body.Description) || set.ActiveVersionID != nil || set.CoAuthoredByOperator {
				t.Errorf("got %s", resp.Body)
			}
			got := getPolicySet(t, tt.as, tt.zone, set.ID)
			servertest.Expect(t, got, http.StatusOK, "")
			if string(got.Body) != string(resp.Body) || got.HTTPResponse.Header.Get("ETag") != resp.HTTPResponse.Header.Get("ETag") || got.HTTPResponse.Header.Get("ETag") == "" {
				t.Errorf("got %s, created %s", got.Body, resp.Body)
			}
		})
	}
}

// The attribution headers of the reference can be forged.
func TestCreatePolicySetIgnoresAttributionHeaders(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	raw := a.Do("POST", "/v1/zones/"+z.zone+"/policy-sets", `{"name":"x","description":"d","created_by":"eve","id":"eve"}`,
		append(bearer(a.Token(z.zone, "write").Token), "Content-Type", jsonType, "X-Caracal-Authorized-By", "eve", "X-Caracal-Created-Via", "operator")...)
	servertest.Expect(t, raw, http.StatusCreated, "")
	set := decode[client.PolicySet](t, raw)
	if set.CreatedBy != "test" || set.CoAuthoredByOperator || set.ID == "eve" || set.Description == nil || *set.Description != "d" {
		t.Errorf("got %s", raw.Body)
	}
	raw = a.Do("POST", "/v1/zones/"+z.zone+"/policy-sets", `{"name":"y","description":null}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
	servertest.Expect(t, raw, 0, code.InvalidBody)
}

func TestGetPolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	set, archived, foreign := z.set(t), z.set(t), other.set(t)
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived.ID, ""), http.StatusNoContent, "")
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code // "" is 200
	}{
		{"global token", a.ClientFor("", "read"), z.zone, set.ID, ""},
		{"token of the zone", a.ClientFor(z.zone, "read"), z.zone, set.ID, ""},
		{"archived", a.Admin, z.zone, archived.ID, code.PolicySetNotFound},
		{"unknown", a.Admin, z.zone, "unknown", code.PolicySetNotFound},
		{"of another zone", a.Admin, z.zone, foreign.ID, code.PolicySetNotFound},
		{"unknown zone", a.Admin, "unknown", set.ID, code.PolicySetNotFound},
		{"token of another zone", a.ClientFor(other.zone, "read"), z.zone, set.ID, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := getPolicySet(t, tt.as, tt.zone, tt.id)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("got %s", resp.Body)
			}
		})
	}
}

func TestDeletePolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, reservedZone := newPolicyZone(a), systemZone(a).ID
	archivedZone, foreign, ofReservedZone := a.DB.ArchivedZone(), newPolicyZone(a).set(t).ID, policyZone{a, reservedZone}.set(t).ID
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new policy set
		ifMatch  string
		want     code.Code // "" is 204
	}{
		{"global token", a.ClientFor("", "write"), z.zone, "", "", ""},
		{"token of the zone", a.ClientFor(z.zone, "write"), z.zone, "", `"1"`, ""},
		{"modified since", a.Admin, z.zone, "", `"2"`, code.VersionConflict},
		{"unknown", a.Admin, z.zone, "unknown", "", code.PolicySetNotFound},
		{"of another zone", a.Admin, z.zone, foreign, "", code.PolicySetNotFound},
		{"unknown zone", a.Admin, "unknown", foreign, "", code.ZoneNotFound},
		{"archived zone", a.Admin, archivedZone, foreign, "", code.ZoneNotFound},
		{"reserved zone", a.ClientFor("", "write"), reservedZone, ofReservedZone, "", code.SystemZoneReadOnly},
		{"read token", a.ClientFor(z.zone, "read"), z.zone, "", "", code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			created := tt.id == ""
			if created {
				tt.id = z.set(t).ID
			}
			servertest.Expect(t, deletePolicySet(t, tt.as, tt.zone, tt.id, tt.ifMatch), http.StatusNoContent, tt.want)
			if tt.want == "" {
				servertest.Expect(t, getPolicySet(t, a.Admin, tt.zone, tt.id), 0, code.PolicySetNotFound)
				servertest.Expect(t, deletePolicySet(t, tt.as, tt.zone, tt.id, ""), 0, code.PolicySetNotFound)
			} else if created {
				servertest.Expect(t, getPolicySet(t, a.Admin, tt.zone, tt.id), http.StatusOK, "")
			}
		})
	}
}

func TestListPolicySets(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, empty, other := newPolicyZone(a), a.Zone().ID, newPolicyZone(a)
	first, archived, last := z.set(t), z.set(t), z.set(t)
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived.ID, ""), http.StatusNoContent, "")
	other.set(t)
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		want []client.PolicySet
	}{
		{"global token", a.ClientFor("", "read"), z.zone, []client.PolicySet{last, first}},
		{"token of the zone", a.ClientFor(z.zone, "read"), z.zone, []client.PolicySet{last, first}},
		{"empty", a.Admin, empty, []client.PolicySet{}},
		{"unknown zone", a.Admin, "unknown", []client.PolicySet{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListPolicySetsWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			if !slices.EqualFunc(*resp.JSON200, tt.want, func(got, want client.PolicySet) bool { return got.ID == want.ID && got.Name == want.Name }) || *resp.JSON200 == nil {
				t.Errorf("got %s", resp.Body)
			}
		})
	}
}

func TestListPolicySetsPagesWithEqualTimestamps(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	const count = 23
	for _, in := range []policyZone{z, other} {
		a.DB.Exec(`INSERT INTO policy_sets (zone_id, id, name, created_by, created_at)
			SELECT $1, 's-' || n, 's-' || n, 'x', timestamptz '2026-01-01 00:00:00.000001Z' + (n / 20) * interval '1 microsecond' FROM generate_series(1, $2) AS n`, in.zone, count)
	}
	seen := map[string]int{}
	pages := eachPage(t, a, "/v1/zones/"+z.zone+"/policy-sets?limit=10", func(set client.PolicySet) {
		if set.ZoneID != z.zone {
			t.Errorf("got %+v", set)
		}
		seen[set.ID]++
	})
	for n := range count {
		if id := fmt.Sprintf("s-%d", n+1); seen[id] != 1 {
			t.Errorf("%s was returned %d times", id, seen[id])
		}
	}
	if pages != 3 || len(seen) != count {
		t.Errorf("%d policy sets on %d pages", len(seen), pages)
	}
	first := a.Do("GET", "/v1/zones/"+z.zone+"/policy-sets?limit=10", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, a.Do("GET", strings.Replace(next(first), z.zone, other.zone, 1), "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
}

func TestDeletePolicySetIsAuditedWithoutEvent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	resp := createPolicySet(t, a.Admin, z.zone, client.NewPolicySet{Name: "Payments", Description: new("What for")})
	servertest.Expect(t, resp, http.StatusCreated, "")
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, resp.JSON201.ID, ""), http.StatusNoContent, "")
	got := storetest.Column[string](a.DB, "SELECT operation || ' ' || payload FROM audit_entries WHERE zone_id = $1 AND entity_type = 'policy-sets' AND entity_id = $2 ORDER BY id", z.zone, resp.JSON201.ID)
	want := []string{
		`createPolicySet {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["active_version_id","description","name","shadow_version_id"],` +
			`"changes":{"active_version_id":{"from":null,"to":null},"description":{"from":null,"to":"What for"},"name":{"from":null,"to":"Payments"},"shadow_version_id":{"from":null,"to":null}},"change":"created"}`,
		`deletePolicySet {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":[],"change":"deleted"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if events := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); events != 0 {
		t.Errorf("%d events", events)
	}
}
