package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
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

// mapSlice calls f for every operation that applies.
func mapSlice(t *testing.T, applies func(servertest.Operation) bool, f func(*testing.T, servertest.Operation)) {
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
		t.Fatal("no operation was tried")
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

func TestEveryOperationRefusesAStranger(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	mapSlice(t, private, func(t *testing.T, op servertest.Operation) {
		for _, headers := range [][]string{
			nil,
			{"Authorization", "Bearer "},
			{"Authorization", "bearer " + servertest.Bootstrap},
			{"Authorization", "Basic " + servertest.Bootstrap},
			{"Authorization", "Bearer " + servertest.Bootstrap, "Authorization", "Bearer " + servertest.Bootstrap},
			{"Authorization", "Bearer " + strings.Repeat("x", 4097)},
			{"Authorization", "Bearer cat_" + strings.Repeat("A", 43)},
		} {
			// What else is wrong makes no difference to a stranger.
			raw := w.Do(op.Method, w.path(op, strings.Repeat("x", 200)), "{", headers...)
			servertest.Expect(t, raw, 0, code.InvalidAdminToken)
			if raw.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Error("it does not say how to authenticate")
			}
		}
	})
}

func TestAReadTokenWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	token := w.Token("", "read").Token
	mapSlice(t, writes, func(t *testing.T, op servertest.Operation) {
		raw := w.Do(op.Method, w.path(op, "x"), "{", bearer(token)...)
		servertest.Expect(t, raw, 0, code.AdminTokenReadOnly)
	})
}

func TestAZoneTokenCanDoNothingToAnotherZone(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	own := w.Zone()
	token := w.Token(own.ID, "write").Token
	application, err := w.Admin.CreateApplicationWithResponse(t.Context(), w.zone.ID, client.NewApplication{Name: "theirs", RegistrationMethod: "managed"})
	if err != nil {
		t.Fatal(err)
	}
	foreign := map[string]string{ // collection -> the id of one of the other zone's
		"applications": application.JSON201.ID,
		"admin-tokens": w.Token(w.zone.ID, "write").ID,
		"dead-letters": w.DB.DeadLetter(w.zone.ID),
		"providers":    w.DB.Provider(w.zone.ID),
		"resources":    w.DB.Resource(w.zone.ID),
	}
	before := everythingOf(w.DB, w.zone.ID)
	tried := 0
	mapSlice(t, scoped, func(t *testing.T, op servertest.Operation) {
		tried++
		id := foreign[collectionOf(op)]
		if has(op, "path", "id") && id == "" {
			t.Fatalf("add to this test one of the other zone's %s", collectionOf(op))
		}
		with := append(bearer(token), "Content-Type", jsonType)
		raw := w.Do(op.Method, w.path(op, id), body(t, op), with...)
		servertest.Expect(t, raw, 0, code.AdminTokenZoneMismatch)
		if has(op, "path", "zoneId") && id != "" {
			path := strings.ReplaceAll(w.path(op, id), w.zone.ID, own.ID)
			raw := w.Do(op.Method, path, body(t, op), with...)
			if raw.Response.StatusCode != http.StatusNotFound {
				t.Errorf("below its own zone it answered %d: %s", raw.Response.StatusCode, raw.Body)
			}
		}
	})
	if after := everythingOf(w.DB, w.zone.ID); after != before {
		t.Errorf("the other zone was\n%s\nand is\n%s", before, after)
	}
	t.Logf("%d operations were tried", tried)
}

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

