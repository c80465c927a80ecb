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

// The tests here walk all operations of the spec, and so grow with it: what
// middleware promises for every operation is tried with every operation.

// A walker knows how to call any operation rightly.
type walker struct {
	*servertest.API
	zone client.Zone
}

func newWalker(t *testing.T, settings ...string) walker {
	a := servertest.New(t, settings...)
	return walker{a, a.Zone()}
}

// path is an operation's path with the walker's zone, and an id in place of
// every other parameter.
func (w walker) path(op servertest.Operation, id string) string {
	path := strings.ReplaceAll(op.Path, "{zoneId}", w.zone.ID)
	return strings.ReplaceAll(path, "{id}", id)
}

// body is the first of an operation's examples.
func body(t *testing.T, op servertest.Operation) string {
	t.Helper()
	if op.RequestBody == nil {
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

func scoped(op servertest.Operation) bool {
	return private(op) && (has(op, "path", "zoneId") || slices.Contains(access(op), "global"))
}

func takesBody(op servertest.Operation) bool { return op.RequestBody != nil }

// closed says whether an operation refuses members that it does not know. Others
// ignore them, as the contract does.
func closed(op servertest.Operation) bool {
	more := op.RequestBody.Value.Content.Get(jsonType).Schema.Value.AdditionalProperties.Has
	return more != nil && !*more
}

const jsonType = "application/json"

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// theirs is what everything of the other zone's is called, and nothing else.
const theirs = "Theirs and nobody else's"

// furnished is what a zone has one of, collection by collection.
func furnished(t *testing.T, a *servertest.API, zone, text string) map[string]string {
	t.Helper()
	made := func(collection, body string, args ...any) string {
		raw := a.Do("POST", "/v1/zones/"+zone+"/"+collection, fmt.Sprintf(body, args...), append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
		servertest.Expect(t, raw, http.StatusCreated, "")
		return decode[struct{ ID string }](t, raw).ID
	}
	ids := map[string]string{"zones": zone, "admin-tokens": a.Token(zone, "write").ID, "dead-letters": a.DB.DeadLetter(zone)}
	for range 2 { // so that a list has a second page
		ids["applications"] = made("applications", `{"name":%q,"registration_method":"managed"}`, text)
		ids["providers"] = made("providers", `{"name":%q,"identifier":"provider://of-%s","kind":"bearer_token","config_json":{"bearer_token":"x"}}`, text, ids["applications"])
		ids["resources"] = made("resources", `{"name":%q,"identifier":"https://%s.example.com","scopes":["a"],"upstream_url":"https://example.com","credential_provider_id":%q,"gateway_application_id":%q}`,
			text, ids["providers"], ids["providers"], ids["applications"])
	}
	return ids
}

// everyBody is an operation's examples and, where a member can be one of several
// things, one for each.
func everyBody(t *testing.T, op servertest.Operation) (all []string) {
	t.Helper()
	all = examples(t, op)
	for name, member := range op.RequestBody.Value.Content.Get(jsonType).Schema.Value.Properties {
		for _, one := range slices.Concat(member.Value.AnyOf, member.Value.OneOf) {
			whole := map[string]any{}
			for key, part := range one.Value.Properties {
				if part.Value.Example != nil {
					whole[key] = part.Value.Example
				}
			}
			text, err := json.Marshal(map[string]any{"name": "Whole", "kind": "api_key", name: whole})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(text))
		}
	}
	return all
}

// leaves are the ways to all strings in a body: members and indexes, with dots.
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

// replace puts a value where a way leads.
func replace(body any, way, value string) {
	key, rest, further := strings.Cut(way, ".")
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

// collectionOf is the last word of a path that is no parameter and has one
// after it.
func collectionOf(op servertest.Operation) string {
	parts := strings.Split(op.Path, "/")
	for i := len(parts) - 1; i > 0; i-- {
		if parts[i] == "{id}" {
			return parts[i-1]
		}
	}
	return ""
}

// everythingOf is all rows of a zone, in every table there is.
func everythingOf(db *storetest.DB, zone string) string {
	var all strings.Builder
	for _, table := range storetest.Column[string](db, "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'zone_id' ORDER BY 1") {
		rows := storetest.Column[string](db, "SELECT to_jsonb(t)::text FROM "+table+" AS t WHERE zone_id = $1 ORDER BY 1", zone)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(rows, "\n"))
	}
	all.WriteString(storetest.Value[string](db, "SELECT to_jsonb(zones)::text FROM zones WHERE id = $1", zone))
	return all.String()
}
