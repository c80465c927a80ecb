package server_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestDeletePolicy(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, archivedZone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	archived, ofOtherZone, ofSystemZone := newPolicy(t, a, zone, "archived").ID, newPolicy(t, a, other, "other").ID, newPolicy(t, a, system, "system").ID
	a.DB.Exec(archivePolicy, zone, archived)
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string // id "": a new policy
		want     code.Code
	}{
		{"by a global token", a.ClientFor("", "write"), zone, "", ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "", ""},
		{"archived", a.Admin, zone, archived, code.PolicyNotFound},
		{"unknown", a.Admin, zone, "unknown", code.PolicyNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, code.PolicyNotFound},
		{"unknown zone", a.Admin, "unknown", "unknown", code.ZoneNotFound},
		{"archived zone", a.Admin, archivedZone, "unknown", code.ZoneNotFound},
		{"system zone", a.Admin, system, "", ""},
		{"system zone, not by the bootstrap token", a.ClientFor("", "write"), system, ofSystemZone, code.SystemZoneReadOnly},
		{"read token", a.ClientFor(zone, "read"), zone, "unknown", code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other, "write"), zone, "unknown", code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.id == "" {
				tt.id = newPolicy(t, a, tt.zone, tt.name).ID
			}
			servertest.Expect(t, deletePolicy(t, tt.as, tt.zone, tt.id), http.StatusNoContent, tt.want)
			if tt.want != "" {
				return
			}
			servertest.Expect(t, getPolicy(t, a.Admin, tt.zone, tt.id), 0, code.PolicyNotFound)
			servertest.Expect(t, deletePolicy(t, tt.as, tt.zone, tt.id), 0, code.PolicyNotFound)
			servertest.Expect(t, addPolicyVersion(t, a.Admin, tt.zone, tt.id, client.NewPolicyVersion{Content: documentOf("x")}), 0, code.PolicyNotFound)
			newPolicy(t, a, tt.zone, tt.name) // the name is available again
		})
	}
}

// A policy is in use while the zone's active policy set enforces or shadows one of its
// versions, the newest or an older one.
func TestDeletePolicyInUse(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name    string
		prepare func(zone, version string)
		want    code.Code
	}{
		{"active version", func(zone, version string) { a.DB.ActivePolicySet(zone, version) }, code.PolicyInUse},
		{"shadow version", func(zone, version string) {
			_, unrelated := a.DB.Policy(zone)
			set := a.DB.ActivePolicySet(zone, unrelated)
			a.DB.Exec("UPDATE policy_sets SET shadow_version_id = $3 WHERE zone_id = $1 AND id = $2", zone, set, a.DB.PolicySetVersion(zone, set, version))
		}, code.PolicyInUse},
		{"neither active nor shadow version", func(zone, version string) {
			_, unrelated := a.DB.Policy(zone)
			set := a.DB.ActivePolicySet(zone, unrelated)
			a.DB.PolicySetVersion(zone, set, version)
		}, ""},
		{"no longer active version", func(zone, version string) {
			set := a.DB.ActivePolicySet(zone, version)
			a.DB.Exec("UPDATE policy_sets SET active_version_id = NULL WHERE zone_id = $1 AND id = $2", zone, set)
		}, ""},
		{"version of an inactive policy set", func(zone, version string) {
			_, unrelated := a.DB.Policy(zone)
			a.DB.ActivePolicySet(zone, unrelated)
			a.DB.PolicySetVersion(zone, "inactive", version)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			zone := a.Zone().ID
			p, sibling := newPolicy(t, a, zone, "p"), newPolicy(t, a, zone, "sibling")
			newPolicyVersion(t, a, zone, p.ID, documentOf("second"))
			tt.prepare(zone, p.VersionID)
			servertest.Expect(t, deletePolicy(t, a.Admin, zone, p.ID), http.StatusNoContent, tt.want)
			if tt.want != "" {
				servertest.Expect(t, getPolicy(t, a.Admin, zone, p.ID), http.StatusOK, "")
			}
			servertest.Expect(t, deletePolicy(t, a.Admin, zone, sibling.ID), http.StatusNoContent, "")
		})
	}
}

