package server_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func satisfy(t *testing.T, as *rawclient.ClientWithResponses, zone, id string, ifMatch ...string) servertest.Response {
	t.Helper()
	params := &rawclient.SatisfyStepUpChallengeParams{}
	for _, tag := range ifMatch {
		params.IfMatch = &tag
	}
	resp, err := as.SatisfyStepUpChallengeWithResponse(t.Context(), zone, id, params)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func reject(t *testing.T, as *rawclient.ClientWithResponses, zone, id, reason string, ifMatch ...string) servertest.Response {
	t.Helper()
	params := &rawclient.RejectStepUpChallengeParams{}
	for _, tag := range ifMatch {
		params.IfMatch = &tag
	}
	resp, err := as.RejectStepUpChallengeWithResponse(t.Context(), zone, id, params, client.NewStepUpRejection{Reason: reason})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// A decision is a way to decide about a challenge.
type decision struct {
	operation string
	send      func(t *testing.T, as *rawclient.ClientWithResponses, zone, id string, ifMatch ...string) servertest.Response
}

var decisions = []decision{
	{"satisfy", satisfy},
	{"reject", func(t *testing.T, as *rawclient.ClientWithResponses, zone, id string, ifMatch ...string) servertest.Response {
		t.Helper()
		return reject(t, as, zone, id, "Not today.", ifMatch...)
	}},
}

// reasonOf returns the reason for which a challenge cannot be satisfied.
func reasonOf(t *testing.T, resp servertest.Response) string {
	t.Helper()
	servertest.Expect(t, resp, 0, code.ChallengeNotSatisfiable)
	reason := problemOf(t, resp).Reason
	if reason == nil {
		t.Fatalf("got %s", resp.GetBody())
	}
	return string(*reason)
}

func TestDecideStepUpChallenge(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone, other, archived, system := a.Zone().ID, a.Zone().ID, a.DB.ArchivedZone(), systemZone(a).ID
	session := a.DB.Session(zone)
	ended := func(change string) string {
		s := a.DB.Session(zone)
		a.DB.Exec("UPDATE sessions SET "+change+" WHERE id = $1", s)
		return a.DB.StepUpChallenge(zone, s)
	}
	global, ofZone := a.Token("", "write", servertest.CanApprove), a.Token(zone, "read", servertest.CanApprove)
	owned := func(subject string) string {
		s := a.DB.Session(zone)
		a.DB.Exec("UPDATE sessions SET subject_id = $2 WHERE id = $1", s, subject)
		c := a.DB.StepUpChallenge(zone, s)
		a.DB.Exec("UPDATE step_up_challenges SET principal_id = 'user-1' WHERE id = $1", c)
		return c
	}
	requested := func(principal string) string {
		c := a.DB.StepUpChallenge(zone, session)
		a.DB.Exec("UPDATE step_up_challenges SET principal_id = $2 WHERE id = $1", c, principal)
		return c
	}
	sessionWithoutSubject := a.DB.Session(zone)
	a.DB.Exec("UPDATE sessions SET subject_id = NULL WHERE id = $1", sessionWithoutSubject)
	expiredLater := a.DB.SatisfiedStepUpChallenge(zone, session)
	a.DB.ExpireStepUpChallenge(zone, expiredLater)
	globalClient, zoneClient := a.ClientWithToken(global.Token), a.ClientWithToken(ofZone.Token)
	pending := func(zone string) func() string {
		return func() string { return a.DB.StepUpChallenge(zone, a.DB.Session(zone)) }
	}
	always := func(id string) func() string { return func() string { return id } }
	for _, tt := range []struct {
		name    string
		as      *rawclient.ClientWithResponses
		zone    string
		id      func() string
		want    code.Code // "" is 200, unless there is a reason
		satisfy string    // the reason
		reject  string
	}{
		{"by the bootstrap token", a.Admin, zone, pending(zone), "", "", ""},
		{"by a global token", globalClient, zone, pending(zone), "", "", ""},
		{"by a read token of the zone", zoneClient, zone, pending(zone), "", "", ""},
		{"a session without a subject", zoneClient, zone, func() string { return a.DB.StepUpChallenge(zone, sessionWithoutSubject) }, "", "", ""},
		{"of a second factor", zoneClient, zone, func() string { return a.DB.MFAStepUpChallenge(zone, session, []byte("x")) }, "", "", ""},
		{"unknown", a.Admin, zone, always("unknown"), code.ChallengeNotFound, "", ""},
		{"of another zone", globalClient, zone, pending(other), code.ChallengeNotFound, "", ""},
		{"of a zone that does not exist", a.Admin, "nowhere", always("x"), code.ZoneNotFound, "", ""},
		{"of an archived zone", a.Admin, archived, pending(archived), code.ZoneNotFound, "", ""},
		{"of a system zone", globalClient, system, pending(system), code.SystemZoneReadOnly, "", ""},
		{"of a system zone, by the bootstrap token", a.Admin, system, pending(system), "", "", ""},
		{"token of another zone", zoneClient, other, pending(other), code.AdminTokenZoneMismatch, "", ""},
		{"no permission", a.ClientFor(zone, "write"), zone, pending(zone), code.AdminTokenCannotApprove, "", ""},
		{"satisfied", a.Admin, zone, always(a.DB.SatisfiedStepUpChallenge(zone, session)), "", "already_satisfied", "already_satisfied"},
		{"satisfied and then expired", a.Admin, zone, always(expiredLater), "", "already_satisfied", "already_satisfied"},
		{"rejected", a.Admin, zone, always(a.DB.RejectedStepUpChallenge(zone, session)), "", "rejected", "rejected"},
		{"consumed", a.Admin, zone, always(a.DB.ConsumedStepUpChallenge(zone, session)), "", "consumed", "consumed"},
		{"expired", a.Admin, zone, always(a.DB.ExpiredStepUpChallenge(zone, session)), "", "expired", "expired"},
		{"session revoked", a.Admin, zone, func() string { return ended("status = 'revoked'") }, "", "session_not_live", ""},
		{"session expired", a.Admin, zone, func() string { return ended("status = 'expired'") }, "", "session_not_live", ""},
		{"session past its expiry", a.Admin, zone, func() string { return ended("expires_at = now()") }, "", "session_not_live", ""},
		{"no session", a.Admin, zone, func() string { return a.DB.StepUpChallenge(zone, "") }, "", "session_not_live", ""},
		{"session unknown", a.Admin, zone, func() string { return a.DB.StepUpChallenge(zone, "gone") }, "", "session_not_live", ""},
		{"session of another zone", a.Admin, zone, func() string { return a.DB.StepUpChallenge(zone, a.DB.Session(other)) }, "", "session_not_live", ""},
		{"own session", globalClient, zone, func() string { return owned("admin:" + global.ID) }, "", "self_approval", ""},
		{"own session, by the ID of the token", zoneClient, zone, func() string { return owned(ofZone.ID) }, "", "self_approval", ""},
		{"own session of another token", zoneClient, zone, func() string { return owned("admin:" + global.ID) }, "", "", ""},
		{"own request", zoneClient, zone, func() string { return requested("admin:" + ofZone.ID) }, "", "self_approval", ""},
		{"own request, by the ID of the token", globalClient, zone, func() string { return requested(global.ID) }, "", "self_approval", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, d := range decisions {
				id := tt.id()
				row := func() string {
					rows := storetest.Column[string](a.DB, "SELECT to_jsonb(c)::text FROM step_up_challenges AS c WHERE id = $1", id)
					return strings.Join(rows, "")
				}
				before := row()
				resp := d.send(t, tt.as, tt.zone, id)
				reason := map[string]string{"satisfy": tt.satisfy, "reject": tt.reject}[d.operation]
				if reason == "" && tt.want == "" {
					servertest.Expect(t, resp, http.StatusOK, "")
					continue
				}
				if reason == "" {
					servertest.Expect(t, resp, 0, tt.want)
				} else if got := reasonOf(t, resp); got != reason {
					t.Errorf("%s: the reason is %s, want %s", d.operation, got, reason)
				}
				if after := row(); after != before {
					t.Errorf("%s: the challenge was\n%s\nand became\n%s", d.operation, before, after)
				}
			}
		})
	}
}

func TestDecideStepUpChallengeIsVisibleAndAudited(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	approver := a.Token(zone, "read", servertest.CanApprove)
	as := a.ClientWithToken(approver.Token)
	path := "/v1/zones/" + zone + "/step-up-challenges/"
	satisfied, rejected := a.DB.StepUpChallenge(zone, a.DB.Session(zone)), a.DB.StepUpChallenge(zone, a.DB.Session(zone))

	resp := satisfy(t, as, zone, satisfied).(*rawclient.SatisfyStepUpChallengeResponse)
	servertest.Expect(t, resp, http.StatusOK, "")
	got, etag := asRead(t, a, path+satisfied)
	body := decode[map[string]any](t, servertest.RawResponse{Response: resp.HTTPResponse, Body: resp.Body})
	if len(body) != 3 || body["id"] != satisfied || body["satisfied_at"] != got["satisfied_at"] || body["approver_subject_id"] != "admin:"+approver.ID {
		t.Errorf("got %s", resp.Body)
	}
	if got["status"] != "satisfied" || got["approver_subject_id"] != "admin:"+approver.ID || etag != resp.HTTPResponse.Header.Get("ETag") {
		t.Errorf("got %v with ETag %s", got, etag)
	}

	rejection := reject(t, as, zone, rejected, "\t This agent must not change invoices.\n").(*rawclient.RejectStepUpChallengeResponse)
	servertest.Expect(t, rejection, http.StatusOK, "")
	got, etag = asRead(t, a, path+rejected)
	if is := rejection.JSON200; is.ID != rejected || is.RejectedBy != "admin:"+approver.ID || is.RejectedReason != "This agent must not change invoices." {
		t.Errorf("got %s", rejection.Body)
	}
	if got["status"] != "rejected" || got["rejected_by"] != "admin:"+approver.ID || got["rejected_reason"] != rejection.JSON200.RejectedReason ||
		got["satisfied_at"] != nil || etag != rejection.HTTPResponse.Header.Get("ETag") {
		t.Errorf("got %v with ETag %s", got, etag)
	}

	entries := storetest.Column[string](a.DB, `SELECT concat_ws(' ', operation, entity_id, actor_id, status_code, payload::jsonb->'changed_fields') FROM audit_entries
		WHERE zone_id = $1 AND entity_type = 'step-up-challenges' ORDER BY id`, zone)
	want := []string{
		"satisfyStepUpChallenge " + satisfied + " " + approver.ID + ` 200 ["approver_subject_id", "satisfied_at"]`,
		"rejectStepUpChallenge " + rejected + " " + approver.ID + ` 200 ["rejected_at", "rejected_by", "rejected_reason"]`,
	}
	if fmt.Sprint(entries) != fmt.Sprint(want) {
		t.Errorf("the audit entries are %q, want %q", entries, want)
	}
	if events := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); events > 0 {
		t.Errorf("%d events were recorded", events)
	}
}

