package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

func revokeGrant(t *testing.T, as *rawclient.ClientWithResponses, zone, id, ifMatch, request string) *rawclient.RevokeGrantResponse {
	t.Helper()
	resp, err := as.RevokeGrantWithResponse(context.WithoutCancel(t.Context()), zone, id, &rawclient.RevokeGrantParams{IfMatch: fromNullable(ifMatch)}, called(request))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestRevokeGrant(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z, other, system := newResourceZone(a), newResourceZone(a), resourcesOf(a, systemZone(a).ID)
	archived := resourcesOf(a, a.DB.ArchivedZone())
	grant := func(in resourceZone) string {
		return a.DB.Grant(in.zone, in.application, a.DB.Resource(in.zone))
	}
	expired := grant(z)
	a.DB.Exec("UPDATE grants SET status = 'expired' WHERE id = $1", expired)
	for _, tt := range []struct {
		name     string
		as       *rawclient.ClientWithResponses
		zone, id string
		ifMatch  string
		want     code.Code // "" is 204
		status   string    // of the grant, after the request
	}{
		{"global token", a.ClientFor("", "write"), z.zone, grant(z), "", "", "revoked"},
		{"zone token", a.ClientFor(z.zone, "write"), z.zone, grant(z), "", "", "revoked"},
		{"its version", a.Admin, z.zone, grant(z), `"1"`, "", "revoked"},
		{"another version", a.Admin, z.zone, grant(z), `"2"`, code.VersionConflict, "active"},
		{"expired", a.Admin, z.zone, expired, "", "", "expired"},
		{"expired, another version", a.Admin, z.zone, expired, `"2"`, code.VersionConflict, "expired"},
		{"in another zone", a.Admin, other.zone, grant(z), "", code.GrantNotFound, "active"},
		{"unknown zone", a.Admin, "unknown", grant(z), "", code.ZoneNotFound, "active"},
		{"archived zone", a.Admin, archived.zone, grant(archived), "", code.ZoneNotFound, "active"},
		{"system zone", a.Admin, system.zone, grant(system), "", "", "revoked"},
		{"system zone, not bootstrap", a.ClientFor("", "write"), system.zone, grant(system), "", code.SystemZoneReadOnly, "active"},
		{"read token", a.ClientFor("", "read"), z.zone, grant(z), "", code.AdminTokenReadOnly, "active"},
		{"token of another zone", a.ClientFor(other.zone, "write"), z.zone, grant(z), "", code.AdminTokenZoneMismatch, "active"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			servertest.Expect(t, revokeGrant(t, tt.as, tt.zone, tt.id, tt.ifMatch, "x"), http.StatusNoContent, tt.want)
			if got := storetest.Value[string](a.DB, "SELECT status FROM grants WHERE id = $1", tt.id); got != tt.status {
				t.Errorf("the grant is %s, want %s", got, tt.status)
			}
		})
	}
	servertest.Expect(t, revokeGrant(t, a.Admin, z.zone, "unknown", "", "x"), 0, code.GrantNotFound)
}

