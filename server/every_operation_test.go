package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

func TestEveryOperationRequiresAuthentication(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	eachOperation(t, private, func(t *testing.T, op servertest.Operation) {
		for _, headers := range [][]string{
			nil,
			{"Authorization", "Bearer "},
			{"Authorization", "bearer " + servertest.Bootstrap},
			{"Authorization", "Basic " + servertest.Bootstrap},
			{"Authorization", "Bearer " + servertest.Bootstrap, "Authorization", "Bearer " + servertest.Bootstrap},
			{"Authorization", "Bearer " + strings.Repeat("x", 4097)},
			{"Authorization", "Bearer cat_" + strings.Repeat("A", 43)},
		} {
			// Without a token, the rest of the request is not validated.
			raw := w.Do(op.Method, w.path(op, strings.Repeat("x", 200)), "{", headers...)
			servertest.Expect(t, raw, 0, code.InvalidAdminToken)
			if raw.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Error("WWW-Authenticate: Bearer is missing")
			}
		}
	})
}

func TestEveryOperationDeniesWritesWithReadToken(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	token := w.Token("", "read").Token
	eachOperation(t, writes, func(t *testing.T, op servertest.Operation) {
		raw := w.Do(op.Method, w.path(op, "x"), "{", bearer(token)...)
		servertest.Expect(t, raw, 0, code.AdminTokenReadOnly)
	})
}

