package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
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

// each calls f for every operation that applies.
func each(t *testing.T, applies func(servertest.Operation) bool, f func(*testing.T, servertest.Operation)) {
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

const jsonType = "application/json"

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func TestEveryOperationRefusesAStranger(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	each(t, private, func(t *testing.T, op servertest.Operation) {
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
	each(t, writes, func(t *testing.T, op servertest.Operation) {
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
	each(t, scoped, func(t *testing.T, op servertest.Operation) {
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
	each(t, func(op servertest.Operation) bool { return has(op, "path", "") }, func(t *testing.T, op servertest.Operation) {
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
	each(t, func(op servertest.Operation) bool { return has(op, "query", "limit") }, func(t *testing.T, op servertest.Operation) {
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
	each(t, takesBody, func(t *testing.T, op servertest.Operation) {
		invalid := code.Code("")
		for _, c := range op.Codes("400") {
			if code.Table[code.Code(c)].In == "body" {
				invalid = code.Code(c)
			}
		}
		right := strings.TrimSuffix(body(t, op), "}")
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
			{"an unknown member", jsonType, right + `,"unheard_of":1}`, invalid},
			{"__proto__", jsonType, right + `,"__proto__":{}}`, invalid},
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
	each(t, func(op servertest.Operation) bool { return op.Method == http.MethodGet && !has(op, "path", "id") }, func(t *testing.T, op servertest.Operation) {
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
	each(t, func(servertest.Operation) bool { return true }, func(t *testing.T, op servertest.Operation) {
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
