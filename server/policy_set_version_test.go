package server_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

const (
	archivePolicyOf   = "UPDATE policies SET archived_at = now() WHERE zone_id = $1 AND id = (SELECT policy_id FROM policy_versions WHERE zone_id = $1 AND id = $2)"
	relabelVersion    = "UPDATE policy_versions SET schema_version = $3 WHERE zone_id = $1 AND id = $2"
	oldSchema         = "2026-03-16"
	dataDocument      = "# caracal:data-document\npackage caracal.authz\n\n"
	contradictoryIDs  = dataDocument + "app_ids := {\"billing\": \"application-%d\"}\n"
	missingVersions   = "policy set manifest references missing policy versions"
	duplicateVersions = "policy set manifest contains duplicate policy_version_id entries"
)

// contractProblem returns the detail and the issues of an error response.
func contractProblem(t *testing.T, resp servertest.Response) (detail string, issues []client.PolicyIssue) {
	t.Helper()
	body := decode[struct {
		Detail string
		Issues []client.PolicyIssue
	}](t, servertest.RawResponse{Body: resp.GetBody()})
	return body.Detail, body.Issues
}

func TestAddPolicySetVersion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	set, archived, foreign := z.set(t).ID, z.set(t).ID, other.set(t).ID
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived, ""), http.StatusNoContent, "")
	archivedZone, reservedZone := a.DB.ArchivedZone(), policyZone{a, systemZone(a).ID}
	inArchivedZone, _ := a.DB.PolicySet(archivedZone, insertPolicyVersion(a.DB, archivedZone))
	first, second, ofArchived, ofOther, old := insertPolicyVersion(a.DB, z.zone), insertPolicyVersion(a.DB, z.zone), insertPolicyVersion(a.DB, z.zone), insertPolicyVersion(a.DB, other.zone), insertPolicyVersion(a.DB, z.zone)
	a.DB.Exec(archivePolicyOf, z.zone, ofArchived)
	a.DB.Exec(relabelVersion, z.zone, old, oldSchema)
	otherPackage, noMarker := insertPolicyVersionWith(a.DB, z.zone, "# caracal:data-document\npackage other\n\ngrants := {}\n"), insertPolicyVersionWith(a.DB, z.zone, "package caracal.authz\n\ngrants := {}\n")
	definesResult, malformed := insertPolicyVersionWith(a.DB, z.zone, dataDocument+"result := {}\n"), insertPolicyVersionWith(a.DB, z.zone, dataDocument+"grants := := {}\n")
	left, right := insertPolicyVersionWith(a.DB, z.zone, fmt.Sprintf(contradictoryIDs, 1)), insertPolicyVersionWith(a.DB, z.zone, fmt.Sprintf(contradictoryIDs, 2))
	many := make([]string, 256)
	for i := range many {
		many[i] = insertPolicyVersion(a.DB, z.zone)
	}
	for _, tt := range []struct {
		name           string
		as             *rawclient.ClientWithResponses
		zone, set      string
		policyVersions []string
		want           code.Code // "" is 201
		detail, issue  string    // of invalid_policy_contract: "…" in detail stands for any text; issue is the policy version of the first issue
	}{
		{"one", a.ClientFor(z.zone, "write"), z.zone, set, []string{first}, "", "", ""},
		{"two", a.ClientFor("", "write"), z.zone, set, []string{second, first}, "", "", ""},
		{"256", a.Admin, z.zone, set, many, "", "", ""},
		{"none", a.Admin, z.zone, set, nil, code.InvalidBody, "", ""},
		{"257", a.Admin, z.zone, set, append(slices.Clone(many), first), code.InvalidBody, "", ""},
		{"empty id", a.Admin, z.zone, set, []string{first, ""}, code.InvalidBody, "", ""},
		{"duplicate", a.Admin, z.zone, set, []string{first, second, first}, code.InvalidPolicyContract, duplicateVersions, ""},
		{"unknown version", a.Admin, z.zone, set, []string{first, "unknown"}, code.InvalidPolicyContract, missingVersions, ""},
		{"only an unknown version", a.Admin, z.zone, set, []string{"é\" unknown"}, code.InvalidPolicyContract, missingVersions, ""},
		{"version of another zone", a.Admin, z.zone, set, []string{ofOther}, code.InvalidPolicyContract, missingVersions, ""},
		{"version of an archived policy", a.Admin, z.zone, set, []string{first, ofArchived}, code.InvalidPolicyContract, "policy version " + ofArchived + " belongs to an archived policy", ""},
		{"version of another schema", a.Admin, z.zone, set, []string{old}, code.InvalidPolicyContract, "policy version " + old + " schema 2026-03-16 does not match policy set schema 2026-05-20", ""},
		{"other package", a.Admin, z.zone, set, []string{first, otherPackage}, code.InvalidPolicyContract, "policy version " + otherPackage + " must use package caracal.authz", otherPackage},
		{"no marker", a.Admin, z.zone, set, []string{noMarker}, code.InvalidPolicyContract, "policy version " + noMarker + " must be a data document marked # caracal:data-document", noMarker},
		{"defines result", a.Admin, z.zone, set, []string{definesResult}, code.InvalidPolicyContract, "policy version " + definesResult + " must not define result; the platform decision contract owns every decision", definesResult},
		{"malformed", a.Admin, z.zone, set, []string{malformed}, code.InvalidPolicyContract, "policy version " + malformed + " failed validation: …", malformed},
		{"one of two that contradict each other", a.Admin, z.zone, set, []string{left}, "", "", ""},
		{"two that contradict each other", a.Admin, z.zone, set, []string{left, right}, code.InvalidPolicyContract, "policy version … failed validation: …", "…"},
		{"unknown policy set", a.Admin, z.zone, "unknown", []string{first}, code.PolicySetNotFound, "", ""},
		{"unknown policy set and version", a.Admin, z.zone, "unknown", []string{"unknown"}, code.PolicySetNotFound, "", ""},
		{"archived policy set", a.Admin, z.zone, archived, []string{first}, code.PolicySetNotFound, "", ""},
		{"policy set of another zone", a.Admin, z.zone, foreign, []string{first}, code.PolicySetNotFound, "", ""},
		{"unknown zone", a.Admin, "unknown", set, []string{first}, code.PolicySetNotFound, "", ""},
		{"archived zone", a.Admin, archivedZone, inArchivedZone, []string{insertPolicyVersion(a.DB, archivedZone)}, code.ZoneNotFound, "", ""},
		{"reserved zone", a.ClientFor("", "write"), reservedZone.zone, reservedZone.set(t).ID, []string{insertPolicyVersion(a.DB, reservedZone.zone)}, code.SystemZoneReadOnly, "", ""},
		{"read token", a.ClientFor(z.zone, "read"), z.zone, set, []string{first}, code.AdminTokenReadOnly, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp := addPolicySetVersion(t, tt.as, tt.zone, tt.set, tt.policyVersions...)
			servertest.Expect(t, resp, http.StatusCreated, tt.want)
			if tt.want == code.InvalidPolicyContract {
				detail, issues := contractProblem(t, resp)
				if !matches(detail, tt.detail) || (len(issues) > 0) != (tt.issue != "") {
					t.Errorf("got %s, want detail %s", resp.Body, tt.detail)
				}
				for _, issue := range issues {
					if issue.PolicyVersionID == nil || tt.issue != "…" && *issue.PolicyVersionID != tt.issue || issue.Code == "" || issue.Message == "" {
						t.Errorf("got issue %+v of %s", issue, tt.issue)
					}
				}
			}
			if tt.want != "" {
				return
			}
			v := *resp.JSON201
			var entries []string
			for _, id := range tt.policyVersions {
				entries = append(entries, `{"policy_version_id":"`+id+`"}`)
			}
			digest := sha256.Sum256([]byte("[" + strings.Join(entries, ",") + "]"))
			if v.ID != v.VersionID || v.PolicySetID != tt.set || v.Version < 1 || v.ManifestSHA256 != hex.EncodeToString(digest[:]) || v.SchemaVersion != "2026-05-20" {
				t.Errorf("got %s", resp.Body)
			}
			got, err := tt.as.GetPolicySetVersionWithResponse(t.Context(), tt.zone, tt.set, v.ID)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, got, http.StatusOK, "")
			if g := *got.JSON200; g.ID != v.ID || g.PolicySetID != v.PolicySetID || g.Version != v.Version || g.ManifestSHA256 != v.ManifestSHA256 || g.SchemaVersion != v.SchemaVersion || !g.CreatedAt.Equal(v.CreatedAt) || !slices.Equal(g.Policies, tt.policyVersions) {
				t.Errorf("got %s, added %s", got.Body, resp.Body)
			}
			if want := `"manifest_json":[` + strings.Join(entries, ",") + "]"; !strings.Contains(string(got.Body), want) {
				t.Errorf("got %s, want %s", got.Body, want)
			}
		})
	}
}

