package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestDeactivatePolicySetAndRollbackPolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	archivedZone, reservedZone := a.DB.ArchivedZone(), policyZone{a, systemZone(a).ID}
	active, _ := z.active(t)
	inactive, archived := z.set(t).ID, z.set(t).ID
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived, ""), http.StatusNoContent, "")
	foreign, _ := other.active(t)
	inReservedZone, _ := reservedZone.active(t)
	reservedZone.active(t)
	reservedZone.activate(t, inReservedZone, reservedZone.version(t, inReservedZone).ID, "")
	inArchivedZone := a.DB.ActivePolicySet(archivedZone, insertPolicyVersion(a.DB, archivedZone))
	before, _ := a.DB.PolicySet(archivedZone, insertPolicyVersion(a.DB, archivedZone))
	a.DB.Exec(`INSERT INTO policy_activations (zone_id, number, action, policy_set_id, version_id, previous_policy_set_id, previous_version_id, outbox_id, activated_by)
		SELECT $1, 2, 'activate', a.id, a.active_version_id, v.policy_set_id, v.id, 'x', 'x' FROM policy_sets AS a, policy_set_versions AS v WHERE a.id = $2 AND v.policy_set_id = $3`, archivedZone, inArchivedZone, before)
	for _, tt := range []struct {
		name                 string
		as                   *rawclient.ClientWithResponses
		zone, set            string
		deactivate, rollback code.Code
	}{
		{"inactive", a.Admin, z.zone, inactive, code.PolicySetNotActive, code.PolicySetNotActive},
		{"unknown", a.Admin, z.zone, "unknown", code.PolicySetNotFound, code.PolicySetNotFound},
		{"archived", a.Admin, z.zone, archived, code.PolicySetNotFound, code.PolicySetNotFound},
		{"of another zone", a.Admin, z.zone, foreign, code.PolicySetNotFound, code.PolicySetNotFound},
		{"unknown zone", a.Admin, "unknown", active, code.ZoneNotFound, code.PolicySetNotFound},
		{"archived zone", a.Admin, archivedZone, inArchivedZone, code.ZoneNotFound, code.ZoneNotFound},
		{"reserved zone", a.ClientFor("", "write"), reservedZone.zone, inReservedZone, code.SystemZoneReadOnly, code.SystemZoneReadOnly},
		{"read token", a.ClientFor(z.zone, "read"), z.zone, active, code.AdminTokenReadOnly, code.AdminTokenReadOnly},
		{"nothing was active before", a.Admin, z.zone, active, "", code.NoPreviousVersion},
	} {
		t.Run(tt.name, func(t *testing.T) { // not parallel: the last one deactivates
			servertest.Expect(t, rollbackPolicySet(t, tt.as, tt.zone, tt.set), http.StatusAccepted, tt.rollback)
			servertest.Expect(t, deactivatePolicySet(t, tt.as, tt.zone, tt.set), http.StatusAccepted, tt.deactivate)
		})
	}
	if z.bound() != "" || other.bound() == "" {
		t.Errorf("%q is active, and %q in another zone", z.bound(), other.bound())
	}
}

// A rollback restores what was active before, and a second one returns.
func TestRollbackPolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	first, second := z.set(t).ID, z.set(t).ID
	one, shadow, two := z.version(t, first).ID, z.version(t, first).ID, z.version(t, second).ID
	z.activate(t, first, one, shadow)
	z.activate(t, second, two, "")
	servertest.Expect(t, rollbackPolicySet(t, a.Admin, z.zone, first), 0, code.PolicySetNotActive)
	for range 2 {
		resp := rollbackPolicySet(t, a.ClientFor(z.zone, "write"), z.zone, second)
		servertest.Expect(t, resp, http.StatusAccepted, "")
		got := *resp.JSON202
		if got.PolicySetID != first || got.VersionID != one || got.ShadowVersionID == nil || *got.ShadowVersionID != shadow || got.Replaced == nil ||
			*got.Replaced != (client.ActivePolicySetVersion{PolicySetID: second, VersionID: two}) || !strings.Contains(got.StatusURL, "/"+first+"/") {
			t.Errorf("got %s", resp.Body)
		}
		if want := first + " " + one + " " + shadow; z.bound() != want {
			t.Errorf("%s is active, want %s", z.bound(), want)
		}
		resp = rollbackPolicySet(t, a.Admin, z.zone, first)
		servertest.Expect(t, resp, http.StatusAccepted, "")
		if want := second + " " + two; z.bound() != want || resp.JSON202.ShadowVersionID != nil {
			t.Errorf("%s is active, want %s", z.bound(), want)
		}
	}
}

