package store

import (
	"context"
	"strconv"

	"caracal.run/management/gen/audit"
	"caracal.run/management/gen/db"
)

// The Redis streams that events are published to.
const (
	streamSessionsRevoke        = "caracal.sessions.revoke"
	streamAgentsLifecycle       = "caracal.agents.lifecycle"
	streamDelegationsInvalidate = "caracal.delegations.invalidate"
	streamPolicyInvalidate      = "caracal.policy.invalidate"
)

// Streams returns the Redis streams that events are published to.
func Streams() []string {
	return []string{streamSessionsRevoke, streamAgentsLifecycle, streamDelegationsInvalidate, streamPolicyInvalidate}
}

// revoked lists the sessions and delegation edges that were revoked and the agent
// sessions that were terminated.
type revoked struct {
	grant    string // the revoked grant that they rested on, or ""
	sessions []string
	agents   []terminatedAgent
	edges    []revokedEdge
}

type (
	terminatedAgent = db.TerminateAgentSessionsOfZoneRow
	revokedEdge     = db.RevokeDelegationEdgesOfZoneRow
)

// revokeForApplications revokes the sessions of applications, terminates their
// agent sessions, both with all descendants, and revokes the delegation edges
// that start or end at those agent sessions. The transaction must have the zone
// lock in exclusive mode.
func (tx *Tx) revokeForApplications(ctx context.Context, zone string, applications []string, reason string) (r revoked, err error) {
	if len(applications) == 0 {
		return r, nil
	}
	r.sessions, err = tx.q.RevokeSessionsOfApplications(ctx, db.RevokeSessionsOfApplicationsParams{ZoneID: zone, ApplicationIds: applications, Reason: reason})
	if err != nil {
		return r, err
	}
	agents, err := tx.q.TerminateAgentSessionsOfApplications(ctx, db.TerminateAgentSessionsOfApplicationsParams{ZoneID: zone, ApplicationIds: applications, Reason: reason})
	if err != nil {
		return r, err
	}
	for _, a := range agents {
		r.agents = append(r.agents, terminatedAgent(a))
	}
	if r.edges, err = tx.revokeEdgesOf(ctx, zone, r.agents); err != nil {
		return r, err
	}
	return r, tx.recordRevocations(ctx, zone, r, reason)
}

// revokeForGrant revokes the sessions of a grant's user that the grant's application may
// have, terminates the agent sessions that rest on them, both with all descendants, and
// revokes the delegation edges of these agent sessions. The transaction must have the
// zone lock in exclusive mode.
func (tx *Tx) revokeForGrant(ctx context.Context, g db.Grant) (err error) {
	const reason = "grant_revoked"
	r := revoked{grant: g.ID}
	r.sessions, err = tx.q.RevokeSessionsOfGrant(ctx, db.RevokeSessionsOfGrantParams{ZoneID: g.ZoneID, UserID: g.UserID, ApplicationID: g.ApplicationID, Reason: reason})
	if err != nil {
		return err
	}
	agents, err := tx.q.TerminateAgentSessionsOfGrant(ctx, db.TerminateAgentSessionsOfGrantParams{ZoneID: g.ZoneID, UserID: g.UserID, ApplicationID: g.ApplicationID, Reason: reason})
	if err != nil {
		return err
	}
	for _, a := range agents {
		r.agents = append(r.agents, terminatedAgent(a))
	}
	if r.edges, err = tx.revokeEdgesOf(ctx, g.ZoneID, r.agents); err != nil {
		return err
	}
	return tx.recordRevocations(ctx, g.ZoneID, r, reason)
}

