package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

func TestZoneTokenCannotAccessOtherZone(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	own := w.Zone()
	token := w.Token(own.ID, "write", servertest.CanApprove).Token
	application, err := w.Admin.CreateApplicationWithResponse(t.Context(), w.zone.ID, client.NewApplication{Name: "theirs", RegistrationMethod: "managed"})
	if err != nil {
		t.Fatal(err)
	}
	foreign := map[string]string{ // collection -> ID of an object of the other zone
		"applications": application.JSON201.ID,
		"admin-tokens": w.Token(w.zone.ID, "write").ID,
		"control-keys": newControlKey(t, w.API, w.zone.ID, client.ControlScopeControlAppRead).ID,
		"dead-letters": w.DB.DeadLetter(w.zone.ID),
		"providers":    w.DB.Provider(w.zone.ID),
		"resources":    w.DB.Resource(w.zone.ID),

		"registration-tokens": w.DB.RegistrationToken(w.zone.ID),
		"requests":            "their-request",

		"step-up-challenges": w.DB.StepUpChallenge(w.zone.ID, w.DB.Session(w.zone.ID)),
	}
	foreign["provider-grants"] = w.DB.ProviderGrant(w.zone.ID, foreign["resources"])
	foreign["grants"] = w.DB.Grant(w.zone.ID, foreign["applications"], foreign["resources"])
	foreign["policies"], foreign["policies/versions"] = w.DB.Policy(w.zone.ID)
	foreign["policy-sets"], foreign["policy-sets/versions"] = w.DB.PolicySet(w.zone.ID, foreign["policies/versions"])
	w.DB.AuditEvent(w.zone.ID, map[string]any{"request_id": foreign["requests"]})
	before := everythingOf(w.DB, w.zone.ID)
	tried := 0
	eachOperation(t, scoped, func(t *testing.T, op servertest.Operation) {
		tried++
		if lacks(foreign, op) {
			t.Fatalf("add an object of the other zone's %s to this test", collectionOf(op))
		}
		with := bearer(token)
		if takesBody(op) {
			with = append(with, "Content-Type", jsonType)
		}
		raw := w.Do(op.Method, pathTo(op, w.zone.ID, foreign), body(t, op), with...)
		servertest.Expect(t, raw, 0, code.AdminTokenZoneMismatch)
		if has(op, "path", "zoneId") && (has(op, "path", "id") || has(op, "path", "requestId")) {
			raw := w.Do(op.Method, pathTo(op, own.ID, foreign), body(t, op), with...)
			if needsGlobalToken(op) {
				servertest.Expect(t, raw, 0, code.AdminTokenZoneMismatch)
			} else if raw.Response.StatusCode != http.StatusNotFound {
				t.Errorf("below its own zone: got %d: %s", raw.Response.StatusCode, raw.Body)
			}
		}
	})
	if after := everythingOf(w.DB, w.zone.ID); after != before {
		t.Errorf("the other zone was\n%s\nand became\n%s", before, after)
	}
	t.Logf("%d operations were tried", tried)
}

// isScope matches the IDs that are valid values of the parameter scopes.
var isScope = regexp.MustCompile(`^[a-z0-9:_./-]+$`)

