package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A plan has another ID if anything else would be done, also what its changes do not show.
func TestPlanStateIDDependsOnWhatIsDone(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	z.DB.DCRApplications(z.zone, 1)
	z.DB.Exec("UPDATE zones SET dcr_enabled = true WHERE id = $1", z.zone)
	first := policyDocument(`,"activate":true`, "IDs="+documentOf("x"))
	z.apply(t, as, strings.Replace(first, `{"objects":[`, `{"objects":[{"kind":"application","spec":{"name":"Billing","traits":["team:a"]}},`, 1), "")
	next := func(activate string) string { return policyDocument(activate, "IDs="+documentOf("y")) }
	const traits = `{"objects":[{"kind":"application","spec":{"name":"Billing","traits":["team:%s"]}}]}`
	const shutdown = `{"objects":[{"kind":"zone","spec":{"dcr_enabled":false,"dcr_shutdown":"%s"}}]}`
	for _, tt := range []struct{ name, one, other string }{
		{"traits that the caller must not see", fmt.Sprintf(traits, "b"), fmt.Sprintf(traits, "c")},
		{"what happens to registered applications", fmt.Sprintf(shutdown, "keep_live"), fmt.Sprintf(shutdown, "revoke_live")},
		{"whether a version is activated", next(``), next(`,"activate":true`)},
		{"who manages the objects", owned(first, `"owner":"a"`), owned(first, `"owner":"b"`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, other := z.plan(t, as, tt.one, ""), z.plan(t, as, tt.other, "")
			if one.PlanID == other.PlanID || one.PlanID != z.plan(t, as, tt.one, "").PlanID {
				t.Errorf("got %s and %s", one.PlanID, other.PlanID)
			}
		})
	}
	changes := outcome(t, z.plan(t, as, fmt.Sprintf(shutdown, "keep_live"), ""), "zone").Changes
	if len(changes) != 2 || changes[1].Field != "dcr_shutdown" || string(changes[1].After) != `"keep_live"` {
		t.Errorf("got %+v", changes)
	}
}

// Names of applications and user IDs can contain the slash that separates them.
func TestApplyStateDistinguishesGrants(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	objects := `{"kind":"application","spec":{"name":"A"}},{"kind":"application","spec":{"name":"A/b"}},{"kind":"identity-provider","spec":{"identifier":"provider://x","kind":"none"}},
		{"kind":"resource","spec":{"identifier":"https://x.example.com","upstream_url":"https://x.example.com","scopes":["read"],"credential_provider":"provider://x","gateway_application":"A"}}`
	grant := func(application, user string) string {
		return fmt.Sprintf(`,{"kind":"grant","spec":{"application":%q,"user_id":%q,"resource":"https://x.example.com","scopes":["read"]}}`, application, user)
	}
	one, other := grant("A", "b/c"), grant("A/b", "c")
	both := owned(`{"objects":[`+objects+one+other+`]}`, `"owner":"x","prune":true`)
	z.apply(t, as, both, "")
	z.expectInSync(t, both)
	if got := pruned(z.apply(t, as, owned(`{"objects":[`+objects+one+`]}`, `"owner":"x","prune":true`), "")); !slices.Equal(got, []string{"grant A/b/c/https://x.example.com"}) {
		t.Errorf("got %q", got)
	}
}

func TestPlanStateChecksContentAsItIsStored(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	content := func(reference string, n int) string {
		return fmt.Sprintf(`{"objects":[{"kind":"application","spec":{"name":"A"}},{"kind":"policy","spec":{"name":"IDs","content":%q}}]}`, documentOf(reference)+"# "+strings.Repeat(reference, n)+"\n")
	}
	for range 2 { // a new application, and one of the zone
		if got := z.issuesOf(t, as, content("${application:A}", 40_000)); !slices.Equal(got, []string{"objects.1.spec.content: must have at most 1048576 characters with the IDs of applications"}) {
			t.Errorf("got %q", got)
		}
		z.apply(t, as, content("${application: A }", 1), "")
		z.expectInSync(t, content("${application:A}", 1))
	}
}

// A provider is not archived while a resource that stays refers to it.
func TestPlanStateReportsProviderInUse(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	z.apply(t, z.Admin, bootstrapDocument, "")
	got := z.issuesOf(t, z.Admin, `{"prune":true,"prune_kinds":["identity-provider"],"objects":[]}`)
	if want := []string{"prune: identity-provider provider://ledger: provider_in_use: the resource https://invoices.example.com refers to it"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	plan := z.plan(t, z.Admin, `{"prune":true,"prune_kinds":["application"],"objects":[]}`, "")
	if w := outcome(t, plan, "Gateway").Warnings; !slices.Equal(w, []string{"the resource https://invoices.example.com loses its gateway application"}) {
		t.Errorf("got %q", w)
	}
}