// revokeEdgesOf revokes the delegation edges that start or end at terminated agent
// sessions.
func (tx *Tx) revokeEdgesOf(ctx context.Context, zone string, agents []terminatedAgent) (edges []revokedEdge, err error) {
	if len(agents) == 0 {
		return nil, nil
	}
	ids := make([]string, len(agents))
	for i, a := range agents {
		ids[i] = a.ID
	}
	rows, err := tx.q.RevokeDelegationEdgesOf(ctx, db.RevokeDelegationEdgesOfParams{ZoneID: zone, AgentSessionIds: ids})
	for _, e := range rows {
		edges = append(edges, revokedEdge(e))
	}
	return edges, err
}

// revokeAll revokes every session and delegation edge of a zone and terminates its
// agent sessions. The transaction must have the zone lock in exclusive mode.
func (tx *Tx) revokeAll(ctx context.Context, zone, reason string) (err error) {
	var r revoked
	if r.sessions, err = tx.q.RevokeSessionsOfZone(ctx, db.RevokeSessionsOfZoneParams{ZoneID: zone, Reason: reason}); err != nil {
		return err
	}
	if r.agents, err = tx.q.TerminateAgentSessionsOfZone(ctx, db.TerminateAgentSessionsOfZoneParams{ZoneID: zone, Reason: reason}); err != nil {
		return err
	}
	if r.edges, err = tx.q.RevokeDelegationEdgesOfZone(ctx, zone); err != nil {
		return err
	}
	return tx.recordRevocations(ctx, zone, r, reason)
}

// recordRevocations updates the child counts of the remaining agent sessions. It
// records the revocations and publishes their events in the order that consumers
// rely on: sessions, agent sessions, delegation edges.
func (tx *Tx) recordRevocations(ctx context.Context, zone string, r revoked, reason string) error {
	// An agent session's subject session can belong to a user or to another
	// application. Its event names that session only if it was revoked here.
	sessionRevoked := make(map[string]bool, len(r.sessions))
	activeToRevoked := diff(auditFields{"status": "active"}, auditFields{"status": "revoked"})
	for _, id := range r.sessions {
		sessionRevoked[id] = true
		f := fields{"zone_id": zone, "session_id": id, "reason": reason}
		if r.grant != "" {
			f["grant_id"] = r.grant
		}
		tx.record(zone, audit.Sessions, id, activeToRevoked, newEvent(zone, streamSessionsRevoke, f))
	}
	var parents []string
	for _, a := range r.agents {
		f := fields{"event": "terminate", "zone_id": zone, "agent_session_id": a.ID, "reason": a.Reason}
		if a.ParentID != nil {
			f["parent_id"] = *a.ParentID
			parents = append(parents, *a.ParentID)
		}
		tx.record(zone, audit.AgentSessions, a.ID, diff(auditFields{"status": a.PreviousStatus}, auditFields{"status": "terminated"}), newEvent(zone, streamAgentsLifecycle, f))
	}
	for _, a := range r.agents {
		f := fields{"zone_id": zone, "agent_session_id": a.ID, "reason": a.Reason}
		if sessionRevoked[a.SubjectSessionID] {
			f["session_id"] = a.SubjectSessionID
		}
		tx.publish(newEvent(zone, streamSessionsRevoke, f))
	}
	if len(parents) > 0 {
		if err := tx.q.DecrementAgentSessionChildren(ctx, db.DecrementAgentSessionChildrenParams{ZoneID: zone, ParentIds: parents}); err != nil {
			return err
		}
	}
	if len(r.edges) == 0 {
		return nil
	}
	epoch, err := tx.q.BumpDelegationGraphEpoch(ctx, zone)
	if err != nil {
		return err
	}
	for _, e := range r.edges {
		tx.record(zone, audit.DelegationEdges, e.ID, activeToRevoked,
			newEvent(zone, streamSessionsRevoke, fields{"zone_id": zone, "delegation_edge_id": e.ID, "agent_session_id": e.TargetSessionID, "reason": reason}),
			newEvent(zone, streamDelegationsInvalidate, fields{"event": "edge_revoke", "zone_id": zone, "edge_id": e.ID, "affected_edges": "1", "epoch": strconv.FormatInt(epoch, 10)}))
	}
	return nil
}