// No query parameter gives a zone token access to another zone: neither an ID of that
// zone in any parameter, known or not, nor a cursor from a list there.
func TestZoneTokenCannotReachOtherZoneByQuery(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	own := w.Zone()
	ids := populate(t, w.API, w.zone.ID, theirs)
	populate(t, w.API, own.ID, "ours")
	token := w.Token(own.ID, "write", servertest.CanApprove).Token
	before := everythingOf(w.DB, w.zone.ID)
	tried, operations := 0, 0
	eachOperation(t, func(op servertest.Operation) bool { return private(op) && op.Method == http.MethodGet }, func(t *testing.T, op servertest.Operation) {
		operations++
		get := func(query string) servertest.RawResponse {
			tried++
			raw := w.Do(op.Method, pathTo(op, own.ID, ids)+"?"+query, "", bearer(token)...)
			if strings.Contains(string(raw.Body), theirs) && !strings.HasPrefix(query, "fields=") { // its error names the unknown field
				t.Errorf("?%s returned %s", query, raw.Body)
			}
			return raw
		}
		plain := get("")
		names, declared, filters := []string{"zone_id", "zoneId", "zone", "id", "application_id", "provider_id", "filter", "all_zones"}, []string{}, []string{}
		for _, p := range op.Parameters {
			if p.Value.In != "query" {
				continue
			}
			declared = append(declared, p.Value.Name)
			if schema := p.Value.Schema.Value; schema.Type.Is("string") && schema.Enum == nil && schema.Pattern == "" && p.Value.Name != "cursor" && p.Value.Name != "fields" && !strings.HasSuffix(p.Value.Name, "_id") {
				filters = append(filters, p.Value.Name) // any text is a valid value
			}
		}
		for _, name := range append(names, declared...) {
			for _, id := range append(slices.Collect(maps.Values(ids)), "*", "-", theirs) {
				raw := get(name + "=" + url.QueryEscape(id))
				if slices.Contains(filters, name) && plain.Response.StatusCode != http.StatusForbidden || name == "scopes" && isScope.MatchString(id) {
					if raw.Response.StatusCode != http.StatusOK || !slices.Contains([]string{"[]", `{"rows":[],"next_cursor":null}`}, strings.TrimSpace(string(raw.Body))) {
						t.Errorf("%s=%s: got %d %s", name, id, raw.Response.StatusCode, raw.Body)
					}
				} else if slices.Contains(declared, name) && !strings.HasSuffix(name, "_id") && plain.Response.StatusCode != http.StatusForbidden { // an ID is not a valid value
					if raw.Response.StatusCode != http.StatusBadRequest {
						t.Errorf("%s=%s: got %d", name, id, raw.Response.StatusCode)
					}
				} else if raw.Response.StatusCode != plain.Response.StatusCode {
					t.Errorf("%s=%s: got %d, and %d without it", name, id, raw.Response.StatusCode, plain.Response.StatusCode)
				}
			}
		}
		if !has(op, "query", "cursor") || !has(op, "path", "zoneId") {
			return
		}
		first := w.Do(op.Method, pathTo(op, w.zone.ID, ids)+"?limit=1", "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, first, http.StatusOK, "")
		_, cursor, found := strings.Cut(next(first), "cursor=")
		if !found {
			t.Fatalf("the other zone's list has no second page: %s", first.Body)
		}
		servertest.Expect(t, w.Do(op.Method, pathTo(op, w.zone.ID, ids)+"?cursor="+cursor, "", bearer(servertest.Bootstrap)...), http.StatusOK, "")
		if needsGlobalToken(op) {
			servertest.Expect(t, get("cursor="+cursor), 0, code.AdminTokenZoneMismatch)
		} else {
			servertest.Expect(t, get("cursor="+cursor), 0, code.InvalidCursor)
		}
	})
	if after := everythingOf(w.DB, w.zone.ID); after != before {
		t.Errorf("the other zone was\n%s\nand became\n%s", before, after)
	}
	t.Logf("%d queries were tried with %d operations", tried, operations)
}

// No field of a body gives a zone token access to another zone: each string in each
// body, at any depth, is replaced by each of the other zone's IDs, one at a time. A
// value that is only stored is harmless; a reference must not be found.
func TestZoneTokenCannotReachOtherZoneByBody(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	own := w.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) })
	foreign, ours := populate(t, w.API, w.zone.ID, theirs), populate(t, w.API, own.ID, "ours")
	values := slices.Sorted(maps.Values(foreign))
	values = append(values, w.zone.Slug, "provider://of-"+foreign["applications"], "https://"+foreign["providers"]+".example.com", "*")
	token := w.Token(own.ID, "write", servertest.CanApprove).Token
	before := everythingOf(w.DB, w.zone.ID)
	known := strings.NewReplacer("0198c0de-0000-7000-8000-00000000000a", own.ID, "0198c0de-0000-7000-8000-00000000000b", ours["applications"], "0198c0de-0000-7000-8000-00000000000c", ours["providers"], "0198c0de-0000-7000-8000-00000000000d", ours["resources"],
		"0198c0de-0000-7000-8000-000000000030", ours["provider-grants/providers"], "0198c0de-0000-7000-8000-000000000031", ours["provider-grants/resources"],
		"0198c0de-0000-7000-8000-000000000010", ours["policies/versions"], "0198c0de-0000-7000-8000-000000000022", ours["policy-sets/versions"], "0198c0de-0000-7000-8000-000000000023", ours["policy-sets/versions"])
	tried, operations, references, succeeded := 0, 0, 0, 0
	eachOperation(t, func(op servertest.Operation) bool { return private(op) && takesBody(op) }, func(t *testing.T, op servertest.Operation) {
		operations++
		path := pathTo(op, own.ID, ours)
		send := func(where string, body map[string]any) {
			if _, slow := body["client_secret"]; slow && where != "client_secret" { // hashing is slow, and it is no reference
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
			case needsGlobalToken(op):
				servertest.Expect(t, raw, 0, code.AdminTokenZoneMismatch)
			case !has(op, "path", "zoneId") && name == "zone_id" && bodyFields(op)["zone_id"] != nil: // a zone that the token does not belong to
				references++
				servertest.Expect(t, raw, 0, code.ZoneNotFound)
			case strings.HasPrefix(where, "input.") || strings.HasPrefix(where, "inputs."): // describes a request; nothing is looked up
				servertest.Expect(t, raw, http.StatusOK, "")
			case slices.Contains([]string{"zone_id", "zoneId", "id"}, name): // no body below a zone has these fields
				if closed(op) && status != http.StatusBadRequest || status >= 500 {
					t.Errorf("%s: got %d for %s", where, status, text)
				}
			case name == "policy_version_id":
				references++
				servertest.Expect(t, raw, 0, code.InvalidPolicyContract)
				if !strings.Contains(string(raw.Body), "policy set manifest references missing policy versions") {
					t.Errorf("%s: got %s for %s", where, raw.Body, text)
				}
			case strings.HasSuffix(name, "_id") && name != "client_id" && name != "key_id" && name != "user_id": // IDs that the zone does not have
				references++
				if status != http.StatusNotFound {
					t.Errorf("%s: got %d for %s", where, status, text)
				}
			case status < 300:
				succeeded++
				for reference, value := range decode[map[string]any](t, raw) {
					if id, _ := value.(string); (reference == "id" || strings.HasSuffix(reference, "_id") && reference != "user_id") && slices.Contains(values, id) {
						t.Errorf("%s: got %s = %s for %s", where, reference, id, text)
					}
				}
			case status >= 500 || status == http.StatusUnauthorized:
				t.Errorf("%s: got %d for %s: %s", where, status, text, raw.Body)
			}
			if strings.Contains(string(raw.Body), theirs) {
				t.Errorf("%s: it returned %s", where, raw.Body)
			}
		}
		if has(op, "path", "zoneId") && !needsGlobalToken(op) { // its own IDs are allowed
			raw := w.Do(op.Method, path, known.Replace(body(t, op)), append(bearer(token), "Content-Type", jsonType)...)
			if raw.Response.StatusCode >= 300 {
				t.Errorf("with its own IDs: got %d: %s", raw.Response.StatusCode, raw.Body)
			}
		}
		covered := map[string]bool{}
		for _, example := range everyBody(t, op) {
			example = known.Replace(example)
			fresh := func() (body map[string]any) {
				if err := json.Unmarshal([]byte(example), &body); err != nil {
					t.Fatal(err)
				}
				for _, unique := range []string{"identifier", "name"} { // so that it is not taken
					if text, has := body[unique].(string); has {
						body[unique] = fmt.Sprintf("%s-%d", text, tried)
					}
				}
				return body
			}
			var added []string // fields that no earlier example of the same kind has
			for _, leaf := range leaves(fresh(), "") {
				if key := fmt.Sprint(fresh()["kind"], leaf); !covered[key] {
					covered[key], added = true, append(added, leaf)
				}
			}
			if added == nil {
				continue
			}
			for _, value := range values {
				for _, leaf := range added {
					if leaf == "client_secret" && value != values[0] { // hashing is slow, so only once
						continue
					}
					body := fresh()
					replace(body, leaf, value)
					send(leaf, body)
				}
				absent := []string{"zone_id", "zoneId", "id"}
				for name, field := range bodyFields(op) {
					if _, is := fresh()[name]; !is && field.Value.Type.Is("string") && name != "client_secret" {
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
		t.Errorf("the other zone was\n%s\nand became\n%s", before, after)
	}
	t.Logf("%d bodies were tried with %d operations: %d referenced something of the other zone, %d succeeded with an ID as text", tried, operations, references, succeeded)
	if references == 0 || succeeded == 0 {
		t.Error("no reference or no stored text was tried")
	}
}
