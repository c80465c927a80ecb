package server_test

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestActivatePolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	archivedZone, reservedZone := a.DB.ArchivedZone(), policyZone{a, systemZone(a).ID}
	set, another, archived := z.set(t).ID, z.set(t).ID, z.set(t).ID
	version, shadow, ofAnother, ofArchivedSet := z.version(t, set).ID, z.version(t, set).ID, z.version(t, another).ID, z.version(t, archived).ID
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived, ""), http.StatusNoContent, "")
	foreign := other.set(t).ID
	ofForeign := other.version(t, foreign).ID
	policyVersion := insertPolicyVersion(a.DB, z.zone)
	invalid := z.version(t, set, policyVersion).ID
	a.DB.Exec(archivePolicyOf, z.zone, policyVersion)
	inArchivedZone, ofArchivedZone := a.DB.PolicySet(archivedZone, insertPolicyVersion(a.DB, archivedZone))
	inReservedZone := reservedZone.set(t).ID
	ofReservedZone := reservedZone.version(t, inReservedZone).ID
	otherwise := a.ClientFor("", "write")
	for _, tt := range []struct {
		name                       string
		as                         *rawclient.ClientWithResponses
		zone, set, version, shadow string
		want                       code.Code // "" is 202
	}{
		{"global token", otherwise, z.zone, set, version, "", ""},
		{"token of the zone", a.ClientFor(z.zone, "write"), z.zone, set, version, "", ""},
		{"with a shadow version", a.Admin, z.zone, set, version, shadow, ""},
		{"shadow version is the version", a.Admin, z.zone, set, version, version, ""},
		{"no version", a.Admin, z.zone, set, "", "", code.InvalidBody},
		{"unknown version", a.Admin, z.zone, set, "unknown", "", code.VersionNotFound},
		{"version of another policy set", a.Admin, z.zone, set, ofAnother, "", code.VersionNotFound},
		{"version of another zone", a.Admin, z.zone, set, ofForeign, "", code.VersionNotFound},
		{"unknown policy set", a.Admin, z.zone, "unknown", version, "", code.VersionNotFound},
		{"archived policy set", a.Admin, z.zone, archived, ofArchivedSet, "", code.VersionNotFound},
		{"policy set of another zone", a.Admin, z.zone, foreign, ofForeign, "", code.VersionNotFound},
		{"unknown shadow version", a.Admin, z.zone, set, version, "unknown", code.ShadowVersionNotFound},
		{"shadow version of another policy set", a.Admin, z.zone, set, version, ofAnother, code.ShadowVersionNotFound},
		{"archived policy", a.Admin, z.zone, set, invalid, "", code.InvalidPolicyContract},
		{"archived policy and unknown shadow version", a.Admin, z.zone, set, invalid, "unknown", code.InvalidPolicyContract},
		{"archived policy of the shadow version", a.Admin, z.zone, set, version, invalid, code.InvalidShadowPolicyContract},
		{"unknown zone", a.Admin, "unknown", set, version, "", code.VersionNotFound},
		{"archived zone", a.Admin, archivedZone, inArchivedZone, ofArchivedZone, "", code.ZoneNotFound},
		{"reserved zone", otherwise, reservedZone.zone, inReservedZone, ofReservedZone, "", code.SystemZoneReadOnly},
		{"read token", a.ClientFor(z.zone, "read"), z.zone, set, version, "", code.AdminTokenReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) { // not parallel: only one can be active
			before, changes := z.bound(), len(z.history())
			resp := activatePolicySet(t, tt.as, tt.zone, tt.set, tt.version, tt.shadow)
			servertest.Expect(t, resp, http.StatusAccepted, tt.want)
			if tt.want != "" {
				if detail, _ := contractProblem(t, resp); strings.Contains(string(tt.want), "contract") && detail != "policy version "+policyVersion+" belongs to an archived policy" {
					t.Errorf("got %s", resp.Body)
				}
				if after := z.bound(); after != before || len(z.history()) != changes {
					t.Errorf("%s was active, now %s", before, after)
				}
				return
			}
			got := *resp.JSON202
			if want := strings.TrimSpace(tt.set + " " + tt.version + " " + tt.shadow); z.bound() != want {
				t.Errorf("%s is active, want %s", z.bound(), want)
			}
			statusURL := fmt.Sprintf("/v1/zones/%s/policy-sets/%s/activation-status?version_id=%s&outbox_id=%s", tt.zone, tt.set, tt.version, got.OutboxID)
			if !got.Activated || got.PolicySetID != tt.set || got.VersionID != tt.version || got.StatusURL != statusURL || (got.ShadowVersionID == nil) != (tt.shadow == "") || tt.shadow != "" && *got.ShadowVersionID != tt.shadow {
				t.Errorf("got %s", resp.Body)
			}
			replaced := ""
			if r := got.Replaced; r != nil {
				replaced = r.PolicySetID + " " + r.VersionID
				if r.ShadowVersionID != nil {
					replaced += " " + *r.ShadowVersionID
				}
			}
			if replaced != before {
				t.Errorf("replaced %q, want %q", replaced, before)
			}
			if listed := getPolicySet(t, a.Admin, tt.zone, tt.set).JSON200.ActiveVersionID; listed == nil || *listed != tt.version {
				t.Errorf("the active version of the policy set is %v", listed)
			}
		})
	}
}