func TestDecideStepUpChallengeIfMatch(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	for _, d := range decisions {
		id := a.DB.StepUpChallenge(zone, a.DB.Session(zone))
		_, tag := asRead(t, a, "/v1/zones/"+zone+"/step-up-challenges/"+id)
		servertest.Expect(t, d.send(t, a.Admin, zone, id, `"999"`), 0, code.VersionConflict)
		servertest.Expect(t, d.send(t, a.Admin, zone, id, `"other"`), 0, code.VersionConflict)
		servertest.Expect(t, d.send(t, a.Admin, zone, "unknown", tag), 0, code.ChallengeNotFound)
		servertest.Expect(t, d.send(t, a.Admin, zone, id, `"999", `+tag), http.StatusOK, "")
		servertest.Expect(t, d.send(t, a.Admin, zone, id, tag), 0, code.VersionConflict) // it is not the same any more
		reasonOf(t, d.send(t, a.Admin, zone, id, "*"))

		// A change by another service is one too.
		id = a.DB.StepUpChallenge(zone, a.DB.Session(zone))
		a.DB.Exec("UPDATE step_up_challenges SET satisfied_at = now(), approver_subject_id = 'user-2' WHERE id = $1", id)
		servertest.Expect(t, d.send(t, a.Admin, zone, id, tag), 0, code.VersionConflict)
	}
}

