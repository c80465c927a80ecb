package server_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

// listedRows is how many rows fillLists adds to each list.
const listedRows = 37

// fillLists adds rows to each list, of which several share each timestamp.
func fillLists(t *testing.T, a *servertest.API, zone string, ids map[string]string) {
	t.Helper()
	numbers := fmt.Sprintf("FROM (SELECT n, timestamptz '2026-03-01T00:00:00.000001Z' + n * 7919 %% 5 * interval '1 microsecond' AS t FROM generate_series(1, %d) AS n) AS numbers", listedRows)
	application, provider := ids["applications"], ids["providers"]
	for _, insert := range []struct {
		sql  string
		args []any
	}{
		{"INSERT INTO zones (id, name, slug, reserved, created_at) SELECT 'l-' || n, 'x', 'l-' || n, false, t ", nil},
		{"INSERT INTO admin_tokens (zone_id, id, name, capability, created_by, token_sha256, created_at) SELECT $1, 'l-' || n, 'x', 'read', 'x', sha256(('l' || n)::bytea), t ", []any{zone}},
		{"INSERT INTO applications (zone_id, id, name, registration_method, traits, created_at) SELECT $1, 'l-' || n, 'x', 'managed', '{control:invoke}', t ", []any{zone}},
		{"INSERT INTO registration_tokens (zone_id, id, name, token_sha256, created_at) SELECT $1, 'l-' || n, 'x', sha256(n::text::bytea), t ", []any{zone}},
		{"INSERT INTO providers (zone_id, id, name, identifier, kind, created_at) SELECT $1, 'l-' || n, 'x', 'provider://l-' || n, 'none', t ", []any{zone}},
		{"INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement, created_at) SELECT $1, 'l-' || n, 'x', 'urn:l-' || n, '{a}', $2, 'enforced', t ", []any{zone, provider}},
		{"INSERT INTO grants (zone_id, id, application_id, user_id, resource_id, scopes, created_at) SELECT $1, 'l-' || n, $2, 'u-' || n, $3, '{a}', t ", []any{zone, application, ids["resources"]}},
		{"INSERT INTO provider_grants (zone_id, id, user_id, resource_id, provider_id, status, created_at) SELECT $1, 'l-' || n, 'u-' || n, $2, $3, 'revoked', t ", []any{zone, ids["provider-grants/resources"], ids["provider-grants/providers"]}},
		{"INSERT INTO sessions (zone_id, id, session_type, expires_at, created_at) SELECT $1, 'l-' || n, 'user', now(), t ", []any{zone}},
		{"INSERT INTO agent_sessions (zone_id, id, application_id, subject_session_id, spawned_at) SELECT $1, 'l-' || n, $2, $3, t ", []any{zone, application, ids["sessions"]}},
		{"INSERT INTO policies (zone_id, id, name, owner_type, latest_version, created_by, created_at) SELECT $1, 'l-' || n, 'l-' || n, 'customer', 1, 'x', t ", []any{zone}},
		{"INSERT INTO policy_versions (zone_id, id, policy_id, version, content, content_sha256, schema_version, created_by, created_at) SELECT $1, 'l-' || n, $2, 100 + n, 'x', 'x', 'x', 'x', t ", []any{zone, ids["policies"]}},
		{"INSERT INTO policy_sets (zone_id, id, name, latest_version, created_by, created_at) SELECT $1, 'l-' || n, 'l-' || n, 1, 'x', t ", []any{zone}},
		{"INSERT INTO policy_set_versions (zone_id, id, policy_set_id, version, manifest_sha256, schema_version, created_by, created_at) SELECT $1, 'l-' || n, $2, 100 + n, 'x', 'x', 'x', t ", []any{zone, ids["policy-sets"]}},
		{"INSERT INTO policy_activations (zone_id, number, action, policy_set_id, version_id, outbox_id, activated_by) SELECT $1, 100 + n, 'activate', $2, $3, 'l-' || n, 'x' ", []any{zone, ids["policy-sets"], ids["policy-sets/versions"]}},
		{"INSERT INTO step_up_challenges (zone_id, id, principal_id, challenge_type, resource_set_hash, created_at, expires_at) SELECT $1, 'l-' || n, 'u', 'mfa', 'x', t, t + interval '100 years' ", []any{zone}},
		{"INSERT INTO outbox (zone_id, id, stream, fields, request_id, attempts, last_error, created_at, dead_at) SELECT $1, 'l-' || n, 'caracal.policy.invalidate', '{}', 'x', 5, 'x', t, t ", []any{zone}},
		{"INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload, occurred_at) SELECT $1, 'l-' || n, 'r', 'a', 'o', 'a', 'POST', '/v1/zones', 201, '{}', t ", []any{zone}},
		{"INSERT INTO audit_entries (zone_id, id, request_id, actor_name, operation, action, method, path, status_code, payload, occurred_at) SELECT '-', 'l-' || n, 'r', 'a', 'o', 'a', 'POST', '/v1/zones', 201, '{}', t ", nil},
	} {
		a.DB.Exec(insert.sql+numbers, insert.args...)
	}
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	a.DB.AuditEvents(zone, listedRows, func(n int) map[string]any {
		return map[string]any{"request_id": ids["requests"], "occurred_at": at.Add(time.Duration(n*7919%5) * time.Microsecond)}
	})
}

