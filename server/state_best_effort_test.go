package server_test

import (
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/store/storetest"
)

// partialDocument has two objects that can be created, and two that cannot.
const partialDocument = `{"objects":[
	{"kind":"application","spec":{"name":"Good"}},{"kind":"application","spec":{"name":"Bad","traits":["?"]}},
	{"kind":"identity-provider","spec":{"identifier":"provider://good","kind":"none"}},{"kind":"identity-provider","spec":{"identifier":"provider://bad"}}]}`

func TestApplyStateWithBestEffort(t *testing.T) {
	t.Parallel()
	z := newStateZone(t, "API_MAX_RESOURCES_PER_ZONE=1")
	as := z.ClientFor(z.zone, "write")
	mode := client.StateModeBestEffort
	plan, err := as.PlanStateWithResponse(t.Context(), z.zone, &rawclient.PlanStateParams{Mode: &mode}, document(t, partialDocument))
	if err != nil || plan.JSON200 == nil || plan.JSON200.OK || plan.JSON200.Summary.Failed != 2 || !plan.JSON200.Drift {
		t.Fatalf("%v: %s", err, plan.Body)
	}
	r := z.applyWith(t, as, &rawclient.ApplyStateParams{Mode: &mode}, partialDocument, "")
	bad := outcome(t, r, "Bad")
	if r.OK || r.Mode != mode || r.Summary != (client.StateSummary{Created: 2, Failed: 2}) || bad.Status != "failed" || bad.Action != "unchanged" || bad.Applied ||
		bad.Error.Code != "invalid" || !strings.HasPrefix(bad.Error.Reason, "traits: trait_invalid: ") || !outcome(t, r, "Good").Applied {
		t.Errorf("got %+v", r)
	}
	two := strings.Replace(bootstrapDocument, `{"objects":[`, `{"owner":"x","prune":true,"prune_kinds":["application"],"objects":[{"kind":"resource","spec":{"identifier":"https://two.example.com","upstream_url":"https://two.example.com",
		"scopes":["a"],"credential_provider":"provider://ledger","gateway_application":"Gateway"}},`, 1)
	r = z.applyWith(t, as, &rawclient.ApplyStateParams{Mode: &mode}, two, "")
	second, kept := outcome(t, r, "https://invoices.example.com"), outcome(t, r, "Good")
	if second.Error == nil || second.Error.Code != "conflict" || !outcome(t, r, "https://two.example.com").Applied || kept.Action != "prune" || kept.Applied || kept.Status != "planned" {
		t.Errorf("got %+v", r)
	}
	if n := storetest.Value[int](z.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'resources'", z.zone); n != 1 {
		t.Errorf("%d audit entries of resources", n)
	}
	if live := storetest.Value[int](z.DB, "SELECT live FROM resource_totals WHERE zone_id = $1", z.zone); live != 1 {
		t.Errorf("%d resources are counted", live)
	}
}
