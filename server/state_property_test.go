package server_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
)

// A generator makes documents of few identities, so that most of them change objects that
// others created, and of values that the service normalizes.
type generator struct{ *rand.Rand }

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
	add("zone", settings)
	for i := range 2 {
		application := map[string]any{"name": g.one(fmt.Sprint("App ", i), fmt.Sprintf(" App %d ", i))}
		if g.IntN(2) == 0 {
			application["traits"] = []any{"a", fmt.Sprint("b", g.IntN(3))}
		}
		add("application", application)
		add("identity-provider", map[string]any{"identifier": fmt.Sprint("provider://p", i), "kind": "oauth2_client_credentials", "config": map[string]any{
			"token_endpoint": g.one("https://login.example.com/token", " https://login.example.com/token "), "client_id": g.one("x", " x ", "y"), "client_secret": g.one("s", "t"),
			"allowed_token_hosts": []any{g.one("login.example.com", "LOGIN.example.com")}, "token_params": map[string]any{"audience": g.one("a", "b"), "password": g.one("s", "t")},
		}})
		scopes := append(g.some("write", "admin"), "read")
		resource := map[string]any{
			"identifier": fmt.Sprintf("https://r%d.example.com", i), "upstream_url": g.one("https://up.example.com", " https://up.example.com "), "scopes": scopes,
			"credential_provider": fmt.Sprint("provider://p", g.IntN(2)), "gateway_application": g.one("App 0", " App 1"),
			"operations": []any{map[string]any{"method": g.one("get", "GET", " post"), "path": g.one("/a", " /a "), "scope": "read"}},
		}
		maybe(resource, "name", g.one("R", " R", "S"))
		maybe(resource, "operation_enforcement", g.one("enforced", "transport_uniform"))
		add("resource", resource)
		add("policy", map[string]any{"name": fmt.Sprint("Policy ", i), "content": []string{documentOf(fmt.Sprint(g.IntN(3))), riskOf(fmt.Sprint(g.IntN(3)))}[i]})
		add("grant", map[string]any{"application": fmt.Sprint("App ", i), "user_id": "user-1", "resource": fmt.Sprintf("https://r%d.example.com", i), "scopes": g.one([]any{"read"}, []any{"read", "read"})})
	}
	set := map[string]any{"name": "Set", "policies": g.one([]any{"Policy 0", "Policy 1"}, []any{"Policy 1", " Policy 0"}, []any{"Policy 1"})}
	maybe(set, "activate", g.one(true, false))
	add("policy-set", set)
	g.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	text, _ := json.Marshal(map[string]any{"objects": objects})
	return string(text)
}

// Whatever a document changes, it has no drift afterwards, and a plan is what is applied.
func TestApplyStateConverges(t *testing.T) {
	t.Parallel()
	z := newStateZone(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := generator{rand.New(rand.NewPCG(seed, 0))}
	for range 40 {
		text := g.document()
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
}
