package server_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// asRead retrieves an object. It returns its fields and its ETag.
func asRead(t *testing.T, a *servertest.API, path string) (map[string]any, string) {
	t.Helper()
	raw := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	return decode[map[string]any](t, raw), raw.Header.Get("ETag")
}

func patch(t *testing.T, a *servertest.API, path string, fields map[string]any, headers ...string) servertest.RawResponse {
	t.Helper()
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return a.Do("PATCH", path, string(text), slices.Concat(bearer(servertest.Bootstrap), []string{"Content-Type", jsonType}, headers)...)
}

// expectNothingWritten sends a PATCH request that changes nothing.
func expectNothingWritten(t *testing.T, a *servertest.API, zone, path string, fields map[string]any) {
	t.Helper()
	read, tag := asRead(t, a, path)
	before := written(a, zone)
	raw := patch(t, a, path, fields, "If-Match", tag)
	servertest.Expect(t, raw, http.StatusOK, "")
	if got := raw.Header.Get("ETag"); got != tag {
		t.Errorf("the ETag went from %s to %s", tag, got)
	}
	if want, _ := json.Marshal(read); !equalJSON(t, raw.Body, want) {
		t.Errorf("got %s, want %s", raw.Body, want)
	}
	for row := range written(a, zone) {
		if !before[row] {
			t.Errorf("wrote %s", row)
		}
	}
}

// written returns all rows of a zone, except the audit entries of denied requests,
// which are recorded after the response. It leaves out what the publisher and the
// sealer write.
func written(a *servertest.API, zone string) map[string]bool {
	rows := map[string]bool{storetest.Value[string](a.DB, "SELECT to_jsonb(zones)::text FROM zones WHERE id = $1", zone): true}
	for _, table := range storetest.Column[string](a.DB, "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' AND column_name = 'zone_id' AND table_name NOT IN ('audit_unsealed', 'audit_seals', 'audit_seal_heads', 'listed_audit_entries')") {
		for _, row := range storetest.Column[string](a.DB, "SELECT (to_jsonb(t) - 'dispatched_at')::text FROM "+table+" AS t WHERE zone_id = $1 AND coalesce((to_jsonb(t)->>'status_code')::int, 0) < 400", zone) {
			rows[table+" "+row] = true
		}
	}
	return rows
}

func readOnlyFields(op servertest.Operation) (names []string) {
	for name, field := range op.RequestBody.Value.Content.Get(jsonType).Schema.Value.Properties {
		if field.Value.ReadOnly && field.Value.Extensions["x-ignored"] == nil {
			names = append(names, name)
		}
	}
	return names
}

func TestEveryUpdateAcceptsWhatWasRead(t *testing.T) {
	t.Parallel()
	w := newWalker(t)
	ids := populate(t, w.API, w.zone.ID, "ours")
	eachOperation(t, func(op servertest.Operation) bool { return op.Method == http.MethodPatch }, func(t *testing.T, op servertest.Operation) {
		path := pathTo(op, w.zone.ID, ids)
		fields, tag := asRead(t, w.API, path)
		expectNothingWritten(t, w.API, w.zone.ID, path, fields)
		invalid := code.Code(op.Codes("400")[slices.IndexFunc(op.Codes("400"), func(c string) bool { return code.Table[code.Code(c)].In == "body" })])
		for _, name := range readOnlyFields(op) {
			other := maps.Clone(fields)
			switch fields[name].(type) {
			case []any:
				other[name] = []string{"other"}
			default:
				other[name] = "other"
			}
			raw := patch(t, w.API, path, other)
			servertest.Expect(t, raw, 0, invalid)
			issues := decode[rawclient.Problem](t, raw).Details.Issues
			if len(issues) != 1 || !slices.Equal(issues[0].Path, []string{name}) || issues[0].Message != "is read-only: it must be omitted or have its present value" {
				t.Errorf("%s: got %+v", name, issues)
			}
			if _, after := asRead(t, w.API, path); after != tag {
				t.Errorf("%s: the ETag went from %s to %s", name, tag, after)
			}
		}
	})
}

