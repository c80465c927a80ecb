package server_test

import (
	"slices"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
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
