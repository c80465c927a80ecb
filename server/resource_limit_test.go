package server_test

import (
	"net/http"
	"sync"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/server/servertest"
)

func TestCreateResourceLimit(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_MAX_RESOURCES_PER_ZONE=3")
	z, other := newResourceZone(a), newResourceZone(a)
	var mu sync.Mutex
	got := map[int]int{}
	var created []string
	all := make([]func(), 10)
	for i := range all {
		all[i] = func() {
			resp, err := a.Admin.CreateResourceWithResponse(t.Context(), z.zone, z.body())
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			got[resp.StatusCode()]++
			if resp.JSON201 != nil {
				created = append(created, resp.JSON201.ID)
			}
		}
	}
	concurrently(all...)
	if got[http.StatusCreated] != 3 || got[http.StatusConflict] != 7 {
		t.Fatalf("of ten, answers were %v", got)
	}
	servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body()), 0, code.ResourceQuotaExceeded)
	servertest.Expect(t, createResource(t, a.Admin, z.zone, controlBody()), 0, code.ResourceQuotaExceeded)
	z.checkTotals(t)
	other.resource(t)
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, created[0]), http.StatusNoContent, "")
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, created[0]), 0, code.ResourceNotFound)
	servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body(func(b *client.NewResource) { b.Scopes = []string{"other"} })), 0, code.OperationScopeNotInResourceScopes)
	z.resource(t)
	servertest.Expect(t, createResource(t, a.Admin, z.zone, z.body()), 0, code.ResourceQuotaExceeded)
	z.checkTotals(t)
}

func TestCreateResourceWithoutLimit(t *testing.T) {
	t.Parallel()
	z := newResourceZone(servertest.New(t, "API_MAX_RESOURCES_PER_ZONE=0"))
	for range 3 {
		z.resource(t)
	}
	z.checkTotals(t)
}
