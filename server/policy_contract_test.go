package server

import (
	"fmt"
	"strings"
	"testing"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/policy"
	"caracal.run/management/store"
)

// The rules are checked in the order of policy-sets.md; the first one that is
// violated is the detail.
func TestCheckManifest(t *testing.T) {
	t.Parallel()
	const schema = policy.InputSchemaVersion
	source := func(id string, archived bool, schema string) store.PolicySource {
		return store.PolicySource{ID: id, SchemaVersion: schema, Bytes: 1, Content: id, Archived: archived}
	}
	largest := source("largest", false, schema)
	largest.Bytes = store.MaxManifestBytes - 1
	sources := []store.PolicySource{source("c", false, schema), source("a", false, schema), source("b", false, schema), source("old", false, "2026-03-16"), source("archived", true, "2026-03-16"), largest}
	many := make([]string, 257)
	for i := range many {
		many[i] = fmt.Sprint("a", i%2)
	}
	for _, tt := range []struct {
		name, schema string
		manifest     []string
		detail       string // "": valid
	}{
		{"in the order of the manifest", schema, []string{"b", "a", "c"}, ""},
		{"unsupported schema version and no entries", "2026-01-01", nil, "unsupported_schema_version:2026-01-01"},
		{"no entries", schema, nil, "policy set manifest must reference at least one policy version"},
		{"too many entries, duplicates", schema, many, "policy set manifest exceeds maximum of 256 entries"},
		{"duplicates that are missing", schema, []string{"x", "a", "x"}, "policy set manifest contains duplicate policy_version_id entries"},
		{"missing and archived", schema, []string{"archived", "x"}, "policy set manifest references missing policy versions"},
		{"archived and of another schema", schema, []string{"a", "archived"}, "policy version archived belongs to an archived policy"},
		{"of another schema", schema, []string{"a", "old"}, "policy version old schema 2026-03-16 does not match policy set schema 2026-05-20"},
		{"of another schema than the old one", "2026-03-16", []string{"old", "a"}, "policy version a schema 2026-05-20 does not match policy set schema 2026-03-16"},
		{"largest content", schema, []string{"a", "largest"}, ""},
		{"too large content", schema, []string{"largest", "a", "b"}, "policy set manifest exceeds maximum of 8388608 bytes of content"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ordered, detail := checkManifest(tt.schema, tt.manifest, sources)
			if detail != tt.detail {
				t.Fatalf("got %q, want %q", detail, tt.detail)
			}
			var ids []string
			for _, s := range ordered {
				ids = append(ids, s.ID)
			}
			if tt.detail == "" && strings.Join(ids, " ") != strings.Join(tt.manifest, " ") {
				t.Errorf("got %v", ids)
			}
		})
	}
}

func TestContractDetail(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ id, errCode, want string }{
		{"v", "must_use_package_caracal_authz", "policy version v must use package caracal.authz"},
		{"v", "must_be_data_document", "policy version v must be a data document marked # caracal:data-document"},
		{"v", "data_document_must_not_define_result", "policy version v must not define result; the platform decision contract owns every decision"},
		{"v", "forbidden_builtin:http.send", "policy version v failed validation: forbidden_builtin:http.send"},
		{"", "conflicting_document", "policy set manifest failed validation: conflicting_document"},
	} {
		if got := contractDetail(&policy.CompileError{ID: tt.id, Issues: []policy.Issue{{Code: tt.errCode}}}); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// The error of an invalid manifest has the code of the operation, and no issue unless
// the content of a policy is invalid.
func TestCompileManifest(t *testing.T) {
	t.Parallel()
	const valid = "# caracal:data-document\npackage caracal.authz\n\nrestrict := []\n"
	s := &Server{bundles: policy.NewCache(1 << 20)}
	sources := []store.PolicySource{{ID: "valid", SchemaVersion: policy.InputSchemaVersion, Content: valid}, {ID: "invalid", SchemaVersion: policy.InputSchemaVersion, Content: "package caracal.authz"}}
	for _, tt := range []struct {
		manifest []string
		want     string
	}{
		{[]string{"valid"}, ""},
		{[]string{"missing"}, "invalid_shadow_policy_contract map[detail:policy set manifest references missing policy versions]"},
	} {
		bundle, err := s.compileManifest(t.Context(), "zone", code.InvalidShadowPolicyContract, policy.InputSchemaVersion, tt.manifest, sources)
		got := ""
		if e, ok := err.(*code.Error); ok {
			got = fmt.Sprint(e.Code, " ", e.Fields)
		}
		if got != tt.want || (bundle == nil) != (tt.want != "") || (err == nil) != (tt.want == "") {
			t.Errorf("%v: got %v, %v", tt.manifest, bundle, err)
		}
	}
	_, err := s.compileManifest(t.Context(), "zone", code.InvalidPolicyContract, policy.InputSchemaVersion, []string{"valid", "invalid"}, sources)
	if e, ok := err.(*code.Error); !ok || e.Code != code.InvalidPolicyContract || e.Fields["issues"] == nil || !strings.HasPrefix(fmt.Sprint(e.Fields["detail"]), "policy version invalid ") {
		t.Errorf("got %v", err)
	}
}
