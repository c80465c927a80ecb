package server_test

import (
	"fmt"
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

// owned adds fields to a document.
func owned(text, fields string) string {
	return strings.Replace(text, `{"objects"`, `{`+fields+`,"objects"`, 1)
}

// withPolicies adds a policy, and an active policy set with it, to a document.
func withPolicies(text string) string {
	return strings.Replace(text, `{"objects":[`, `{"objects":[{"kind":"policy","spec":{"name":"IDs","content":`+fmt.Sprintf("%q", documentOf("x"))+`}},{"kind":"policy-set","spec":{"name":"Set","policies":["IDs"],"activate":true}},`, 1)
}

// pruned returns the identities of the objects that a report prunes, in its order.
func pruned(r client.StateReport) []string {
	var all []string
	for _, o := range r.Outcomes {
		if o.Action == client.StateActionPrune {
			all = append(all, string(o.Kind)+" "+o.Identity)
		}
	}
	return all
}

func TestApplyStatePrunesWhatOwnerManages(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	const owner = `"owner":"payments"`
	all := withPolicies(grantDocument(`["invoices:read"]`))
	applied := z.apply(t, as, owned(all, owner), "")
	z.DB.Exec("UPDATE applications SET name = 'Manual' WHERE id = $1", newApplication(t, z.API, z.zone).ID)
	z.apply(t, as, owned(`{"objects":[{"kind":"application","spec":{"name":"Theirs"}}]}`, `"owner":"others"`), "")
	z.apply(t, as, `{"objects":[{"kind":"application","spec":{"name":"Unowned"}}]}`, "")
	z.DB.ProviderGrant(z.zone, *outcome(t, applied, "https://invoices.example.com").ID)
	z.DB.Exec("UPDATE provider_grants SET provider_id = $2 WHERE zone_id = $1", z.zone, *outcome(t, applied, "provider://ledger").ID)
	billing := *outcome(t, applied, "Billing").ID
	session := z.DB.ApplicationSession(z.zone, billing)
	agent := z.DB.AgentSession(z.zone, billing, session)
	z.DB.DelegationEdge(z.zone, agent, agent)

	empty := owned(`{"objects":[{"kind":"application","spec":{"name":"Gateway"}}]}`, owner)
	if r := z.plan(t, as, empty, ""); r.Drift || r.Prune {
		t.Errorf("without prune: %q", verbs(r))
	}
	prune := strings.Replace(empty, owner, owner+`,"prune":true`, 1)
	want := []string{"grant Billing/user-7/https://invoices.example.com", "policy-set Set", "policy IDs", "resource https://invoices.example.com", "identity-provider provider://ledger", "application Billing"}
	plan := z.plan(t, as, prune, "")
	if got := pruned(plan); !slices.Equal(got, want) || !plan.Prune || plan.Summary.Pruned != len(want) || !plan.Drift {
		t.Fatalf("got %q, want %q", got, want)
	}
	if set := outcome(t, plan, "Set"); set.Applied || set.Status != "planned" || len(set.Warnings) != 1 {
		t.Errorf("got %+v", set)
	}
	resp, err := as.PlanStateWithResponse(t.Context(), z.zone, &rawclient.PlanStateParams{Prune: new(true)}, document(t, empty))
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, http.StatusOK, "")
	if resp.JSON200.PlanID != plan.PlanID {
		t.Error("the parameter has another effect than the field")
	}
	resp, err = as.PlanStateWithResponse(t.Context(), z.zone, &rawclient.PlanStateParams{Prune: new(false)}, document(t, prune))
	if err != nil || resp.JSON200 == nil || resp.JSON200.Prune || len(pruned(*resp.JSON200)) != 0 {
		t.Errorf("%v: prune=false does not override the document", err)
	}
	done := z.apply(t, as, prune, "")
	if got := pruned(done); !slices.Equal(got, want) || !outcome(t, done, "Billing").Applied {
		t.Errorf("got %q", verbs(done))
	}
	z.expectInSync(t, prune)
	if names := storetest.Column[string](z.DB, "SELECT name FROM applications WHERE zone_id = $1 AND archived_at IS NULL ORDER BY name", z.zone); !slices.Contains(names, "Theirs") || !slices.Contains(names, "Unowned") || !slices.Contains(names, "Gateway") || slices.Contains(names, "Billing") {
		t.Errorf("got %q", names)
	}
	if owners := storetest.Value[int](z.DB, "SELECT count(*) FROM state_owners WHERE zone_id = $1", z.zone); owners != 2 {
		t.Errorf("%d objects have an owner", owners)
	}
}