// Of concurrent requests to satisfy and reject a challenge, exactly one succeeds. The
// others return what it did.
func TestDecideStepUpChallengeInParallel(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	replica := servertest.NewReplica(t, a.DB, storetest.RedisURL(t))
	clients := []*rawclient.ClientWithResponses{
		a.ClientFor(zone, "read", servertest.CanApprove), a.ClientFor("", "write", servertest.CanApprove), replica.ClientFor(zone, "write", servertest.CanApprove),
	}
	const rounds, each = 12, 8
	for round := range rounds {
		id := a.DB.StepUpChallenge(zone, a.DB.Session(zone))
		var mu sync.Mutex
		var succeeded, reasons []string
		var requests sync.WaitGroup
		start := make(chan struct{})
		for n := range 2 * each {
			d := decisions[0]
			if round%3 > 0 { // also only satisfied
				d = decisions[n%2]
			}
			requests.Go(func() {
				<-start
				resp := d.send(t, clients[n%len(clients)], zone, id)
				mu.Lock()
				defer mu.Unlock()
				if resp.StatusCode() == http.StatusOK {
					succeeded = append(succeeded, d.operation)
				} else {
					reasons = append(reasons, reasonOf(t, resp))
				}
			})
		}
		close(start)
		requests.Wait()
		if len(succeeded) != 1 {
			t.Fatalf("these requests succeeded: %q", succeeded)
		}
		want := map[string]string{"satisfy": "already_satisfied", "reject": "rejected"}[succeeded[0]]
		for _, reason := range reasons {
			if reason != want {
				t.Errorf("after %s: the reason is %s, want %s", succeeded[0], reason, want)
			}
		}
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE entity_id = $1 AND status_code = 200", id); n != 1 {
			t.Errorf("%d audit entries", n)
		}
	}
}

