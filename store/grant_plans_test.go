package store_test

import (
	"fmt"
	"testing"

	"caracal.run/management/store"
	"caracal.run/management/store/storetest"
)

// fillGrants inserts grants in zone z1: of 20 applications, 200 resources of 20
// providers and 1000 users, all with the scope common. Four of them have a rare
// application, resource, provider, user, status and scope instead.
func fillGrants(db *storetest.DB, count int) {
	for _, constraint := range storetest.Column[string](db, "SELECT conname::text FROM pg_constraint WHERE conrelid = 'grants'::regclass AND contype = 'f'") {
		db.Exec("ALTER TABLE grants DROP CONSTRAINT " + constraint) // checking it takes most of the time
	}
	db.Exec(`INSERT INTO applications (zone_id, id, name, registration_method)
		SELECT 'z1', 'a-' || n, 'x', 'managed' FROM unnest(array_append(ARRAY(SELECT generate_series(0, 19)::text), 'rare')) AS n`)
	db.Exec(`INSERT INTO providers (zone_id, id, name, identifier, kind)
		SELECT 'z1', 'p-' || n, 'x', 'provider://g' || n, 'none' FROM unnest(array_append(ARRAY(SELECT generate_series(0, 19)::text), 'rare')) AS n`)
	db.Exec(`INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement)
		SELECT 'z1', 'r-' || n, 'x', 'urn:g' || n, '{a}', 'p-' || CASE WHEN n = 'rare' THEN n ELSE (n::int % 20)::text END, 'enforced' FROM unnest(array_append(ARRAY(SELECT generate_series(0, 199)::text), 'rare')) AS n`)
	db.Exec(`INSERT INTO grants (zone_id, id, application_id, user_id, resource_id, scopes, status, created_at)
		SELECT 'z1', 'g-' || n, 'a-' || coalesce(rare, (n % 20)::text), 'u-' || coalesce(rare, (n / 20 % 1000)::text), 'r-' || coalesce(rare, (n / 20 % 200)::text),
			ARRAY['common', coalesce(rare, 'other')], CASE WHEN rare IS NULL THEN 'active' ELSE 'revoked' END, now() - n * interval '1 second'
		FROM (SELECT n, CASE WHEN n % ($1 / 4) = 0 THEN 'rare' END AS rare FROM generate_series(1, $1) AS n) AS numbers`, count)
	db.Exec("INSERT INTO grant_scopes (zone_id, scope, created_at, grant_id) SELECT zone_id, unnest(scopes), created_at, id FROM grants")
	for _, table := range []string{"applications", "providers", "resources", "grants", "grant_scopes"} {
		db.Exec("ANALYZE " + table)
	}
}

// A page of a list of grants is read from the index of its filter, in order: how many
// rows are read depends neither on the number of grants nor on how many match.
func TestListGrantsReadsOnlyAPage(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec(`INSERT INTO zones (id, name, slug, reserved) SELECT 'z' || n, 'Zone', 'z' || n, false FROM generate_series(1, 2000) AS n`) // the planner expects each to have few grants
	fillGrants(db, 200_000)
	const page = listedPage
	for _, tt := range []listPlan{
		{"listGrants", nil, "grants_listed", page, page},
		{"listGrantsByUser", map[string]string{"UserID": "u-7"}, "grants_by_user", page, page},
		{"listGrantsByUser", map[string]string{"UserID": "u-rare"}, "grants_by_user", 4, 4},
		{"listGrantsByUser", map[string]string{"UserID": "u-7", "ApplicationID": "a-7", "ResourceID": "r-7", "ProviderID": "p-7", "Status": "active", "Scopes": "{common,other}"}, "grants_by_user", 200, 10},
		{"listGrantsByApplication", map[string]string{"ApplicationID": "a-7"}, "grants_by_application", page, page},
		{"listGrantsByApplication", map[string]string{"ApplicationID": "a-rare", "Status": "revoked", "Scopes": "{common}"}, "grants_by_application", 4, 4},
		{"listGrantsByResource", map[string]string{"ResourceID": "r-7"}, "grants_by_resource", page, page},
		{"listGrantsByResource", map[string]string{"ResourceID": "r-rare", "ApplicationID": "a-7"}, "grants_by_resource", 4, 0},
		{"listGrantsByStatus", map[string]string{"Status": "active"}, "grants_by_status", page, page},
		{"listGrantsByStatus", map[string]string{"Status": "revoked"}, "grants_by_status", 4, 4},
		{"listGrantsByStatus", map[string]string{"Status": "expired"}, "grants_by_status", 0, 0},
		{"listGrantsByScope", map[string]string{"Scope": "common", "Scopes": "{common}"}, "grant_scopes_pkey", page, page},
		{"listGrantsByScope", map[string]string{"Scope": "rare", "Scopes": "{rare,common}"}, "grant_scopes_pkey", 4, 4},
		{"listGrantsByScope", map[string]string{"Scope": "rare", "Scopes": "{rare}", "Status": "active"}, "grant_scopes_pkey", 4, 0},
		{"listGrantsByScope", map[string]string{"Scope": "unknown", "Scopes": "{unknown}"}, "grant_scopes_pkey", 0, 0},
		// The first grant of each of the 10 resources, and a page of each.
		{"listGrantsByProvider", map[string]string{"ProviderID": "p-7"}, "grants_by_resource", 10 + 10*page, page},
		{"listGrantsByProvider", map[string]string{"ProviderID": "p-rare"}, "grants_by_resource", 1 + 4, 4},
		{"listGrantsByProvider", map[string]string{"ProviderID": "p-unknown"}, "grants_by_resource", 0, 0},
	} {
		t.Run(fmt.Sprint(tt.query, tt.set), func(t *testing.T) {
			sorted := -1.0 // nothing; only the lists of a provider's resources are merged
			if tt.query == "listGrantsByProvider" {
				sorted = listedPage
			}
			looked := []string{"applications_pkey", "resources_pkey", "providers_pkey", "grants_pkey", "resources_by_provider"}
			tt.check(t, db, sorted, looked, max(listedPage, tt.read))
		})
	}
}