// newGrantRevocation returns a scene with sessions of the user of a grant, of its
// application and of another one, and what rests on them.
func newGrantRevocation(t *testing.T) (s scene, grant string) {
	t.Helper()
	a := servertest.New(t)
	z := newResourceZone(a)
	s = scene{API: a, zone: z.zone, names: map[string]string{z.zone: "Z"}}
	db, other := a.DB, a.DB.Application(z.zone)
	name := func(name, id string) string { s.names[id] = name; return id }
	issued := func(as, application string) string { return name(as, db.IssuedSession(z.zone, "user-7", application)) }
	set := func(id, change string, args ...any) {
		db.Exec("UPDATE sessions SET "+change+" WHERE id = $1", append([]any{id}, args...)...)
	}
	grant = name("grant", z.grant(t, z.resource(t).ID).ID)
	name("duplicate", z.grant(t, z.resource(t).ID).ID) // of another resource

	own, others := issued("own", z.application), issued("others", other)
	unknown := name("unknown", db.Session(z.zone))
	set(unknown, "subject_id = 'user-7'")
	set(name("ownChild", db.ChildSession(z.zone, own)), "application_id = $2", other)
	lapsed := issued("lapsed", z.application)
	set(lapsed, "status = 'expired'")
	set(name("lapsedChild", db.ChildSession(z.zone, lapsed)), "application_id = $2", other)
	set(issued("gone", z.application), "status = 'revoked', revoked_reason = 'logout', revoked_at = now()")
	name("stranger", db.IssuedSession(z.zone, "user-8", z.application))
	name("namesake", db.ApplicationSession(z.zone, "user-7")) // an application whose ID is that of the user

	agent := name("agent", db.AgentSession(z.zone, other, own))
	name("subagent", db.ChildAgentSession(z.zone, other, others, agent))
	suspended := name("suspended", db.AgentSession(z.zone, z.application, unknown))
	db.Exec("UPDATE agent_sessions SET status = 'suspended' WHERE id = $1", suspended)
	name("orphan", db.AgentSession(z.zone, z.application, lapsed))
	host := name("host", db.AgentSession(z.zone, z.application, others))
	name("hosted", db.ChildAgentSession(z.zone, z.application, own, host))
	db.Exec("INSERT INTO delegation_graph_epochs (zone_id, epoch) VALUES ($1, 41)", z.zone)
	name("from", db.DelegationEdge(z.zone, agent, host))
	name("among", db.DelegationEdge(z.zone, host, host))
	return s, grant
}

const (
	changesOfGrant = `
grants grant: status=revoked updated_at version=2
sessions own|unknown|ownChild|lapsedChild: revoked_at revoked_reason=R status=revoked
agent_sessions agent: child_count=0 status=terminated terminated_at termination_reason=R updated_at
agent_sessions subagent|suspended|orphan|hosted: status=terminated terminated_at termination_reason=R updated_at
agent_sessions host: child_count=0 updated_at
delegation_edges from: edge_version=2 revoked_at status=revoked updated_at
delegation_graph_epochs: epoch=42
`
	eventsOfGrant = `
caracal.sessions.revoke grant_id=grant reason=R session_id=own|unknown|ownChild|lapsedChild zone_id=Z

caracal.agents.lifecycle agent_session_id=agent|suspended|orphan event=terminate reason=R zone_id=Z
caracal.agents.lifecycle agent_session_id=subagent event=terminate parent_id=agent reason=R zone_id=Z
caracal.agents.lifecycle agent_session_id=hosted event=terminate parent_id=host reason=R zone_id=Z

caracal.sessions.revoke agent_session_id=agent|hosted reason=R session_id=own zone_id=Z
caracal.sessions.revoke agent_session_id=suspended reason=R session_id=unknown zone_id=Z
caracal.sessions.revoke agent_session_id=subagent|orphan reason=R zone_id=Z

caracal.sessions.revoke agent_session_id=host delegation_edge_id=from reason=R zone_id=Z
caracal.delegations.invalidate affected_edges=1 edge_id=from epoch=42 event=edge_revoke zone_id=Z
`
	auditOfGrant = `
grant grants active revoked
own|unknown|ownChild|lapsedChild sessions active revoked
agent|subagent|orphan|hosted agent-sessions active terminated
suspended agent-sessions suspended terminated
from delegation-edges active revoked
`
)

// Revoking a grant revokes what rests on it, and nothing else. Revoking it again changes
// nothing.
func TestRevokeGrantRevokesWhatRestsOnIt(t *testing.T) {
	t.Parallel()
	s, grant := newGrantRevocation(t)
	before := s.state(t)
	servertest.Expect(t, revokeGrant(t, s.Admin, s.zone, grant, "", "the-end"), http.StatusNoContent, "")
	revoked := s.state(t)
	same(t, "what changed", changes(before, revoked), changesOfGrant, "grant_revoked")
	same(t, "the events", s.events(t), eventsOfGrant, "grant_revoked")
	same(t, "the audit log", s.auditLines("the-end"), auditOfGrant, "grant_revoked")

	s.DB.Exec("UPDATE sessions SET status = 'active' WHERE revoked_reason = 'grant_revoked'") // the user has logged in again
	before, events := s.state(t), len(s.events(t))
	servertest.Expect(t, revokeGrant(t, s.Admin, s.zone, grant, "", "again"), http.StatusNoContent, "")
	servertest.Expect(t, revokeGrant(t, s.Admin, s.zone, grant, `"1"`, "again"), 0, code.VersionConflict)
	if changed := changes(before, s.state(t)); len(changed) > 0 || len(s.events(t)) != events {
		t.Errorf("changed %q and published %q", changed, s.events(t)[events:])
	}
	if entries := storetest.Value[int](s.DB, "SELECT count(*) FROM audit_entries WHERE request_id = 'again' AND status_code < 400"); entries > 0 {
		t.Errorf("%d audit entries", entries)
	}
}

