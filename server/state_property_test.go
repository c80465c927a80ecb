package server_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"caracal.run/management/gen"
)

// A generator makes documents of few identities, so that most of them change objects that
// others created, and of values that the service normalizes.
type generator struct {
	*rand.Rand
	zone generatedZone
}

// A generatedZone is a zone that documents are generated for, with the IDs of objects that
// all of them contain.
type generatedZone struct{ zone, provider, application string }

func (g generator) one(values ...any) any { return values[g.IntN(len(values))] }

// some returns some of the values, in any order and possibly repeated.
func (g generator) some(values ...any) []any {
	all := []any{g.one(values...)}
	for range g.IntN(3) {
		all = append(all, g.one(values...))
	}
	return all
}

// document returns a document with all that its objects refer to.
func (g generator) document() string {
	z := g.zone
	var objects []any
	add := func(kind string, spec map[string]any) {
		objects = append(objects, map[string]any{"kind": kind, "spec": spec})
	}
	maybe := func(spec map[string]any, field string, value any) {
		if g.IntN(2) == 0 {
			spec[field] = value
		}
	}
	settings := map[string]any{}
	maybe(settings, "name", g.one("Zone", " Zone ", "Other", "Cafe\u0301"))
	maybe(settings, "dcr_enabled", g.one(true, false))
	maybe(settings, "slug", g.one("property-"+z.zone, "other-"+z.zone))
	maybe(settings, "operator_coauthor_badge", g.one(true, false))
	maybe(settings, "open_registration", g.one(true, false))
	if settings["dcr_enabled"] == false {
		maybe(settings, "dcr_shutdown", g.one("keep_live", "revoke_live"))
	}
	add("zone", settings)
	for i := range 2 {
		application := map[string]any{"name": g.one(fmt.Sprint("App ", i), fmt.Sprintf(" App %d ", i))}
		if g.IntN(2) == 0 {
			application["traits"] = []any{"a", fmt.Sprint("b", g.IntN(3))}
		}
		add("application", application)
		provider := map[string]any{"identifier": fmt.Sprint("provider://p", i), "kind": "oauth2_client_credentials", "config": map[string]any{
			"token_endpoint": g.one("https://login.example.com/token", " https://login.example.com/token "), "client_id": g.one("x", " x ", "y"), "client_secret": g.one("s", "t"),
			"allowed_token_hosts": []any{g.one("login.example.com", "LOGIN.example.com")}, "token_params": map[string]any{"audience": g.one("a", "b"), "password": g.one("s", "t")},
		}}
		maybe(provider, "name", g.one("P", " P ", "Q"))
		add("identity-provider", provider)
		scopes := append(g.some("write", "admin"), "read")
		resource := map[string]any{
			"identifier": fmt.Sprintf("https://r%d.example.com", i), "upstream_url": g.one("https://up.example.com", " https://up.example.com "), "scopes": scopes,
			"operations": []any{map[string]any{"method": g.one("get", "GET", " post"), "path": g.one("/a", " /a "), "scope": "read"}},
		}
		if g.IntN(2) == 0 {
			resource["credential_provider"] = fmt.Sprint("provider://p", g.IntN(2))
		} else {
			resource["credential_provider_id"] = z.provider
		}
		if g.IntN(2) == 0 {
			resource["gateway_application"] = g.one("App 0", " App 1")
		} else {
			resource["gateway_application_id"] = z.application
		}
		maybe(resource, "name", g.one("R", " R", "S"))
		maybe(resource, "operation_enforcement", g.one("enforced", "transport_uniform"))
		add("resource", resource)
		policy := map[string]any{"name": fmt.Sprint("Policy ", i), "content": []string{documentOf(fmt.Sprint(g.IntN(3))), riskOf(fmt.Sprint(g.IntN(3)))}[i]}
		maybe(policy, "schema_version", "2026-05-20")
		maybe(policy, "description", g.one("x", "y")) // which only warns if it differs
		maybe(policy, "owner_type", g.one("customer", "x"))
		add("policy", policy)
		add("grant", map[string]any{"application": fmt.Sprint("App ", i), "user_id": "user-1", "resource": fmt.Sprintf("https://r%d.example.com", i), "scopes": g.one([]any{"read"}, []any{"read", "read"})})
	}
	set := map[string]any{"name": "Set", "policies": g.one([]any{"Policy 0", "Policy 1"}, []any{"Policy 1", " Policy 0"}, []any{"Policy 1"})}
	maybe(set, "activate", g.one(true, false))
	maybe(set, "description", g.one("x", "y"))
	add("policy-set", set)
	g.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	document := map[string]any{"objects": objects}
	maybe(document, "owner", g.one("payments", " payments "))
	if document["owner"] != nil {
		maybe(document, "prune", true)
	} else {
		document["prune_kinds"], document["prune_max_share"] = g.some("application", "resource"), g.one(0.5, 1) // without effect
	}
	text, _ := json.Marshal(document)
	return string(text)
}

// fieldsOf returns the fields of a document, and those of its objects as kind.field.
func fieldsOf(t *testing.T, text string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	var document map[string]any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	for field := range document {
		all[field] = true
	}
	for _, o := range document["objects"].([]any) {
		object := o.(map[string]any)
		for field := range object["spec"].(map[string]any) {
			all[fmt.Sprint(object["kind"], ".", field)] = true
		}
	}
	return all
}

// schemaFields returns what fieldsOf finds in documents with every field that the published
// schema has.
func schemaFields(t *testing.T) map[string]bool {
	t.Helper()
	type schema struct {
		Properties map[string]struct {
			Enum []string
			Ref  string `json:"$ref"`
		}
	}
	var document struct {
		schema
		Definitions map[string]schema
	}
	if err := json.Unmarshal(gen.StateSchema, &document); err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for field := range document.Properties {
		all[field] = true
	}
	for name, object := range document.Definitions {
		kind := object.Properties["kind"]
		if !strings.HasSuffix(name, "Object") || len(kind.Enum) != 1 {
			continue
		}
		spec := document.Definitions[strings.TrimPrefix(object.Properties["spec"].Ref, "#/definitions/")]
		if len(spec.Properties) == 0 {
			t.Fatalf("the schema has no fields of %s", kind.Enum[0])
		}
		for field := range spec.Properties {
			all[kind.Enum[0]+"."+field] = true
		}
	}
	if len(all) < 30 {
		t.Fatalf("found only the fields %v in the schema", all)
	}
	return all
}

// Whatever a document changes, it has no drift afterwards, and a plan is what is applied.
func TestApplyStateConverges(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	applied := z.apply(t, z.Admin, bootstrapDocument, "")
	g := generator{rand.New(rand.NewPCG(seed, 0)), generatedZone{z.zone, *outcome(t, applied, "provider://ledger").ID, *outcome(t, applied, "Gateway").ID}}
	missing := schemaFields(t)
	delete(missing, "identity-provider.rotate") // which changes a secret each time
	for n := 0; n < 40 || n < 400 && len(missing) > 0; n++ {
		text := g.document()
		for field := range fieldsOf(t, text) {
			delete(missing, field)
		}
		plan := z.plan(t, z.Admin, text, "")
		applied := z.apply(t, z.Admin, text, "")
		if applied.PlanID != plan.PlanID {
			t.Errorf("planned %q, applied %q", verbs(plan), verbs(applied))
		}
		z.expectInSync(t, text)
		if t.Failed() {
			t.Fatal(text)
		}
	}
	for field := range missing {
		t.Errorf("no document had the field %s: generate it", field)
	}
}
