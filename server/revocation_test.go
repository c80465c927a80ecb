package server_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/rawclient"
	"caracal.run/management/server/servertest"
	"caracal.run/management/store/storetest"
)

var names = regexp.MustCompile(`\w+(\|\w+)+`)

// same compares lines with a text of them; a|b in it stands for a line with a
// and one with b, and within a paragraph the order is free.
func same(t *testing.T, what string, got []string, text, reason string) {
	t.Helper()
	var want, ordered []string
	for paragraph := range strings.SplitSeq(strings.TrimSpace(strings.ReplaceAll(text, "=R", "="+reason)), "\n\n") {
		var lines []string
		for line := range strings.SplitSeq(paragraph, "\n") {
			all := names.FindString(line)
			for name := range strings.SplitSeq(all, "|") {
				lines = append(lines, strings.Replace(line, all, name, 1))
			}
		}
		slices.Sort(lines)
		want = append(want, lines...)
		n := min(len(lines), len(got))
		ordered = append(ordered, slices.Sorted(slices.Values(got[:n]))...)
		got = got[n:]
	}
	if ordered = append(ordered, got...); !slices.Equal(ordered, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(ordered, "\n"), strings.Join(want, "\n"))
	}
}

// What ends with an application.
const (
	changesOfApplication = `
applications doomed: archived_at updated_at version=2
sessions app|child|grandchild: revoked_at revoked_reason=R status=revoked
agent_sessions root: child_count=0 status=terminated terminated_at termination_reason=R updated_at
agent_sessions guest|onUser|suspended|hosted: status=terminated terminated_at termination_reason=R updated_at
agent_sessions host: child_count=1 updated_at
delegation_edges from|to: edge_version=2 revoked_at status=revoked updated_at
delegation_graph_epochs: epoch=42
`
	eventsOfApplication = `
caracal.sessions.revoke reason=R session_id=app|child|grandchild zone_id=Z

caracal.agents.lifecycle agent_session_id=root|onUser|suspended event=terminate reason=R zone_id=Z
caracal.agents.lifecycle agent_session_id=guest event=terminate parent_id=root reason=R zone_id=Z
caracal.agents.lifecycle agent_session_id=hosted event=terminate parent_id=host reason=R zone_id=Z

caracal.sessions.revoke agent_session_id=root reason=R session_id=app zone_id=Z
caracal.sessions.revoke agent_session_id=guest|onUser|suspended|hosted reason=R zone_id=Z

caracal.sessions.revoke agent_session_id=host delegation_edge_id=from reason=R zone_id=Z
caracal.sessions.revoke agent_session_id=onUser delegation_edge_id=to reason=R zone_id=Z
caracal.delegations.invalidate affected_edges=1 edge_id=from|to epoch=42 event=edge_revoke zone_id=Z
`
	auditOfApplication = `
doomed applications
app|child|grandchild sessions active revoked
root|guest|onUser|hosted agent-sessions active terminated
suspended agent-sessions suspended terminated
from|to delegation-edges active revoked
`
)

// What a shutdown of registration does besides.
const (
	changesOfShutdown = "zones Z: dcr_enabled=false updated_at version=2"
	auditOfShutdown   = `Z zones
Z zones DCR shutdown revoke_live {"dcr_registration_disabled":true,"dcr_shutdown_mode":"revoke_live","live_dcr_applications":1,"revoked_applications":1,"revoked_sessions":3,"terminated_agents":5,"revoked_delegations":2}`
)

// What ends with a zone.
const (
	changesOfZone = `
zones Z: archived_at updated_at version=2
admin_tokens token: revoked_at version=2
sessions app|child|grandchild|user|namesake|other: revoked_at revoked_reason=R status=revoked
agent_sessions root|host: child_count=0 status=terminated terminated_at termination_reason=R updated_at
agent_sessions guest|onUser|suspended|hosted|sibling: status=terminated terminated_at termination_reason=R updated_at
delegation_edges from|to|among: edge_version=2 revoked_at status=revoked updated_at
delegation_graph_epochs: epoch=42
`
	eventsOfZone = `
caracal.sessions.revoke reason=R session_id=app|child|grandchild|user|namesake|other zone_id=Z

caracal.agents.lifecycle agent_session_id=root|onUser|suspended|host event=terminate reason=R zone_id=Z
caracal.agents.lifecycle agent_session_id=guest event=terminate parent_id=root reason=R zone_id=Z
caracal.agents.lifecycle agent_session_id=hosted|sibling event=terminate parent_id=host reason=R zone_id=Z

caracal.sessions.revoke agent_session_id=root reason=R session_id=app zone_id=Z
caracal.sessions.revoke agent_session_id=guest|onUser|suspended reason=R session_id=user zone_id=Z
caracal.sessions.revoke agent_session_id=host|hosted|sibling reason=R session_id=other zone_id=Z

caracal.sessions.revoke agent_session_id=host delegation_edge_id=from reason=R zone_id=Z
caracal.sessions.revoke agent_session_id=onUser delegation_edge_id=to reason=R zone_id=Z
caracal.sessions.revoke agent_session_id=sibling delegation_edge_id=among reason=R zone_id=Z
caracal.delegations.invalidate affected_edges=1 edge_id=from|to|among epoch=42 event=edge_revoke zone_id=Z

caracal.policy.invalidate zone_id=Z
`
	auditOfZone = `
Z zones
token admin-tokens
app|child|grandchild|user|namesake|other sessions active revoked
root|guest|onUser|host|hosted|sibling agent-sessions active terminated
suspended agent-sessions suspended terminated
from|to|among delegation-edges active revoked
`
)

