package server_test

import (
	"bytes"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestApplyStateBringsUpEmptyZone(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as, reader := z.ClientFor(z.zone, "write"), z.ClientFor(z.zone, "read")
	before := everythingOf(z.DB, z.zone)
	plan := z.plan(t, reader, bootstrapDocument, "")
	expectVerbs(t, plan, "create https://invoices.example.com", "create Gateway", "create Billing", "create provider://ledger")
	if !plan.DryRun || !plan.Drift || !plan.OK || plan.Summary.Created != 4 || plan.Outcomes[0].Status != "planned" {
		t.Errorf("got %+v", plan)
	}
	for identity, order := range map[string]int{"Gateway": 1, "Billing": 2, "provider://ledger": 3, "https://invoices.example.com": 4} {
		if got := outcome(t, plan, identity).Order; got == nil || *got != order {
			t.Errorf("%s is changed at %v, want %d", identity, got, order)
		}
	}
	if everythingOf(z.DB, z.zone) != before {
		t.Error("the plan changed the zone")
	}
	applied := z.apply(t, as, bootstrapDocument, "")
	if applied.PlanID != plan.PlanID || applied.Revision != plan.Revision || applied.DryRun || applied.Summary != plan.Summary {
		t.Errorf("got %+v, planned %+v", applied, plan)
	}
	gateway, resource := outcome(t, applied, "Gateway"), outcome(t, applied, "https://invoices.example.com")
	if gateway.ClientSecret == nil || gateway.ID == nil || gateway.Status != "applied" || !gateway.Applied || resource.ClientSecret != nil {
		t.Errorf("got %+v and %+v", gateway, resource)
	}
	if *gateway.ClientSecret == *outcome(t, applied, "Billing").ClientSecret {
		t.Error("two applications have the same secret")
	}
	r := readResource(t, as, z.zone, *resource.ID)
	if r.GatewayApplicationID == nil || *r.GatewayApplicationID != *gateway.ID || r.CredentialProviderID != *outcome(t, applied, "provider://ledger").ID ||
		*r.UpstreamURL != "https://invoices.internal.example.com" || len(r.Operations) != 2 || r.Operations[0].Method != "GET" || r.OperationEnforcement != "enforced" {
		t.Errorf("got %+v", r)
	}
	if got := openedSecrets(t, z.DB, z.zone, r.CredentialProviderID); got != `{"client_secret":"secret-1"}` {
		t.Errorf("sealed %s", got)
	}
	z.expectInSync(t, bootstrapDocument)
	before = everythingOf(z.DB, z.zone)
	again := z.apply(t, as, bootstrapDocument, "")
	if again.Drift || again.Summary.Unchanged != 4 || outcome(t, again, "Gateway").ClientSecret != nil || *outcome(t, again, "Gateway").ID != *gateway.ID {
		t.Errorf("got %+v", again)
	}
	if everythingOf(z.DB, z.zone) != before {
		t.Error("a document that is already applied changed the zone")
	}
}

func TestApplyStateUpdatesFields(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	z.apply(t, z.Admin, bootstrapDocument, "")
	for _, tt := range []struct {
		name, from, to string
		want           []string // of the objects that change
	}{
		{"traits in another order", `["team:b","team:a"]`, `["team:a","team:b"]`, nil},
		{"other traits", `["team:b","team:a"]`, `["team:a"]`, []string{"update Gateway traits"}},
		{"no traits", `["team:b","team:a"]`, `[]`, []string{"update Gateway traits"}},
		{"a name in another form", `"Invoices"`, `"  Invoices "`, nil},
		{"another name", `"Invoices"`, `"Bills"`, []string{"update https://invoices.example.com name"}},
		{"scopes in another order", `["invoices:write","invoices:read"]`, `["invoices:read","invoices:write","invoices:write"]`, nil},
		{"another scope", `["invoices:write","invoices:read"]`, `["invoices:write","invoices:read","x"]`, []string{"update https://invoices.example.com scopes"}},
		{"operations in another order", `[{"method":"get","path":" /invoices","scope":"invoices:read"},{"method":"POST","path":"/invoices","scope":"invoices:write"}]`,
			`[{"method":"POST","path":"/invoices","scope":"invoices:write"},{"method":"GET","path":"/invoices","scope":"invoices:read"}]`, nil},
		{"another operation", `{"method":"POST","path":"/invoices","scope":"invoices:write"}`, `{"method":"PUT","path":"/invoices","scope":"invoices:write"}`, []string{"update https://invoices.example.com operations"}},
		{"the default enforcement", `"name":"Invoices"`, `"name":"Invoices","operation_enforcement":"enforced"`, nil},
		{"enforcement", `"name":"Invoices"`, `"name":"Invoices","operation_enforcement":"transport_uniform"`, []string{"update https://invoices.example.com operation_enforcement"}},
		{"another URL", `https://invoices.internal.`, `https://bills.internal.`, []string{"update https://invoices.example.com upstream_url"}},
		{"another application", `"  Gateway "`, `"Billing"`, []string{"update https://invoices.example.com gateway_application"}},
		{"the default of a configuration", `"client_id":"caracal"`, `"client_id":"caracal","client_auth_method":"client_secret_basic"`, nil},
		{"another configuration", `"client_id":"caracal"`, `"client_id":"other"`, []string{"update provider://ledger config"}},
		{"another secret", `"secret-1"`, `"secret-2"`, nil},
		{"a rotated secret", `"kind":"oauth2_client_credentials"`, `"kind":"oauth2_client_credentials","rotate":["client_secret"]`, []string{"update provider://ledger config"}},
		{"a secret that another host would get", `"LOGIN.example.com"],"client_id"`, `"LOGIN.example.com","x.example.com"],"client_id"`, []string{"update provider://ledger config"}},
		{"a kind", `"kind":"oauth2_client_credentials","config":{
		"token_endpoint":" https://login.example.com/token ","allowed_token_hosts":["LOGIN.example.com"],"client_id":"caracal","client_secret":"secret-1"}`,
			`"kind":"bearer_token","config":{"bearer_token":"x"}`, []string{"update provider://ledger kind,config"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(bootstrapDocument, tt.from, tt.to, 1)
			if text == bootstrapDocument {
				t.Fatalf("the document does not contain %s", tt.from)
			}
			plan := z.plan(t, z.Admin, text, "")
			got := slices.DeleteFunc(verbs(plan), func(v string) bool { return strings.HasPrefix(v, "unchanged") })
			if !slices.Equal(got, tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			z.apply(t, z.Admin, text, "")
			if !strings.Contains(text, "rotate") {
				z.expectInSync(t, text)
			}
			z.apply(t, z.Admin, bootstrapDocument, "")
			z.expectInSync(t, bootstrapDocument)
		})
	}
}

func TestApplyStateWritesSecretsOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	provider := *outcome(t, z.apply(t, z.Admin, bootstrapDocument, ""), "provider://ledger").ID
	sealed := sealedSecrets(z.DB, z.zone, provider)
	other := strings.Replace(bootstrapDocument, "secret-1", "secret-2", 1)
	z.apply(t, z.Admin, strings.Replace(other, `"client_id":"caracal"`, `"client_id":"other"`, 1), "")
	if !bytes.Equal(sealedSecrets(z.DB, z.zone, provider), sealed) {
		t.Error("the secret was written without being asked")
	}
	rotate := strings.Replace(other, `"kind":"oauth2`, `"rotate":["client_secret"],"kind":"oauth2`, 1)
	plan := z.plan(t, z.Admin, rotate, "")
	if want := (client.StateChange{Field: "config.client_secret", Sensitive: true}); !slices.ContainsFunc(outcome(t, plan, "provider://ledger").Changes, func(c client.StateChange) bool { return reflect.DeepEqual(c, want) }) {
		t.Errorf("got %+v", plan)
	}
	z.apply(t, z.Admin, rotate, "")
	if got := openedSecrets(t, z.DB, z.zone, provider); got != `{"client_secret":"secret-2"}` {
		t.Errorf("sealed %s", got)
	}
	moved := strings.NewReplacer("login.example.com/token", "new.example.com/token", "LOGIN.example.com", "new.example.com", "secret-1", "secret-3").Replace(bootstrapDocument)
	z.apply(t, z.Admin, moved, "")
	if got := openedSecrets(t, z.DB, z.zone, provider); got != `{"client_secret":"secret-3"}` {
		t.Errorf("sealed %s: a secret was sent to another host", got)
	}
}

func TestApplyStateIsAtomic(t *testing.T) {
	t.Parallel()
	z := newStateZone(t, "API_MAX_RESOURCES_PER_ZONE=1")
	two := strings.Replace(bootstrapDocument, `{"objects":[`, `{"objects":[{"kind":"resource","spec":{"identifier":"https://two.example.com","upstream_url":"https://two.example.com",
		"scopes":["a"],"credential_provider":"provider://ledger","gateway_application":"Gateway"}},`, 1)
	resp, err := z.Admin.ApplyStateWithResponse(t.Context(), z.zone, nil, document(t, two))
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, resp, 0, code.StateNotApplied)
	problem := problemOf(t, resp)
	if problem.Object == nil || *problem.Object != (client.StateObjectReference{Kind: "resource", Identity: "https://invoices.example.com"}) || *problem.Problem != "resource_quota_exceeded" {
		t.Errorf("got %s", resp.Body)
	}
	for _, table := range []string{"applications", "providers", "resources", "resource_totals"} {
		if n := storetest.Value[int](z.DB, "SELECT count(*) FROM "+table+" WHERE zone_id = $1", z.zone); n != 0 {
			t.Errorf("%d rows of %s remain", n, table)
		}
	}
}