// No query says to a zone's token anything of another zone: neither an id in any
// parameter, known or not, nor a cursor that was made there.
func TestNoQueryReachesAnotherZone(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	own := w.Zone()
	ids := furnished(t, w.API, w.zone.ID, theirs)
	furnished(t, w.API, own.ID, "ours")
	token := w.Token(own.ID, "write").Token
	before := everythingOf(w.DB, w.zone.ID)
	tried, operations := 0, 0
	mapSlice(t, func(op servertest.Operation) bool { return private(op) && op.Method == http.MethodGet }, func(t *testing.T, op servertest.Operation) {
		operations++
		ask := func(query string) servertest.RawResponse {
			tried++
			path := strings.ReplaceAll(strings.ReplaceAll(op.Path, "{zoneId}", own.ID), "{id}", ids[collectionOf(op)])
			raw := w.Do(op.Method, path+"?"+query, "", bearer(token)...)
			if strings.Contains(string(raw.Body), theirs) {
				t.Errorf("?%s shows %s", query, raw.Body)
			}
			return raw
		}
		plain := ask("")
		names := []string{"zone_id", "zoneId", "zone", "id", "application_id", "provider_id", "filter", "all_zones"}
		for _, p := range op.Parameters {
			if p.Value.In == "query" {
				names = append(names, p.Value.Name)
			}
		}
		for _, name := range names {
			for _, id := range append(slices.Collect(maps.Values(ids)), "*", "-") {
				raw := ask(name + "=" + url.QueryEscape(id))
				if slices.Contains([]string{"limit", "cursor"}, name) && plain.Response.StatusCode == http.StatusOK {
					if raw.Response.StatusCode != http.StatusBadRequest {
						t.Errorf("%s=%s answered %d", name, id, raw.Response.StatusCode)
					}
				} else if raw.Response.StatusCode != plain.Response.StatusCode {
					t.Errorf("%s=%s answered %d, and %d without", name, id, raw.Response.StatusCode, plain.Response.StatusCode)
				}
			}
		}
		if !has(op, "query", "cursor") || !has(op, "path", "zoneId") {
			return
		}
		first := w.Do(op.Method, w.path(op, "")+"?limit=1", "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, first, http.StatusOK, "")
		_, cursor, found := strings.Cut(next(first), "cursor=")
		if !found {
			t.Fatalf("the other zone's list has no second page: %s", first.Body)
		}
		servertest.Expect(t, w.Do(op.Method, w.path(op, "")+"?cursor="+cursor, "", bearer(servertest.Bootstrap)...), http.StatusOK, "")
		servertest.Expect(t, ask("cursor="+cursor), 0, code.InvalidCursor)
	})
	if after := everythingOf(w.DB, w.zone.ID); after != before {
		t.Errorf("the other zone was\n%s\nand is\n%s", before, after)
	}
	t.Logf("%d queries were tried with %d operations", tried, operations)
}

// No member of any body leads from a zone to another: each string in each body,
// however deep, is replaced by each of the other zone's ids, one at a time. What
// is stored as a text is harmless; what is a reference leads nowhere.
func TestNoBodyReachesAnotherZone(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	own := w.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) })
	foreign, ours := furnished(t, w.API, w.zone.ID, theirs), furnished(t, w.API, own.ID, "ours")
	values := slices.Sorted(maps.Values(foreign))
	values = append(values, w.zone.Slug, "provider://of-"+foreign["applications"], "https://"+foreign["providers"]+".example.com", "*")
	token := w.Token(own.ID, "write").Token
	before := everythingOf(w.DB, w.zone.ID)
	known := strings.NewReplacer("0198c0de-0000-7000-8000-00000000000a", own.ID, "0198c0de-0000-7000-8000-00000000000b", ours["applications"], "0198c0de-0000-7000-8000-00000000000c", ours["providers"])
	tried, operations, references, succeeded := 0, 0, 0, 0
	mapSlice(t, func(op servertest.Operation) bool { return private(op) && takesBody(op) }, func(t *testing.T, op servertest.Operation) {
		operations++
		path := strings.ReplaceAll(strings.ReplaceAll(op.Path, "{zoneId}", own.ID), "{id}", ours[collectionOf(op)])
		send := func(where string, body map[string]any) {
			if _, slow := body["client_secret"]; slow && where != "client_secret" { // to hash, and it is no reference
				delete(body, "client_secret")
			}
			tried++
			text, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			raw := w.Do(op.Method, path, string(text), append(bearer(token), "Content-Type", jsonType)...)
			status := raw.Response.StatusCode
			name := where[strings.LastIndex(where, ".")+1:]
			switch {
			case !has(op, "path", "zoneId"):
				servertest.Expect(t, raw, 0, code.AdminTokenZoneMismatch)
			case slices.Contains([]string{"zone_id", "zoneId", "id"}, name): // which no body below a zone has
				if closed(op) && status != http.StatusBadRequest || status >= 500 {
					t.Errorf("%s: answered %d to %s", where, status, text)
				}
			case strings.HasSuffix(name, "_id") && name != "client_id" && name != "key_id": // which are somebody else's ids
				references++
				if status != http.StatusNotFound {
					t.Errorf("%s: answered %d to %s", where, status, text)
				}
			case status < 300:
				succeeded++
				for reference, value := range decode[map[string]any](t, raw) {
					if id, _ := value.(string); (reference == "id" || strings.HasSuffix(reference, "_id")) && slices.Contains(values, id) {
						t.Errorf("%s: it answers %s with %s to %s", where, reference, id, text)
					}
				}
			case status >= 500 || status == http.StatusUnauthorized:
				t.Errorf("%s: answered %d to %s: %s", where, status, text, raw.Body)
			}
			if strings.Contains(string(raw.Body), theirs) {
				t.Errorf("%s: it shows %s", where, raw.Body)
			}
		}
		if has(op, "path", "zoneId") { // with what is its own, it may
			raw := w.Do(op.Method, path, known.Replace(body(t, op)), append(bearer(token), "Content-Type", jsonType)...)
			if raw.Response.StatusCode >= 300 {
				t.Errorf("with its own ids it answered %d: %s", raw.Response.StatusCode, raw.Body)
			}
		}
		for _, example := range everyBody(t, op) {
			example = known.Replace(example)
			fresh := func() (body map[string]any) {
				if err := json.Unmarshal([]byte(example), &body); err != nil {
					t.Fatal(err)
				}
				if text, has := body["identifier"].(string); has { // or it would be taken the second time
					body["identifier"] = fmt.Sprintf("%s-%d", text, tried)
				}
				return body
			}
			for _, value := range values {
				for _, leaf := range leaves(fresh(), "") {
					if leaf == "client_secret" && value != values[0] { // once is enough
						continue
					}
					body := fresh()
					replace(body, leaf, value)
					send(leaf, body)
				}
				absent := []string{"zone_id", "zoneId", "id"}
				for name, member := range op.RequestBody.Value.Content.Get(jsonType).Schema.Value.Properties {
					if _, is := fresh()[name]; !is && member.Value.Type.Is("string") && name != "client_secret" {
						absent = append(absent, name)
					}
				}
				for _, name := range absent {
					body := fresh()
					body[name] = value
					send(name, body)
				}
			}
		}
	})
	if after := everythingOf(w.DB, w.zone.ID); after != before {
		t.Errorf("the other zone was\n%s\nand is\n%s", before, after)
	}
	t.Logf("%d bodies were tried with %d operations: %d named something of the other zone, %d succeeded with an id as a text", tried, operations, references, succeeded)
	if references == 0 || succeeded == 0 {
		t.Error("nothing that matters was tried")
	}
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

