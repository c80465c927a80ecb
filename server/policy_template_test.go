package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/policy"
	"caracal.run/management/server/servertest"
)

func TestPolicyTemplates(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for name, as := range map[string]*rawclient.ClientWithResponses{"global token": a.Admin, "read token of a zone": a.ClientFor(zone, "read")} {
		t.Run(name, func(t *testing.T) {
			list, err := as.ListPolicyTemplatesWithResponse(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, list, http.StatusOK, "")
			if len(*list.JSON200) != len(policy.Templates()) {
				t.Errorf("%d templates", len(*list.JSON200))
			}
			for _, want := range *list.JSON200 {
				got, err := as.GetPolicyTemplateWithResponse(t.Context(), want.ID)
				if err != nil {
					t.Fatal(err)
				}
				servertest.Expect(t, got, http.StatusOK, "")
				if *got.JSON200 != want {
					t.Errorf("got %+v, listed %+v", *got.JSON200, want)
				}
			}
		})
	}
	got, err := a.Admin.GetPolicyTemplateWithResponse(t.Context(), "unknown")
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, got, 0, code.PolicyTemplateNotFound)
}

// A policy can be created from each template.
func TestCreatePolicyFromTemplate(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, template := range policy.Templates() {
		resp := createPolicy(t, a.Admin, zone, client.NewPolicy{Name: template.Name, Content: template.Content})
		servertest.Expect(t, resp, http.StatusCreated, "")
	}
}
