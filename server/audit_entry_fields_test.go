package server_test

import (
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

func TestListAuditEntriesFields(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := createApplications(t, a, zone, 1)[0]
	servertest.Expect(t, a.Do("PATCH", "/v1/zones/"+zone+"/applications/"+id, `{"color":"red"}`, append(bearer(servertest.Bootstrap), "Content-Type", "application/json")...), 0, code.InvalidApplication)
	eventually(t, "the denied request is recorded", func() bool {
		return strings.Contains(string(a.Do("GET", "/v1/zones/"+zone+"/admin-audit", "", bearer(servertest.Bootstrap)...).Body), `"status_code":400`)
	})
	waitUntilSealed(t, a)
	path := "/v1/zones/" + zone + "/admin-audit?entity_id=" + id
	created := `{"status_code":201,"entity_id":"` + id + `","changed_fields":["expires_at","jwks","name","registration_method","secrets","traits"],"signed":true,"chain_seq":"2"}`
	for _, tt := range []struct{ query, want string }{
		{"&fields=status_code,+entity_id,changed_fields,,signed,status_code,chain_seq", `{"rows":[{"status_code":400,"entity_id":"` + id + `","changed_fields":null,"signed":true,"chain_seq":"3"},` + created + `],"next_cursor":null}` + "\n"},
		{"&method=POST&format=ndjson&fields=status_code,entity_id,changed_fields,signed,chain_seq", created + "\n"},
		{"&format=csv&fields=status_code,changed_fields,status_code,operation", "status_code,changed_fields,status_code,operation\r\n400,,400,updateApplication\r\n201,expires_at jwks name registration_method secrets traits,201,createApplication\r\n"},
	} {
		raw := a.Do("GET", path+tt.query, "", bearer(servertest.Bootstrap)...)
		servertest.Expect(t, raw, http.StatusOK, "")
		if string(raw.Body) != tt.want {
			t.Errorf("%s: got\n%s, want\n%s", tt.query, raw.Body, tt.want)
		}
	}
	for _, list := range []string{path + "&", "/v1/admin-audit?"} {
		for fields, message := range map[string]string{",": "must not be empty", "id,payload": "must not contain payload", "ID": "must not contain ID"} {
			raw := a.Do("GET", list+"fields="+fields, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, 0, code.InvalidFields)
			if !strings.Contains(string(raw.Body), `{"path":["fields"],"message":"`+message+`"}`) {
				t.Errorf("%s: got %s", fields, raw.Body)
			}
		}
	}
}
