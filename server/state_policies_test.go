package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// policyDocument is a document of policies and a policy set with all of them.
func policyDocument(set string, policies ...string) string {
	var objects, names []string
	for _, text := range policies {
		name, content, _ := strings.Cut(text, "=")
		objects = append(objects, fmt.Sprintf(`{"kind":"policy","spec":{"name":%q,"content":%q}}`, name, content))
		names = append(names, fmt.Sprintf("%q", name))
	}
	objects = append(objects, fmt.Sprintf(`{"kind":"policy-set","spec":{"name":"Set","policies":[%s]%s}}`, strings.Join(names, ","), set))
	slices.Reverse(objects) // their order has no meaning
	return `{"objects":[` + strings.Join(objects, ",") + `]}`
}

// activeSet returns the IDs of the active policy set of a zone and of its version.
func activeSet(z stateZone) (set, version string) {
	return storetest.Value[string](z.DB, "SELECT id FROM policy_sets WHERE zone_id = $1 AND active_version_id IS NOT NULL", z.zone),
		storetest.Value[string](z.DB, "SELECT active_version_id FROM policy_sets WHERE zone_id = $1 AND active_version_id IS NOT NULL", z.zone)
}

// riskOf returns the content of a policy that defines another document than documentOf.
func riskOf(text string) string {
	return fmt.Sprintf("# caracal:data-document\npackage caracal.authz\n\nrisk := [{\"scope\": %q, \"tier\": \"high\"}]\n", text)
}

func TestApplyStatePolicies(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	p := policyZone(z)
	first := policyDocument(`,"activate":true`, "IDs="+documentOf("x"), "Risk="+riskOf("read"))
	plan := z.plan(t, as, first, "")
	expectVerbs(t, plan, "create Set", "create Risk", "create IDs")
	applied := z.apply(t, as, first, "")
	set, version := activeSet(z)
	if o := outcome(t, applied, "Set"); *o.ID != set || *o.VersionID != version {
		t.Errorf("got %+v, and %s %s is active", o, set, version)
	}
	manifest, err := z.Admin.GetPolicySetVersionWithResponse(t.Context(), z.zone, set, version)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, manifest, http.StatusOK, "")
	if want := []string{*outcome(t, applied, "IDs").VersionID, *outcome(t, applied, "Risk").VersionID}; !slices.Equal(manifest.JSON200.Policies, want) {
		t.Errorf("got %v, want %v", manifest.JSON200.Policies, want)
	}
	z.expectInSync(t, first)
	z.expectInSync(t, policyDocument(`,"activate":true`, "Risk="+riskOf("read"), "IDs="+documentOf("x")))
	z.expectInSync(t, `{"objects":[{"kind":"policy-set","spec":{"name":"Set","activate":true}}]}`)
	z.expectInSync(t, `{"objects":[{"kind":"policy","spec":{"name":"IDs"}}]}`)

	second := policyDocument(`,"activate":true`, "IDs="+documentOf("y"), "Risk="+riskOf("read"))
	expectVerbs(t, z.plan(t, as, second, ""), "update Set policies", "unchanged Risk", "update IDs content")
	updated := z.apply(t, as, second, "")
	if again, v := activeSet(z); again != set || v == version || v != *outcome(t, updated, "Set").VersionID || *outcome(t, updated, "IDs").ID != *outcome(t, applied, "IDs").ID {
		t.Errorf("%s %s is active, of %+v", again, v, updated)
	}
	z.expectInSync(t, second)

	inactive := policyDocument("", "IDs="+documentOf("z"), "Risk="+riskOf("read"))
	if o := outcome(t, z.apply(t, as, inactive, ""), "Set"); !slices.Equal(o.Warnings, []string{"the new version is not activated: set activate"}) {
		t.Errorf("got %+v", o)
	}
	z.expectInSync(t, inactive)
	active := strings.Replace(inactive, `"Set"`, `"Set","activate":true`, 1)
	expectVerbs(t, z.plan(t, as, active, ""), "update Set activate", "unchanged Risk", "unchanged IDs")
	z.apply(t, as, active, "")
	z.expectInSync(t, active)

	other := `{"objects":[{"kind":"policy-set","spec":{"name":"Other","policies":["IDs"],"activate":true}},{"kind":"policy-set","spec":{"name":"Set","activate":false}}]}`
	replaced := z.apply(t, as, other, "")
	if now, _ := activeSet(z); now != *outcome(t, replaced, "Other").ID || !slices.Equal(outcome(t, replaced, "Other").Warnings, []string{"the policy set Set is deactivated"}) {
		t.Errorf("%s is active, of %+v", now, replaced)
	}
	z.expectInSync(t, other)
	none := `{"objects":[{"kind":"policy-set","spec":{"name":"Other","activate":false}}]}`
	z.apply(t, as, none, "")
	z.expectInSync(t, none)
	if n := storetest.Value[int](z.DB, "SELECT count(*) FROM policy_sets WHERE zone_id = $1 AND active_version_id IS NOT NULL", z.zone); n != 0 {
		t.Errorf("%d policy sets are active", n)
	}
	if events := p.published(t, 5); len(events) != 5 {
		t.Errorf("got %v", events)
	}
}