// called gives a request its id.
func called(id string) rawclient.RequestEditorFn {
	return func(_ context.Context, r *http.Request) error { r.Header.Set("X-Request-Id", id); return nil }
}

// The ways in which a request ends more than it names. An If-Match or a slug of "" is none.
type end func(t *testing.T, s scene, ifMatch, slug string) servertest.Response

func deleteApplication(t *testing.T, s scene, ifMatch, _ string) servertest.Response {
	t.Helper()
	resp, err := s.Admin.DeleteApplicationWithResponse(t.Context(), s.zone, s.doomed, &rawclient.DeleteApplicationParams{IfMatch: fromNullable(ifMatch)}, called("the-end"))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func deleteControlKey(t *testing.T, s scene, ifMatch, _ string) servertest.Response {
	t.Helper()
	resp, err := s.Admin.DeleteControlKeyWithResponse(t.Context(), s.zone, s.doomed, &rawclient.DeleteControlKeyParams{IfMatch: fromNullable(ifMatch)}, called("the-end"))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func revokeLive(t *testing.T, s scene, ifMatch, slug string) servertest.Response {
	t.Helper()
	patch := client.ZonePatch{DCREnabled: new(false), DCRShutdown: new(client.ZonePatchDCRShutdown("revoke_live")), Slug: fromNullable(slug)}
	resp, err := s.Admin.UpdateZoneWithResponse(t.Context(), s.zone, &rawclient.UpdateZoneParams{IfMatch: fromNullable(ifMatch)}, patch, called("the-end"))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func deleteZone(t *testing.T, s scene, ifMatch, _ string) servertest.Response {
	t.Helper()
	resp, err := s.Admin.DeleteZoneWithResponse(t.Context(), s.zone, &rawclient.DeleteZoneParams{IfMatch: fromNullable(ifMatch)}, called("the-end"))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func fromNullable(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func TestRevocationCascade(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for _, tt := range []struct {
		name, reason           string
		end                    end
		status                 int
		changes, events, audit string
	}{
		{"application", "application_archived", deleteApplication, http.StatusNoContent, changesOfApplication, eventsOfApplication, auditOfApplication},
		{"Control key", "application_archived", deleteControlKey, http.StatusNoContent, changesOfApplication, eventsOfApplication, auditOfApplication},
		{"registration", "dcr_shutdown", revokeLive, http.StatusOK, changesOfApplication + changesOfShutdown, eventsOfApplication, auditOfApplication + auditOfShutdown},
		{"zone", "zone_archived", deleteZone, http.StatusNoContent, changesOfZone, eventsOfZone, auditOfZone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, a)
			if tt.name == "Control key" {
				a.DB.Exec("UPDATE applications SET traits = '{control:invoke}' WHERE zone_id = $1 AND id = $2", s.zone, s.doomed)
			}
			other := s.double()
			before, apart := s.state(t), everythingOf(a.DB, other)
			servertest.Expect(t, tt.end(t, s, "", ""), tt.status, "")
			same(t, "what changed", changes(before, s.state(t)), tt.changes, tt.reason)
			same(t, "the events", s.events(t), tt.events, tt.reason)
			same(t, "the audit log", s.auditLines("the-end"), tt.audit, tt.reason)
			if requests := storetest.Column[string](a.DB, "SELECT DISTINCT request_id FROM outbox WHERE zone_id = $1", s.zone); !slices.Equal(requests, []string{"the-end"}) {
				t.Errorf("the events name the requests %q", requests)
			}
			if now := everythingOf(a.DB, other); now != apart {
				t.Errorf("the other zone was\n%s\nand is\n%s", apart, now)
			}
		})
	}
}

func TestRevocationDeniedChangesNothing(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	taken := a.Zone().Slug
	for _, tt := range []struct {
		name          string
		end           end
		ifMatch, slug string
		want          code.Code
	}{
		{"application", deleteApplication, `"77"`, "", code.VersionConflict},
		{"registration", revokeLive, `"77"`, "", code.VersionConflict},
		{"registration, after all was revoked", revokeLive, "", taken, code.ZoneSlugConflict},
		{"zone", deleteZone, `"77"`, "", code.VersionConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, a)
			before := s.state(t)
			servertest.Expect(t, tt.end(t, s, tt.ifMatch, tt.slug), 0, tt.want)
			if changed, emitted := changes(before, s.state(t)), s.events(t); len(changed) > 0 || len(emitted) > 0 {
				t.Errorf("changed %q, emitted %q", changed, emitted)
			}
			if entries := storetest.Value[int](a.DB, "SELECT count(*) FROM audit_entries WHERE zone_id = $1 AND request_id = 'the-end' AND status_code < 400", s.zone); entries > 0 {
				t.Errorf("%d entries speak of a change", entries)
			}
		})
	}
}

func TestRevocationWithoutDescendantsPublishesNothing(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := scene{API: a, zone: openZone(a)}
	s.doomed = register(t, a.Admin, s.zone).JSON201.ID
	a.DB.Session(s.zone)
	kept, err := a.Admin.UpdateZoneWithResponse(t.Context(), s.zone, nil, client.ZonePatch{DCREnabled: new(false), DCRShutdown: new(client.ZonePatchDCRShutdown("keep_live"))})
	if err != nil {
		t.Fatal(err)
	}
	servertest.Expect(t, kept, http.StatusOK, "")
	servertest.Expect(t, deleteApplication(t, s, "", ""), http.StatusNoContent, "")
	if emitted := s.events(t); len(emitted) > 0 {
		t.Errorf("emitted %q", emitted)
	}
	if n := storetest.Value[int](a.DB, "SELECT count(*) FROM delegation_graph_epochs"); n > 0 {
		t.Error("the graph has a new epoch, though no edge changed")
	}
}

// What one descends from may have ended by itself meanwhile; who descends is still alive.
func TestRevocationPassesThroughEndedSessions(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	for name, end := range map[string]end{"application": deleteApplication, "registration": revokeLive} {
		for _, expired := range []int{0, 1} {
			t.Run(fmt.Sprint(name, " at depth ", expired), func(t *testing.T) {
				s := newScene(t, a)
				other := newApplication(t, a, s.zone).ID
				sessions := []string{a.DB.ApplicationSession(s.zone, s.doomed)}
				agents := []string{a.DB.AgentSession(s.zone, s.doomed, sessions[0])}
				for i := range 2 {
					sessions = append(sessions, a.DB.ChildSession(s.zone, sessions[i]))
					agents = append(agents, a.DB.ChildAgentSession(s.zone, other, sessions[0], agents[i]))
				}
				a.DB.Exec("UPDATE sessions SET status = 'expired' WHERE id = $1", sessions[expired])
				a.DB.Exec("UPDATE agent_sessions SET status = 'expired' WHERE id = $1", agents[expired])
				if resp := end(t, s, "", ""); resp.StatusCode() >= http.StatusMultipleChoices {
					t.Fatalf("got %s", resp.GetBody())
				}
				for i := range 3 {
					session, agent := "revoked", "terminated"
					if i == expired {
						session, agent = "expired", "expired"
					}
					if got := storetest.Value[string](a.DB, "SELECT status FROM sessions WHERE id = $1", sessions[i]); got != session {
						t.Errorf("the session at depth %d is %s", i, got)
					}
					if got := storetest.Value[string](a.DB, "SELECT status FROM agent_sessions WHERE id = $1", agents[i]); got != agent {
						t.Errorf("the agent session at depth %d is %s", i, got)
					}
				}
			})
		}
	}
}

func TestDeleteZoneRevokesEdgesOfExpiredAgents(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	s := scene{API: a, zone: a.Zone().ID}
	application := newApplication(t, a, s.zone).ID
	session := a.DB.Session(s.zone)
	one, two := a.DB.AgentSession(s.zone, application, session), a.DB.AgentSession(s.zone, application, session)
	a.DB.Exec("UPDATE agent_sessions SET status = 'expired' WHERE zone_id = $1", s.zone)
	edge := a.DB.DelegationEdge(s.zone, one, two)
	servertest.Expect(t, deleteZone(t, s, "", ""), http.StatusNoContent, "")
	if got := storetest.Value[string](a.DB, "SELECT status FROM delegation_edges WHERE id = $1", edge); got != "revoked" {
		t.Errorf("the edge is %s", got)
	}
	want := "caracal.sessions.revoke agent_session_id=" + two + " delegation_edge_id=" + edge + " reason=zone_archived zone_id=" + s.zone
	if got := s.events(t); !slices.Contains(got, want) {
		t.Errorf("the events are\n%s\nwithout\n%s", strings.Join(got, "\n"), want)
	}
}