// rowsOf returns the rows of a page: of an array, or of an object with rows.
func rowsOf(t *testing.T, raw servertest.RawResponse) (rows []string) {
	t.Helper()
	var all []json.RawMessage
	if strings.HasPrefix(string(raw.Body), "{") {
		all = decode[struct{ Rows []json.RawMessage }](t, raw).Rows
	} else {
		all = decode[[]json.RawMessage](t, raw)
	}
	for _, row := range all {
		rows = append(rows, string(row))
	}
	return rows
}

// Each list, read in pages of random sizes, contains each row exactly once, in the order
// of a single page that has all of them, although many rows share a timestamp.
func TestEveryListReturnsEachRowOnce(t *testing.T) {
	t.Parallel()
	const fewest = 30 // in the list of zone events, which has only those of populate
	w := newWalker(t)
	ids := populate(t, w.API, w.zone.ID, "ours")
	fillLists(t, w.API, w.zone.ID, ids)
	w.DB.Exec("UPDATE outbox SET dispatched_at = now() WHERE dead_at IS NULL")
	eventually(t, "the audit entries are sealed", func() bool { return storetest.Value[int](w.DB, "SELECT count(*)::int FROM audit_unsealed") == 0 })
	eachOperation(t, func(op servertest.Operation) bool { return has(op, "query", "cursor") }, func(t *testing.T, op servertest.Operation) {
		path := pathTo(op, w.zone.ID, ids)
		page := func(path string) ([]string, string) {
			raw := w.Do(op.Method, path, "", bearer(servertest.Bootstrap)...)
			servertest.Expect(t, raw, http.StatusOK, "")
			return rowsOf(t, raw), next(raw)
		}
		want, more := page(path + fmt.Sprint("?limit=", maxLimit(op)))
		unique := slices.Compact(slices.Sorted(slices.Values(want)))
		if more != "" || len(want) < fewest || len(unique) != len(want) {
			t.Fatalf("a page of all rows has %d, %d of them different, and the next page %q", len(want), len(unique), more)
		}
		for seed := range uint64(3) {
			r := rand.New(rand.NewPCG(seed, 0))
			limited := func(path string) string {
				before, _, _ := strings.Cut(path, "limit=")
				_, cursor, found := strings.Cut(path, "cursor=")
				if path = fmt.Sprint(before, "limit=", 1+r.IntN(7)); found {
					cursor, _, _ = strings.Cut(cursor, "&")
					path = fmt.Sprint(before[:strings.Index(before, "?")], "?limit=", 1+r.IntN(7), "&cursor=", cursor)
				}
				return path
			}
			var got []string
			for at := limited(path + "?limit=1"); at != ""; {
				rows, following := page(at)
				got = append(got, rows...)
				if at = following; at != "" {
					at = limited(at)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("seed %d: %d rows in pages, and %d in one page:\n%s\nwant\n%s", seed, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	})
}