func TestUpdateProviderAcceptsWhatWasRead(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, s := range samples {
		t.Run(string(s.kind), func(t *testing.T) {
			zone := a.Zone().ID
			id := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: s.kind, ConfigJSON: rawConfig(s.config)}).ID
			path := "/v1/zones/" + zone + "/providers/" + id
			fields, _ := asRead(t, a, path)
			expectNothingWritten(t, a, zone, path, fields)
		})
	}
	t.Run("in another form", func(t *testing.T) {
		id := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)}).ID
		path := "/v1/zones/" + zone + "/providers/" + id
		expectNothingWritten(t, a, zone, path, map[string]any{"config_json": map[string]any{"header_name": " X-Api-Key "}}) // the other field has its default
		expectNothingWritten(t, a, zone, path, map[string]any{"name": " x "})
	})
	t.Run("a stored configuration that a newer rule forbids", func(t *testing.T) {
		id := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "none"}).ID
		a.DB.Exec(`UPDATE providers SET config_json = '{"old": true}' WHERE id = $1`, id)
		path := "/v1/zones/" + zone + "/providers/" + id
		fields, _ := asRead(t, a, path)
		expectNothingWritten(t, a, zone, path, fields)
	})
	t.Run("a secret is always a change", func(t *testing.T) {
		id := newProvider(t, a, zone, client.NewProvider{Name: new("x"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)}).ID
		path := "/v1/zones/" + zone + "/providers/" + id
		_, tag := asRead(t, a, path)
		raw := patch(t, a, path, map[string]any{"config_json": json.RawMessage(keyConfig)})
		servertest.Expect(t, raw, http.StatusOK, "")
		if raw.Header.Get("ETag") == tag {
			t.Error("the ETag is the same")
		}
	})
}

func TestUpdateResourceAcceptsWhatWasRead(t *testing.T) {
	t.Parallel()
	z := newResourceZone(servertest.New(t))
	at := func(id string) string { return "/v1/zones/" + z.zone + "/resources/" + id }
	t.Run("the control resource", func(t *testing.T) {
		path := at(z.control(t).ID)
		fields, _ := asRead(t, z.API, path)
		expectNothingWritten(t, z.API, z.zone, path, fields)
		expectNothingWritten(t, z.API, z.zone, path, map[string]any{"gateway_application_id": z.application}) // it never has one
	})
	t.Run("in another form", func(t *testing.T) {
		path := at(z.resource(t).ID)
		expectNothingWritten(t, z.API, z.zone, path, map[string]any{"operations": []any{map[string]any{"method": " get", "path": "/invoices ", "scope": "read"}}})
	})
	t.Run("without its application", func(t *testing.T) {
		application := newApplication(t, z.API, z.zone).ID
		path := at(z.resource(t, func(b *client.NewResource) { b.GatewayApplicationID = &application }).ID)
		resp, err := z.Admin.DeleteApplicationWithResponse(t.Context(), z.zone, application, nil)
		if err != nil {
			t.Fatal(err)
		}
		servertest.Expect(t, resp, http.StatusNoContent, "")
		fields, _ := asRead(t, z.API, path)
		expectNothingWritten(t, z.API, z.zone, path, fields)
		fields["name"] = "other"
		servertest.Expect(t, patch(t, z.API, path, fields), 0, code.GatewayApplicationRequired)
	})
}

func TestUpdateZoneThatChangesNothing(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone(func(z *client.NewZone) { z.DCREnabled = new(true) }).ID
	path := "/v1/zones/" + zone
	fields, first := asRead(t, a, path)
	expectNothingWritten(t, a, zone, path, map[string]any{"name": " " + fields["name"].(string)})
	created, err := time.Parse(time.RFC3339, fields["created_at"].(string))
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{
		created.Format("2006-01-02T15:04:05.000000-07:00"),
		created.In(time.FixedZone("", 3600)).Format("2006-01-02T15:04:05.000-07:00"),
	} {
		sent := maps.Clone(fields)
		sent["created_at"] = form
		expectNothingWritten(t, a, zone, path, sent)
	}
	servertest.Expect(t, patch(t, a, path, map[string]any{"id": zone}), 0, code.NoFields)
	servertest.Expect(t, patch(t, a, path, map[string]any{"name": "Other"}), http.StatusOK, "")
	servertest.Expect(t, patch(t, a, path, fields, "If-Match", first), 0, code.VersionConflict)
	raw := patch(t, a, path, fields) // updated_at is not the present one
	servertest.Expect(t, raw, 0, code.InvalidZone)
}