func TestApplyStateKeepsShadowVersion(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	p := policyZone(z)
	z.apply(t, z.Admin, policyDocument(`,"activate":true`, "IDs="+documentOf("x")), "")
	set, version := activeSet(z)
	p.activate(t, set, version, version)
	z.apply(t, z.Admin, policyDocument(`,"activate":true`, "IDs="+documentOf("y")), "")
	if shadow := storetest.Value[string](z.DB, "SELECT shadow_version_id FROM policy_sets WHERE id = $1", set); shadow != version {
		t.Errorf("got %s, want %s", shadow, version)
	}
}

func TestPlanStateReportsIssuesOfPolicies(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	z.apply(t, z.Admin, policyDocument("", "IDs="+documentOf("x")), "")
	set := func(fields string) string {
		return `{"kind":"policy-set","spec":{"name":"New"` + fields + `}}`
	}
	for _, tt := range []struct {
		name, objects string
		want          []string
	}{
		{"no content", `{"kind":"policy","spec":{"name":"New"}}`, []string{"objects.0.spec.content: is required in a new policy"}},
		{"invalid content", `{"kind":"policy","spec":{"name":"New","content":"package x"}}`, []string{"objects.0.spec.content: 1:1: ", "objects.0.spec.content: 1:1: "}},
		{"an unsupported schema version", `{"kind":"policy","spec":{"name":"New","content":"x","schema_version":"v1"}}`, []string{"objects.0.spec.schema_version: The schema version is not supported."}},
		{"another schema version", `{"kind":"policy","spec":{"name":"IDs","schema_version":"2026-03-16"}}`, []string{"objects.0.spec.content: is required for another schema version"}},
		{"an unknown policy", set(`,"policies":["IDs","Nothing"]`), []string{"objects.0.spec.policies.1: must be that of the zone or of the document: there is no such policy"}},
		{"a policy twice", set(`,"policies":["IDs"," IDs"]`), []string{"objects.0.spec.policies.1: must not be listed twice"}},
		{"an invalid name", set(`,"policies":["\u202e"]`), []string{"objects.0.spec.policies.0: must be the name of a policy"}},
		{"no policies", set(`,"policies":[]`), []string{"objects.0.spec.policies: must have at least 1 item"}},
		{"nothing to activate", set(`,"activate":true`), []string{"objects.0.spec.policies: is required to activate a policy set without versions"}},
		{"reserved names", `{"kind":"policy","spec":{"name":"caracal.sys/x","content":"x"}},{"kind":"policy-set","spec":{"name":"caracal.sys/x"}}`,
			[]string{"objects.0.spec.name: reserved_namespace: ", "objects.1.spec.name: reserved_namespace: "}},
		{"two active ones", set(`,"policies":["IDs"],"activate":true`) + `,{"kind":"policy-set","spec":{"name":"Set","activate":true}}`,
			[]string{"objects.1.spec.activate: must not be true, because objects[0] is activated, and a zone has one active policy set"}},
		{"policies that contradict each other", `{"kind":"policy","spec":{"name":"More","content":` + fmt.Sprintf("%q", strings.Replace(documentOf("x"), `"x": "x"`, `"x": "y"`, 1)) + `}},` + set(`,"policies":["IDs","More"]`), []string{"objects.1.spec.policies: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := z.issuesOf(t, z.ClientFor(z.zone, "write"), `{"objects":[`+tt.objects+`]}`)
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
		})
	}
	r := z.plan(t, z.Admin, `{"objects":[{"kind":"policy","spec":{"name":"IDs","description":"x","owner_type":"customer"}}]}`, "")
	if r.Drift || !slices.Equal(r.Outcomes[0].Warnings, []string{"description differs, and cannot be changed"}) {
		t.Errorf("got %+v", r)
	}
}

