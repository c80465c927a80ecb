package server_test

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
)

// oneOfEachStatus inserts a challenge of each status, and two expired ones: the
// second one was satisfied before. It returns their IDs.
func oneOfEachStatus(a *servertest.API, zone string) map[string]string {
	session := a.DB.Session(zone)
	ids := map[string]string{
		"pending": a.DB.StepUpChallenge(zone, session), "satisfied": a.DB.SatisfiedStepUpChallenge(zone, session),
		"consumed": a.DB.ConsumedStepUpChallenge(zone, session), "rejected": a.DB.RejectedStepUpChallenge(zone, session),
		"expired": a.DB.ExpiredStepUpChallenge(zone, session), "unused": a.DB.SatisfiedStepUpChallenge(zone, session),
	}
	a.DB.ExpireStepUpChallenge(zone, ids["unused"])
	return ids
}

func TestListStepUpChallenges(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	ids := oneOfEachStatus(a, zone)
	oneOfEachStatus(a, other)
	// The outcome of these two is final: they do not expire.
	a.DB.ExpireStepUpChallenge(zone, ids["consumed"])
	a.DB.ExpireStepUpChallenge(zone, ids["rejected"])
	path := "/v1/zones/" + zone + "/step-up-challenges"
	reader := a.Token(zone, "read").Token
	all := []string{ids["satisfied"], ids["pending"], ids["rejected"], ids["consumed"], ids["unused"], ids["expired"]}
	for _, tt := range []struct {
		path string
		want []string
	}{
		{path + "?limit=500", all},
		{path + "?status=pending", []string{ids["pending"]}},
		{path + "?status=satisfied", []string{ids["satisfied"]}},
		{path + "?status=consumed", []string{ids["consumed"]}},
		{path + "?status=rejected", []string{ids["rejected"]}},
		{path + "?status=expired", []string{ids["unused"], ids["expired"]}},
		{"/v1/zones/" + a.Zone().ID + "/step-up-challenges", nil},
	} {
		t.Run(tt.path, func(t *testing.T) {
			token := reader
			if tt.want == nil {
				token = servertest.Bootstrap
			}
			got, _ := idsAt(t, a, tt.path, token)
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for _, query := range []string{"?status=", "?status=active", "?status=pending&status=expired"} {
		servertest.Expect(t, a.Do("GET", path+query, "", bearer(reader)...), 0, code.InvalidQuery)
	}
	servertest.Expect(t, a.Do("GET", path, "", bearer(a.Token(other, "write", servertest.CanApprove).Token)...), 0, code.AdminTokenZoneMismatch)
	raw := a.Do("GET", "/v1/zones/nowhere/step-up-challenges", "", bearer(servertest.Bootstrap)...)
	if servertest.Expect(t, raw, http.StatusOK, ""); strings.TrimSpace(string(raw.Body)) != "[]" {
		t.Errorf("got %s", raw.Body)
	}
}

// The pages of the whole list and of each status contain every challenge exactly
// once, in order, also if many of them have the same time, and while others change.
func TestListStepUpChallengesPages(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	const each = 23
	for _, in := range []string{zone, other} {
		a.DB.Exec(`INSERT INTO step_up_challenges (zone_id, id, principal_id, challenge_type, resource_set_hash, created_at, expires_at, satisfied_at, approver_subject_id, rejected_at, rejected_by, rejected_reason, consumed_at)
			SELECT $1, status || '-' || n, 'user-1', 'mfa', 'x', t, CASE WHEN status = 'expired' THEN t ELSE t + interval '100 years' END, CASE WHEN status IN ('satisfied', 'consumed') THEN t END,
				CASE WHEN status IN ('satisfied', 'consumed') THEN 'x' END, CASE WHEN status = 'rejected' THEN t END, CASE WHEN status = 'rejected' THEN 'x' END, CASE WHEN status = 'rejected' THEN 'x' END, CASE WHEN status = 'consumed' THEN t END
			FROM unnest('{pending,satisfied,consumed,rejected,expired}'::text[]) AS status, generate_series(1, $2) AS n, LATERAL (SELECT timestamptz '2026-01-01 00:00:00.000001Z' + (n / 10) * interval '1 microsecond' AS t) AS times`, in, each)
	}
	path := "/v1/zones/" + zone + "/step-up-challenges?limit=5"
	for _, status := range []string{"", "pending", "satisfied", "consumed", "rejected", "expired"} {
		t.Run("status "+status, func(t *testing.T) {
			query, want := "", 5*each
			if status != "" {
				query, want = "&status="+status, each
			}
			seen := map[string]int{}
			eachPage(t, a, path+query, func(one client.StepUpChallenge) {
				if seen[one.ID]++; one.ZoneID != zone || status != "" && string(one.Status) != status {
					t.Errorf("saw %+v", one)
				}
				// Meanwhile, others appear before it.
				a.DB.Exec("UPDATE step_up_challenges SET expires_at = now() + interval '200 years' WHERE zone_id = $1 AND id = $2", zone, a.DB.StepUpChallenge(zone, ""))
			})
			for id, times := range seen {
				if times != 1 {
					t.Errorf("%s was seen %d times", id, times)
				}
			}
			if len(seen) != want {
				t.Errorf("%d challenges were seen, want %d", len(seen), want)
			}
			a.DB.Exec("DELETE FROM step_up_challenges WHERE id LIKE 'challenge-%'")
			first := a.Do("GET", path+query, "", bearer(servertest.Bootstrap)...)
			otherStatus := next(first) + "&status=pending"
			switch status {
			case "":
			case "pending":
				otherStatus = strings.Replace(next(first), "status=pending", "status=expired", 1)
			default:
				otherStatus = strings.Replace(next(first), "status="+status, "status=pending", 1)
			}
			for _, path := range []string{strings.Replace(next(first), zone, other, 1), otherStatus} {
				servertest.Expect(t, a.Do("GET", path, "", bearer(servertest.Bootstrap)...), 0, code.InvalidCursor)
			}
		})
	}
}

func TestGetStepUpChallenge(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other := a.Zone().ID, a.Zone().ID
	ids := oneOfEachStatus(a, zone)
	withoutSession := a.DB.StepUpChallenge(zone, "")
	for _, tt := range []struct {
		name string
		as   *rawclient.ClientWithResponses
		zone string
		id   string
		want code.Code
	}{
		{"by a read token", a.ClientFor(zone, "read"), zone, ids["pending"], ""},
		{"by a global read token", a.ClientFor("", "read"), zone, ids["consumed"], ""},
		{"unknown", a.Admin, zone, "unknown", code.ChallengeNotFound},
		{"of another zone", a.Admin, other, ids["pending"], code.ChallengeNotFound},
		{"token of another zone", a.ClientFor(other, "write"), zone, ids["pending"], code.AdminTokenZoneMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, err := tt.as.GetStepUpChallengeWithResponse(t.Context(), tt.zone, tt.id)
			if err != nil {
				t.Fatal(err)
			}
			servertest.Expect(t, resp, http.StatusOK, tt.want)
		})
	}
	list := a.Do("GET", "/v1/zones/"+zone+"/step-up-challenges", "", bearer(servertest.Bootstrap)...)
	servertest.Expect(t, list, http.StatusOK, "")
	listed := map[string]map[string]any{}
	for _, one := range decode[[]map[string]any](t, list) {
		listed[one["id"].(string)] = one
	}
	fields := []string{"approver_subject_id", "challenge_type", "created_at", "expires_at", "id", "metadata_json", "rejected_at", "rejected_by", "rejected_reason", "satisfied_at", "session_id", "status", "zone_id"}
	for status, id := range ids {
		got, etag := asRead(t, a, "/v1/zones/"+zone+"/step-up-challenges/"+id)
		if !reflect.DeepEqual(got, listed[id]) || etag == "" {
			t.Errorf("got %v, listed %v", got, listed[id])
		}
		want := map[string]string{"unused": "expired"}[status]
		if want == "" {
			want = status
		}
		if got["status"] != want || got["session_id"] == nil || fmt.Sprint(got["metadata_json"]) != "map[requested_scopes:[invoices:write] resources:[resource://invoices]]" {
			t.Errorf("%s: got %v", status, got)
		}
		var names []string
		for name := range got {
			names = append(names, name)
		}
		if slices.Sort(names); !slices.Equal(names, fields) {
			t.Errorf("the fields are %q", names)
		}
		if (got["satisfied_at"] != nil) != slices.Contains([]string{"satisfied", "consumed", "unused"}, status) || (got["rejected_at"] != nil) != (status == "rejected") {
			t.Errorf("%s: got %v", status, got)
		}
	}
	if got, _ := asRead(t, a, "/v1/zones/"+zone+"/step-up-challenges/"+withoutSession); got["session_id"] != nil {
		t.Errorf("got %v", got)
	}
}
