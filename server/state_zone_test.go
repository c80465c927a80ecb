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
	"caracal.run/management/store/storetest"
)

func TestApplyStateZone(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	settings := func(fields string) string { return `{"objects":[{"kind":"zone","spec":{` + fields + `}}]}` }
	for _, fields := range []string{
		`"name":" Renamed "`, `"slug":"renamed-zone"`, `"dcr_enabled":true,"open_registration":true`, `"operator_coauthor_badge":false`, `"dcr_enabled":false`,
	} {
		if r := z.plan(t, as, settings(fields), ""); !r.Drift || r.Outcomes[0].Action != "update" || r.Outcomes[0].Identity != "zone" || *r.Outcomes[0].ID != z.zone {
			t.Errorf("%s: got %+v", fields, r)
		}
		z.apply(t, as, settings(fields), "")
		z.expectInSync(t, settings(fields))
	}
	z.expectInSync(t, settings(""))
	if got := z.issuesOf(t, as, settings(`"dcr_shutdown":"keep_live"`)); !slices.Equal(got, []string{"objects.0.spec.dcr_shutdown: is allowed only with dcr_enabled: false"}) {
		t.Errorf("got %q", got)
	}
	if got := z.issuesOf(t, as, strings.Replace(settings(`"name":"x"`), `]}`, `,{"kind":"zone","spec":{}}]}`, 1)); !slices.Equal(got, []string{"objects.1.spec: must not be that of objects[0], too"}) {
		t.Errorf("got %q", got)
	}
	if got := z.issuesOf(t, z.ClientFor("", "write"), settings(`"name":"caracal.sys/x","slug":"caracal-sys-x"`)); len(got) != 2 {
		t.Errorf("got %q", got)
	}
	taken := z.Zone().Slug
	resp, err := as.ApplyStateWithResponse(t.Context(), z.zone, nil, document(t, settings(`"slug":"`+taken+`"`)))
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.StateNotApplied)
	if problem := problemOf(t, resp); problem.Problem == nil || *problem.Problem != "zone_slug_conflict" {
		t.Errorf("got %s", resp.Body)
	}

	z.apply(t, as, settings(`"dcr_enabled":true`), "")
	registered, err := z.Admin.RegisterApplicationWithResponse(t.Context(), z.zone, client.ApplicationRegistration{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, registered, http.StatusCreated, "")
	if got := z.issuesOf(t, as, settings(`"dcr_enabled":false`)); !slices.Equal(got, []string{"objects.0.spec.dcr_shutdown: is required to disable dcr_enabled, because registered applications are active: 1"}) {
		t.Errorf("got %q", got)
	}
	z.apply(t, as, settings(`"dcr_enabled":false`), code.InvalidState)
	z.expectInSync(t, settings(`"dcr_enabled":true`))
	warnings := func(fields string) []string { return z.plan(t, as, settings(fields), "").Outcomes[0].Warnings }
	if got := warnings(`"dcr_enabled":false,"dcr_shutdown":"keep_live"`); !slices.Equal(got, []string{"registered applications that remain active: 1"}) {
		t.Errorf("got %q", got)
	}
	revoking := z.plan(t, as, settings(`"dcr_enabled":false,"dcr_shutdown":"revoke_live"`), "")
	if got := revoking.Outcomes[0].Warnings; !slices.Equal(got, []string{"registered applications that are archived, with their sessions and agents: 1"}) {
		t.Errorf("got %q", got)
	}
	z.DB.DCRApplications(z.zone, 1)
	z.applyWith(t, as, &rawclient.ApplyStateParams{PlanID: &revoking.PlanID}, settings(`"dcr_enabled":false,"dcr_shutdown":"revoke_live"`), code.StateChanged)
	z.apply(t, as, settings(`"dcr_enabled":false,"dcr_shutdown":"revoke_live"`), "")
	z.apply(t, as, settings(`"dcr_enabled":true`), "")
	if got := warnings(`"dcr_enabled":false,"dcr_shutdown":"revoke_live"`); got != nil {
		t.Errorf("without registered applications: got %q", got)
	}
	z.apply(t, as, settings(`"dcr_enabled":false`), "")
	z.expectInSync(t, settings(`"dcr_enabled":false,"dcr_shutdown":"revoke_live"`))
	if storetest.Value[bool](z.DB, "SELECT archived_at IS NULL FROM applications WHERE id = $1", registered.JSON201.ID) {
		t.Error("the registered application was kept")
	}
	// While registration is disabled, what becomes of them changes no plan.
	z.DB.DCRApplications(z.zone, 1)
	disabled := z.plan(t, as, settings(`"dcr_enabled":false`), "")
	z.DB.DCRApplications(z.zone, 1)
	z.applyWith(t, as, &rawclient.ApplyStateParams{PlanID: &disabled.PlanID}, settings(`"dcr_enabled":false`), "")
}