// matches reports whether a text is what a pattern describes, in which "…" stands for
// any text that is not empty.
func matches(text, pattern string) bool {
	before, after, found := strings.Cut(pattern, "…")
	if !found {
		return text == pattern
	}
	rest, ok := strings.CutPrefix(text, before)
	for i := 1; ok && i <= len(rest); i++ {
		if matches(rest[i:], after) {
			return true
		}
	}
	return false
}

func TestAddPolicySetVersionWithSchemaVersion(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set, old := z.set(t).ID, insertPolicyVersion(a.DB, z.zone)
	a.DB.Exec(relabelVersion, z.zone, old, oldSchema)
	add := func(set, schema string) *rawclient.AddPolicySetVersionResponse {
		resp, err := a.Admin.AddPolicySetVersionWithResponse(t.Context(), z.zone, set, client.NewPolicySetVersion{Manifest: []client.NewManifestEntry{{PolicyVersionID: old}}, SchemaVersion: &schema})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := add(set, oldSchema)
	servertest.Expect(t, resp, http.StatusCreated, "")
	if resp.JSON201.SchemaVersion != oldSchema {
		t.Errorf("got %s", resp.Body)
	}
	for _, unsupported := range []string{"2026-05-21", ""} {
		for _, id := range []string{set, "unknown"} {
			resp = add(id, unsupported)
			servertest.Expect(t, resp, 0, code.InvalidSchemaVersion)
			if detail, _ := contractProblem(t, resp); detail != "unsupported_schema_version:"+unsupported {
				t.Errorf("got %s", resp.Body)
			}
		}
	}
}

// The contents of a manifest must not be too large in total, neither in a new version
// nor in one that is stored.
func TestAddPolicySetVersionWithTooMuchContent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set := z.set(t).ID
	comment := "# " + strings.Repeat("x", 1<<20-3) + "\n"
	var large []string
	for range 8 {
		large = append(large, insertPolicyVersionWith(a.DB, z.zone, comment+dataDocument+"restrict := []\n"))
	}
	const want = "policy set manifest exceeds maximum of 8388608 bytes of content"
	resp := addPolicySetVersion(t, a.Admin, z.zone, set, large...)
	servertest.Expect(t, resp, 0, code.InvalidPolicyContract)
	if detail, _ := contractProblem(t, resp); detail != want {
		t.Errorf("got %s", resp.Body)
	}
	version := z.version(t, set, large[:2]...).ID
	for i, id := range large[2:] {
		a.DB.Exec("INSERT INTO policy_set_manifests (zone_id, policy_set_version_id, position, policy_version_id) VALUES ($1, $2, $3, $4)", z.zone, version, i+3, id)
	}
	small := z.version(t, set).ID
	for _, tt := range []struct {
		version, shadow string
		want            code.Code
	}{{version, "", code.InvalidPolicyContract}, {small, version, code.InvalidShadowPolicyContract}, {small, "", ""}} {
		resp := activatePolicySet(t, a.Admin, z.zone, set, tt.version, tt.shadow)
		servertest.Expect(t, resp, http.StatusAccepted, tt.want)
		if detail, _ := contractProblem(t, resp); tt.want != "" && detail != want {
			t.Errorf("got %s", resp.Body)
		}
	}
}

