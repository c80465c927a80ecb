package server_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/db"
	"caracal.run/management/server/state"
	"caracal.run/management/store"
)

// An object that the document still refers to is not archived.
func TestPlanStateKeepsWhatTheDocumentRefersTo(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	as := z.ClientFor(z.zone, "write")
	const archived = "refers to an object that would be archived: add it to the document"
	const (
		gateway  = `{"kind":"application","spec":{"name":"Gateway"}}`
		billing  = `{"kind":"application","spec":{"name":"Billing"}}`
		ledger   = `{"kind":"identity-provider","spec":{"identifier":"provider://ledger","kind":"none"}}`
		invoices = `{"kind":"resource","spec":{"identifier":"https://invoices.example.com","upstream_url":"https://i.example.com","scopes":["read"],"credential_provider":"provider://ledger","gateway_application":"Gateway"}}`
		partial  = `{"kind":"resource","spec":{"identifier":"https://invoices.example.com","name":"Invoices"}}`
		grant    = `{"kind":"grant","spec":{"application":"Billing","user_id":"user-7","resource":"https://invoices.example.com","scopes":["read"]}}`
		set      = `{"kind":"policy-set","spec":{"name":"Set","policies":["IDs"]}}`
		anySet   = `{"kind":"policy-set","spec":{"name":"Set"}}`
	)
	policy := fmt.Sprintf(`{"kind":"policy","spec":{"name":"IDs","content":%q}}`, documentOf("${application:Billing}"))
	all := []string{gateway, billing, ledger, invoices, grant, policy, set}
	z.apply(t, as, owned(`{"objects":[`+strings.Join(all, ",")+`]}`, `"owner":"payments"`), "")
	for _, tt := range []struct {
		name    string
		objects []string
		want    []string
	}{
		{"all", all, nil},
		{"none", nil, nil},
		{"the application of a resource", []string{billing, ledger, invoices, grant, policy, set}, []string{"objects.2.spec.gateway_application: " + archived}},
		{"the provider of a resource", []string{gateway, billing, invoices, grant, policy, set}, []string{"objects.2.spec.credential_provider: " + archived}},
		{"what a resource keeps", []string{billing, partial}, []string{"objects.1.spec.credential_provider: " + archived, "objects.1.spec.gateway_application: " + archived}},
		{"the resource of a grant", []string{gateway, billing, ledger, grant, policy, set}, []string{"objects.3.spec.resource: " + archived}},
		{"the application of a grant and of a policy", []string{gateway, ledger, invoices, grant, policy, set}, []string{"objects.3.spec.application: " + archived, "objects.4.spec.content: " + archived}},
		{"the policy of a policy set", []string{gateway, billing, ledger, invoices, grant, set}, []string{"objects.5.spec.policies.0: " + archived}},
		{"the policy that a policy set keeps", []string{gateway, billing, ledger, invoices, grant, anySet}, []string{"objects.5.spec.policies: " + archived}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, prune := range []string{`"owner":"payments","prune":true`, `"prune":true,"prune_kinds":["application","identity-provider","resource","policy","policy-set"]`} {
				text := owned(`{"objects":[`+strings.Join(tt.objects, ",")+`]}`, prune)
				if tt.want == nil {
					z.plan(t, as, text, "")
				} else if got := z.issuesOf(t, as, text); !slices.Equal(got, tt.want) {
					t.Errorf("%s: got %q, want %q", prune, got, tt.want)
				}
			}
		})
	}
	if got := z.issuesOf(t, as, `{"prune":true,"prune_kinds":["application"],"objects":[`+billing+","+partial+`]}`); !slices.Equal(got, []string{"objects.1.spec.gateway_application: " + archived}) {
		t.Errorf("got %q", got)
	}
}

func TestPlanStateNeverDropsSecretOfPlaceholder(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	const stored = `{"objects":[{"kind":"identity-provider","spec":{"identifier":"provider://ledger","kind":"oauth2_client_credentials","config":{
		"token_endpoint":"https://login.example.com/token","allowed_token_hosts":["login.example.com"],"client_id":"caracal","client_secret":"secret-1",
		"token_params":{"password":"secret-2"}}}}]}`
	z.apply(t, z.Admin, stored, "")
	kept := strings.NewReplacer("secret-1", "${A}", "secret-2", "${B}").Replace(stored)
	z.expectInSync(t, kept)
	const must = ": must be the secret: this is a placeholder"
	const inConfig = "objects.0.spec.config."
	for _, tt := range []struct {
		name, from, to string
		want           []string
	}{
		{"another host", `https://login.example.com/token","allowed_token_hosts":["login.example.com"],"client_id":"caracal","client_secret":"${A}"`,
			`https://x.example.com/token","allowed_token_hosts":["x.example.com"],"client_id":"caracal","client_secret":"secret-3"`, []string{inConfig + "token_params.password" + must}},
		{"a rotated secret that is not supplied", `"kind":"oauth2`, `"rotate":["client_assertion"],"kind":"oauth2`, []string{"objects.0.spec.rotate.0: must be the name of a secret in config"}},
		{"a public field", `"kind":"oauth2`, `"rotate":["client_id"],"kind":"oauth2`, []string{"objects.0.spec.rotate.0: must be the name of a secret in config"}},
		{"no configuration", kept[strings.Index(kept, `"kind":"oauth2`):], `"rotate":["client_secret"]}}]}`, []string{"objects.0.spec.rotate.0: must be the name of a secret in config"}},
		{"a secret that a new provider lacks", kept[strings.Index(kept, `"identifier"`):], `"identifier":"provider://new","kind":"none","rotate":["x"]}}]}`, []string{"objects.0.spec.rotate.0: must be the name of a secret in config"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(kept, tt.from, tt.to, 1)
			if got := z.issuesOf(t, z.Admin, text); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// If the zone has changed, a document is planned again as it was.
func TestPlanStateLeavesDocumentAsItIs(t *testing.T) {
	t.Parallel()
	config := json.RawMessage(`{"header_name":"X-Api-Key","api_key":"${LEDGER_API_KEY}"}`)
	d := state.Document{Objects: []state.Object{{Kind: state.Provider, Spec: &state.ProviderSpec{Identifier: "provider://ledger", Name: new(""), Config: config}}}}
	zone := store.ZoneState{Providers: []db.ListStateProvidersRow{{
		ID: "p", Identifier: "provider://ledger", Kind: "api_key", ConfigJSON: json.RawMessage(`{"header_name":"X-Api-Key"}`), SecretConfigKeys: []string{"api_key"},
	}}}
	if _, issues := state.Make(zone, d, state.Options{}); len(issues) > 0 {
		t.Fatalf("got %+v", issues)
	}
	spec := d.Objects[0].Spec.(*state.ProviderSpec)
	if string(spec.Config) != string(config) || spec.Name == nil {
		t.Errorf("the document was changed to %+v", spec)
	}
}