func TestRollbackPolicySetToInvalidVersion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, z policyZone, previous, policyVersion, ofShadow string)
		want   code.Code
	}{
		{"policy set archived", func(t *testing.T, z policyZone, previous, _, _ string) {
			servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, previous, ""), http.StatusNoContent, "")
		}, code.NoPreviousVersion},
		{"policy archived", func(_ *testing.T, z policyZone, _, v, _ string) { a.DB.Exec(archivePolicyOf, z.zone, v) }, code.InvalidPolicyContract},
		{"policy of the shadow version archived", func(_ *testing.T, z policyZone, _, _, v string) { a.DB.Exec(archivePolicyOf, z.zone, v) }, code.InvalidShadowPolicyContract},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newPolicyZone(a)
			previous, policyVersion, ofShadow := z.set(t).ID, insertPolicyVersion(a.DB, z.zone), insertPolicyVersion(a.DB, z.zone)
			z.activate(t, previous, z.version(t, previous, policyVersion).ID, z.version(t, previous, ofShadow).ID)
			set, version := z.active(t)
			tt.change(t, z, previous, policyVersion, ofShadow)
			servertest.Expect(t, rollbackPolicySet(t, a.Admin, z.zone, set), 0, tt.want)
			if want := set + " " + version; z.bound() != want {
				t.Errorf("%s is active, want %s", z.bound(), want)
			}
		})
	}
}

// A rollback that waited for another change starts again, and restores what is
// before the last change by then.
func TestRollbackPolicySetStartsAgain(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	change := map[string]struct {
		sql  func(z policyZone, set, other, policyVersion string) (string, []any)
		want code.Code
	}{
		"another version was activated": {func(z policyZone, set, other, _ string) (string, []any) {
			return `INSERT INTO policy_activations (zone_id, number, action, policy_set_id, version_id, previous_policy_set_id, previous_version_id, outbox_id, activated_by)
				SELECT $1, 3, 'activate', s.id, s.active_version_id, v.policy_set_id, v.id, 'x', 'x' FROM policy_sets AS s, policy_set_versions AS v WHERE s.id = $2 AND v.id = $3`, []any{z.zone, set, other}
		}, ""},
		"policy archived": {func(z policyZone, _, _, policyVersion string) (string, []any) {
			return archivePolicyOf, []any{z.zone, policyVersion}
		}, code.ReferencedPolicyVersionMissing},
	}
	for name, tt := range change {
		t.Run(name, func(t *testing.T) {
			z := newPolicyZone(a)
			previous, policyVersion := z.set(t).ID, insertPolicyVersion(a.DB, z.zone)
			z.activate(t, previous, z.version(t, previous, policyVersion).ID, "")
			set, _ := z.active(t)
			other := z.version(t, set).ID
			waiting, release := z.holdZone(t)
			done := make(chan *rawclient.RollbackPolicySetResponse, 1)
			go func() {
				resp, err := a.Admin.RollbackPolicySetWithResponse(t.Context(), z.zone, set)
				if err != nil {
					t.Error(err)
				}
				done <- resp
			}()
			waiting()
			sql, args := tt.sql(z, set, other, policyVersion)
			a.DB.Exec(sql, args...)
			release()
			resp := <-done
			servertest.Expect(t, resp, http.StatusAccepted, tt.want)
			if tt.want == "" && (z.bound() != set+" "+other || resp.JSON202.VersionID != other) {
				t.Errorf("%s is active, want %s", z.bound(), set+" "+other)
			}
		})
	}
}