func TestEveryOperationRefusesAPathThatIsNoID(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	mapSlice(t, func(op servertest.Operation) bool { return has(op, "path", "") }, func(t *testing.T, op servertest.Operation) {
		for _, bad := range []string{strings.Repeat("x", 129), "a%00b", "a%2Fb", "a%20b", "%C3%A9", "a%2541", "a'--"} {
			for _, name := range []string{"zoneId", "id"} {
				if !has(op, "path", name) {
					continue
				}
				path := w.path(servertest.Operation{Path: strings.ReplaceAll(op.Path, "{"+name+"}", bad)}, "x")
				raw := w.Do(op.Method, path, body(t, op), append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
				servertest.Expect(t, raw, 0, code.InvalidParams)
			}
		}
	})
}

func TestAnIDOf128CharactersIsLookedUp(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	raw := w.Do("GET", "/v1/zones/"+strings.Repeat("x", 128), "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, 0, code.ZoneNotFound)
	raw = w.Do("GET", "/v1/zones/"+strings.ReplaceAll(w.zone.ID, "0", "%30"), "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, http.StatusOK, "")
}

func TestEveryListRefusesAQueryThatIsWrong(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	other := w.Do("GET", "/v1/zones?limit=1", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, other, http.StatusOK, "")
	mapSlice(t, func(op servertest.Operation) bool { return has(op, "query", "limit") }, func(t *testing.T, op servertest.Operation) {
		for _, bad := range []string{
			"limit=0", "limit=501", "limit=-1", "limit=1.5", "limit=abc", "limit=", "limit=1&limit=2", "limit=99999999999999999999", "limit=%00",
			"cursor=", "cursor=" + strings.Repeat("A", 513), "cursor=A&cursor=B", "cursor=%00", "limit=%zz",
		} {
			raw := w.Do(op.Method, w.path(op, "x")+"?"+bad, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, 0, code.InvalidQuery)
		}
		for _, bad := range []string{"A", "!", "AQ", strings.Repeat("A", 512), "eyJ0cyI6Inllc3RlcmRheSIsImlkIjoiYSJ9", "Af__________f_________8A", "%F0%9F%92%A3"} {
			raw := w.Do(op.Method, w.path(op, "x")+"?cursor="+bad, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, 0, code.InvalidCursor)
		}
		raw := w.Do(op.Method, w.path(op, "x")+"?unknown=%00&limit=500", "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
	})
}

func TestEveryOperationRefusesABodyThatIsHostile(t *testing.T) {
	t.Parallel()
	w := newWalker(t, "API_BODY_LIMIT_BYTES=65536")
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	mapSlice(t, takesBody, func(t *testing.T, op servertest.Operation) {
		invalid := code.Code("")
		for _, c := range op.Codes("400") {
			if code.Table[code.Code(c)].In == "body" {
				invalid = code.Code(c)
			}
		}
		right := strings.TrimSuffix(body(t, op), "}")
		closed := closed(op)
		for _, tt := range []struct {
			name, kind, body string
			want             code.Code
		}{
			{"nothing", jsonType, "", code.InvalidJSON},
			{"half", jsonType, `{"name":`, code.InvalidJSON},
			{"two", jsonType, right + `}{}`, code.InvalidJSON},
			{"no JSON", jsonType, "name=x", code.InvalidJSON},
			{"no UTF-8", jsonType, "{\"name\":\"\xff\"}", code.InvalidJSON},
			{"deeper than the decoder goes", jsonType, strings.Repeat(deep[:10_000], 2) + strings.Repeat(deep[10_000:], 2), code.InvalidJSON},
			{"deep", jsonType, deep, code.InvalidJSON},
			{"deep in a member", jsonType, `{"x":` + deep[5_000:15_000] + `}`, code.InvalidJSON},
			{"null", jsonType, "null", invalid},
			{"a list", jsonType, "[]", invalid},
			{"a string", jsonType, `"x"`, invalid},
			{"a huge number", jsonType, "1e400", invalid},
			{"a NUL", jsonType, right + `,"x":"a\u0000b"}`, invalid},
			{"a NUL in a name", jsonType, right + `,"a\u0000b":1}`, invalid},
			{"too large", jsonType, `{"x":"` + strings.Repeat("x", 70_000) + `"}`, code.PayloadTooLarge},
			{"a form", "application/x-www-form-urlencoded", "name=x", code.UnsupportedMediaType},
			{"text", "text/plain", right + "}", code.UnsupportedMediaType},
			{"no type", "", right + "}", code.UnsupportedMediaType},
			{"a broken type", "application/json; =", right + "}", code.UnsupportedMediaType},
		} {
			headers := bearer(servertest.Bootstrap)
			if tt.kind != "" {
				headers = append(headers, "Content-Type", tt.kind)
			}
			raw := w.Do(op.Method, w.path(op, "x"), tt.body, headers...)
			if raw.Response.StatusCode != code.Table[tt.want].Status || decode[client.Problem](t, raw).Error != string(tt.want) {
				t.Errorf("%s: answered %d %s, want %s", tt.name, raw.Response.StatusCode, raw.Body, tt.want)
			}
		}
		for _, unknown := range []string{"unheard_of", "__proto__"} {
			raw := w.Do(op.Method, w.path(op, "x"), right+`,"`+unknown+`":{}}`, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
			if refused := strings.Contains(string(raw.Body), string(invalid)); refused != closed {
				t.Errorf("with a member %s it answered %d %s", unknown, raw.Response.StatusCode, raw.Body)
			}
		}
		raw := w.Do(op.Method, w.path(op, "x"), "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, 0, invalid)
		raw = w.Do(op.Method, w.path(op, "x"), right+"}", append(bearer(servertest.Bootstrap), "Content-Type", jsonType, "Content-Encoding", "gzip")...)
		servertest.Expect(t, raw, 0, code.UnsupportedMediaType)
		// What a body is like is nobody's business who may not call.
		raw = w.Do(op.Method, w.path(op, "x"), strings.Repeat("x", 70_000), "Content-Type", jsonType)
		servertest.Expect(t, raw, 0, code.InvalidAdminToken)
	})
}

func TestHEADAnswersWhereverGETDoes(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	mapSlice(t, func(op servertest.Operation) bool { return op.Method == http.MethodGet && !has(op, "path", "id") }, func(t *testing.T, op servertest.Operation) {
		get := w.Do("GET", w.path(op, ""), "", bearer(servertest.Bootstrap)...)
		head := w.Do("HEAD", w.path(op, ""), "", bearer(servertest.Bootstrap)...)
		if head.Response.StatusCode != get.Response.StatusCode || len(head.Body) != 0 {
			t.Errorf("GET answered %d, HEAD %d with %d bytes", get.Response.StatusCode, head.Response.StatusCode, len(head.Body))
		}
		for _, name := range []string{"Content-Type", "Etag", "Link"} {
			if head.Header.Get(name) != get.Header.Get(name) {
				t.Errorf("%s: GET %q, HEAD %q", name, get.Header.Get(name), head.Header.Get(name))
			}
		}
	})
}

func TestEveryOperationIsDescribed(t *testing.T) {
	t.Parallel()
	mapSlice(t, func(servertest.Operation) bool { return true }, func(t *testing.T, op servertest.Operation) {
		if op.Summary == "" || op.Description == "" || len(op.Tags) != 1 {
			t.Error("it lacks a summary, a description or its tag")
		}
		for status, response := range op.Responses.Map() {
			media := response.Value.Content.Get(jsonType)
			if status < "300" && media != nil && len(media.Examples) == 0 {
				t.Errorf("its answer %s has no example", status)
			}
		}
		if takesBody(op) {
			body(t, op)
		}
	})
}