// An activation has the zone lock, so a policy that it is about to activate cannot be
// archived meanwhile.
func TestDeletePolicyWaitsForActivation(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p := newPolicy(t, a, zone, "p")
	version := a.DB.PolicySetVersion(zone, "set", p.VersionID)
	conn, err := pgx.Connect(t.Context(), a.DB.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	activate := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	activate("BEGIN")
	activate("SELECT set_config('caracal.zone_id', '*', true)")
	activate("SELECT pg_advisory_xact_lock(hashtextextended('zone:' || $1::text, 0))", zone)
	var request sync.WaitGroup
	var resp *rawclient.DeletePolicyResponse
	request.Go(func() {
		var err error
		if resp, err = a.Admin.DeletePolicyWithResponse(t.Context(), zone, p.ID, nil); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the request waits for the zone lock", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") > 0
	})
	activate("UPDATE policy_sets SET active_version_id = $2 WHERE zone_id = $1 AND id = 'set'", zone, version)
	activate("COMMIT")
	request.Wait()
	servertest.Expect(t, resp, 0, code.PolicyInUse)
}

func TestDeletePolicyIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p := newPolicy(t, a, zone, "p")
	remove := func(ifMatch string) *rawclient.DeletePolicyResponse {
		t.Helper()
		resp, err := a.Admin.DeletePolicyWithResponse(t.Context(), zone, p.ID, &rawclient.DeletePolicyParams{IfMatch: &ifMatch})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	stale := policyETag(t, a, zone, p.ID)
	newPolicyVersion(t, a, zone, p.ID, documentOf("second"))
	servertest.Expect(t, remove(stale), 0, code.VersionConflict)
	current := policyETag(t, a, zone, p.ID)
	servertest.Expect(t, remove(stale+", "+current), http.StatusNoContent, "")
}

func TestPolicyOperationsAreAuditedWithoutEvent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	as := a.ClientFor(zone, "write")
	content := documentOf("not in the audit log")
	created := createPolicy(t, as, zone, client.NewPolicy{Name: "Grants", Description: new("Why"), Content: content})
	servertest.Expect(t, created, http.StatusCreated, "")
	p := created.JSON201
	servertest.Expect(t, createPolicy(t, as, zone, client.NewPolicy{Name: "Grants", Content: content}), 0, code.PolicyNameConflict)
	added := addPolicyVersion(t, as, zone, p.ID, client.NewPolicyVersion{Content: content, SchemaVersion: new("2026-03-16")})
	servertest.Expect(t, added, http.StatusCreated, "")
	servertest.Expect(t, deletePolicy(t, as, zone, p.ID), http.StatusNoContent, "")
	path := "/v1/zones/" + zone + "/policies"
	got := storetest.Column[string](a.DB, `SELECT concat_ws(' ', operation, action, actor_scope, status_code, entity_type, entity_id, payload) FROM audit_entries
		WHERE zone_id = $1 AND status_code < 400 AND operation LIKE '%Policy%' ORDER BY id`, zone)
	scope, hash := `{"rls_mode":"zone_scoped","rls_zone_guc":"`+zone+`",`, p.Version.ContentSHA256
	version := func(number, schemaVersion string) string {
		return scope + `"changed_fields":["content_sha256","policy_id","schema_version","version"],"changes":{"content_sha256":{"from":null,"to":"` + hash + `"},"policy_id":{"from":null,"to":"` + p.ID +
			`"},"schema_version":{"from":null,"to":"` + schemaVersion + `"},"version":{"from":null,"to":` + number + `}},"change":"created"}`
	}
	want := []string{
		"createPolicy POST " + path + " zone 201 policies " + p.ID + " " + scope +
			`"changed_fields":["description","name","owner_type"],"changes":{"description":{"from":null,"to":"Why"},"name":{"from":null,"to":"Grants"},"owner_type":{"from":null,"to":"customer"}},"change":"created"}`,
		"createPolicy POST " + path + " zone 201 policy-versions " + p.VersionID + " " + version("1", "2026-05-20"),
		"addPolicyVersion POST " + path + "/" + p.ID + "/versions zone 201 policy-versions " + added.JSON201.ID + " " + version("2", "2026-03-16"),
		"deletePolicy DELETE " + path + "/" + p.ID + " zone 204 policies " + p.ID + " " + scope + `"changed_fields":[],"change":"deleted"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); n > 0 {
		t.Errorf("%d events were published", n)
	}
}