// Only another active grant that permits all that the revoked one did keeps the sessions.
func TestRevokeGrantKeepsSessionsOfACoveringGrant(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name   string
		change func(z resourceZone, n *client.NewGrant)
		kept   bool
	}{
		{"the same", func(resourceZone, *client.NewGrant) {}, true},
		{"more scopes", func(_ resourceZone, n *client.NewGrant) { n.Scopes = []string{"write", "read", "more"} }, true},
		{"other scopes", func(_ resourceZone, n *client.NewGrant) { n.Scopes = []string{"read", "more"} }, false},
		{"another user", func(_ resourceZone, n *client.NewGrant) { n.UserID = "user-8" }, false},
		{"another application", func(z resourceZone, n *client.NewGrant) { n.ApplicationID = a.DB.Application(z.zone) }, false},
		{"another resource", func(z resourceZone, n *client.NewGrant) { n.ResourceID = z.resource(t).ID }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			z := newResourceZone(a)
			resource := z.resource(t, func(b *client.NewResource) { b.Scopes = []string{"read", "write", "more"} }).ID
			g := z.grant(t, resource, func(n *client.NewGrant) { n.Scopes = []string{"read", "write"} })
			other := z.grant(t, resource, func(n *client.NewGrant) { n.Scopes = []string{"read", "write"}; tt.change(z, n) })
			session := a.DB.IssuedSession(z.zone, "user-7", z.application)
			isActive := func() bool {
				return storetest.Value[string](a.DB, "SELECT status FROM sessions WHERE id = $1", session) == "active"
			}
			servertest.Expect(t, revokeGrant(t, a.Admin, z.zone, g.ID, "", "x"), http.StatusNoContent, "")
			if isActive() != tt.kept {
				t.Errorf("the session is active: %v", isActive())
			}
			if tt.kept { // until that one is revoked, too
				servertest.Expect(t, revokeGrant(t, a.Admin, z.zone, other.ID, "", "x"), http.StatusNoContent, "")
				if isActive() {
					t.Error("the session is still active")
				}
			}
		})
	}
}

// A session whose row another transaction has locked is revoked when it is released.
func TestRevokeGrantWaitsForLockedSessions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	g := z.grant(t, z.resource(t).ID)
	sessions := []string{a.DB.IssuedSession(z.zone, "user-7", z.application), a.DB.IssuedSession(z.zone, "user-7", z.application)}
	tx := ownerTx(t, a.DB)
	pid := execOne(t, tx, "UPDATE sessions SET authenticated_at = now() WHERE zone_id = $1 AND id = $2", z.zone, sessions[0])
	done := make(chan *rawclient.RevokeGrantResponse, 1)
	go func() { done <- revokeGrant(t, a.Admin, z.zone, g.ID, "", "x") }()
	waitBlockedBy(t, a.DB, pid)
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, <-done, http.StatusNoContent, "")
	for _, id := range sessions {
		if n := storetest.Value[int](a.DB, "SELECT count(*) FROM sessions AS s JOIN outbox AS o ON o.fields ->> 'session_id' = s.id WHERE s.id = $1 AND s.status = 'revoked'", id); n != 1 {
			t.Errorf("session %s: %d events of a revoked session, want 1", id, n)
		}
	}
}

