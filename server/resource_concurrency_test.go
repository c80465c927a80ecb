package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// One of two wins: the resource that names a thing, or the end of that thing.
func TestCreateResourceWhileReferencesAreDeleted(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	is := client.Set[string]
	credential := func() string {
		id := a.DB.Provider(z.zone)
		a.DB.Exec("UPDATE providers SET kind = 'api_key' WHERE zone_id = $1 AND id = $2", z.zone, id)
		return id
	}
	create := func(change func(*client.NewResource)) (int, []byte) {
		resp, err := a.Admin.CreateResourceWithResponse(t.Context(), z.zone, z.body(change))
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		return resp.StatusCode(), resp.Body
	}
	update := func(id string, patch client.ResourcePatch) (int, []byte) {
		resp, err := a.Admin.UpdateResourceWithResponse(t.Context(), z.zone, id, nil, patch)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		return resp.StatusCode(), resp.Body
	}
	endProvider := func(id string) int {
		resp, err := a.Admin.DeleteProviderWithResponse(t.Context(), z.zone, id, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		return resp.StatusCode()
	}
	endApplication := func(id string) int {
		resp, err := a.Admin.DeleteApplicationWithResponse(t.Context(), z.zone, id, nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		return resp.StatusCode()
	}
	existing := z.resource(t).ID
	for range 25 {
		provider, application, another := credential(), a.DB.Application(z.zone), a.DB.Application(z.zone)
		var named, ended, bound, parted, rebound, partedToo int
		var fromNullable [3][]byte
		concurrently(
			func() {
				named, fromNullable[0] = create(func(b *client.NewResource) { b.CredentialProviderID = &provider })
			},
			func() { ended = endProvider(provider) },
			func() {
				bound, fromNullable[1] = create(func(b *client.NewResource) { b.GatewayApplicationID = &application })
			},
			func() { parted = endApplication(application) },
			func() {
				rebound, fromNullable[2] = update(existing, client.ResourcePatch{GatewayApplicationID: is(another)})
			},
			func() { partedToo = endApplication(another) },
		)
		if got := [2]int{named, ended}; got != [2]int{http.StatusCreated, http.StatusConflict} && got != [2]int{http.StatusNotFound, http.StatusNoContent} {
			t.Errorf("a resource named a provider that ended: %v %s", got, fromNullable[0])
		}
		if bound != http.StatusCreated && bound != http.StatusNotFound || parted != http.StatusNoContent {
			t.Errorf("a resource named an application that ended: %d %d %s", bound, parted, fromNullable[1])
		}
		if rebound != http.StatusOK && rebound != http.StatusNotFound || partedToo != http.StatusNoContent {
			t.Errorf("a resource came to name an application that ended: %d %d %s", rebound, partedToo, fromNullable[2])
		}
	}
	orphans := storetest.Value[int](a.DB, `SELECT count(*) FROM resources AS r
		JOIN providers AS p ON p.zone_id = r.zone_id AND p.id = r.credential_provider_id
		LEFT JOIN applications AS a ON a.zone_id = r.zone_id AND a.id = r.gateway_application_id
		WHERE r.archived_at IS NULL AND (p.archived_at IS NOT NULL OR a.archived_at IS NOT NULL)`)
	if orphans > 0 {
		t.Errorf("%d live resources name what is archived", orphans)
	}
	z.checkTotals(t)
}

// Requests that create, rename and delete resources under one identifier wait for each
// other without a deadlock, which Postgres would detect only after a second.
func TestCreateResourceConcurrentlyWithoutDeadlock(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	const left, right = "urn:left", "urn:right"
	named := func(identifier string) client.NewResource {
		return z.body(func(b *client.NewResource) { b.Identifier = &identifier })
	}
	answered := func(resp servertest.Response, err error) {
		if err != nil || resp.StatusCode() >= 500 {
			t.Errorf("%v: %s", err, resp.GetBody())
		}
	}
	create := func(identifier string) func() {
		return func() { answered(a.Admin.CreateResourceWithResponse(t.Context(), z.zone, named(identifier))) }
	}
	rename := func(id, identifier string) func() {
		return func() {
			answered(a.Admin.UpdateResourceWithResponse(t.Context(), z.zone, id, nil, client.ResourcePatch{Identifier: &identifier}))
		}
	}
	remove := func(id string) func() {
		return func() { answered(a.Admin.DeleteResourceWithResponse(t.Context(), z.zone, id, nil)) }
	}
	for range 40 {
		l, r := createResource(t, a.Admin, z.zone, named(left)), createResource(t, a.Admin, z.zone, named(right))
		servertest.Expect(t, l, http.StatusCreated, "")
		servertest.Expect(t, r, http.StatusCreated, "")
		concurrently(create(left), remove(l.JSON201.ID), create(right), rename(r.JSON201.ID, left), create(left), create(right))
		for _, id := range storetest.Column[string](a.DB, "SELECT id FROM resources WHERE zone_id = $1 AND archived_at IS NULL", z.zone) {
			servertest.Expect(t, deleteResource(t, a.Admin, z.zone, id), http.StatusNoContent, "")
		}
	}
	z.checkTotals(t)
	if err := a.Service.Stop(); err != nil { // a connection tells what it met when it ends
		t.Fatal(err)
	}
	eventually(t, "the service's connections end", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'caracal_service'") == 0
	})
	if n := storetest.Value[int64](a.DB, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"); n > 0 {
		t.Errorf("Postgres broke %d circles", n)
	}
}