func TestGetPolicySetVersionAndListPolicySetVersions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other := newPolicyZone(a), newPolicyZone(a)
	set, empty, archived, foreign := z.set(t).ID, z.set(t).ID, z.set(t).ID, other.set(t).ID
	first, second, ofArchived, ofForeign := z.version(t, set).ID, z.version(t, set).ID, z.version(t, archived).ID, other.version(t, foreign).ID
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, archived, ""), http.StatusNoContent, "")
	zoneToken := a.ClientFor(z.zone, "read")
	for _, tt := range []struct {
		name             string
		as               *rawclient.ClientWithResponses
		zone, set        string
		versions         []string  // in the list
		list             code.Code // "" is 200
		version, missing string    // the first can be retrieved, and the second cannot
	}{
		{"global token", a.ClientFor("", "read"), z.zone, set, []string{second, first}, "", first, ofArchived},
		{"token of the zone", zoneToken, z.zone, set, []string{second, first}, "", second, ofForeign},
		{"archived policy set", zoneToken, z.zone, archived, []string{ofArchived}, "", ofArchived, first},
		{"no versions", zoneToken, z.zone, empty, []string{}, "", "", first},
		{"unknown policy set", zoneToken, z.zone, "unknown", nil, code.PolicySetNotFound, "", first},
		{"policy set of another zone", zoneToken, z.zone, foreign, nil, code.PolicySetNotFound, "", ofForeign},
		{"unknown zone", a.Admin, "unknown", set, nil, code.PolicySetNotFound, "", first},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.ListPolicySetVersionsWithResponse(t.Context(), tt.zone, tt.set, nil)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.list)
			if tt.list == "" {
				listed := []string{}
				for i, v := range *resp.JSON200 {
					listed = append(listed, v.ID)
					if int(v.Version) != len(tt.versions)-i || v.PolicySetID != tt.set {
						t.Errorf("got %+v", v)
					}
				}
				if !slices.Equal(listed, tt.versions) {
					t.Errorf("got %v, want %v", listed, tt.versions)
				}
			}
			get := func(id string, want code.Code) {
				t.Helper()
				resp, err := tt.as.GetPolicySetVersionWithResponse(t.Context(), tt.zone, tt.set, id)
				if err != nil {
					t.Fatal(err)
				}
				servertest.Expect(t, resp, http.StatusOK, want)
			}
			if tt.version != "" {
				get(tt.version, "")
			}
			get(tt.missing, code.PolicySetVersionNotFound)
		})
	}
}

