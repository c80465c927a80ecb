package store_test

import (
	"strings"
	"testing"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// The database itself rejects two active policy sets in a zone, an active one that is
// archived, versions of another policy set, and a history that contradicts itself.
func TestPolicySetConstraints(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ('one', 'Zone', 'one', false), ('two', 'Zone', 'two', false)")
	zone := "one"
	_, policyVersion := db.Policy(zone)
	active := db.ActivePolicySet(zone, policyVersion)
	set, version := db.PolicySet(zone, policyVersion)
	conn := serviceConn(t, db)
	change := func(columns, values string) string {
		return "INSERT INTO policy_activations (zone_id, outbox_id, activated_by, number, action, " + columns + ") VALUES ('one', 'o', 'x', " + values + ")"
	}
	for _, tt := range []struct{ name, sql, want string }{
		{"second active policy set", "UPDATE policy_sets SET active_version_id = '" + version + "' WHERE id = '" + set + "'", "23505"},
		{"archived without deactivation", "UPDATE policy_sets SET archived_at = now() WHERE id = '" + active + "'", "23514"},
		{"version of another policy set", "UPDATE policy_sets SET active_version_id = '" + version + "' WHERE id = '" + active + "'", "23503"},
		{"shadow version of another policy set", "UPDATE policy_sets SET shadow_version_id = '" + version + "' WHERE id = '" + active + "'", "23503"},
		{"shadow version without active version", "UPDATE policy_sets SET shadow_version_id = '" + version + "' WHERE id = '" + set + "'", "23514"},
		{"policy version of another zone", "INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_sha256, schema_version, created_by) VALUES ('two', 'v', '" + set + "', 2, 'x', 'x', 'x')", "42501"},
		{"number of another version", "INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_sha256, schema_version, created_by) VALUES ('one', 'v', '" + set + "', 1, 'x', 'x', 'x')", "23505"},
		{"policy version twice in a manifest", "INSERT INTO policy_set_manifests VALUES ('one', '" + version + "', 2, '" + policyVersion + "')", "23505"},
		{"unknown policy version in a manifest", "INSERT INTO policy_set_manifests VALUES ('one', '" + version + "', 2, 'unknown')", "23503"},
		{"number of another change", change("policy_set_id, version_id", "1, 'activate', '"+set+"', '"+version+"'"), "23505"},
		{"unknown action", change("policy_set_id, version_id", "2, 'other', '"+set+"', '"+version+"'"), "23514"},
		{"activation of nothing", change("previous_policy_set_id, previous_version_id", "2, 'activate', '"+set+"', '"+version+"'"), "23514"},
		{"deactivation of nothing", change("previous_policy_set_id", "2, 'deactivate', NULL"), "23514"},
		{"deactivation that leaves a version", change("policy_set_id, version_id", "2, 'deactivate', '"+set+"', '"+version+"'"), "23514"},
		{"policy set without version", change("policy_set_id", "2, 'activate', '"+set+"'"), "23514"},
		{"change to a version of another policy set", change("policy_set_id, version_id", "2, 'activate', '"+active+"', '"+version+"'"), "23503"},
	} {
		if rows, errCode := attempt(t, conn, &zone, tt.sql); !strings.HasPrefix(errCode, tt.want+" ") {
			t.Errorf("%s: %d rows, %q, want %s", tt.name, rows, errCode, tt.want)
		}
	}
	for _, sql := range []string{ // what the tests above change, done right
		change("policy_set_id, version_id", "2, 'activate', '"+set+"', '"+version+"'"),
		"UPDATE policy_sets SET active_version_id = NULL WHERE id = '" + active + "'",
		"UPDATE policy_sets SET active_version_id = '" + version + "', shadow_version_id = '" + version + "' WHERE id = '" + set + "'",
	} {
		if rows, errCode := attempt(t, conn, &zone, sql); rows != 1 {
			t.Errorf("%s: %d rows, %q", sql, rows, errCode)
		}
	}
}

// The contents of the policies of a manifest are read only if they are not too large
// in total.
func TestManifestContentIsBounded(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec("INSERT INTO zones (id, name, slug, reserved) VALUES ('one', 'Zone', 'one', false)")
	const zone, size = "one", store.MaxManifestBytes / 2
	_, first := db.PolicyWith(zone, strings.Repeat("é", size/2))
	_, second := db.PolicyWith(zone, strings.Repeat("x", size))
	_, third := db.PolicyWith(zone, "x")
	set, small := db.PolicySet(zone, first)
	large := db.PolicySetVersion(zone, set, first)
	for position, version := range map[int]string{2: small, 3: large} {
		db.Exec("INSERT INTO policy_set_manifests VALUES ($1, $2, $3, $4)", zone, version, position, second)
	}
	db.Exec("INSERT INTO policy_set_manifests VALUES ($1, $2, 2, $3)", zone, large, third)
	s := db.Store().For(store.System)
	sources, err := s.PolicySetSources(t.Context(), zone, set, small, large)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		ids  []string
		kept bool
	}{{small, []string{first, second}, true}, {large, []string{first, second, third}, false}} {
		found, err := s.ManifestCandidates(t.Context(), zone, set, tt.ids)
		if err != nil || len(found) != len(tt.ids) || len(sources[tt.name].Policies) != len(tt.ids) {
			t.Fatalf("%d candidates, %d policies, %v", len(found), len(sources[tt.name].Policies), err)
		}
		for _, p := range append(found, sources[tt.name].Policies...) {
			if (int64(len(p.Content)) == p.Bytes) != tt.kept || p.Bytes == 0 || !tt.kept && p.Content != "" {
				t.Errorf("%s: %d of %d bytes were read", p.ID, len(p.Content), p.Bytes)
			}
		}
	}
}
