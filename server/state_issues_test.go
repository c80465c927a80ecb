package server_test

import (
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
)

func TestPlanStateReportsEveryIssue(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	z.apply(t, z.Admin, bootstrapDocument, "")
	newApplication(t, z.API, z.zone)
	z.DB.Exec("UPDATE applications SET name = 'Twice' WHERE name <> 'Gateway'") // Billing and the new one
	// A client chooses its own name, so that does not make a name ambiguous.
	resp, err := z.Admin.RegisterApplicationWithResponse(t.Context(), z.zone, client.ApplicationRegistration{Name: "Gateway"})
	if err != nil || resp.StatusCode() != 403 {
		t.Fatalf("%v: %s", err, resp.Body)
	}
	resource := func(fields string) string {
		return `{"kind":"resource","spec":{"identifier":"https://new.example.com","upstream_url":"https://x.example.com","scopes":["a"],"credential_provider":"provider://ledger","gateway_application":"Gateway"` + fields + `}}`
	}
	for _, tt := range []struct {
		name, objects string
		want          []string
	}{
		{"nothing", ``, nil},
		{"unknown kind", `{"kind":"widget","spec":{}}`, []string{"objects.0.kind: must be one of zone, application, identity-provider, resource, policy, policy-set, grant"}},
		{"no kind", `{"spec":{}}`, []string{"objects.0.kind: is required"}},
		{"no spec", `{"kind":"application"}`, []string{"objects.0.spec: is required"}},
		{"not an object", `"application"`, []string{"objects.0: must be an object"}},
		{"a spec that is not an object", `{"kind":"application","spec":[]}`, []string{"objects.0.spec: must be an object"}},
		{"an unknown field", `{"kind":"application","spec":{"name":"x"},"x":1}`, []string{"objects.0.x: unknown field"}},
		{"an unknown field of a spec", `{"kind":"application","spec":{"name":"x","tratis":[]}}`, []string{"objects.0.spec.tratis: unknown field"}},
		{"a wrong type", `{"kind":"application","spec":{"name":"x","traits":"a"}}`, []string{"objects.0.spec.traits: must be an array"}},
		{"no identity", `{"kind":"application","spec":{}},{"kind":"identity-provider","spec":{"identifier":" ","kind":"none"}}`,
			[]string{"objects.0.spec.name: is required", "objects.1.spec.identifier: must not be empty"}},
		{"the same twice", `{"kind":"application","spec":{"name":"x"}},{"kind":"application","spec":{"name":" x "}}`, []string{"objects.1.spec.name: must not be that of objects[0], too"}},
		{"several", `{"kind":"application","spec":{"name":"x","traits":["?"]}},{"kind":"identity-provider","spec":{"identifier":"x"}},{"kind":"application","spec":{"name":"\u202e"}}`, []string{
			"objects.2.spec.name: must not contain bidirectional controls, such as U+202E at position 1"}},
		{"several of the zone", `{"kind":"application","spec":{"name":"x","traits":["?"]}},{"kind":"identity-provider","spec":{"identifier":"x"}}`, []string{
			"objects.0.spec.traits: trait_invalid: trait '?' violates [A-Za-z][A-Za-z0-9._:-]* format",
			"objects.1.spec.identifier: must start with provider:// and use lowercase letters, numbers, or hyphens",
			"objects.1.spec.kind: is required in a new provider"}},
		{"an ambiguous name", `{"kind":"application","spec":{"name":"Twice"}}`, []string{"objects.0.spec.name: must be unique: the zone has several managed applications with this name"}},
		{"an ambiguous reference", strings.Replace(resource(""), `"Gateway"`, `"Twice"`, 1), []string{"objects.0.spec.gateway_application: must be unique: the zone has several managed applications with this name"}},
		{"a dangling reference", strings.NewReplacer("://ledger", "://other", `"Gateway"`, `"Unknown"`).Replace(resource("")), []string{
			"objects.0.spec.credential_provider: must be that of the zone or of the document: there is no such identity-provider", "objects.0.spec.gateway_application: must be that of the zone or of the document: there is no such application"}},
		{"a dangling ID", strings.NewReplacer(`credential_provider":"provider://ledger"`, `credential_provider_id":"x"`).Replace(resource("")), []string{"objects.0.spec.credential_provider_id: no identity-provider of the zone has this ID"}},
		{"both references", resource(`,"gateway_application_id":"x"`), []string{"objects.0.spec.gateway_application_id: must not be set together with gateway_application"}},
		{"an incomplete resource", `{"kind":"resource","spec":{"identifier":"https://new.example.com"}}`, []string{"objects.0.spec.upstream_url: is required in a new resource",
			"objects.0.spec.scopes: is required in a new resource", "objects.0.spec.credential_provider: is required in a new resource", "objects.0.spec.gateway_application: is required in a new resource"}},
		{"an operation with an unknown scope", resource(`,"operations":[{"method":"GET","path":"/","scope":"b"}]`), []string{"objects.0.spec.operations: operation_scope_not_in_resource_scopes: Operation scopes must be listed in the resource's scopes."}},
		{"an operation with an invalid path", resource(`,"operations":[{"method":"GET","path":"/?x","scope":"a"}]`), []string{"objects.0.spec.operations.0.path: must be a path without query, fragment and control characters"}},
		{"too large operations", resource(`,"operations":[{"method":"GET","path":"/` + strings.Repeat("x", 64<<10) + `","scope":"a"}]`), []string{"objects.0.spec.scopes: must be at most 65536 bytes together with the operations"}},
		{"credentials in a URL", strings.Replace(resource(""), "https://x.example", "https://u:p@x.example", 1), []string{"objects.0.spec.upstream_url: must not contain a user name or password; use a credential provider"}},
		{"an invalid identifier", strings.Replace(resource(""), "https://new.", "new.", 1), []string{"objects.0.spec.identifier: resource identifier must be an absolute resource audience URI and must not use the provider:// namespace"}},
		{"the control resource", strings.Replace(resource(""), "https://new.example.com", controlAudience, 1), []string{"objects.0.spec.identifier: protected_resource: control API resource is managed only through the Control console path"}},
		{"reserved names", strings.Replace(resource(""), "https://new", "caracal-sys://new", 1) + `,{"kind":"application","spec":{"name":"caracal.sys/x"}},{"kind":"identity-provider","spec":{"identifier":"provider://caracal-sys-x","kind":"none"}}`,
			[]string{"objects.0.spec.identifier: reserved_namespace: the 'caracal.sys' namespace is reserved for Caracal internal systems",
				"objects.1.spec.name: reserved_namespace: the 'caracal.sys' namespace is reserved for Caracal internal systems",
				"objects.2.spec.identifier: reserved_namespace: the 'caracal.sys' namespace is reserved for Caracal internal systems"}},
		{"an invalid configuration", `{"kind":"identity-provider","spec":{"identifier":"provider://x","kind":"api_key","config":{"header_name":"a b","api_key":"x"}}}`, []string{"objects.0.spec.config.header_name: api_key provider config header_name must be an HTTP header name"}},
		{"a configuration that becomes invalid", `{"kind":"identity-provider","spec":{"identifier":"provider://ledger","config":{"header_name":"a"}}}`, []string{"objects.0.spec.config.header_name: oauth2_client_credentials provider config has unsupported keys: header_name"}},
		{"a kind without its configuration", `{"kind":"identity-provider","spec":{"identifier":"provider://ledger","kind":"api_key"}}`, []string{"objects.0.spec.config: is required if the kind changes"}},
		{"scopes that operations use", `{"kind":"resource","spec":{"identifier":"https://invoices.example.com","scopes":["x"]}}`, []string{"objects.0.spec.operations: operation_scope_not_in_resource_scopes: Operation scopes must be listed in the resource's scopes."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := `{"objects":[` + tt.objects + `]}`
			as := z.ClientFor("", "write")
			if tt.want == nil {
				z.plan(t, as, text, "")
				return
			}
			raw := z.Do("POST", "/v1/zones/"+z.zone+"/state/plan", text, append(bearer(z.Token("", "write").Token), "Content-Type", jsonType)...)
			if got := issues(t, raw); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			raw = z.Do("POST", "/v1/zones/"+z.zone+"/state/apply", text, append(bearer(z.Token("", "write").Token), "Content-Type", jsonType)...)
			if got := issues(t, raw); !slices.Equal(got, tt.want) {
				t.Errorf("apply got %q", got)
			}
		})
	}
}
