package server_test

import (
	"net/http"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// newPolicy creates a policy with a content that is different for each name.
func newPolicy(t *testing.T, a *servertest.API, zone, name string) client.CreatedPolicy {
	t.Helper()
	resp := createPolicy(t, a.Admin, zone, client.NewPolicy{Name: name, Content: documentOf(name)})
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// newPolicyVersion adds a version to a policy.
func newPolicyVersion(t *testing.T, a *servertest.API, zone, policy, content string) client.AddedPolicyVersion {
	t.Helper()
	resp := addPolicyVersion(t, a.Admin, zone, policy, client.NewPolicyVersion{Content: content})
	servertest.Expect(t, resp, http.StatusCreated, "")
	return *resp.JSON201
}

// policyETag returns the ETag of a policy.
func policyETag(t *testing.T, a *servertest.API, zone, id string) string {
	t.Helper()
	resp := getPolicy(t, a.Admin, zone, id)
	servertest.Expect(t, resp, http.StatusOK, "")
	return resp.HTTPResponse.Header.Get("ETag")
}

func createPolicy(t *testing.T, as *rawclient.ClientWithResponses, zone string, body client.NewPolicy) *rawclient.CreatePolicyResponse {
	t.Helper()
	resp, err := as.CreatePolicyWithResponse(t.Context(), zone, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func getPolicy(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) *rawclient.GetPolicyResponse {
	t.Helper()
	resp, err := as.GetPolicyWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func deletePolicy(t *testing.T, as *rawclient.ClientWithResponses, zone, id string) *rawclient.DeletePolicyResponse {
	t.Helper()
	resp, err := as.DeletePolicyWithResponse(t.Context(), zone, id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func addPolicyVersion(t *testing.T, as *rawclient.ClientWithResponses, zone, policy string, body client.NewPolicyVersion) *rawclient.AddPolicyVersionResponse {
	t.Helper()
	resp, err := as.AddPolicyVersionWithResponse(t.Context(), zone, policy, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func getPolicyVersion(t *testing.T, as *rawclient.ClientWithResponses, zone, policy, id string) *rawclient.GetPolicyVersionResponse {
	t.Helper()
	resp, err := as.GetPolicyVersionWithResponse(t.Context(), zone, policy, id)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

const archivePolicy = "UPDATE policies SET archived_at = now() WHERE zone_id = $1 AND id = $2"

// An invalidPolicy is a content or a schema version that no policy can have.
type invalidPolicy struct {
	name, content string
	schemaVersion *string
	want          code.Code
	detail        string
	row, column   int // of the first issue
	line          string
}

var invalidPolicies = []invalidPolicy{
	{"no package", "app_ids := {}\n", nil, code.InvalidRego, "missing_package_declaration", 1, 1, "app_ids := {}"},
	{"no data document", "\npackage caracal.authz\n\napp_ids := {}\n", nil, code.InvalidRego, "must_be_data_document", 2, 1, "package caracal.authz"},
	{"syntax error", "# caracal:data-document\npackage caracal.authz\n\napp_ids := {\"a\" \"b\"}\n", nil, code.InvalidRego, "parse_error:4", 4, 17, `app_ids := {"a" "b"}`},
	{"forbidden built-in", "# caracal:data-document\npackage caracal.authz\n\nx := http.send({})\n", nil, code.InvalidRego, "forbidden_builtin:http.send", 4, 6, "x := http.send({})"},
	{"unknown schema version", documentOf("x"), new("2026-01-01"), code.InvalidSchemaVersion, "unsupported_schema_version:2026-01-01", 0, 0, ""},
	{"empty schema version", documentOf("x"), new(""), code.InvalidSchemaVersion, "unsupported_schema_version:", 0, 0, ""},
	{"invalid content and unknown schema version", "x", new("new"), code.InvalidSchemaVersion, "unsupported_schema_version:new", 0, 0, ""},
}

// expect fails the test unless the response describes what is invalid.
func (p invalidPolicy) expect(t *testing.T, resp servertest.Response) {
	t.Helper()
	servertest.Expect(t, resp, 0, p.want)
	got := problemOf(t, resp)
	if got.Detail == nil || *got.Detail != p.detail {
		t.Errorf("got %s, want the detail %s", resp.GetBody(), p.detail)
	}
	if p.want != code.InvalidRego {
		if got.Issues != nil {
			t.Errorf("got the issues %+v, want none", got.Issues)
		}
		return
	}
	if len(got.Issues) == 0 {
		t.Fatalf("got no issues: %s", resp.GetBody())
	}
	if first := got.Issues[0]; first.Code != p.detail || first.Message == "" || first.Row != p.row || first.Column != p.column || first.Line != p.line {
		t.Errorf("the first issue is %+v, want %s in row %d, column %d of %q", first, p.detail, p.row, p.column, p.line)
	}
}
