package server_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestUpdateResourceIsAuditedWithoutEvent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	zoneClient := a.ClientFor(z.zone, "write")
	r := z.resource(t)
	servertest.Expect(t, updateResource(t, zoneClient, z.zone, r.ID, client.ResourcePatch{
		Name: new("Renamed"), Scopes: &r.Scopes, Operations: &[]client.NewResourceOperation{}, UpstreamURL: client.Set("http://x"),
	}), http.StatusOK, "")
	servertest.Expect(t, updateResource(t, zoneClient, z.zone, r.ID, client.ResourcePatch{Identifier: new("x")}), 0, code.InvalidResourceIdentifier)
	servertest.Expect(t, deleteResource(t, zoneClient, z.zone, r.ID), http.StatusNoContent, "")
	control := z.control(t)
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	auditEntries := func(kind, id string) []string {
		return storetest.Column[string](a.DB, "SELECT concat_ws(' | ', operation, action, actor_scope, status_code, payload) FROM audit_entries WHERE entity_type = $1 AND entity_id = $2 ORDER BY id", kind, id)
	}
	path := "/v1/zones/" + z.zone + "/resources"
	wildcard, own := `{"rls_mode":"control_plane_wildcard","rls_zone_guc":"*",`, `{"rls_mode":"zone_scoped","rls_zone_guc":"`+z.zone+`",`
	fields := `"changed_fields":["credential_provider_id","gateway_application_id","identifier","name","operation_enforcement","operations","scopes","upstream_url"],`
	got := slices.Concat(auditEntries("resources", r.ID), auditEntries("resources", control.ID), auditEntries("providers", control.CredentialProviderID))
	want := []string{
		"createResource | POST " + path + " | global | 201 | " + wildcard + fields + `"changes":{"credential_provider_id":{"from":null,"to":"` + z.provider + `"},"gateway_application_id":{"from":null,"to":"` + z.application +
			`"},"identifier":{"from":null,"to":"resource://invoices"},"name":{"from":null,"to":"Invoices"},"operation_enforcement":{"from":null,"to":"enforced"},"operations":{"from":null,"to":[{"path":"/invoices","scope":"read","method":"GET"}]},"scopes":{"from":null,"to":["read","write"]},"upstream_url":{"from":null,"to":"https://upstream.example.com"}},"change":"created"}`,
		"updateResource | PATCH " + path + "/" + r.ID + " | zone | 200 | " + own + `"changed_fields":["name","operations","upstream_url"],"changes":{"name":{"from":"Invoices","to":"Renamed"},"operations":{"from":[{"path":"/invoices","scope":"read","method":"GET"}],"to":[]},"upstream_url":{"from":"https://upstream.example.com","to":"http://x"}},"change":"updated"}`,
		"deleteResource | DELETE " + path + "/" + r.ID + " | zone | 204 | " + own + `"changed_fields":[],"change":"deleted"}`,
		"createResource | POST " + path + " | global | 201 | " + wildcard + fields + `"changes":{"credential_provider_id":{"from":null,"to":"provider-none-` + z.zone + `"},"gateway_application_id":{"from":null,"to":null},"identifier":{"from":null,"to":"caracal-control"},"name":{"from":null,"to":"Control"},"operation_enforcement":{"from":null,"to":"enforced"},"operations":{"from":null,"to":[]},"scopes":{"from":null,"to":["control"]},"upstream_url":{"from":null,"to":null}},"change":"created"}`,
		"createResource | POST " + path + " | global | 201 | " + wildcard + `"changed_fields":["identifier","kind","name"],"changes":{"identifier":{"from":null,"to":"provider://none"},"kind":{"from":null,"to":"none"},"name":{"from":null,"to":"No credential"}},"change":"created"}`,
	}
	// The audit entry of a denied request may not be written yet.
	got = slices.DeleteFunc(got, func(line string) bool { return strings.Contains(line, " | 400 | ") })
	if !slices.Equal(got, want) {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if events := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); events > 0 {
		t.Errorf("%d events left", events)
	}
}

// Audit entries are never deleted, so no password may be in them.
func TestUpdateResourceRedactsUpstreamPasswordInAudit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	r := z.resource(t, func(n *client.NewResource) { n.UpstreamURL = new("https://upstream.example.com/x") })
	a.DB.Exec("UPDATE resources SET upstream_url = 'https://somebody:hush@upstream.example.com/x' WHERE id = $1", r.ID) // earlier versions stored it
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{UpstreamURL: client.Set("https://other.example.com")}), http.StatusOK, "")
	auditEntries := storetest.Column[string](a.DB, "SELECT payload FROM audit_entries WHERE zone_id = $1 AND entity_type = 'resources' ORDER BY id", z.zone)
	text := strings.Join(auditEntries, "\n")
	if len(auditEntries) != 2 || strings.Contains(text, "hush") || !strings.Contains(text, "https://upstream.example.com/x") {
		t.Errorf("the audit entries are\n%s", text)
	}
}
