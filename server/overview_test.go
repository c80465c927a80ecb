package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// fillOverview creates objects in a zone, some of which do not count: archived ones,
// sessions that have ended, and events of another day.
func fillOverview(t *testing.T, a *servertest.API, zone string) {
	a.DB.Exec(`INSERT INTO applications (zone_id, id, name, registration_method, expires_at, archived_at)
		SELECT $1, 'o-' || n, 'x', CASE WHEN n < 4 THEN 'managed' ELSE 'dcr' END, CASE WHEN n IN (4, 5) THEN now() - interval '1 hour' WHEN n > 7 THEN now() + interval '8 days' WHEN n > 5 THEN now() + interval '6 days' END,
			CASE WHEN n IN (1, 4, 8) THEN now() END FROM generate_series(1, 10) AS n`, zone)
	provider := a.DB.Provider(zone)
	a.DB.Exec("INSERT INTO providers (zone_id, id, name, identifier, kind, archived_at) VALUES ($1, 'p-archived', 'x', 'provider://x', 'none', now())", zone)
	for _, enforcement := range []string{"enforced", "transport_uniform", "transport_uniform"} {
		a.DB.Exec("UPDATE resources SET operation_enforcement = $2 WHERE id = $1", a.DB.Resource(zone), enforcement)
	}
	a.DB.Exec("INSERT INTO resource_totals (zone_id, live) VALUES ($1, 3) ON CONFLICT (zone_id) DO UPDATE SET live = 3", zone)
	a.DB.Exec("INSERT INTO resources (zone_id, id, name, identifier, scopes, credential_provider_id, operation_enforcement, archived_at) VALUES ($1, 'r-archived', 'x', 'urn:x', '{a}', $2, 'transport_uniform', now())", zone, provider)
	for _, change := range []string{"status = status", "expires_at = now()", "status = 'expired'", "status = 'revoked', revoked_at = now()", "status = status"} {
		a.DB.Exec("UPDATE sessions SET "+change+" WHERE id = $1", a.DB.Session(zone))
	}
	for n, decision := range []any{"allow", "deny", "partial", nil, "allow", "deny", "allow"} {
		at := time.Now().Add(time.Duration(-n) * 4 * time.Hour)
		if n == 6 {
			at = time.Now().Add(-25 * time.Hour)
		}
		a.DB.AuditEvent(zone, map[string]any{"id": fmt.Sprint("e-", n), "decision": decision, "occurred_at": at, "request_id": fmt.Sprint("r-", n), "metadata": map[string]any{"n": n, "token": "x"}})
	}
}

func TestGetOverview(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newPolicyZone(a)
	other := a.Zone().ID
	fillOverview(t, a, z.zone)
	set := z.set(t)
	version := z.version(t, set.ID, insertPolicyVersion(a.DB, z.zone))
	z.activate(t, set.ID, version.ID, "")
	servertest.Expect(t, deletePolicySet(t, a.Admin, z.zone, z.set(t).ID, ""), http.StatusNoContent, "")
	z.set(t)
	raw := a.Do("GET", "/v1/zones/"+z.zone+"/overview", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	got := decode[client.Overview](t, raw)
	if age := time.Since(time.Time(got.GeneratedAt)); age < -time.Minute || age > time.Hour {
		t.Errorf("generated at %v", got.GeneratedAt)
	}
	want := client.Overview{
		ZoneID: z.zone, GeneratedAt: got.GeneratedAt, Applications: client.OverviewApplications{Total: 7 + 3, Expired: 1, ExpiringSoon: 2}, Resources: client.OverviewResources{Total: 3, Unenforced: 2}, // each resource has an application
		Providers: client.OverviewProviders{Total: 4}, PolicySets: client.OverviewPolicySets{Total: 2, Enforcing: 1, ActiveName: &set.Name}, Sessions: client.OverviewSessions{Active: 2},
		Decisions24H: client.OverviewDecisions{Allowed: 2, Denied: 2}, RecentEvents: got.RecentEvents,
	}
	if gotText, wantText := string(encode(t, got)), string(encode(t, want)); gotText != wantText {
		t.Errorf("got\n%s, want\n%s", gotText, wantText)
	}
	if len(got.RecentEvents) != 7 {
		t.Fatalf("got %+v", got.RecentEvents)
	}
	for n, e := range got.RecentEvents {
		if e.ID != fmt.Sprint("e-", n) || *e.RequestID != fmt.Sprint("r-", n) || (e.Decision == nil) != (n == 3) || string(e.MetadataJSON) != fmt.Sprintf(`{"n":%d,"token":"[redacted]"}`, n) {
			t.Errorf("event %d is %+v", n, e)
		}
	}
	a.DB.AuditEvents(z.zone, 8, func(int) map[string]any { return map[string]any{"metadata": nil} })
	raw = a.Do("GET", "/v1/zones/"+z.zone+"/overview", "", bearer(servertest.Bootstrap)...)
	if got := decode[client.Overview](t, raw); len(got.RecentEvents) != 10 || got.Decisions24H.Allowed != 10 || !strings.Contains(string(raw.Body), `"metadata_json":null`) {
		t.Errorf("got %s", raw.Body)
	}
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		want code.Code // "" is 200
	}{
		{"zone token", a.ClientFor(z.zone, "read"), z.zone, ""},
		{"token of another zone", a.ClientFor(other, "write"), z.zone, code.AdminTokenZoneMismatch},
		{"no token", a.Anonymous(), z.zone, code.InvalidAdminToken},
		{"another zone", a.ClientFor(other, "read"), other, ""},
		{"unknown zone", a.Admin, "unknown", ""},
		{"invalid zone", a.Admin, "a b", code.InvalidParams},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.GetOverviewWithResponse(t.Context(), tt.zone)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
			if tt.want == "" && tt.zone != z.zone {
				empty := client.Overview{ZoneID: tt.zone, GeneratedAt: resp.JSON200.GeneratedAt, RecentEvents: []client.OverviewEvent{}}
				if got, want := string(encode(t, resp.JSON200)), string(encode(t, empty)); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			}
		})
	}
}

// Decisions of the last 24 hours are counted to the microsecond, although they are
// stored by minutes.
func TestGetOverviewCountsDecisionsOf24Hours(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	const seconds = 180
	now := time.Now()
	a.DB.AuditEvents(zone, seconds, func(n int) map[string]any { // one of each second around 24 hours ago
		return map[string]any{"decision": "deny", "occurred_at": now.Add(-24*time.Hour + time.Duration(n-seconds/2)*time.Second)}
	})
	raw := a.Do("GET", "/v1/zones/"+zone+"/overview", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, raw, http.StatusOK, "")
	got := decode[client.Overview](t, raw)
	want := 0
	for n := range seconds {
		at := now.Add(-24*time.Hour + time.Duration(n-seconds/2)*time.Second)
		if !at.Before(time.Time(got.GeneratedAt).Add(-24 * time.Hour)) {
			want++
		}
	}
	if denied := got.Decisions24H.Denied; denied != want && denied != want-1 { // generated_at has milliseconds
		t.Errorf("got %d denied, want %d", denied, want)
	}
	if got.Decisions24H.Allowed != 0 {
		t.Errorf("got %+v", got.Decisions24H)
	}
}