// A content refers to applications by name, also to one that the same document creates.
func TestApplyStatePolicyNamesApplications(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	content := func(names ...string) string {
		text := "# caracal:data-document\npackage caracal.authz\n\napp_ids := {"
		for i, name := range names {
			text += fmt.Sprintf("%q: %q, ", fmt.Sprint("a", i), "${application:"+name+"}")
		}
		return strings.TrimSuffix(text, ", ") + "}\n"
	}
	with := func(text string, applications ...string) string {
		objects := []string{strings.Trim(policyDocument(`,"activate":true`, "IDs="+text), `{}`)[len(`"objects":[`):]}
		for _, name := range applications {
			objects = append([]string{fmt.Sprintf(`{"kind":"application","spec":{"name":%q}}`, name)}, objects...)
		}
		return `{"objects":[` + strings.Join(objects, ",") + `}`
	}
	id := newApplication(t, z.API, z.zone).ID
	z.DB.Exec("UPDATE applications SET name = 'Ledger' WHERE id = $1", id)
	document := with(content("Ledger", "Billing é"), "Billing é")
	billing := *outcome(t, z.apply(t, z.Admin, document, ""), "Billing é").ID
	stored := storetest.Value[string](z.DB, "SELECT content FROM policy_versions WHERE zone_id = $1", z.zone)
	if want := fmt.Sprintf(`app_ids := {"a0": %q, "a1": %q}`, id, billing); !strings.Contains(stored, want) {
		t.Errorf("stored %s, want %s", stored, want)
	}
	z.expectInSync(t, document)
	if got := z.exported(t, servertest.Bootstrap, ""); !strings.Contains(got, "${application:Billing é}") || strings.Contains(got, id) || strings.Contains(got, billing) {
		t.Errorf("got %s", got)
	} else {
		z.expectUnchanged(t, got, jsonType)
	}
	if got := z.issuesOf(t, z.Admin, with(content("Absent"))); len(got) != 1 || !strings.HasPrefix(got[0], "objects.1.spec.content: must be that of the zone or of the document") {
		t.Errorf("got %q", got)
	}
}

// A policy set that becomes inactive has the policies of its newest version, not those of
// the version that was active.
func TestApplyStateDeactivatesOlderVersion(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	const content = `"# caracal:data-document\npackage caracal.authz\n\napp_ids := {\"1\": \"a\"}\n"`
	document := func(fields string) string {
		return `{"objects":[{"kind":"policy","spec":{"name":"First","content":` + content + `}},{"kind":"policy","spec":{"name":"Second","content":` + content + `}},` +
			`{"kind":"policy-set","spec":{"name":"Set",` + fields + `}}]}`
	}
	other := `"policies":["First"]}},{"kind":"policy-set","spec":{"name":"Other","policies":["First"]`
	for _, fields := range []string{
		`"policies":["First","Second"],"activate":true`,
		`"policies":["First"]`, // a newer version, which is not activated
		`"policies":["First","Second"],"activate":false`,
		other,
		`"policies":["First","Second"],"activate":true`,
		other,
		`"policies":["First","Second"]}},{"kind":"policy-set","spec":{"name":"Other","activate":true`,
	} {
		z.apply(t, z.Admin, document(fields), "")
		z.expectInSync(t, document(fields))
	}
}