// Choosing the filter whose index is scanned reads few rows, too.
func TestListGrantsChoosesTheMostSelectiveFilter(t *testing.T) {
	t.Parallel()
	db := storetest.New(t)
	db.Exec(`INSERT INTO zones (id, name, slug, reserved) VALUES ('z1', 'Zone', 'z1', false)`)
	fillGrants(db, 20_000)
	s := db.Store().For(store.System)
	user, application, resource, provider, active, revoked := new("u-7"), new("a-7"), new("r-7"), new("p-7"), new("active"), new("revoked")
	for _, tt := range []struct {
		filter store.GrantFilter
		want   string
	}{
		{store.GrantFilter{}, ""},
		{store.GrantFilter{Status: active}, "status"},
		{store.GrantFilter{UserID: user, ApplicationID: application, ResourceID: resource, ProviderID: provider, Status: active, Scopes: []string{"common"}}, "user_id"},
		{store.GrantFilter{ApplicationID: application, ResourceID: resource, ProviderID: provider, Status: active, Scopes: []string{"common"}}, "resource_id"},
		{store.GrantFilter{ApplicationID: application, Status: active}, "application_id"},
		{store.GrantFilter{ApplicationID: application, Status: revoked}, "status"},
		{store.GrantFilter{ApplicationID: application, Scopes: []string{"common", "rare", "other"}}, "scope rare"},
		{store.GrantFilter{ApplicationID: application, ProviderID: new("p-rare")}, "provider_id"},
		{store.GrantFilter{ApplicationID: application, Scopes: []string{"unknown"}}, "scope unknown"},
	} {
		got, err := store.MostSelective(t.Context(), s, "z1", tt.filter)
		if err != nil || got != tt.want {
			t.Errorf("%+v: got %q, %v, want %q", tt.filter, got, err, tt.want)
		}
	}
	values := map[string]string{"ZoneID": "z1", "RowLimit": "500", "UserID": "u-7", "ApplicationID": "a-7", "ResourceID": "r-7", "ProviderID": "p-7", "Status": "active", "Scopes": "{common}"}
	root, text := execute(t, listPlanner(t, db), "countGrantsByFilter", values)
	read := map[string]int{}
	root.walk(func(n planNode) {
		if n.Relation != "" {
			read[n.Index] += n.read()
		}
	})
	for _, index := range []string{"grants_by_user", "grants_by_application", "grants_by_resource", "grants_by_status", "grant_scopes_pkey"} {
		if n := read[index]; n == 0 || n > 2*500 { // grants_by_resource is read for the provider, too
			t.Errorf("read %d rows of %s: %v\n%s", n, index, read, text)
		}
	}
	if read[""] > 0 {
		t.Errorf("read %d rows of a table", read[""])
	}
}
