package server_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func deleteApplicationOf(t *testing.T, z resourceZone) servertest.Response {
	t.Helper()
	resp, err := z.Admin.DeleteApplicationWithResponse(t.Context(), z.zone, z.application, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestUpdateResourceBindingRevision(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	is := client.Set[string]
	type patch = client.ResourcePatch
	for _, tt := range []struct {
		name string
		body func(z resourceZone, r client.Resource) patch
		want int64 // how often they hear
	}{
		{"name", func(resourceZone, client.Resource) patch { return patch{Name: new("x")} }, 0},
		{"scopes", func(resourceZone, client.Resource) patch { return patch{Scopes: &[]string{"read"}} }, 0},
		{"everything, as it is", func(z resourceZone, r client.Resource) patch {
			return patch{
				Name: &r.Name, Identifier: &r.Identifier, UpstreamURL: is(*r.UpstreamURL), Scopes: &r.Scopes, CredentialProviderID: is(z.provider),
				GatewayApplicationID: is(z.application), OperationEnforcement: &r.OperationEnforcement,
				Operations: &[]client.NewResourceOperation{{Method: " get", Path: "/invoices ", Scope: "read"}},
			}
		}, 0},
		{"identifier", func(resourceZone, client.Resource) patch { return patch{Identifier: new("urn:x")} }, 1},
		{"upstream", func(resourceZone, client.Resource) patch { return patch{UpstreamURL: is("http://x")} }, 1},
		{"provider", func(z resourceZone, _ client.Resource) patch {
			return patch{CredentialProviderID: is(z.DB.Provider(z.zone))}
		}, 1},
		{"application", func(z resourceZone, _ client.Resource) patch {
			return patch{GatewayApplicationID: is(z.DB.Application(z.zone))}
		}, 1},
		{"operations", func(resourceZone, client.Resource) patch {
			return patch{Operations: &[]client.NewResourceOperation{{Method: "GET", Path: "/invoices", Scope: "write"}}}
		}, 1},
		{"no operations", func(resourceZone, client.Resource) patch {
			return patch{Operations: &[]client.NewResourceOperation{}}
		}, 1},
		{"enforcement", func(resourceZone, client.Resource) patch {
			return patch{OperationEnforcement: new(client.OperationEnforcementTransportUniform)}
		}, 1},
		{"identifier, upstream and enforcement", func(resourceZone, client.Resource) patch {
			return patch{Identifier: new("urn:x"), UpstreamURL: is("http://x"), OperationEnforcement: new(client.OperationEnforcementTransportUniform)}
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newResourceZone(a)
			r := z.resource(t)
			live, before := z.totals()
			if live != 1 || before != 1 {
				t.Errorf("of a new resource they hear %d times, and %d are counted", before, live)
			}
			servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, tt.body(z, r)), http.StatusOK, "")
			live, after := z.totals()
			if after-before != tt.want || live != 1 {
				t.Errorf("they hear %d times, want %d; %d are counted", after-before, tt.want, live)
			}
			// A denied request publishes no event.
			servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, patch{Identifier: new("x")}), 0, code.InvalidResourceIdentifier)
			servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.UpstreamURL = nil })), 0, code.UpstreamURLRequired)
			servertest.Expect(t, deleteResource(t, a.Admin, z.zone, r.ID), http.StatusNoContent, "")
			live, last := z.totals()
			if last-after != 1 || live != 0 {
				t.Errorf("of the end they hear %d times; %d are counted", last-after, live)
			}
		})
	}
}

func TestDeleteApplicationUnbindsResources(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newResourceZone(a), newResourceZone(a)
	first, second, archived := z.resource(t), z.resource(t), z.resource(t)
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, archived.ID), http.StatusNoContent, "")
	successor := a.DB.Application(z.zone)
	ofSuccessor := z.resource(t, func(b *client.NewResource) { b.GatewayApplicationID = &successor })
	ofOtherZone := other.resource(t)
	live, before := z.totals()
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	if still, after := z.totals(); after-before != 1 || still != live {
		t.Errorf("gateways hear %d times; %d are counted and were %d", after-before, still, live)
	}
	is := client.Set[string]
	for _, r := range []client.Resource{first, second} {
		unbound := r
		unbound.GatewayApplicationID = nil
		if now := readResource(t, a.Admin, z.zone, r.ID); !reflect.DeepEqual(now, unbound) {
			t.Errorf("it was %+v and is %+v", r, now)
		}
		servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{Name: new("x")}), 0, code.GatewayApplicationRequired)
		servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{GatewayApplicationID: is(z.application)}), 0, code.GatewayApplicationNotFound)
		entries := storetest.Column[string](a.DB, "SELECT concat_ws(' ', operation, payload::jsonb->>'changed_fields', payload::jsonb->>'changes') FROM audit_entries WHERE operation = 'deleteApplication' AND entity_type = 'resources' AND entity_id = $1", r.ID)
		if want := fmt.Sprintf(`deleteApplication ["gateway_application_id"] {"gateway_application_id": {"to": null, "from": %q}}`, z.application); !slices.Equal(entries, []string{want}) {
			t.Errorf("the audit entries are %s, want %s", entries, want)
		}
		servertest.Expect(t, updateResource(t, a.Admin, z.zone, r.ID, client.ResourcePatch{Name: new("x"), GatewayApplicationID: is(successor)}), http.StatusOK, "")
	}
	for _, r := range []client.Resource{ofSuccessor, ofOtherZone} {
		if now := readResource(t, a.Admin, r.ZoneID, r.ID); !reflect.DeepEqual(now, r) {
			t.Errorf("it was %+v and is %+v", r, now)
		}
	}
	if entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE operation = 'deleteApplication' AND entity_type = 'resources'"); entries != 2 {
		t.Errorf("got %d audit entries", entries)
	}
	// An application without resources ends without a sound.
	unbound2 := resourceZone{a, z.zone, z.provider, a.DB.Application(z.zone)}
	_, before = z.totals()
	servertest.Expect(t, deleteApplicationOf(t, unbound2), http.StatusNoContent, "")
	if _, after := z.totals(); after != before {
		t.Errorf("gateways hear %d times", after-before)
	}
}
