package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func TestCreatePolicy(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, system, archivedZone := a.Zone().ID, a.Zone().ID, systemZone(a).ID, a.DB.ArchivedZone()
	newPolicy(t, a, zone, "taken")
	newPolicy(t, a, other, "taken in another zone")
	a.DB.Exec(archivePolicy, zone, newPolicy(t, a, zone, "archived").ID)
	global := a.ClientFor("", "write")
	for _, tt := range []struct {
		name   string
		as     *rawclient.ClientWithResponses
		zone   string
		policy string
		want   code.Code // "" is 201
	}{
		{"by a global token", global, zone, "Grants", ""},
		{"by a zone token", a.ClientFor(zone, "write"), zone, "Application IDs", ""},
		{"name of 200 characters", a.Admin, zone, strings.Repeat("ä", 200), ""},
		{"name taken", a.Admin, zone, "taken", code.PolicyNameConflict},
		{"name in another case", a.Admin, zone, "Taken", ""},
		{"name of a policy of another zone", a.Admin, zone, "taken in another zone", ""},
		{"name of an archived policy", a.Admin, zone, "archived", ""},
		{"name too long", a.Admin, zone, strings.Repeat("x", 201), code.InvalidBody},
		{"no name", a.Admin, zone, "", code.InvalidBody},
		{"reserved name", global, zone, " Caracal.SYS/grants", code.ReservedNamespace},
		{"reserved name by the bootstrap token", a.Admin, zone, "caracal.sys/grants", ""},
		{"unknown zone", a.Admin, "unknown", "x", code.ZoneNotFound},
		{"archived zone", a.Admin, archivedZone, "x", code.ZoneNotFound},
		{"system zone", a.Admin, system, "x", ""},
		{"system zone, not by the bootstrap token", global, system, "y", code.SystemZoneReadOnly},
		{"read token", a.ClientFor(zone, "read"), zone, "x", code.AdminTokenReadOnly},
		{"token of another zone", a.ClientFor(other, "write"), zone, "x", code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := createPolicy(t, tt.as, tt.zone, client.NewPolicy{Name: tt.policy, Content: documentOf(tt.policy)})
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want == "" {
				if got := getPolicy(t, a.Admin, tt.zone, resp.JSON201.ID); got.JSON200 == nil || got.JSON200.Name != tt.policy {
					t.Errorf("got %s, want a policy %q", got.Body, tt.policy)
				}
			}
		})
	}
}

func TestCreatePolicyReservedNamespaceDetail(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	resp := createPolicy(t, a.ClientFor("", "write"), a.Zone().ID, client.NewPolicy{Name: "caracal.sys/x", Content: documentOf("x")})
	servertest.Expect(t, resp, 0, code.ReservedNamespace)
	if detail := problemOf(t, resp).Detail; detail == nil || *detail != "the 'caracal.sys' namespace is reserved for Caracal internal systems" {
		t.Errorf("got %s", resp.Body)
	}
}

