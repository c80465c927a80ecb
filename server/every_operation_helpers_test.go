package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// The tests that use a walker call every operation of the spec, so a new operation
// is tested without changing them.

// A walker calls any operation with a valid path and body.
type walker struct {
	*servertest.API
	zone client.Zone
}

func newWalker(t *testing.T, settings ...string) walker {
	a := servertest.New(t, settings...)
	return walker{a, a.Zone()}
}

// path returns the operation's path with the walker's zone and an ID for each other
// parameter.
func (w walker) path(op servertest.Operation, id string) string {
	return strings.NewReplacer("{zoneId}", w.zone.ID, "{id}", id, "{versionId}", id, "{requestId}", id).Replace(op.Path)
}

// pathTo returns the operation's path with a zone and the IDs of objects, by
// collection. The collection of the versions of policies is "policies/versions", and that
// of requests with audit events "requests".
func pathTo(op servertest.Operation, zone string, ids map[string]string) string {
	collection := collectionOf(op)
	return strings.NewReplacer("{zoneId}", zone, "{id}", ids[collection], "{versionId}", ids[collection+"/versions"], "{requestId}", ids["requests"]).Replace(op.Path)
}

// lacks reports whether ids has no object for a parameter of the operation's path.
func lacks(ids map[string]string, op servertest.Operation) bool {
	collection := collectionOf(op)
	return has(op, "path", "id") && ids[collection] == "" || has(op, "path", "versionId") && ids[collection+"/versions"] == "" || has(op, "path", "requestId") && ids["requests"] == ""
}