// Activating a policy set deactivates the one that was active, and archiving the
// active one leaves none. Every change is an event and an entry in the history.
func TestActivatePolicySetReplacesActiveOne(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	left, right := z.set(t).ID, z.set(t).ID
	one, two, three := z.version(t, left).ID, z.version(t, right).ID, z.version(t, right).ID
	as := a.ClientFor(z.zone, "write")
	accepted := func(resp servertest.Response) { t.Helper(); servertest.Expect(t, resp, http.StatusAccepted, "") }
	var outboxIDs []string
	activate := func(set, version, shadow string) {
		t.Helper()
		resp := activatePolicySet(t, as, z.zone, set, version, shadow)
		accepted(resp)
		outboxIDs = append(outboxIDs, resp.JSON202.OutboxID)
	}
	activate(left, one, "")
	etag := getPolicySet(t, as, z.zone, left).HTTPResponse.Header.Get("ETag")
	activate(right, two, three)
	servertest.Expect(t, deletePolicySet(t, as, z.zone, left, etag), 0, code.VersionConflict)
	activate(right, two, "") // removes the shadow version
	rollback := rollbackPolicySet(t, as, z.zone, right)
	accepted(rollback)
	outboxIDs = append(outboxIDs, rollback.JSON202.OutboxID)
	deactivation := deactivatePolicySet(t, as, z.zone, right)
	accepted(deactivation)
	outboxIDs = append(outboxIDs, deactivation.JSON202.OutboxID)
	servertest.Expect(t, rollbackPolicySet(t, as, z.zone, right), 0, code.PolicySetNotActive)
	activate(left, one, "")
	servertest.Expect(t, deletePolicySet(t, as, z.zone, left, ""), http.StatusNoContent, "")
	servertest.Expect(t, deletePolicySet(t, as, z.zone, right, ""), http.StatusNoContent, "") // is not active

	if z.bound() != "" {
		t.Errorf("%s is active", z.bound())
	}
	want := []string{
		fmt.Sprintf("1 activate %s %s <", left, one),
		fmt.Sprintf("2 activate %s %s %s < %s %s", right, two, three, left, one),
		fmt.Sprintf("3 activate %s %s < %s %s %s", right, two, right, two, three),
		fmt.Sprintf("4 rollback %s %s %s < %s %s", right, two, three, right, two),
		fmt.Sprintf("5 deactivate < %s %s %s", right, two, three),
		fmt.Sprintf("6 activate %s %s <", left, one),
		fmt.Sprintf("7 delete < %s %s", left, one),
	}
	if got := z.history(); !slices.Equal(got, want) {
		t.Errorf("the history is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	events := z.published(t, len(want))
	for i, id := range outboxIDs {
		if events[i]["outbox_id"] != id {
			t.Errorf("event %d is %v, want outbox_id %s", i+1, events[i], id)
		}
	}
	of := func(i int, set, version, shadow string) map[string]string {
		fields := map[string]string{"outbox_id": events[i]["outbox_id"], "zone_id": z.zone, "policy_set_id": set}
		if version != "" {
			fields["policy_set_version_id"] = version
		}
		if shadow != "" {
			fields["shadow_version_id"] = shadow
		}
		return fields
	}
	if want := []map[string]string{of(0, left, one, ""), of(1, right, two, three), of(2, right, two, ""), of(3, right, two, three), of(4, right, "", ""), of(5, left, one, ""), of(6, left, "", "")}; !reflect.DeepEqual(events, want) {
		t.Errorf("the events are\n%v\nwant\n%v", events, want)
	}
	names := strings.NewReplacer(left, "left", right, "right", one, "one", two, "two", three, "three")
	var entries []string
	for _, line := range storetest.Column[string](a.DB, `SELECT concat_ws(' ', operation, entity_id, status_code, payload::jsonb #> '{changed_fields}', payload::jsonb #> '{changes,active_version_id}', payload::jsonb #> '{changes,shadow_version_id}')
		FROM audit_entries WHERE zone_id = $1 AND entity_type = 'policy-sets' AND status_code < 400 AND operation <> 'createPolicySet' ORDER BY id`, z.zone) {
		entries = append(entries, names.Replace(line))
	}
	wantEntries := []string{
		`activatePolicySet left 202 ["active_version_id"] {"to": "one", "from": null}`,
		`activatePolicySet left 202 ["active_version_id"] {"to": null, "from": "one"}`,
		`activatePolicySet right 202 ["active_version_id", "shadow_version_id"] {"to": "two", "from": null} {"to": "three", "from": null}`,
		`activatePolicySet right 202 ["shadow_version_id"] {"to": null, "from": "three"}`,
		`rollbackPolicySet right 202 ["shadow_version_id"] {"to": "three", "from": null}`,
		`deactivatePolicySet right 202 ["active_version_id", "shadow_version_id"] {"to": null, "from": "two"} {"to": null, "from": "three"}`,
		`activatePolicySet left 202 ["active_version_id"] {"to": "one", "from": null}`,
		`deletePolicySet left 204 ["active_version_id"] {"to": null, "from": "one"}`,
		`deletePolicySet right 204 []`,
	}
	if !slices.Equal(entries, wantEntries) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(entries, "\n"), strings.Join(wantEntries, "\n"))
	}
	if by := storetest.Column[string](a.DB, "SELECT DISTINCT activated_by FROM policy_activations WHERE zone_id = $1", z.zone); !slices.Equal(by, []string{"test"}) {
		t.Errorf("activated by %v", by)
	}
}

