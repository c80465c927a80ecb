package server_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestUpdateApplicationIsAudited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	zoneClient := a.ClientFor(zone, "write")
	id := newApplication(t, a, zone, "team:a").ID
	updated, err := zoneClient.UpdateApplicationWithResponse(t.Context(), zone, id, nil, client.ApplicationPatch{Name: new("Renamed"), ClientSecret: new("a-secret-of-my-own")})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, updated, http.StatusOK, "")
	removed, err := zoneClient.DeleteApplicationWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, removed, http.StatusNoContent, "")
	got := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, actor_scope, status_code, payload) FROM audit_entries WHERE entity_type = 'applications' AND entity_id = $1 ORDER BY id", id)
	for i := range got {
		got[i] = regexp.MustCompile(`"id":"[^"]+","created_at":"[^"]+"`).ReplaceAllString(got[i], `"id":"…"`)
	}
	path := "/v1/zones/" + zone + "/applications"
	want := []string{
		"createApplication | POST " + path + ` | global | 201 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["expires_at","jwks","name","registration_method","secrets","traits"],"changes":{"expires_at":{"from":null,"to":null},"jwks":{"from":null,"to":null},"name":{"from":null,"to":"Billing"},"registration_method":{"from":null,"to":"managed"},"secrets":{"from":null,"to":[{"id":"…","expires_at":null}]},"traits":{"from":null,"to":["team:a"]}},"change":"created"}`,
		"updateApplication | PATCH " + path + "/" + id + ` | zone | 200 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `","changed_fields":["name","secrets"],"changes":{"name":{"from":"Billing","to":"Renamed"},"secrets":{"from":[{"id":"…","expires_at":null}],"to":[{"id":"…","expires_at":null}]}},"secret_rotated":true,"change":"updated"}`,
		"deleteApplication | DELETE " + path + "/" + id + ` | zone | 204 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `","changed_fields":[],"change":"deleted"}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