// The response has every field of the policy and its first version, and another
// request returns the same.
func TestCreatePolicyReturnsPolicyAndFirstVersion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	as := a.ClientFor(zone, "write")
	for _, tt := range []struct {
		name                 string
		body                 client.NewPolicy
		owner, schemaVersion string
	}{
		{"minimal", client.NewPolicy{Name: "minimal"}, "customer", "2026-05-20"},
		{"complete", client.NewPolicy{Name: "complete", Description: new("What <it> is for"), OwnerType: new("platform"), SchemaVersion: new("2026-03-16")}, "platform", "2026-03-16"},
		{"empty texts", client.NewPolicy{Name: "empty texts", Description: new(""), OwnerType: new("")}, "", "2026-05-20"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.body.Content = documentOf("é😀 " + tt.name)
			digest := sha256.Sum256([]byte(tt.body.Content))
			before := time.Now().Add(-time.Second)
			resp := createPolicy(t, as, zone, tt.body)
			servertest.Expect(t, resp, http.StatusCreated, "")
			p := *resp.JSON201
			if p.ZoneID != zone || p.Name != tt.body.Name || p.OwnerType != tt.owner || p.CreatedBy != "test" || p.CoAuthoredByOperator || p.CreatedAt.Before(before) || p.CreatedAt.After(time.Now()) {
				t.Errorf("got the policy %+v", p)
			}
			if (p.Description == nil) != (tt.body.Description == nil) || p.Description != nil && *p.Description != *tt.body.Description {
				t.Errorf("got the description %v, want %v", p.Description, tt.body.Description)
			}
			want := client.PolicyVersionSummary{
				ID: p.VersionID, PolicyID: p.ID, Version: 1, ContentSHA256: hex.EncodeToString(digest[:]), SchemaVersion: tt.schemaVersion, CreatedAt: p.CreatedAt,
			}
			if p.Version != want || p.VersionID == "" || p.VersionID == p.ID {
				t.Errorf("got the version %+v, want %+v", p.Version, want)
			}
			got := getPolicy(t, a.Admin, zone, p.ID)
			servertest.Expect(t, got, http.StatusOK, "")
			version := client.PolicyVersion{
				ID: p.VersionID, PolicyID: p.ID, Version: 1, Content: tt.body.Content, ContentSHA256: want.ContentSHA256, SchemaVersion: tt.schemaVersion, CreatedBy: "test", CreatedAt: p.CreatedAt,
			}
			if len(got.JSON200.Versions) != 1 || got.JSON200.Versions[0] != version {
				t.Errorf("got the versions %+v, want only %+v", got.JSON200.Versions, version)
			}
			if q := got.JSON200; q.Name != p.Name || q.OwnerType != p.OwnerType || q.CreatedBy != p.CreatedBy || q.CreatedAt != p.CreatedAt || q.CoAuthoredByOperator || q.ZoneID != zone || (q.Description == nil) != (p.Description == nil) {
				t.Errorf("created %+v, and then got %+v", p, q)
			}
			if created, read := resp.HTTPResponse.Header.Get("ETag"), got.HTTPResponse.Header.Get("ETag"); created == "" || created != read {
				t.Errorf("created with the ETag %s, and then got %s", created, read)
			}
		})
	}
}

// Attribution comes from the token: any client can send these headers.
func TestCreatePolicyIgnoresAttributionHeaders(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	a.DB.Exec("UPDATE zones SET operator_coauthor_badge = true WHERE id = $1", zone)
	headers := append(bearer(a.Token(zone, "write").Token), "Content-Type", jsonType, "X-Caracal-Authorized-By", "somebody else", "X-Caracal-Created-Via", "operator")
	raw := a.Do("POST", "/v1/zones/"+zone+"/policies", fmt.Sprintf(`{"name":"x","content":%q}`, documentOf("x")), headers...)
	servertest.Expect(t, raw, http.StatusCreated, "")
	created := decode[client.CreatedPolicy](t, raw)
	raw = a.Do("POST", "/v1/zones/"+zone+"/policies/"+created.ID+"/versions", fmt.Sprintf(`{"content":%q}`, documentOf("y")), headers...)
	servertest.Expect(t, raw, http.StatusCreated, "")
	got := getPolicy(t, a.Admin, zone, created.ID)
	servertest.Expect(t, got, http.StatusOK, "")
	if p := got.JSON200; created.CreatedBy != "test" || created.CoAuthoredByOperator || p.CreatedBy != "test" || p.CoAuthoredByOperator || p.Versions[0].CreatedBy != "test" || p.Versions[1].CreatedBy != "test" {
		t.Errorf("created %+v, got %+v", created, p)
	}
}

func TestCreatePolicyInvalidContent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, tt := range invalidPolicies {
		t.Run(tt.name, func(t *testing.T) {
			tt.expect(t, createPolicy(t, a.Admin, zone, client.NewPolicy{Name: tt.name, Content: tt.content, SchemaVersion: tt.schemaVersion}))
		})
	}
	t.Cleanup(func() {
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM policies"); n > 0 {
			t.Errorf("%d policies were created", n)
		}
	})
}