// A policy in the active policy set is not archived, and the plan says so.
func TestPlanStateFindsPoliciesInUse(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as, p := z.ClientFor(z.zone, "write"), policyZone(z)
	const prune = `"prune":true,"prune_kinds":["policy"]`
	refused := func(version string) []string {
		return []string{"prune: policy Risk: policy_in_use: the " + version + " version of the active policy set Set contains it"}
	}
	z.apply(t, as, policyDocument(`,"activate":true`, "IDs="+documentOf("x"), "Risk="+riskOf("read")), "")
	set, first := activeSet(z)
	without := policyDocument("", "IDs="+documentOf("x"))
	activated := policyDocument(`,"activate":true`, "IDs="+documentOf("x"))
	if got := z.issuesOf(t, as, owned(without, prune)); !slices.Equal(got, refused("active")) {
		t.Errorf("with a new version that is not active: got %q", got)
	}
	z.apply(t, as, owned(without, prune), code.InvalidState)
	if got := pruned(z.plan(t, as, owned(activated, prune), "")); !slices.Equal(got, []string{"policy Risk"}) {
		t.Errorf("with a new active version: got %q", got)
	}
	inactive := `{"objects":[{"kind":"policy","spec":{"name":"IDs"}},{"kind":"policy-set","spec":{"name":"Set","activate":false,"policies":["IDs"]}}]}`
	if got := pruned(z.plan(t, as, owned(inactive, prune), "")); !slices.Equal(got, []string{"policy Risk"}) {
		t.Errorf("with an inactive policy set: got %q", got)
	}
	z.apply(t, as, activated, "")
	_, second := activeSet(z)
	p.activate(t, set, second, first)
	if got := z.issuesOf(t, as, owned(activated, prune)); !slices.Equal(got, refused("shadow")) {
		t.Errorf("with a shadow version: got %q", got)
	}
	sets := `{"owner":"x","prune":true,"prune_kinds":["policy","policy-set"],"objects":[]}`
	if got := pruned(z.apply(t, as, sets, "")); !slices.Equal(got, []string{"policy-set Set", "policy IDs", "policy Risk"}) {
		t.Errorf("without the policy set: got %q", got)
	}
}

func TestApplyStateNeverPrunesWhatCaracalManages(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	newControlKey(t, z.API, z.zone, client.ControlScopeControlAppRead) // with the control resource and provider://none
	z.DB.Exec("UPDATE applications SET name = 'Agent' WHERE id = $1", newApplication(t, z.API, z.zone, "control:agent").ID)
	z.DB.DCRApplications(z.zone, 1)
	z.apply(t, z.Admin, `{"objects":[{"kind":"application","spec":{"name":"caracal.sys/x"}},{"kind":"identity-provider","spec":{"identifier":"provider://caracal-sys-x","kind":"none"}}]}`, "")
	before := storetest.Column[string](z.DB, "SELECT id FROM applications WHERE zone_id = $1 AND archived_at IS NULL ORDER BY id", z.zone)
	z.apply(t, z.Admin, bootstrapDocument, "")
	everything := `{"prune":true,"prune_kinds":["application","identity-provider","resource","policy","policy-set"],"objects":[]}`
	want := []string{"resource https://invoices.example.com", "identity-provider provider://ledger", "application Billing", "application Gateway"}
	if got := pruned(z.apply(t, z.ClientFor(z.zone, "write"), everything, "")); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if after := storetest.Column[string](z.DB, "SELECT id FROM applications WHERE zone_id = $1 AND archived_at IS NULL ORDER BY id", z.zone); !slices.Equal(after, before) {
		t.Errorf("got %q, want %q", after, before)
	}
	if n := storetest.Value[int](z.DB, "SELECT count(*) FROM resources WHERE zone_id = $1 AND archived_at IS NULL AND identifier = $2", z.zone, controlAudience); n != 1 {
		t.Error("the control resource was pruned")
	}
	if got := z.issuesOf(t, z.Admin, `{"prune":true,"objects":[]}`); !slices.Equal(got, []string{"prune: requires owner or prune_kinds"}) {
		t.Errorf("got %q", got)
	}
}