func TestApplyStateTraits(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	zoneToken, global := z.ClientFor(z.zone, "write"), z.ClientFor("", "write")
	privileged := `{"objects":[{"kind":"application","spec":{"name":"Key","traits":["control:agent"]}}]}`
	if got := z.issuesOf(t, zoneToken, privileged); len(got) != 1 || !strings.HasPrefix(got[0], "objects.0.spec.traits: trait_forbidden: ") {
		t.Errorf("got %q", got)
	}
	z.apply(t, zoneToken, privileged, code.InvalidState)
	z.apply(t, global, privileged, "")
	z.expectInSync(t, privileged)
	if r := z.plan(t, zoneToken, `{"objects":[{"kind":"application","spec":{"name":"Key"}}]}`, ""); r.Drift {
		t.Errorf("got %+v", r)
	}
	if got := z.issuesOf(t, zoneToken, `{"objects":[{"kind":"application","spec":{"name":"Key","traits":[]}}]}`); len(got) != 1 || !strings.HasPrefix(got[0], "objects.0.spec.traits: trait_forbidden: ") {
		t.Errorf("got %q", got)
	}
	id := newApplication(t, z.API, z.zone, "team:hidden").ID
	z.DB.Exec("UPDATE applications SET name = 'Team' WHERE id = $1", id)
	change := `{"objects":[{"kind":"application","spec":{"name":"Team","traits":["team:new"]}}]}`
	hidden := z.plan(t, zoneToken, change, "")
	if want := []client.StateChange{{Field: "traits", Sensitive: true}}; !reflect.DeepEqual(hidden.Outcomes[0].Changes, want) {
		t.Errorf("got %+v", hidden.Outcomes[0])
	}
	shown := z.plan(t, global, change, "").Outcomes[0].Changes[0]
	if shown.Sensitive || string(shown.Before) != `["team:hidden"]` || string(shown.After) != `["team:new"]` {
		t.Errorf("got %+v", shown)
	}
	z.apply(t, zoneToken, change, "")
	if a := readApplication(t, z.Admin, z.zone, id); !slices.Equal(*a.Traits, []string{"team:new"}) {
		t.Errorf("got %+v", a)
	}
}