// body returns the operation's first request example.
func body(t *testing.T, op servertest.Operation) string {
	t.Helper()
	if !takesBody(op) {
		return ""
	}
	examples := op.RequestBody.Value.Content.Get("application/json").Examples
	names := slices.Sorted(maps.Keys(examples))
	if len(names) == 0 {
		t.Fatalf("%s has no example of a request", op.OperationID)
	}
	text, err := json.Marshal(examples[names[0]].Value.Value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func access(op servertest.Operation) (all []string) {
	for _, a := range op.Extensions["x-access"].([]any) {
		all = append(all, a.(string))
	}
	return all
}

func has(op servertest.Operation, in, name string) bool {
	return slices.ContainsFunc(op.Parameters, func(p *openapi3.ParameterRef) bool {
		return p.Value.In == in && (name == "" || p.Value.Name == name)
	})
}

// maxLimit returns the maximum of the query parameter limit.
func maxLimit(op servertest.Operation) int {
	i := slices.IndexFunc(op.Parameters, func(p *openapi3.ParameterRef) bool { return p.Value.Name == "limit" })
	return int(*op.Parameters[i].Value.Schema.Value.Max)
}

// eachOperation runs f as a subtest for every operation that applies. It fails if
// there is none.
func eachOperation(t *testing.T, applies func(servertest.Operation) bool, f func(*testing.T, servertest.Operation)) {
	t.Helper()
	n := 0
	for _, op := range servertest.Operations() {
		if !applies(op) {
			continue
		}
		n++
		t.Run(op.OperationID, func(t *testing.T) { f(t, op) })
	}
	if n == 0 {
		t.Fatal("no operation applies")
	}
}

func public(op servertest.Operation) bool { return slices.Contains(access(op), "public") }

func private(op servertest.Operation) bool {
	return !public(op)
}

func writes(op servertest.Operation) bool { return slices.Contains(access(op), "write") }

func approves(op servertest.Operation) bool { return slices.Contains(access(op), "approve") }

// canChange reports whether an operation can change something.
func canChange(op servertest.Operation) bool { return writes(op) || approves(op) }

func needsGlobalToken(op servertest.Operation) bool { return slices.Contains(access(op), "global") }

func scoped(op servertest.Operation) bool {
	return private(op) && (has(op, "path", "zoneId") || needsGlobalToken(op))
}

// takesBody reports whether an operation takes a body in JSON.
func takesBody(op servertest.Operation) bool {
	return op.RequestBody != nil && op.RequestBody.Value.Content[jsonType] != nil
}

// closed reports whether an operation rejects unknown fields. Others ignore them.
func closed(op servertest.Operation) bool {
	more := op.RequestBody.Value.Content.Get(jsonType).Schema.Value.AdditionalProperties.Has
	return more != nil && !*more
}

const jsonType = "application/json"

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// theirs is the name of everything in the other zone, and of nothing else.
const theirs = "Only in the other zone"

// populate creates objects of each collection in a zone and returns the ID of one
// of each. The provider and the resource of the provider grant are at
// "provider-grants/providers" and "provider-grants/resources".
func populate(t *testing.T, a *servertest.API, zone, text string) map[string]string {
	t.Helper()
	created := func(collection, body string, args ...any) string {
		raw := a.Do("POST", "/v1/zones/"+zone+"/"+collection, fmt.Sprintf(body, args...), append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, http.StatusCreated, "")
		return decode[struct{ ID string }](t, raw).ID
	}
	ids := map[string]string{"zones": zone, "admin-tokens": a.Token(zone, "write").ID, "dead-letters": a.DB.DeadLetter(zone)}
	session := a.DB.Session(zone)
	for n := range 2 { // so that a list has a second page
		ids["applications"] = created("applications", `{"name":%q,"registration_method":"managed"}`, text)
		ids["registration-tokens"] = created("registration-tokens", `{"name":%q}`, text)
		ids["control-keys"] = created("control-keys", `{"name":%q,"allowed_scopes":["control:app:read"],"expires_at":"2099-12-31T00:00:00Z"}`, text)
		ids["providers"] = created("providers", `{"name":%q,"identifier":"provider://of-%s","kind":"bearer_token","config_json":{"bearer_token":"x"}}`, text, ids["applications"])
		ids["resources"] = created("resources", `{"name":%q,"identifier":"https://%s.example.com","scopes":["a","invoices:read"],"upstream_url":"https://example.com","credential_provider_id":%q,"gateway_application_id":%q}`,
			text, ids["providers"], ids["providers"], ids["applications"])
		ids["provider-grants/providers"] = created("providers", `{"name":%q,"identifier":"provider://for-%s","kind":"oauth2_authorization_code","config_json":%s}`, text, ids["applications"], codeConfig)
		ids["provider-grants/resources"] = created("resources", `{"name":%q,"identifier":"https://for-%s.example.com","scopes":["invoices:read"],"upstream_url":"https://example.com","credential_provider_id":%q,"gateway_application_id":%q}`,
			text, ids["applications"], ids["provider-grants/providers"], ids["applications"])
		ids["provider-grants"] = created("provider-grants", `{"user_id":"user-1","resource_id":%q,"provider_id":%q,"scopes":["invoices:read"],"access_token":%q}`,
			ids["provider-grants/resources"], ids["provider-grants/providers"], text)
		ids["grants"] = created("grants", `{"application_id":%q,"user_id":%q,"resource_id":%q,"scopes":["a"]}`, ids["applications"], text, ids["resources"])
		ids["step-up-challenges"] = a.DB.StepUpChallenge(zone, session)
		ids["sessions"] = a.DB.ApplicationSession(zone, ids["applications"])
		ids["agent-sessions"] = a.DB.AgentSession(zone, ids["applications"], ids["sessions"])
		a.DB.Exec("UPDATE sessions SET revoked_reason = $1 WHERE zone_id = $2", text, zone)
		a.DB.Exec("UPDATE agent_sessions SET termination_reason = $1, labels = ARRAY[$1] WHERE zone_id = $2", text, zone)
		ids["requests"] = "request-of-" + zone
		a.DB.AuditEvent(zone, map[string]any{"request_id": ids["requests"], "metadata": map[string]any{"reason": text}})
		ids["policies"] = created("policies", `{"name":%q,"description":%q,"content":%q}`, fmt.Sprint(text, " ", n), text, documentOf(text))
		ids["policies/versions"] = created("policies/"+ids["policies"]+"/versions", `{"content":%q}`, documentOf(text))
		ids["policy-sets"] = created("policy-sets", `{"name":%q}`, fmt.Sprint(text, " ", n))
		for range 2 {
			ids["policy-sets/versions"] = created("policy-sets/"+ids["policy-sets"]+"/versions", `{"manifest":[{"policy_version_id":%q}]}`, ids["policies/versions"])
			raw := a.Do("POST", "/v1/zones/"+zone+"/policy-sets/"+ids["policy-sets"]+"/activate", `{"version_id":"`+ids["policy-sets/versions"]+`"}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
			servertest.Expect(t, raw, http.StatusAccepted, "")
		}
	}
	a.DB.Exec("UPDATE step_up_challenges SET metadata_json = jsonb_build_object('text', $2::text) WHERE zone_id = $1", zone, text)
	return ids
}

// documentOf returns the content of a policy, a data document with a text.
func documentOf(text string) string {
	return fmt.Sprintf("# caracal:data-document\npackage caracal.authz\n\napp_ids := {%q: \"x\"}\n", text)
}

// bodyFields returns the fields of the operation's body, or of its first alternative.
func bodyFields(op servertest.Operation) openapi3.Schemas {
	schema := op.RequestBody.Value.Content.Get(jsonType).Schema.Value
	if len(schema.OneOf) > 0 {
		schema = schema.OneOf[0].Value
	}
	return schema.Properties
}

// everyBody returns the operation's request examples and, for each alternative of
// the body, a body with the examples of its nested fields.
func everyBody(t *testing.T, op servertest.Operation) (all []string) {
	t.Helper()
	all = examples(t, op)
	schema := op.RequestBody.Value.Content.Get(jsonType).Schema.Value
	for _, one := range schema.OneOf {
		key := schema.Discriminator.PropertyName
		body := map[string]any{"name": "Complete", key: one.Value.Properties[key].Value.Enum[0]}
		for name, field := range one.Value.Properties {
			nested := map[string]any{}
			for part, value := range field.Value.Properties {
				if value.Value.Example != nil {
					nested[part] = value.Value.Example
				}
			}
			if len(nested) > 0 {
				body[name] = nested
			}
		}
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}

// leaves returns the paths to all strings in a body: names and indexes, joined by dots.
func leaves(value any, at string) (all []string) {
	switch v := value.(type) {
	case string:
		return []string{strings.TrimPrefix(at, ".")}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			all = append(all, leaves(v[key], at+"."+key)...)
		}
	case []any:
		for i, element := range v {
			all = append(all, leaves(element, fmt.Sprintf("%s.%d", at, i))...)
		}
	}
	return all
}

// replace sets the value at a path.
func replace(body any, path, value string) {
	key, rest, further := strings.Cut(path, ".")
	switch v := body.(type) {
	case map[string]any:
		if !further {
			v[key] = value
			return
		}
		replace(v[key], rest, value)
	case []any:
		i, _ := strconv.Atoi(key)
		if !further {
			v[i] = value
			return
		}
		replace(v[i], rest, value)
	}
}

// collectionOf returns the path segment before {id}; "" if there is none.
func collectionOf(op servertest.Operation) string {
	parts := strings.Split(op.Path, "/")
	for i := len(parts) - 1; i > 0; i-- {
		if parts[i] == "{id}" {
			return parts[i-1]
		}
	}
	return ""
}

// everythingOf returns all rows of a zone, of every table, without the seals of audit
// entries, which are added in the background.
func everythingOf(db *storetest.DB, zone string) string {
	var all strings.Builder
	for _, table := range storetest.Column[string](db, "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'zone_id' AND table_name NOT IN ('audit_unsealed', 'audit_seals', 'audit_seal_heads', 'listed_audit_entries') ORDER BY 1") {
		// Without the last use of tokens, which is recorded in the background.
		rows := storetest.Column[string](db, "SELECT (to_jsonb(t) - 'last_used_at')::text FROM "+table+" AS t WHERE zone_id = $1 ORDER BY 1", zone)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(rows, "\n"))
	}
	all.WriteString(storetest.Value[string](db, "SELECT to_jsonb(zones)::text FROM zones WHERE id = $1", zone))
	return all.String()
}