// An active version can be activated again, which publishes its event again.
func TestActivatePolicySetAgain(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set, version := z.active(t)
	again := z.activate(t, set, version, "")
	events := z.published(t, 2)
	first := events[0]["outbox_id"]
	if again.OutboxID == first || events[1]["outbox_id"] != again.OutboxID || again.Replaced == nil || again.Replaced.VersionID != version {
		t.Errorf("got %+v, events %v", again, events)
	}
}

// holdZone takes the zone lock. A write in the zone waits until release is called.
func (z policyZone) holdZone(t *testing.T) (waiting func(), release func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), z.DB.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	if _, err := conn.Exec(t.Context(), "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('zone:' || '"+z.zone+"', 0))"); err != nil {
		t.Fatal(err)
	}
	waiting = func() {
		t.Helper()
		eventually(t, "a write waits for the zone lock", func() bool {
			return storetest.Value[int](z.DB, `SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'
				AND (classid::bigint << 32 | objid::bigint) = hashtextextended('zone:' || $1, 0)`, z.zone) > 0
		})
	}
	release = func() {
		if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
			t.Error(err)
		}
	}
	return waiting, release
}

// What a request read before it waited for the zone lock is checked again: the
// policies are compiled before.
func TestActivatePolicySetChecksAgainInTransaction(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name   string
		change func(z policyZone, set, policyVersion string)
		want   code.Code
	}{
		{"nothing changed", func(policyZone, string, string) {}, ""},
		{"policy archived", func(z policyZone, _, v string) { a.DB.Exec(archivePolicyOf, z.zone, v) }, code.ReferencedPolicyVersionMissing},
		{"policy set archived", func(z policyZone, set, _ string) {
			a.DB.Exec("UPDATE policy_sets SET archived_at = now() WHERE id = $1", set)
		}, code.VersionNotFound},
		{"zone archived", func(z policyZone, _, _ string) {
			a.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", z.zone)
		}, code.ZoneNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newPolicyZone(a)
			set, policyVersion := z.set(t).ID, insertPolicyVersion(a.DB, z.zone)
			version := z.version(t, set, policyVersion).ID
			waiting, release := z.holdZone(t)
			done := make(chan *rawclient.ActivatePolicySetResponse, 1)
			go func() {
				resp, err := a.Admin.ActivatePolicySetWithResponse(t.Context(), z.zone, set, client.NewPolicySetActivation{VersionID: version})
				if err != nil {
					t.Error(err)
				}
				done <- resp
			}()
			waiting()
			tt.change(z, set, policyVersion)
			release()
			servertest.Expect(t, <-done, http.StatusAccepted, tt.want)
			if (z.bound() == "") != (tt.want != "") {
				t.Errorf("%s is active", z.bound())
			}
		})
	}
}

// Archiving a zone deactivates its policy set, with its entries and events.
func TestDeleteZoneDeactivatesPolicySet(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set, version := z.active(t)
	resp, err := a.Admin.DeleteZoneWithResponse(t.Context(), z.zone, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusNoContent, "")
	if z.bound() != "" {
		t.Errorf("%s is active", z.bound())
	}
	if last := z.history()[1]; last != "2 deactivate < "+set+" "+version {
		t.Errorf("the last change is %q", last)
	}
	events := z.published(t, 3)
	if events[1]["policy_set_id"] != set || events[1]["policy_set_version_id"] != "" || events[2]["policy_set_id"] != "" {
		t.Errorf("events %v", events)
	}
}