func TestEveryOperationRejectsInvalidIDs(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	eachOperation(t, func(op servertest.Operation) bool { return has(op, "path", "") }, func(t *testing.T, op servertest.Operation) {
		for _, bad := range []string{strings.Repeat("x", 129), "a%00b", "a%2Fb", "a%20b", "%C3%A9", "a%2541", "a'--"} {
			for _, name := range []string{"zoneId", "id", "versionId"} {
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

func TestEveryOperationAcceptsIDsOf128Characters(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	raw := w.Do("GET", "/v1/zones/"+strings.Repeat("x", 128), "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, 0, code.ZoneNotFound)
	raw = w.Do("GET", "/v1/zones/"+strings.ReplaceAll(w.zone.ID, "0", "%30"), "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, http.StatusOK, "")
}

func TestEveryListRejectsInvalidQueries(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	ids := populate(t, w.API, w.zone.ID, "ours")
	other := w.Do("GET", "/v1/zones?limit=1", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, other, http.StatusOK, "")
	eachOperation(t, func(op servertest.Operation) bool { return has(op, "query", "limit") }, func(t *testing.T, op servertest.Operation) {
		path, most := pathTo(op, w.zone.ID, ids), maxLimit(op)
		for _, bad := range []string{
			"limit=0", fmt.Sprint("limit=", most+1), "limit=-1", "limit=1.5", "limit=abc", "limit=", "limit=1&limit=2", "limit=99999999999999999999", "limit=%00",
			"cursor=", "cursor=" + strings.Repeat("A", 513), "cursor=A&cursor=B", "cursor=%00", "limit=%zz",
		} {
			raw := w.Do(op.Method, path+"?"+bad, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, 0, code.InvalidQuery)
		}
		for _, bad := range []string{"A", "!", "AQ", strings.Repeat("A", 512), "eyJ0cyI6Inllc3RlcmRheSIsImlkIjoiYSJ9", "Af__________f_________8A", "%F0%9F%92%A3"} {
			raw := w.Do(op.Method, path+"?cursor="+bad, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, 0, code.InvalidCursor)
		}
		raw := w.Do(op.Method, path+"?unknown=%00&limit="+fmt.Sprint(most), "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
	})
}

func TestEveryOperationRejectsHostileBodies(t *testing.T) {
	t.Parallel()
	w := newWalker(t, "API_BODY_LIMIT_BYTES=65536")
	b := controlBenchOf(t, w.API, w.zone.ID)
	authorization := func(op servertest.Operation) []string {
		if op.OperationID == "invokeControl" {
			return bearer(b.token())
		}
		return bearer(servertest.Bootstrap)
	}
	deep := strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000)
	eachOperation(t, takesBody, func(t *testing.T, op servertest.Operation) {
		invalid := code.Code("")
		for _, c := range op.Codes("400") {
			if code.Table[code.Code(c)].In == "body" {
				invalid = code.Code(c)
			}
		}
		valid := strings.TrimSuffix(body(t, op), "}")
		closed := closed(op)
		for _, tt := range []struct {
			name, kind, body string
			want             code.Code
		}{
			{"empty", jsonType, "", code.InvalidJSON},
			{"truncated", jsonType, `{"name":`, code.InvalidJSON},
			{"two values", jsonType, valid + `}{}`, code.InvalidJSON},
			{"not JSON", jsonType, "name=x", code.InvalidJSON},
			{"invalid UTF-8", jsonType, "{\"name\":\"\xff\"}", code.InvalidJSON},
			{"deeper than the decoder allows", jsonType, strings.Repeat(deep[:10_000], 2) + strings.Repeat(deep[10_000:], 2), code.InvalidJSON},
			{"deep", jsonType, deep, code.InvalidJSON},
			{"deep in a field", jsonType, `{"x":` + deep[5_000:15_000] + `}`, code.InvalidJSON},
			{"null", jsonType, "null", invalid},
			{"a list", jsonType, "[]", invalid},
			{"a string", jsonType, `"x"`, invalid},
			{"a huge number", jsonType, "1e400", invalid},
			{"a NUL", jsonType, valid + `,"x":"a\u0000b"}`, invalid},
			{"a NUL in a name", jsonType, valid + `,"a\u0000b":1}`, invalid},
			{"half a surrogate pair", jsonType, valid + `,"x":"a\ud83d"}`, code.InvalidJSON},
			{"the other half", jsonType, valid + `,"x":["\\\uDE00\ud83d"]}`, code.InvalidJSON},
			{"half a surrogate pair in a name", jsonType, valid + `,"\ud83d\ud83d\ude00":1}`, code.InvalidJSON},
			{"too large", jsonType, `{"x":"` + strings.Repeat("x", 600_000) + `"}`, code.PayloadTooLarge},
			{"a form", "application/x-www-form-urlencoded", "name=x", code.UnsupportedMediaType},
			{"text", "text/plain", valid + "}", code.UnsupportedMediaType},
			{"no media type", "", valid + "}", code.UnsupportedMediaType},
			{"a malformed media type", "application/json; =", valid + "}", code.UnsupportedMediaType},
			{"a charset other than UTF-8", "application/json; charset=iso-8859-1", valid + "}", code.UnsupportedMediaType},
			{"a byte order mark", jsonType, "\ufeff" + valid + "}", code.InvalidJSON},
		} {
			headers := authorization(op)
			if tt.kind != "" {
				headers = append(headers, "Content-Type", tt.kind)
			}
			raw := w.Do(op.Method, w.path(op, "x"), tt.body, headers...)
			if servertest.Expect(t, raw, 0, tt.want); t.Failed() {
				t.Fatal(tt.name)
			}
		}
		for _, unknown := range []string{"unknown_field", "__proto__"} {
			raw := w.Do(op.Method, w.path(op, "x"), valid+`,"`+unknown+`":{}}`, append(authorization(op), "Content-Type", jsonType)...)
			if rejected := strings.Contains(string(raw.Body), string(invalid)); rejected != closed {
				t.Errorf("with an unknown field %s: got %d %s", unknown, raw.Response.StatusCode, raw.Body)
			}
		}
		raw := w.Do(op.Method, w.path(op, "x"), "", authorization(op)...)
		servertest.Expect(t, raw, 0, invalid)
		raw = w.Do(op.Method, w.path(op, "x"), valid+"}", append(authorization(op), "Content-Type", jsonType, "Content-Encoding", "br")...)
		servertest.Expect(t, raw, 0, code.UnsupportedMediaType)
		if strings.HasPrefix(op.Path, "/v1/zones/{zoneId}/register") { // the operation itself checks the token
			return
		}
		// Without a token, the body is not validated.
		raw = w.Do(op.Method, w.path(op, "x"), strings.Repeat("x", 70_000), "Content-Type", jsonType)
		if op.OperationID == "invokeControl" {
			servertest.Expect(t, raw, 0, code.ControlUnauthenticated)
		} else {
			servertest.Expect(t, raw, 0, code.InvalidAdminToken)
		}
	})
}

func TestEveryOperationRejectsMalformedIfMatch(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	eachOperation(t, func(op servertest.Operation) bool { return has(op, "header", "If-Match") }, func(t *testing.T, op servertest.Operation) {
		for _, malformed := range []string{"", "1", `"1`, `w/"1"`, `*, "1"`} {
			raw := w.Do(op.Method, w.path(op, "x"), body(t, op), append(bearer(servertest.Bootstrap), "Content-Type", jsonType, "If-Match", malformed)...)
			servertest.Expect(t, raw, 0, code.InvalidIfMatch)
		}
	})
}

func TestEveryOperationWithGETHandlesHEAD(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	eachOperation(t, func(op servertest.Operation) bool {
		return op.Method == http.MethodGet && !has(op, "path", "id") && !has(op, "path", "requestId") && op.Extensions["x-head"] != false
	}, func(t *testing.T, op servertest.Operation) {
		get := w.Do("GET", w.path(op, ""), "", bearer(servertest.Bootstrap)...)
		head := w.Do("HEAD", w.path(op, ""), "", bearer(servertest.Bootstrap)...)
		if head.Response.StatusCode != get.Response.StatusCode || len(head.Body) != 0 {
			t.Errorf("GET got %d, HEAD %d with %d bytes", get.Response.StatusCode, head.Response.StatusCode, len(head.Body))
		}
		for _, name := range []string{"Content-Type", "Etag", "Link"} {
			if head.Header.Get(name) != get.Header.Get(name) {
				t.Errorf("%s: GET %q, HEAD %q", name, get.Header.Get(name), head.Header.Get(name))
			}
		}
	})
}

func TestEveryOperationIsDocumented(t *testing.T) {
	t.Parallel()
	eachOperation(t, func(servertest.Operation) bool { return true }, func(t *testing.T, op servertest.Operation) {
		if op.Summary == "" || op.Description == "" || len(op.Tags) != 1 {
			t.Error("the summary, the description or the tag is missing")
		}
		for status, response := range op.Responses.Map() {
			media := response.Value.Content.Get(jsonType)
			if status < "300" && media != nil && len(media.Examples) == 0 {
				t.Errorf("the response %s has no example", status)
			}
		}
		if takesBody(op) {
			body(t, op)
		}
	})
}