// The response lists every issue, the one that determines the detail first.
func TestCreatePolicyReturnsEveryIssue(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	content := "package caracal.authz\n\nresult := 1\n\napp_ids := {\"a\": http.send({})}\n"
	resp := createPolicy(t, a.Admin, a.Zone().ID, client.NewPolicy{Name: "x", Content: content})
	servertest.Expect(t, resp, 0, code.InvalidRego)
	var got []string
	for _, issue := range problemOf(t, resp).Issues {
		got = append(got, fmt.Sprint(issue.Code, " ", issue.Row))
	}
	want := []string{"forbidden_builtin:http.send 5", "must_be_data_document 1", "data_document_must_not_define_result 3"}
	if !slices.Equal(got, want) {
		t.Errorf("the issues are %q, want %q", got, want)
	}
}

func TestCreatePolicyInvalidBody(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	policy := newPolicy(t, a, zone, "existing").ID
	for _, tt := range []struct{ name, fields, field string }{ // field "": the body is valid
		{"unknown field", `"unknown":1`, ""},
		{"content missing", `"content":null`, "content"},
		{"content empty", `"content":""`, "content"},
		{"content is a list", `"content":["x"]`, "content"},
		{"schema version is null", `"schema_version":null`, "schema_version"},
		{"schema version too long", `"schema_version":"` + strings.Repeat("x", 201) + `"`, "schema_version"},
		{"name is a number", `"name":7`, "name"},
		{"description is null", `"description":null`, "description"},
		{"description too long", `"description":"` + strings.Repeat("x", 2001) + `"`, "description"},
		{"owner type is null", `"owner_type":null`, "owner_type"},
		{"owner type too long", `"owner_type":"` + strings.Repeat("x", 201) + `"`, "owner_type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := fmt.Sprintf(`{"name":%q,"content":%q,%s}`, tt.name, documentOf("x"), tt.fields)
			for _, path := range []string{"/policies", "/policies/" + policy + "/versions"} {
				raw := a.Do("POST", "/v1/zones/"+zone+path, body, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
				ofVersion := tt.field == "content" || tt.field == "schema_version"
				if tt.field == "" || path != "/policies" && !ofVersion { // a new version ignores the fields of the policy
					servertest.Expect(t, raw, http.StatusCreated, "")
					continue
				}
				servertest.Expect(t, raw, 0, code.InvalidBody)
				if issues := problemOf(t, raw).Details.Issues; len(issues) != 1 || strings.Join(issues[0].Path, ".") != tt.field {
					t.Errorf("%s: got %s, want one issue about %s", path, raw.Body, tt.field)
				}
			}
		})
	}
}

// The limit of the content is in characters. A body that large requires a higher
// limit of the body.
func TestCreatePolicyContentLimit(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	a := servertest.New(t, "API_BODY_LIMIT_BYTES=4194304")
	zone := a.Zone().ID
	largest := documentOf("x") + "# é"
	largest += strings.Repeat("x", limit-len([]rune(largest)))
	resp := createPolicy(t, a.Admin, zone, client.NewPolicy{Name: "largest", Content: largest})
	servertest.Expect(t, resp, http.StatusCreated, "")
	got := getPolicyVersion(t, a.Admin, zone, resp.JSON201.ID, resp.JSON201.VersionID)
	if servertest.Expect(t, got, http.StatusOK, ""); got.JSON200.Content != largest {
		t.Errorf("sent %d bytes, got %d", len(largest), len(got.JSON200.Content))
	}
	servertest.Expect(t, createPolicy(t, a.Admin, zone, client.NewPolicy{Name: "larger", Content: largest + "x"}), 0, code.InvalidBody)
	standard := servertest.New(t)
	servertest.Expect(t, createPolicy(t, standard.Admin, standard.Zone().ID, client.NewPolicy{Name: "largest", Content: largest}), 0, code.PayloadTooLarge)
}
