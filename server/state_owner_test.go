package server_test

import (
	"net/http"
	"slices"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// Who manages an object is a difference, and an object of another owner is taken only if asked.
func TestApplyStateChangesOwner(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	owners := func() []string {
		return storetest.Column[string](z.DB, "SELECT owner FROM state_owners WHERE zone_id = $1 ORDER BY object_id", z.zone)
	}
	const text = `{"objects":[{"kind":"zone","spec":{}},{"kind":"application","spec":{"name":"Billing"}}]}`
	z.apply(t, as, text, "")
	ours, theirs := owned(text, `"owner":"payments"`), owned(text, `"owner":"others"`)
	plan := z.plan(t, as, ours, "")
	expectVerbs(t, plan, "unchanged zone", "update Billing owner")
	if c := plan.Outcomes[1].Changes; !plan.Drift || len(c) != 1 || c[0].Before != nil || string(c[0].After) != `"payments"` || plan.Outcomes[1].Warnings != nil {
		t.Errorf("got %+v", plan)
	}
	z.apply(t, as, ours, "")
	z.expectInSync(t, ours)
	z.expectInSync(t, text)
	plan = z.plan(t, as, theirs, "")
	if w := plan.Outcomes[1].Warnings; !slices.Equal(w, []string{"the object is managed by payments: requires take_ownership"}) || string(plan.Outcomes[1].Changes[0].Before) != `"payments"` {
		t.Errorf("got %+v", plan)
	}
	resp, err := as.ApplyStateWithResponse(t.Context(), z.zone, nil, document(t, theirs))
	if err != nil {
		t.Fatal(err)
	}
	if got := issues(t, resp); !slices.Equal(got, []string{"objects.1: is managed by payments: requires take_ownership"}) || !slices.Equal(owners(), []string{"payments"}) {
		t.Errorf("got %q, and %q manage objects", got, owners())
	}
	z.applyWith(t, as, &rawclient.ApplyStateParams{TakeOwnership: new(true), PlanID: &plan.PlanID}, theirs, "")
	if !slices.Equal(owners(), []string{"others"}) {
		t.Errorf("%q manage objects", owners())
	}
	z.apply(t, as, ours, code.InvalidState)
}

// The audit log has one entry for each object with another owner, whatever else changes.
func TestApplyStateRecordsOwner(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	entries := func(id string) []string {
		return storetest.Column[string](z.DB, `SELECT concat_ws(' ', entity_type, operation, payload::jsonb ->> 'change', payload::jsonb ->> 'changed_fields', payload::jsonb #>> '{changes,owner}')
			FROM audit_entries WHERE zone_id = $1 AND entity_id = $2 ORDER BY occurred_at, id`, z.zone, id)
	}
	everything := func() string {
		return storetest.Value[string](z.DB, `SELECT string_agg(concat_ws(' ', id, version, updated_at), ';' ORDER BY id) FROM (
			SELECT id, version, updated_at, zone_id FROM applications UNION ALL SELECT id, version, updated_at, zone_id FROM providers UNION ALL SELECT id, version, updated_at, zone_id FROM resources
			UNION ALL SELECT id, version, updated_at, zone_id FROM policies UNION ALL SELECT id, version, updated_at, zone_id FROM policy_sets UNION ALL SELECT id, version, updated_at, zone_id FROM grants) AS o WHERE zone_id = $1`, z.zone)
	}
	published := func() int {
		return storetest.Value[int](z.DB, "SELECT count(*) FROM outbox WHERE zone_id = $1", z.zone)
	}
	all := withPolicies(grantDocument(`["invoices:read"]`))
	applied := z.apply(t, as, all, "")
	before, events := everything(), published()
	z.apply(t, as, owned(all, `"owner":"payments"`), "")
	z.applyWith(t, as, &rawclient.ApplyStateParams{TakeOwnership: new(true)}, owned(all, `"owner":"others"`), "")
	z.apply(t, as, owned(all, `"owner":"others"`), "")
	if after := everything(); after != before || published() != events {
		t.Errorf("an owner changed objects from\n%s to\n%s, or published an event", before, after)
	}
	types := map[string]string{
		"application": "applications", "identity-provider": "providers", "resource": "resources", "policy": "policies", "policy-set": "policy-sets", "grant": "grants",
	}
	for _, o := range applied.Outcomes {
		got, entity := entries(*o.ID), types[string(o.Kind)]
		want := []string{entity + ` applyState updated ["owner"] {"to": "payments", "from": null}`, entity + ` applyState updated ["owner"] {"to": "others", "from": "payments"}`}
		if len(got) < 3 || !slices.Equal(got[len(got)-2:], want) {
			t.Errorf("%s %s: got %q, want %q", o.Kind, o.Identity, got, want)
		}
		if entity == "" {
			t.Errorf("no entity type of %s", o.Kind)
		}
	}

	created := outcome(t, z.apply(t, as, `{"owner":"payments","objects":[{"kind":"application","spec":{"name":"New","traits":["a"]}}]}`, ""), "New")
	z.applyWith(t, as, &rawclient.ApplyStateParams{TakeOwnership: new(true)}, `{"owner":"others","objects":[{"kind":"application","spec":{"name":"New","traits":["b"]}}]}`, "")
	if got, want := entries(*created.ID), []string{
		`applications applyState created ["expires_at", "jwks", "name", "owner", "registration_method", "secrets", "traits"] {"to": "payments", "from": null}`,
		`applications applyState updated ["owner", "traits"] {"to": "others", "from": "payments"}`,
	}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An object that is archived or revoked in any way has no owner afterwards, also if it
// becomes active again.
func TestArchivedObjectsHaveNoOwner(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	owners := func() []string {
		return storetest.Column[string](z.DB, "SELECT kind FROM state_owners WHERE zone_id = $1 ORDER BY kind", z.zone)
	}
	const none = `{"owner":"payments","objects":[{"kind":"identity-provider","spec":{"identifier":"provider://none","kind":"none"}}]}`
	newControlKey(t, z.API, z.zone, client.ControlScopeControlAppRead) // with provider://none
	z.DB.Exec("UPDATE resources SET archived_at = now() WHERE zone_id = $1", z.zone)
	provider := *z.apply(t, z.Admin, none, "").Outcomes[0].ID
	applied := z.apply(t, z.Admin, owned(withPolicies(grantDocument(`["invoices:read"]`)), `"owner":"payments"`), "")
	if got, want := owners(), []string{"application", "application", "grant", "identity-provider", "identity-provider", "policy", "policy-set", "resource"}; !slices.Equal(got, want) {
		t.Fatalf("got %q", got)
	}
	id := func(identity string) string { return *outcome(t, applied, identity).ID }
	for _, remove := range []struct {
		kind string
		call func() (servertest.Response, error)
	}{
		{"grant", func() (servertest.Response, error) {
			return z.Admin.RevokeGrantWithResponse(t.Context(), z.zone, id("Billing/user-7/https://invoices.example.com"), nil)
		}},
		{"resource", func() (servertest.Response, error) {
			return z.Admin.DeleteResourceWithResponse(t.Context(), z.zone, id("https://invoices.example.com"), nil)
		}},
		{"policy-set", func() (servertest.Response, error) {
			return z.Admin.DeletePolicySetWithResponse(t.Context(), z.zone, id("Set"), nil)
		}},
		{"policy", func() (servertest.Response, error) {
			return z.Admin.DeletePolicyWithResponse(t.Context(), z.zone, id("IDs"), nil)
		}},
		{"identity-provider", func() (servertest.Response, error) {
			return z.Admin.DeleteProviderWithResponse(t.Context(), z.zone, id("provider://ledger"), nil)
		}},
		{"application", func() (servertest.Response, error) {
			return z.Admin.DeleteApplicationWithResponse(t.Context(), z.zone, id("Billing"), nil)
		}},
		{"identity-provider", func() (servertest.Response, error) {
			return z.Admin.DeleteProviderWithResponse(t.Context(), z.zone, provider, nil)
		}},
	} {
		before := owners()
		resp, err := remove.call()
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusNoContent, "")
		at := slices.Index(before, remove.kind)
		if got := owners(); !slices.Equal(got, slices.Delete(before, at, at+1)) {
			t.Errorf("%q have an owner after the deletion of an object of kind %s", got, remove.kind)
		}
	}
	if got := storetest.Column[string](z.DB, "SELECT DISTINCT entity_type FROM audit_entries WHERE zone_id = $1 AND payload::jsonb ->> 'change' = 'deleted' ORDER BY 1", z.zone); !slices.Equal(got, []string{"applications", "policies", "policy-sets", "providers", "resources"}) {
		t.Errorf("the audit log has deletions of %q", got)
	}
	newControlKey(t, z.API, z.zone, client.ControlScopeControlAppRead)
	if storetest.Value[bool](z.DB, "SELECT archived_at IS NOT NULL FROM providers WHERE id = $1", provider) {
		t.Fatal("provider://none is not active again")
	}
	if got := owners(); !slices.Equal(got, []string{"application"}) {
		t.Errorf("objects of the kinds %q have an owner", got)
	}
}