func TestListPolicyActivations(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, empty := newPolicyZone(a), newPolicyZone(a), a.Zone().ID
	set, version := z.active(t)
	shadow := z.version(t, set).ID
	outboxID := z.activate(t, set, version, shadow).OutboxID
	servertest.Expect(t, deactivatePolicySet(t, a.ClientFor(z.zone, "write"), z.zone, set), http.StatusAccepted, "")
	other.active(t)
	for _, tt := range []struct {
		name  string
		as    *rawclient.ClientWithResponses
		zone  string
		count int
	}{
		{"global token", a.ClientFor("", "read"), z.zone, 3},
		{"token of the zone", a.ClientFor(z.zone, "read"), z.zone, 3},
		{"empty", a.Admin, empty, 0},
		{"unknown zone", a.Admin, "unknown", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListPolicyActivationsWithResponse(t.Context(), tt.zone, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			list := *resp.JSON200
			if len(list) != tt.count {
				t.Fatalf("got %s", resp.Body)
			}
			if tt.count == 0 {
				return
			}
			if c := list[0]; c.Number != 3 || c.Action != client.PolicyActivationActionDeactivate || c.PolicySetID != nil || c.VersionID != nil || c.ShadowVersionID != nil ||
				*c.PreviousPolicySetID != set || *c.PreviousVersionID != version || *c.PreviousShadowVersionID != shadow || c.ActivatedBy != "test" {
				t.Errorf("got %+v", c)
			}
			if c := list[1]; c.Number != 2 || c.Action != client.PolicyActivationActionActivate || *c.PolicySetID != set || *c.VersionID != version || *c.ShadowVersionID != shadow ||
				*c.PreviousVersionID != version || c.PreviousShadowVersionID != nil || c.ActivatedBy != "bootstrap" || c.OutboxID != outboxID {
				t.Errorf("got %+v", c)
			}
			if c := list[2]; c.Number != 1 || c.PreviousPolicySetID != nil || c.PreviousVersionID != nil || c.CreatedAt.After(list[1].CreatedAt) {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func TestListPolicyActivationsPages(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	const count = 23
	for _, in := range []policyZone{z, other} {
		set, version := a.DB.PolicySet(in.zone, insertPolicyVersion(a.DB, in.zone))
		a.DB.Exec(`INSERT INTO policy_activations (zone_id, number, action, policy_set_id, version_id, outbox_id, activated_by)
			SELECT $1, n, 'activate', $2, $3, 'o-' || n, 'x' FROM generate_series(1, $4) AS n`, in.zone, set, version, count)
	}
	path := "/v1/zones/" + z.zone + "/policy-activations?limit=10"
	var numbers []int64
	pages := eachPage(t, a, path, func(c client.PolicyActivation) { numbers = append(numbers, c.Number) })
	want := []int64{}
	for n := int64(count); n > 0; n-- {
		want = append(want, n)
	}
	if pages != 3 || !slices.Equal(numbers, want) {
		t.Errorf("%v on %d pages", numbers, pages)
	}
	first := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, a.Do("GET", strings.Replace(next(first), z.zone, other.zone, 1), "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
}

// To activate again what is active, as after a lost response, does not change what a
// rollback restores.
func TestRollbackPolicySetAfterRepeatedActivation(t *testing.T) {
	t.Parallel()
	z := newPolicyZone(servertest.New(t))
	set := z.set(t).ID
	first, second := z.version(t, set).ID, z.version(t, set).ID
	z.activate(t, set, first, "")
	z.activate(t, set, second, "")
	z.activate(t, set, second, "")
	for _, want := range []string{first, second, first} {
		resp := rollbackPolicySet(t, z.Admin, z.zone, set)
		servertest.Expect(t, resp, http.StatusAccepted, "")
		if resp.JSON202.VersionID != want {
			t.Errorf("got %s, want %s", resp.JSON202.VersionID, want)
		}
	}
}
