package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestUpdateProviderIsAudited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	zoneClient := a.ClientFor(zone, "write")
	id := newProvider(t, a, zone, client.NewProvider{Name: new("Ledger"), Kind: "api_key", ConfigJSON: rawConfig(keyConfig)}).ID
	for _, patch := range []client.ProviderPatch{
		{Name: new("Renamed"), Identifier: new("provider://renamed")},
		{ConfigJSON: rawConfig(`{"header_name":"X-Api-Key","api_key":"hush-2"}`)},
		{Kind: new(client.ProviderKind("none")), ConfigJSON: rawConfig(`{}`)},
		{Kind: new(client.ProviderKind("bearer_token")), ConfigJSON: rawConfig(bearerConfig)},
	} {
		servertest.Expect(t, updateProvider(t, zoneClient, zone, id, patch), http.StatusOK, "")
	}
	servertest.Expect(t, deleteProvider(t, zoneClient, zone, id), http.StatusNoContent, "")
	path := "/v1/zones/" + zone + "/providers"
	patched := "updateProvider | PATCH " + path + "/" + id + ` | zone | 200 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `",`
	want := []string{
		"createProvider | POST " + path + ` | global | 201 | {"rls_mode":"control_plane_wildcard","rls_zone_guc":"*","changed_fields":["config_json","identifier","kind","name","secret_config_keys"],"changes":{` +
			`"config_json":{"from":null,"to":{"header_name":"X-Api-Key","auth_location":"header"}},"identifier":{"from":null,"to":"provider://ledger"},"kind":{"from":null,"to":"api_key"},"name":{"from":null,"to":"Ledger"},"secret_config_keys":{"from":null,"to":["api_key"]}},"change":"created"}`,
		patched + `"changed_fields":["identifier","name"],"changes":{"identifier":{"from":"provider://ledger","to":"provider://renamed"},"name":{"from":"Ledger","to":"Renamed"}},"change":"updated"}`,
		patched + `"changed_fields":[],"secret_rotated":true,"change":"updated"}`,
		patched + `"changed_fields":["config_json","kind","secret_config_keys"],"changes":{"config_json":{"from":{"header_name":"X-Api-Key","auth_location":"header"},"to":{}},"kind":{"from":"api_key","to":"none"},"secret_config_keys":{"from":["api_key"],"to":[]}},"secret_rotated":true,"change":"updated"}`,
		patched + `"changed_fields":["kind","secret_config_keys"],"changes":{"kind":{"from":"none","to":"bearer_token"},"secret_config_keys":{"from":[],"to":["bearer_token"]}},"secret_rotated":true,"change":"updated"}`,
		"deleteProvider | DELETE " + path + "/" + id + ` | zone | 204 | {"rls_mode":"zone_scoped","rls_zone_guc":"` + zone + `","changed_fields":[],"change":"deleted"}`,
	}
	got := storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, actor_scope, status_code, payload) FROM audit_entries WHERE zone_id = $1 AND entity_type = 'providers' AND entity_id = $2 ORDER BY id", zone, id)
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if all := strings.Join(storetest.Column[string](a.DB, "SELECT to_jsonb(audit_entries)::text FROM audit_entries"), "\n"); strings.Contains(all, secretMarker) {
		t.Errorf("the audit log contains a secret:\n%s", all)
	}
}
