package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

func TestGetPolicy(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	active, archived, ofOtherZone := newPolicy(t, a, zone, "active").ID, newPolicy(t, a, zone, "archived").ID, newPolicy(t, a, other, "other").ID
	a.DB.Exec(archivePolicy, zone, archived)
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		want     code.Code
	}{
		{"global read token", a.ClientFor("", "read"), zone, active, ""},
		{"zone read token", a.ClientFor(zone, "read"), zone, active, ""},
		{"archived", a.Admin, zone, archived, code.PolicyNotFound},
		{"unknown", a.Admin, zone, "unknown", code.PolicyNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone, code.PolicyNotFound},
		{"unknown zone", a.Admin, "unknown", active, code.PolicyNotFound},
		{"token of another zone", a.ClientFor(other, "read"), zone, active, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := getPolicy(t, tt.as, tt.zone, tt.id)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && resp.JSON200.ID != tt.id {
				t.Errorf("got %+v, want the policy %s", resp.JSON200, tt.id)
			}
		})
	}
}

func TestGetPolicyReturnsVersionsNewestFirst(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	created := newPolicy(t, a, zone, "first")
	contents := []string{documentOf("first"), documentOf("second"), documentOf("first")} // by version
	ids := []string{created.VersionID}
	for _, content := range contents[1:] {
		ids = append(ids, newPolicyVersion(t, a, zone, created.ID, content).ID)
	}
	for _, tt := range []struct {
		name    string
		content *rawclient.GetPolicyParamsContent
		all     bool
	}{
		{"default", nil, true},
		{"all", new(rawclient.GetPolicyParamsContent("all")), true},
		{"latest", new(rawclient.GetPolicyParamsContent("latest")), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := a.Admin.GetPolicyWithResponse(t.Context(), zone, created.ID, &rawclient.GetPolicyParams{Content: tt.content})
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, "")
			if len(resp.JSON200.Versions) != len(ids) {
				t.Fatalf("got %d versions, want %d", len(resp.JSON200.Versions), len(ids))
			}
			for i, v := range resp.JSON200.Versions {
				n := len(ids) - i
				content := contents[n-1]
				if !tt.all && i > 0 {
					content = ""
				}
				if v.ID != ids[n-1] || v.PolicyID != created.ID || v.Version != int32(n) || v.Content != content || v.CreatedBy != "bootstrap" || v.ArchivedAt != nil {
					t.Errorf("version %d of the list is %+v, want number %d", i, v, n)
				}
				if i > 0 && v.CreatedAt.After(resp.JSON200.Versions[i-1].CreatedAt) {
					t.Errorf("version %d is newer than version %d", n, n+1)
				}
			}
			versions := decode[struct{ Versions []map[string]any }](t, servertest.RawResponse{Body: resp.Body}).Versions
			if _, present := versions[1]["content"]; present != tt.all {
				t.Errorf("the content of an older version is present: %v, want %v", present, tt.all)
			}
		})
	}
	raw := a.Do("GET", "/v1/zones/"+zone+"/policies/"+created.ID+"?content=none", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, 0, code.InvalidQuery)
}

func TestGetPolicyVersion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	p, sibling, archived, ofOtherZone := newPolicy(t, a, zone, "p"), newPolicy(t, a, zone, "sibling"), newPolicy(t, a, zone, "archived"), newPolicy(t, a, other, "other")
	second := newPolicyVersion(t, a, zone, p.ID, documentOf("second"))
	servertest.Expect(t, deletePolicy(t, a.Admin, zone, archived.ID), http.StatusNoContent, "")
	for _, tt := range []struct {
		name             string
		as               *rawclient.ClientWithResponses
		zone, policy, id string
		want             code.Code
	}{
		{"global read token", a.ClientFor("", "read"), zone, p.ID, p.VersionID, ""},
		{"zone read token", a.ClientFor(zone, "read"), zone, p.ID, p.VersionID, ""},
		{"newer version", a.Admin, zone, p.ID, second.ID, ""},
		{"of an archived policy", a.Admin, zone, archived.ID, archived.VersionID, ""},
		{"of another policy", a.Admin, zone, p.ID, sibling.VersionID, code.PolicyVersionNotFound},
		{"unknown version", a.Admin, zone, p.ID, "unknown", code.PolicyVersionNotFound},
		{"unknown policy", a.Admin, zone, "unknown", p.VersionID, code.PolicyVersionNotFound},
		{"of another zone", a.Admin, zone, ofOtherZone.ID, ofOtherZone.VersionID, code.PolicyVersionNotFound},
		{"token of another zone", a.ClientFor(other, "read"), zone, p.ID, p.VersionID, code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := getPolicyVersion(t, tt.as, tt.zone, tt.policy, tt.id)
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want != "" {
				return
			}
			content := map[string]string{p.VersionID: documentOf("p"), second.ID: documentOf("second"), archived.VersionID: documentOf("archived")}[tt.id]
			if v := resp.JSON200; v.ID != tt.id || v.PolicyID != tt.policy || v.Content != content || v.CreatedBy != "bootstrap" || v.ArchivedAt != nil {
				t.Errorf("got %+v, want the content %q", v, content)
			}
		})
	}
}

// The same version reads the same in every operation.
func TestGetPolicyVersionEqualsListedVersion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	p := newPolicy(t, a, zone, "p")
	added := newPolicyVersion(t, a, zone, p.ID, documentOf("second"))
	one := getPolicyVersion(t, a.Admin, zone, p.ID, added.ID).JSON200
	all := getPolicy(t, a.Admin, zone, p.ID).JSON200.Versions
	list, err := a.Admin.ListPolicyVersionsWithResponse(t.Context(), zone, p.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, list, http.StatusOK, "")
	summary := client.PolicyVersionSummary{
		ID: one.ID, PolicyID: one.PolicyID, Version: one.Version, ContentSHA256: one.ContentSHA256, SchemaVersion: one.SchemaVersion, CreatedAt: one.CreatedAt,
	}
	if *one != all[0] || (*list.JSON200)[0] != summary || (*list.JSON200)[1] != p.Version {
		t.Errorf("the version is\n%+v, of the policy\n%+v, and the list is\n%+v", one, all[0], *list.JSON200)
	}
	want := client.AddedPolicyVersion{
		VersionID: one.ID, ID: one.ID, PolicyID: p.ID, Version: 2, ContentSHA256: one.ContentSHA256, SchemaVersion: "2026-05-20", CreatedAt: one.CreatedAt,
	}
	if added != want {
		t.Errorf("it was added as %+v, want %+v", added, want)
	}
}