// All sessions are revoked at once, however many there are.
func TestRevokeGrantRevokesThousandsOfSessions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	g := z.grant(t, z.resource(t).ID)
	a.DB.Exec(`INSERT INTO sessions (zone_id, id, session_type, subject_id, application_id, expires_at)
		SELECT $1, 's' || n, 'user', 'user-7', $2, now() + interval '1 hour' FROM generate_series(1, 2500) AS n`, z.zone, z.application)
	servertest.Expect(t, revokeGrant(t, a.Admin, z.zone, g.ID, "", "x"), http.StatusNoContent, "")
	for what, n := range map[string]int{
		"sessions":      storetest.Value[int](a.DB, "SELECT count(*) FROM sessions WHERE status = 'revoked' AND revoked_reason = 'grant_revoked'"),
		"events":        storetest.Value[int](a.DB, "SELECT count(DISTINCT fields ->> 'session_id') FROM outbox WHERE fields ->> 'grant_id' = $1", g.ID),
		"audit entries": storetest.Value[int](a.DB, "SELECT count(DISTINCT entity_id) FROM audit_entries WHERE entity_type = 'sessions'"),
	} {
		if n != 2500 {
			t.Errorf("%d %s", n, what)
		}
	}
}

func TestRevokeGrantConcurrentlyRevokesOnce(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	g := z.grant(t, z.resource(t).ID)
	a.DB.IssuedSession(z.zone, "user-7", z.application)
	revoke := func() {
		servertest.Expect(t, revokeGrant(t, a.Admin, z.zone, g.ID, "", "x"), http.StatusNoContent, "")
	}
	concurrently(revoke, revoke, revoke, revoke)
	entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE entity_id = $1 AND operation = 'revokeGrant'", g.ID)
	if events := storetest.Value[int](a.DB, "SELECT count(*) FROM outbox"); entries != 1 || events != 1 {
		t.Errorf("%d audit entries and %d events, want 1 each", entries, events)
	}
}

// Archiving what a grant refers to, and removing its scopes, leave it as it is. It can
// still be revoked.
func TestArchivingLeavesGrants(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	resource := z.resource(t)
	g := z.grant(t, resource.ID)
	row := func() string {
		return storetest.Value[string](a.DB, "SELECT to_jsonb(grants)::text FROM grants WHERE id = $1", g.ID)
	}
	before := row()
	servertest.Expect(t, updateResource(t, a.Admin, z.zone, resource.ID, client.ResourcePatch{Scopes: &[]string{"write"}, Operations: &[]client.NewResourceOperation{}}), http.StatusOK, "")
	servertest.Expect(t, deleteApplicationOf(t, z), http.StatusNoContent, "")
	servertest.Expect(t, deleteResource(t, a.Admin, z.zone, resource.ID), http.StatusNoContent, "")
	if after := row(); after != before {
		t.Errorf("the grant was %s and is %s", before, after)
	}
	servertest.Expect(t, revokeGrant(t, a.Admin, z.zone, g.ID, "", "x"), http.StatusNoContent, "")
	if after := row(); !strings.Contains(after, `"status": "revoked"`) {
		t.Errorf("the grant is %s", after)
	}
}

// Archiving a zone leaves its grants, like its applications. They cannot be changed any
// more, and every session that could rest on them is revoked.
func TestDeleteZoneLeavesGrants(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	z := newResourceZone(a)
	g := z.grant(t, z.resource(t).ID)
	session := a.DB.IssuedSession(z.zone, "user-7", z.application)
	servertest.Expect(t, deleteZone(t, scene{API: a, zone: z.zone}, "", ""), http.StatusNoContent, "")
	servertest.Expect(t, revokeGrant(t, a.Admin, z.zone, g.ID, "", "x"), 0, code.ZoneNotFound)
	servertest.Expect(t, createGrant(t, a.Admin, z.zone, z.grantOf(g.ResourceID)), 0, code.ZoneNotFound)
	if status := storetest.Value[string](a.DB, "SELECT status FROM grants WHERE id = $1", g.ID); status != "active" {
		t.Errorf("the grant is %s", status)
	}
	if reason := storetest.Value[string](a.DB, "SELECT revoked_reason FROM sessions WHERE id = $1", session); reason != "zone_archived" {
		t.Errorf("the session was revoked with the reason %s", reason)
	}
}