func TestApplyStatePruneShare(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	applications := func(n int, fields string) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"kind":"application","spec":{"name":"App %d"}}`, i))
		}
		return `{"owner":"x",` + fields + `"objects":[` + strings.Join(all, ",") + `]}`
	}
	z.apply(t, z.Admin, applications(12, ""), "")
	text := applications(5, `"prune":true,`)
	r := z.plan(t, z.Admin, text, "")
	if w := r.Outcomes[5].Warnings; r.Summary.Pruned != 7 || !slices.Equal(w, []string{"7 of 12 objects of kind application would be pruned, which requires confirm_prune"}) {
		t.Errorf("got %+v with the warnings %q", r.Summary, w)
	}
	resp, err := z.Admin.ApplyStateWithResponse(t.Context(), z.zone, nil, document(t, text))
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.PruneShareExceeded)
	if p := problemOf(t, resp); p.Details == nil || p.Details.Issues[0].Message != "7 of 12 objects of kind application would be pruned" {
		t.Errorf("got %s", resp.Body)
	}
	z.apply(t, z.Admin, applications(6, `"prune":true,`), "") // half of them
	z.apply(t, z.Admin, applications(0, `"prune":true,"prune_max_share":1,`), "")
	z.apply(t, z.Admin, applications(12, ""), "")
	z.applyWith(t, z.Admin, &rawclient.ApplyStateParams{ConfirmPrune: new(true)}, applications(0, `"prune":true,`), "")
	z.apply(t, z.Admin, applications(5, ""), "")
	z.apply(t, z.Admin, applications(0, `"prune":true,`), "") // a few
}

func TestApplyStatePreconditions(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	plan := z.plan(t, z.Admin, bootstrapDocument, "")
	z.applyWith(t, z.Admin, &rawclient.ApplyStateParams{PlanID: new("other")}, bootstrapDocument, code.StateChanged)
	z.applyWith(t, z.Admin, &rawclient.ApplyStateParams{Revision: new("other")}, bootstrapDocument, code.StateChanged)
	newApplication(t, z.API, z.zone) // of a kind in the document
	z.applyWith(t, z.Admin, &rawclient.ApplyStateParams{PlanID: &plan.PlanID}, bootstrapDocument, code.StateChanged)
	z.applyWith(t, z.Admin, &rawclient.ApplyStateParams{Revision: &plan.Revision}, bootstrapDocument, code.StateChanged)
	if n := storetest.Value[int](z.DB, "SELECT count(*) FROM applications WHERE zone_id = $1", z.zone); n != 1 {
		t.Errorf("%d applications", n)
	}
	plan = z.plan(t, z.Admin, bootstrapDocument, "")
	newPolicy(t, z.API, z.zone, "Unrelated")
	z.applyWith(t, z.Admin, &rawclient.ApplyStateParams{PlanID: &plan.PlanID, Revision: &plan.Revision}, bootstrapDocument, "")
	again := z.plan(t, z.Admin, bootstrapDocument, "")
	if again.PlanID == plan.PlanID || again.Revision == plan.Revision || again.PlanID != z.plan(t, z.Admin, bootstrapDocument, "").PlanID {
		t.Errorf("got %+v after %+v", again, plan)
	}
	secret := strings.Replace(bootstrapDocument, "secret-1", "secret-2", 1)
	if z.plan(t, z.Admin, secret, "").PlanID != again.PlanID {
		t.Error("the ID of the plan depends on a secret")
	}
}