// grantDocument adds a grant to bootstrapDocument.
func grantDocument(scopes string) string {
	return strings.Replace(bootstrapDocument, `{"objects":[`, `{"objects":[{"kind":"grant","spec":{"application":"Billing","user_id":"user-7","resource":"https://invoices.example.com","scopes":`+scopes+`}},`, 1)
}

func TestApplyStateGrants(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	const identity = "Billing/user-7/https://invoices.example.com"
	reading := grantDocument(`["invoices:read"]`)
	applied := z.apply(t, as, reading, "")
	grant, application := *outcome(t, applied, identity).ID, *outcome(t, applied, "Billing").ID
	resp := getGrant(t, as, z.zone, grant)
	servertest.Expect(t, resp, http.StatusOK, "")
	if g := *resp.JSON200; g.ApplicationID != application || g.UserID != "user-7" || !slices.Equal(g.Scopes, []string{"invoices:read"}) {
		t.Errorf("got %+v", g)
	}
	z.expectInSync(t, reading)
	z.expectInSync(t, grantDocument(`["invoices:read","invoices:read"]`))

	session := z.DB.ApplicationSession(z.zone, application)
	z.DB.Exec("UPDATE sessions SET session_type = 'user', subject_id = 'user-7', application_id = $2 WHERE id = $1", session, application)
	status := func() string {
		return storetest.Value[string](z.DB, "SELECT status FROM sessions WHERE id = $1", session)
	}
	both := grantDocument(`["invoices:write","invoices:read"]`)
	expectVerbs(t, z.plan(t, as, both, ""), "update "+identity+" scopes", "unchanged https://invoices.example.com", "unchanged Gateway", "unchanged Billing", "unchanged provider://ledger")
	more := *outcome(t, z.apply(t, as, both, ""), identity).ID
	if more == grant || getGrant(t, as, z.zone, grant).JSON200.Status != "revoked" || status() != "active" {
		t.Errorf("got %s, and the session is %s", more, status())
	}
	z.expectInSync(t, both)
	z.DB.AgentSession(z.zone, application, session)
	z.apply(t, as, reading, "")
	if status() != "revoked" {
		t.Error("a session that rests on more scopes than the grant has is active")
	}
	z.expectInSync(t, reading)

	duplicate := z.DB.Grant(z.zone, application, *outcome(t, applied, "https://invoices.example.com").ID)
	z.DB.Exec("INSERT INTO grants (zone_id, id, application_id, user_id, resource_id, scopes) SELECT zone_id, 'x' || id, application_id, 'user-7', resource_id, '{invoices:write}' FROM grants WHERE id = $1", duplicate)
	if r := z.plan(t, as, reading, ""); !slices.Equal(outcome(t, r, identity).Drift, []string{"scopes"}) {
		t.Errorf("got %q", verbs(r))
	}
	z.apply(t, as, reading, "")
	z.expectInSync(t, reading)

	if got := z.issuesOf(t, as, grantDocument(`["invoices:admin"]`)); !slices.Equal(got, []string{"objects.0.spec.scopes: must contain only scopes of the resource, which has no scope invoices:admin"}) {
		t.Errorf("got %q", got)
	}
	if got := z.issuesOf(t, as, strings.Replace(reading, `"application":"Billing"`, `"application":"Unknown"`, 1)); !slices.Equal(got, []string{"objects.0.spec.application: must be that of the zone or of the document: there is no such application"}) {
		t.Errorf("got %q", got)
	}
}