// ownerConn returns a connection of the owner role that can access all zones, as other
// services can.
func ownerConn(t *testing.T, db *storetest.DB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.OwnerURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	if _, err := conn.Exec(t.Context(), "SET caracal.zone_id = '*'"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// A session that is revoked while its challenge is being satisfied: the request waits,
// and then returns that the session is not active.
func TestSatisfyStepUpChallengeWaitsForRevocationOfSession(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	session := a.DB.Session(zone)
	id := a.DB.StepUpChallenge(zone, session)
	conn := ownerConn(t, a.DB)
	if _, err := conn.Exec(t.Context(), "BEGIN; UPDATE sessions SET status = 'revoked' WHERE id = '"+session+"'"); err != nil {
		t.Fatal(err)
	}
	var transaction string
	if err := conn.QueryRow(t.Context(), "SELECT pg_current_xact_id()::xid::text").Scan(&transaction); err != nil {
		t.Fatal(err)
	}
	done := make(chan servertest.Response)
	go func() { done <- satisfy(t, a.Admin, zone, id) }()
	eventually(t, "the request waits", func() bool {
		return storetest.Value[int](a.DB, "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid::text = $1", transaction) > 0
	})
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if reason := reasonOf(t, <-done); reason != "session_not_live" {
		t.Errorf("the reason is %s", reason)
	}
}

// A service that does not know rejections cannot satisfy or use a rejected challenge.
func TestRejectStepUpChallengeIsFinalForOtherServices(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	id := a.DB.StepUpChallenge(zone, a.DB.Session(zone))
	servertest.Expect(t, reject(t, a.Admin, zone, id, "No."), http.StatusOK, "")
	for _, set := range []string{"satisfied_at = now(), approver_subject_id = 'user-2'", "consumed_at = now()"} {
		if _, err := ownerConn(t, a.DB).Exec(t.Context(), "UPDATE step_up_challenges SET "+set+" WHERE id = $1", id); err == nil || !strings.Contains(err.Error(), "step_up_challenges_rejection_is_final") {
			t.Errorf("%s: got %v", set, err)
		}
	}
}

func TestRejectStepUpChallengeReason(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	zone := a.Zone().ID
	path := "/v1/zones/" + zone + "/step-up-challenges/" + a.DB.StepUpChallenge(zone, a.DB.Session(zone)) + "/reject"
	send := func(body string) servertest.Response {
		return a.Do("POST", path, body, append(bearer(servertest.Bootstrap), "Content-Type", jsonType)...)
	}
	for _, body := range []string{`{}`, `{"reason":null}`, `{"reason":""}`, `{"reason":" \n"}`, `{"reason":7}`, `{"reason":"` + strings.Repeat("é", 1001) + `"}`, `{"reason":"x","id":"x"}`} {
		servertest.Expect(t, send(body), 0, code.InvalidStepUpRejection)
	}
	servertest.Expect(t, send(`{"reason":"`+strings.Repeat("é", 1000)+`"}`), http.StatusOK, "")
}

// The body of a request to satisfy a challenge is ignored. The Admin SDK sends {}.
func TestSatisfyStepUpChallengeIgnoresBody(t *testing.T) {
	t.Parallel()
	a := servertest.New(t, "API_BODY_LIMIT_BYTES=1000")
	zone := a.Zone().ID
	session := a.DB.Session(zone)
	for _, tt := range []struct {
		name, kind, body string
		want             code.Code
	}{
		{"none", "", "", ""},
		{"of the Admin SDK", jsonType, "{}", ""},
		{"fields", jsonType, `{"approver_subject_id":"user-1","reason":["x"]}`, ""},
		{"null", "application/json; charset=utf-8", "null", ""},
		{"a list", jsonType, "[]", ""},
		{"a NUL", jsonType, `"\u0000"`, ""},
		{"empty JSON", jsonType, "", code.InvalidJSON},
		{"truncated", jsonType, `{"x":`, code.InvalidJSON},
		{"two values", jsonType, `{}{}`, code.InvalidJSON},
		{"invalid UTF-8", jsonType, "\"\xff\"", code.InvalidJSON},
		{"deep", jsonType, strings.Repeat("[", 100) + strings.Repeat("]", 100), code.InvalidJSON},
		{"too large", jsonType, `"` + strings.Repeat("x", 1000) + `"`, code.PayloadTooLarge},
		{"a form", "application/x-www-form-urlencoded", "x=1", code.UnsupportedMediaType},
		{"no media type", "", "{}", code.UnsupportedMediaType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			headers := bearer(servertest.Bootstrap)
			if tt.kind != "" {
				headers = append(headers, "Content-Type", tt.kind)
			}
			raw := a.Do("POST", "/v1/zones/"+zone+"/step-up-challenges/"+a.DB.StepUpChallenge(zone, session)+"/satisfy", tt.body, headers...)
			servertest.Expect(t, raw, http.StatusOK, tt.want)
		})
	}
}