func TestListPolicySetVersionsPages(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set, other := z.set(t).ID, z.set(t).ID
	const count = 23
	for _, id := range []string{set, other} {
		a.DB.Exec(`INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_sha256, schema_version, created_by)
			SELECT $1, $2 || '-' || n, $2, n, 'x', '2026-05-20', 'x' FROM generate_series(1, $3) AS n`, z.zone, id, count)
	}
	path := "/v1/zones/" + z.zone + "/policy-sets/" + set + "/versions?limit=10"
	var numbers []int32
	pages := eachPage(t, a, path, func(v client.PolicySetVersion) { numbers = append(numbers, v.Version) })
	slices.Reverse(numbers)
	for i, n := range numbers {
		if n != int32(i+1) {
			t.Fatalf("got versions %v", numbers)
		}
	}
	if pages != 3 || len(numbers) != count {
		t.Errorf("%d versions on %d pages", len(numbers), pages)
	}
	first := a.Do("GET", path, "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, a.Do("GET", strings.Replace(next(first), set, other, 1), "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
}

// Versions that are added at the same time have different numbers, without gaps.
func TestAddPolicySetVersionConcurrently(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set, policyVersion := z.set(t).ID, insertPolicyVersion(a.DB, z.zone)
	const count = 20
	all := make([]func(), count)
	for i := range all {
		all[i] = func() {
			resp, err := a.Admin.AddPolicySetVersionWithResponse(t.Context(), z.zone, set, client.NewPolicySetVersion{Manifest: []client.NewManifestEntry{{PolicyVersionID: policyVersion}}})
			if err != nil || resp.StatusCode() != http.StatusCreated {
				t.Errorf("%v: %s", err, resp.GetBody())
			}
		}
	}
	concurrently(all...)
	if n := storetest.Value[int](a.DB, "SELECT count(DISTINCT version) FROM policy_set_versions WHERE policy_set_id = $1 AND version BETWEEN 1 AND $2", set, count); n != count {
		t.Errorf("%d different numbers, want %d", n, count)
	}
}

func TestAddPolicySetVersionIsAuditedWithoutEvent(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	set := z.set(t)
	before := getPolicySet(t, a.Admin, z.zone, set.ID).HTTPResponse.Header.Get("ETag")
	resp := addPolicySetVersion(t, a.ClientFor(z.zone, "write"), z.zone, set.ID, insertPolicyVersion(a.DB, z.zone))
	servertest.Expect(t, resp, http.StatusCreated, "")
	v := *resp.JSON201
	got := storetest.Column[string](a.DB, "SELECT operation || ' ' || entity_id || ' ' || payload FROM audit_entries WHERE zone_id = $1 AND entity_type = 'policy-set-versions'", z.zone)
	want := `addPolicySetVersion ` + v.ID + ` {"rls_mode":"zone_scoped","rls_zone_guc":"` + z.zone + `","changed_fields":["manifest_sha256","policy_set_id","schema_version","version"],` +
		`"changes":{"manifest_sha256":{"from":null,"to":"` + v.ManifestSHA256 + `"},"policy_set_id":{"from":null,"to":"` + set.ID + `"},"schema_version":{"from":null,"to":"2026-05-20"},"version":{"from":null,"to":1}},"change":"created"}`
	if len(got) != 1 || got[0] != want {
		t.Errorf("the audit entries are\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if by := storetest.Value[string](a.DB, "SELECT created_by FROM policy_set_versions WHERE id = $1", v.ID); by != "test" {
		t.Errorf("created by %s", by)
	}
	if events := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); events != 0 {
		t.Errorf("%d events", events)
	}
	if after := getPolicySet(t, a.Admin, z.zone, set.ID).HTTPResponse.Header.Get("ETag"); after != before {
		t.Errorf("the ETag of the policy set changed from %s to %s", before, after)
	}
}