func TestApplyStateAccess(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	text := `{"objects":[{"kind":"application","spec":{"name":"x"}}]}`
	system, archived := systemZone(z.API).ID, z.Zone().ID
	z.DB.Exec("UPDATE zones SET archived_at = now() WHERE id = $1", archived)
	for _, tt := range []struct {
		name  string
		as    *rawclient.ClientWithResponses
		zone  string
		plan  code.Code
		apply code.Code
	}{
		{"token of the zone", z.ClientFor(z.zone, "write"), z.zone, "", ""},
		{"read-only token", z.ClientFor(z.zone, "read"), z.zone, "", code.AdminTokenReadOnly},
		{"token of another zone", z.ClientFor(z.Zone().ID, "write"), z.zone, code.AdminTokenZoneMismatch, code.AdminTokenZoneMismatch},
		{"unknown zone", z.Admin, "unknown", code.ZoneNotFound, code.ZoneNotFound},
		{"archived zone", z.Admin, archived, code.ZoneNotFound, code.ZoneNotFound},
		{"reserved zone", z.ClientFor("", "write"), system, "", code.SystemZoneReadOnly},
	} {
		t.Run(tt.name, func(t *testing.T) {
			zone := stateZone{z.API, tt.zone}
			zone.plan(t, tt.as, text, tt.plan)
			zone.apply(t, tt.as, text, tt.apply)
		})
	}
}

// Two documents that are applied at the same time are applied one after the other.
func TestApplyStateConcurrently(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	z.apply(t, z.Admin, bootstrapDocument, "")
	documents := []string{
		strings.NewReplacer(`"Invoices"`, `"One"`, `["team:b","team:a"]`, `["one"]`).Replace(bootstrapDocument),
		strings.NewReplacer(`"Invoices"`, `"Two"`, `["team:b","team:a"]`, `["two"]`, `"client_id":"caracal"`, `"client_id":"two"`).Replace(bootstrapDocument),
	}
	for range 5 {
		statuses := make([]int, 2*len(documents))
		var all []func()
		for i := range statuses {
			all = append(all, func() {
				resp, err := z.Admin.ApplyStateWithResponse(t.Context(), z.zone, nil, document(t, documents[i%len(documents)]))
				if err == nil {
					statuses[i] = resp.StatusCode()
				}
			})
		}
		concurrently(all...)
		for _, status := range statuses {
			if status != http.StatusOK {
				t.Fatalf("got %v", statuses)
			}
		}
		synced := 0
		for _, d := range documents {
			if !z.plan(t, z.Admin, d, "").Drift {
				synced++
			}
		}
		if synced != 1 {
			t.Fatalf("the zone is as %d of the documents say", synced)
		}
	}
}
